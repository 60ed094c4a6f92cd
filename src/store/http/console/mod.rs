//! The web console: what a tenant's owner sees and does in a browser.
//!
//! It shows what is in the database, and changes it by the Management API's own operations, called within the process
//! with the session's token: whatever the API checks, warns of or writes into a log is the same here. Pages are made by
//! the server and work without scripts; nothing is loaded from another host.
//!
//! | path below `/console/` | file |
//! |---|---|
//! | (itself) | [`overview`], with [`chart`] |
//! | `settings` | [`settings`] |
//! | `applications` | [`applications`] |
//! | `apis` | [`apis`] |
//! | `connections` | [`connections`] |
//! | `access-control` | [`access_rules`], with [`rule_form`] and [`dry_run`] |
//! | `logs` | [`logs`] |
//! | `sign-in`, `sign-out` | [`sign_in`] |
//! | `assets` | [`assets`] |
//!
//! What they share: [`session`] (who it is), [`form`] (what was sent, and that this console's page sent it), [`api`] (the
//! Management API), [`page`] and [`document`] (what every page has), [`failure`] (what went wrong), [`missing`] (what third
//! parties lack), [`objects`] (APIs, connections and grants as the database has them).

mod access_rules;
mod api;
mod apis;
mod applications;
mod assets;
mod chart;
mod connections;
mod document;
mod dry_run;
mod failure;
mod form;
mod logs;
mod missing;
mod objects;
mod overview;
mod page;
mod rule_form;
mod session;
mod settings;
mod sign_in;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};

pub use self::session::OverTls;

use self::api::Api;
use self::failure::Failure;
use super::App;

/// Longest form with an access rule, in bytes: what the Management API takes as JSON, with each line's end and slash
/// percent-encoded.
const MAX_RULE_FORM_BYTES: usize = 12 * 1024 * 1024;

/// The routes of the console. `management` answers the Management API's paths.
pub fn router(management: Router) -> Router<App> {
    let rules = Router::new()
        .route("/console/access-control/new", get(access_rules::new).post(access_rules::create))
        .route("/console/access-control/{id}", get(access_rules::edit).post(access_rules::change))
        .layer(DefaultBodyLimit::max(MAX_RULE_FORM_BYTES));
    Router::new()
        .route("/console", get(|| async { Redirect::permanent("/console/") }))
        .route("/console/", get(overview::show))
        .route("/console/settings", get(settings::show))
        .route(
            "/console/settings/registration",
            get(settings::confirm_registration).post(settings::change_registration),
        )
        .route("/console/settings/mode", get(settings::confirm_mode).post(settings::change_mode))
        .route("/console/settings/limits", post(settings::change_limits))
        .route("/console/applications", get(applications::list))
        .route("/console/applications/{id}", get(applications::show))
        .route("/console/applications/{id}/delete", get(applications::confirm_delete).post(applications::delete))
        .route("/console/applications/{id}/rotate-secret", get(applications::confirm_rotate).post(applications::rotate))
        .route("/console/apis", get(apis::list).post(apis::create))
        .route("/console/apis/{id}", get(apis::show))
        .route("/console/apis/{id}/default-permissions", post(apis::change_default_permissions))
        .route("/console/apis/{id}/delete", get(apis::confirm_delete).post(apis::delete))
        .route("/console/connections", get(connections::list).post(connections::create))
        .route("/console/connections/{id}/domain-level", post(connections::change_level))
        .route("/console/connections/{id}/delete", get(connections::confirm_delete).post(connections::delete))
        .route("/console/access-control", get(access_rules::list))
        .route("/console/access-control/order", post(access_rules::reorder))
        .route("/console/access-control/try", get(dry_run::show))
        .route("/console/access-control/{id}/active", post(access_rules::change_active))
        .route("/console/access-control/{id}/delete", get(access_rules::confirm_delete).post(access_rules::delete))
        .merge(rules)
        .route("/console/logs", get(logs::list))
        .route("/console/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/console/sign-out", post(sign_in::sign_out))
        .route("/console/{*rest}", get(|| async { Failure::not_found("There is no such page.") }))
        .layer(Extension(Api::new(management)))
        .layer(middleware::from_fn(protect))
        // They may be kept, so what protects pages is not for them.
        .merge(assets::router())
}

/// What browsers are told of every page: where its parts may come from, that no other page may frame it, and that nobody
/// keeps it.
const PROTECTION: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Not `no-referrer`: browsers would then send `origin: null` with the console's own forms.
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in PROTECTION {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
