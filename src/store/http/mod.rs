//! What the store answers over HTTP.
//!
//! | path | for whom |
//! |---|---|
//! | `/edge/v1/…` | the filter: [`edge`]; authorization servers: [`server`] |
//! | `/api/v2/…` | the tenant's owner: [`management`] |
//! | `/console/…` | the tenant's owner, in a browser: [`console`] |
//! | `/.well-known/jwks.json` | whoever checks the store's tokens: [`jwks`] |
//! | `/livez`, `/readyz`, `/metrics` | whoever watches the process: [`health`], [`metrics`] |

pub mod console;
pub mod edge;
pub mod error;
pub mod health;
pub mod jwks;
pub mod management;
pub mod metrics;
pub mod server;
mod trace;
mod unread_body;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tracing::Instrument;

use self::error::{EdgeError, ManagementError};
use self::metrics::{Interface, Metrics};
use super::acl_counts::AclCounts;
use super::client_uses::ClientUses;
use super::clock::Clock;
use super::db::Database;
use super::edge_signals::EdgeSignals;
use super::refusals::Refusals;
use super::token::{ListedTokens, Verifier};
use super::writer::Writer;
use crate::edge_api::{
    CHANGES_PATH, EDGE_PROTOCOL_HEADER, PROTOCOL_HEADER, PROTOCOL_VERSION, READY_PATH, REPORT_PATH, SPOKEN_VERSIONS,
    UNSUPPORTED_PROTOCOL, answered_version,
};

/// Longest request body, in bytes.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// Most answers with a client's permissions that are made at the same time: each may have tens of megabytes.
pub const PERMISSION_ANSWERS: usize = 2;

/// What every handler may use.
#[derive(Clone)]
pub struct App {
    /// The database.
    pub database: Arc<dyn Database>,
    /// The way to register clients.
    pub writer: Writer,
    /// The time.
    pub clock: Clock,
    /// The way to note that an authorization server asked for a client.
    pub client_uses: ClientUses,
    /// What checks tokens.
    pub verifier: Arc<Verifier>,
    /// The edges' tokens, if the operator lists them: no others count then.
    pub edge_tokens: Option<Arc<ListedTokens>>,
    /// The turns of answers with a client's permissions, [`PERMISSION_ANSWERS`] of them.
    pub permission_answers: Arc<Semaphore>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// What access rules did.
    pub acl_counts: Arc<AclCounts>,
    /// Which registrations were refused.
    pub refusals: Arc<Refusals>,
    /// For which signals the edges have a source.
    pub edge_signals: Arc<EdgeSignals>,
    /// What edges speak with which nothing is possible.
    pub other_versions: Arc<OtherVersions>,
    /// Whether a shutdown has begun.
    pub stopping: watch::Receiver<bool>,
    /// Whether an edge has put everything in force, or nobody wants to know.
    pub in_force: Arc<AtomicBool>,
}

impl App {
    /// Waits for the turn to make an answer with a client's permissions; it lasts until what is given is dropped.
    async fn permission_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.permission_answers.acquire().await.ok()
    }
}

/// Every route of the store.
pub fn router(app: App) -> Router {
    let management = management::router().layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(app.clone());
    Router::new()
        .route(
            "/edge/v1/tenants/{tenant}/clients/{client_id}",
            put(edge::register)
                .route_layer(middleware::from_fn(edge::log_refusal))
                .merge(get(server::show).layer(middleware::map_response(server::no_store))),
        )
        .route(
            "/edge/v1/tenants/{tenant}/clients/{client_id}/authenticate",
            post(server::authenticate).layer(middleware::map_response(server::no_store)),
        )
        .route(
            "/edge/v1/tenants/{tenant}/clients/{client_id}/controls",
            get(edge::controls).layer(middleware::map_response(server::no_store)),
        )
        .route(CHANGES_PATH, get(edge::changes))
        .route(REPORT_PATH, post(edge::report))
        .route(READY_PATH, get(health::ready_for_edges))
        .merge(management::router())
        .merge(console::router(management))
        .route("/.well-known/jwks.json", get(jwks::show))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::show))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(unread_body::discard))
        .layer(middleware::from_fn_with_state(app.clone(), finish))
        .with_state(app)
}

/// Counts every answer, and marks those of the edge's interface as the store's, in the version that the edge speaks.
async fn finish(State(app): State<App>, request: Request, next: Next) -> Response {
    let span = trace::span(request.headers());
    let (interface, started) = (Interface::of(request.uri().path()), Instant::now());
    if interface != Interface::Edge {
        let response = next.run(request).instrument(span).await;
        app.metrics.response(interface, response.status(), started.elapsed());
        return response;
    }
    let version = spoken_version(request.headers());
    let mut response = match version {
        Some(_) => next.run(request).instrument(span).await,
        None => {
            app.other_versions.say(request.headers());
            let [oldest, newest] = SPOKEN_VERSIONS;
            let description = format!("this store speaks the versions {oldest} and {newest} of the edge's interface");
            EdgeError::new(StatusCode::BAD_REQUEST, UNSUPPORTED_PROTOCOL, description).into_response()
        }
    };
    app.metrics.response(interface, response.status(), started.elapsed());
    let version = HeaderValue::from_static(version.unwrap_or(PROTOCOL_VERSION));
    response.headers_mut().insert(PROTOCOL_HEADER, version);
    response
}

/// The version in which a request below `/edge/` is answered, if there is one.
fn spoken_version(headers: &HeaderMap) -> Option<&'static str> {
    let mut values = headers.get_all(EDGE_PROTOCOL_HEADER).iter();
    match (values.next(), values.next()) {
        (version, None) => answered_version(version.map(HeaderValue::as_bytes)),
        (_, Some(_)) => None,
    }
}

/// The last version that no answer was possible in, so that the log has a line for each and not for each request.
#[derive(Default)]
pub struct OtherVersions(Mutex<Option<HeaderValue>>);

impl OtherVersions {
    fn say(&self, headers: &HeaderMap) {
        let version = headers.get(EDGE_PROTOCOL_HEADER).cloned();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != version {
            tracing::warn!(
                ?version,
                "an edge speaks another version: bring filter and dcr-store to the same release, or to two that follow \
                 each other"
            );
            *last = version;
        }
    }
}

async fn unknown_path(uri: Uri) -> Response {
    error_of(&uri, StatusCode::NOT_FOUND, "not_found", "nothing is at this path")
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("this path does not answer {method}; the allow header names the methods that it does");
    error_of(&uri, StatusCode::METHOD_NOT_ALLOWED, "invalid_request", &message)
}

fn error_of(uri: &Uri, status: StatusCode, code: &'static str, message: &str) -> Response {
    if uri.path().starts_with("/api/") {
        ManagementError::new(status, code, message).into_response()
    } else {
        EdgeError::new(status, code, message).into_response()
    }
}

/// The token of an `authorization` header (RFC 6750 §2.1); `None` if there is not exactly one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
