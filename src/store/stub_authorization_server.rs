//! A stand-in for an authorization server, so that a gateway has something behind it before there is a real one.
//!
//! It publishes a discovery document and answers everything else with what it was asked. It authenticates nobody.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

/// The media type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

/// Longest request body that is counted, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// The stand-in's routes.
pub fn router() -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/.well-known/oauth-authorization-server", get(discovery))
        .fallback(echo)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// A discovery document (RFC 8414 §2) for the address that the client used.
async fn discovery(headers: HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(host) = text(header::HOST.as_str()) else {
        return (StatusCode::BAD_REQUEST, "a host header is needed\n").into_response();
    };
    let scheme = text("x-forwarded-proto").unwrap_or("http");
    let at = |path: &str| format!("{scheme}://{host}{path}");
    Json(json!({
        "issuer": at("/"),
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/oauth/token"),
        "userinfo_endpoint": at("/userinfo"),
        "jwks_uri": at("/.well-known/jwks.json"),
        "registration_endpoint": at("/oidc/register"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }))
    .into_response()
}

/// What arrived, so that whoever stands in front can see what became of a request.
async fn echo(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let path = uri.path_and_query().map_or_else(|| uri.to_string(), ToString::to_string);
    let is_form = headers.iter().any(|(name, value)| name == "content-type" && value == FORM);
    let seen = json!({
        "method": method.as_str(),
        "path": path,
        "headers": headers,
        "query": parameters(uri.query().unwrap_or_default()),
        "form": is_form.then(|| parameters(&String::from_utf8_lossy(&body))),
        "body_bytes": body.len()
    });
    ([("x-stub-authorization-server", "echo")], Json(seen)).into_response()
}

/// What a server reads in a query or a form.
fn parameters(encoded: &str) -> Vec<(String, String)> {
    let uri = Uri::builder().path_and_query(format!("/?{encoded}")).build().unwrap_or_default();
    Query::try_from_uri(&uri).map(|Query(parameters)| parameters).unwrap_or_default()
}
