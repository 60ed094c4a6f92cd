//! The store's public keys.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CACHE_CONTROL;

use super::App;
use crate::store::token::keys::JwkSet;

/// How long they may be kept: a new key signs at once, and a retired one checks nothing any more.
const CACHING: (HeaderName, &str) = (CACHE_CONTROL, "public, max-age=60");

/// `GET /.well-known/jwks.json`
pub async fn show(State(app): State<App>) -> ([(HeaderName, &'static str); 1], Json<JwkSet>) {
    ([CACHING], Json(app.verifier.published()))
}
