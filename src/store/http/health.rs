//! For whoever watches the process.

use std::sync::atomic::Ordering;

use axum::extract::State;

use super::App;
use super::error::EdgeError;

/// `GET /livez`: the process runs.
pub async fn live() -> &'static str {
    "live\n"
}

/// `GET /readyz`: the database answers, no shutdown has begun, and an edge has put everything in force if that is
/// asked for.
pub async fn ready(State(app): State<App>) -> Result<&'static str, EdgeError> {
    if !app.in_force.load(Ordering::Relaxed) {
        return Err(EdgeError::unavailable("no edge has put the settings in force yet"));
    }
    ready_for_edges(State(app)).await
}

/// `GET /edge/v1/ready`: the database answers and no shutdown has begun, so that edges may send what they have. It asks
/// for no token: a proxy's health checks have none.
pub async fn ready_for_edges(State(app): State<App>) -> Result<&'static str, EdgeError> {
    if *app.stopping.borrow() {
        return Err(EdgeError::unavailable("the store is shutting down"));
    }
    app.database.ping().await.map_err(|error| {
        tracing::warn!(%error, "not ready");
        EdgeError::unavailable("the database does not answer")
    })?;
    Ok("ready\n")
}
