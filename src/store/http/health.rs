//! For whoever watches the process.

use axum::extract::State;
use axum::http::StatusCode;

use super::App;

/// `GET /livez`: the process runs.
pub async fn live() -> &'static str {
    "live\n"
}

/// `GET /readyz`: the database answers, and no shutdown has begun.
pub async fn ready(State(app): State<App>) -> (StatusCode, &'static str) {
    if *app.stopping.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
    }
    match app.database.ping().await {
        Ok(()) => (StatusCode::OK, "ready\n"),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n")
        }
    }
}
