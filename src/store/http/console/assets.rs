//! The console's own style sheet, script and icon. An address has the hash of the content in it, so browsers may keep it
//! for good, and a new release is seen at once.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use crate::store::http::App;

/// A file: its name, its type and what is in it.
struct Asset(&'static str, &'static str, &'static str);

const ASSETS: [Asset; 3] = [
    Asset("console.css", "text/css; charset=utf-8", include_str!("console.css")),
    Asset("console.js", "text/javascript; charset=utf-8", include_str!("console.js")),
    Asset("icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

/// The part of the addresses that changes with the content.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for Asset(.., content) in ASSETS {
        hash.update(content);
    }
    let mut hash = hex::encode(hash.finalize());
    hash.truncate(12);
    hash
});

/// Where the file of this name is.
pub fn address(name: &str) -> String {
    format!("/console/assets/{}/{name}", *VERSION)
}

/// The routes of the files.
pub fn router() -> Router<App> {
    Router::new().route("/console/assets/{version}/{name}", get(show))
}

async fn show(Path((version, name)): Path<(String, String)>) -> Response {
    let Some(Asset(_, content_type, content)) = ASSETS.iter().find(|Asset(other, ..)| *other == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // During an upgrade of several stores, another release's page may ask this one: what it gets is not to be kept.
    let keep = if version == *VERSION { "public, max-age=31536000, immutable" } else { "no-store" };
    let headers = [
        (header::CONTENT_TYPE, *content_type),
        (header::CACHE_CONTROL, keep),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, *content).into_response()
}
