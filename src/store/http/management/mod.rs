//! The Management API: what a tenant's owner sees and changes.
//!
//! | path | file |
//! |---|---|
//! | `/api/v2/tenants/settings` | `settings` |
//! | `/api/v2/network-acls`, `/api/v2/network-acls/{id}` | `network_acls`, with `acl_patch` and `acl_warnings` |
//! | `/api/v2/clients`, `/api/v2/clients/{id}`, `/api/v2/clients/{id}/rotate-secret` | `clients` |
//! | `/api/v2/resource-servers`, `/connections`, `/client-grants`, each with `/{id}` | `resources` |
//! | `/api/v2/logs`, `/api/v2/logs/{id}` | `logs` |
//!
//! What they share: `access`, `body`, `fields`, `id`, `paging`, `parameters`, `warning`.

mod access;
mod acl_patch;
mod acl_warnings;
mod body;
mod clients;
mod fields;
mod id;
mod logs;
mod network_acls;
mod paging;
mod parameters;
mod resources;
mod settings;
mod warning;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use self::resources::{all, one};
use super::App;
use crate::management::{ClientGrant, Connection, ResourceServer};

/// Longest body with an access rule, in bytes: as many ranges as a tenant may have, each as long as it can be.
const MAX_ACL_BYTES: usize = 8 * 1024 * 1024;

/// The routes of the Management API.
pub fn router() -> Router<App> {
    Router::new()
        .route("/api/v2/tenants/settings", get(settings::show).patch(settings::change))
        .route("/api/v2/logs", get(logs::list))
        .route("/api/v2/logs/{id}", get(logs::show))
        .route("/api/v2/resource-servers", all::<ResourceServer>())
        .route("/api/v2/resource-servers/{id}", one::<ResourceServer>())
        .route("/api/v2/connections", all::<Connection>())
        .route("/api/v2/connections/{id}", one::<Connection>())
        .route("/api/v2/client-grants", all::<ClientGrant>())
        .route("/api/v2/client-grants/{id}", one::<ClientGrant>())
        .route(
            "/api/v2/network-acls",
            get(network_acls::list).post(network_acls::create).layer(DefaultBodyLimit::max(MAX_ACL_BYTES)),
        )
        .route(
            "/api/v2/network-acls/{id}",
            get(network_acls::show)
                .put(network_acls::replace)
                .patch(network_acls::change)
                .delete(network_acls::delete)
                .layer(DefaultBodyLimit::max(MAX_ACL_BYTES)),
        )
        .route("/api/v2/clients", get(clients::list).post(clients::create))
        .route("/api/v2/clients/{id}", get(clients::show).patch(clients::change).delete(clients::delete))
        .route("/api/v2/clients/{id}/rotate-secret", post(clients::rotate_secret))
}
