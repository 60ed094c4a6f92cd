//! Signing in with a Management API token or with a link that works once, and signing out.

use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::document;
use super::failure::Failure;
use super::form::{Anonymous, Posted};
use super::session::{MAX_TOKEN, SIGNED_OUT, Transport, signed_in};
use crate::store::http::App;
use crate::store::http::management::Access;
use crate::store::token::Claims;
use crate::store::unix_now;

/// What a link has in it.
#[derive(Deserialize)]
pub struct Link {
    #[serde(default)]
    code: String,
}

/// `GET /console/sign-in`: what is in a link is not used up by whoever only looks at it, as a mail program may.
pub async fn show(transport: Transport, Query(Link { code }): Query<Link>) -> Response {
    form(&transport, &code, None, StatusCode::OK)
}

/// `POST /console/sign-in`
pub async fn sign_in(
    State(app): State<App>,
    transport: Transport,
    Anonymous(fields): Anonymous,
) -> Result<Response, Failure> {
    let refused = |text: &str| Ok(form(&transport, "", Some(text), StatusCode::UNAUTHORIZED));
    let token = match fields.text("code") {
        "" => fields.text("token").to_owned(),
        code => {
            let now = unix_now();
            let code_sha256: [u8; 32] = Sha256::digest(code).into();
            let Some(link) = app.database.take_sign_in_link(&code_sha256, now).await? else {
                return refused(
                    "The link was used already, or its time is over. Make another with dcr-store console-link, or sign \
                     in with a token.",
                );
            };
            let claims = Claims::management(link.tenant, &link.domain, link.scope, now, link.session_ttl);
            app.verifier.mint(&claims).map_err(|error| {
                tracing::error!(%error, "no token could be made for a session of the console");
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "The store cannot sign anybody in now; try again.")
            })?
        }
    };
    if token.len() > MAX_TOKEN {
        return refused("The token is too long for a browser's cookie; get one with fewer claims.");
    }
    if let Err(error) = Access::of_token(&app, &token).await {
        return match error.status() {
            StatusCode::UNAUTHORIZED => refused(&format!("The token was not accepted: {}.", error.message())),
            _ => Err(error.into()),
        };
    }
    let cookie = signed_in(&token, transport.is_secure);
    let cookie = cookie.ok_or_else(|| Failure::bad_request("The token has characters that no token has."))?;
    Ok((
        StatusCode::SEE_OTHER,
        [(header::LOCATION, HeaderValue::from_static("/console/")), (header::SET_COOKIE, cookie)],
    )
        .into_response())
}

/// `POST /console/sign-out`
pub async fn sign_out(_: Posted) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, "/console/sign-in"), (header::SET_COOKIE, SIGNED_OUT)]).into_response()
}

fn form(transport: &Transport, code: &str, error: Option<&str>, status: StatusCode) -> Response {
    let content: Markup = html! {
        h1 { "Sign in" }
        @if let Some(error) = error {
            div class="notice error" role="alert" tabindex="-1" data-focus { p { (error) } }
        }
        @if !transport.is_secure && !transport.is_local {
            div class="notice warning" {
                p {
                    "This connection is not encrypted: whoever is between this browser and the store can read what you \
                     enter. Use TLS in front of the store, or a tunnel."
                }
            }
        }
        @if !code.is_empty() {
            form method="post" action="/console/sign-in" {
                input type="hidden" name="code" value=(code);
                p { "This link signs you in to the console once." }
                p class="buttons" { button class="primary" { "Sign in" } }
            }
        } @else {
            form method="post" action="/console/sign-in" {
                label for="token" { "Management API token" }
                input id="token" name="token" type="password" autocomplete="off" spellcheck="false" required
                    aria-describedby="token-help";
                p id="token-help" class="help" {
                    "Make one with " code { "dcr-store token --tenant NAME" } ", or open the link that "
                    code { "dcr-store console-link --tenant NAME" } " prints. After " code { "make run" }
                    " the token is in " code { ".run/management-token" } "."
                }
                p class="buttons" { button class="primary" { "Sign in" } }
            }
        }
    };
    (status, Html(document::bare("Sign in", &content).into_string())).into_response()
}
