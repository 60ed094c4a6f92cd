//! The Management API: what a tenant's owner sees and changes.
//!
//! | path | file |
//! |---|---|
//! | `/api/v2/tenants/settings` | `settings` |
//! | `/api/v2/network-acls`, `/api/v2/network-acls/{id}` | `network_acls`, with `acl_patch` and `acl_warnings` |
//! | `/api/v2/clients`, `/api/v2/clients/{id}`, `/api/v2/clients/{id}/rotate-secret` | `clients` |
//! | `/api/v2/resource-servers`, `/connections`, `/client-grants`, each with `/{id}` | `resources` |
//! | `/api/v2/logs`, `/api/v2/logs/{id}` | `logs` |
//! | `/api/v2/openapi.json` | `openapi` |
//!
//! What they share: `access`, `body`, `fields`, `id`, `operation`, `paging`, `parameters`, `warning`.

mod access;
mod acl_patch;
mod acl_warnings;
mod body;
mod clients;
mod fields;
mod id;
mod logs;
mod network_acls;
mod openapi;
mod operation;
mod paging;
mod parameters;
mod resources;
mod settings;
mod warning;

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::routing::get;

pub use self::access::Access;
pub(super) use self::network_acls::reorder as reorder_network_acls;

use self::operation::Operation;
use super::App;
use crate::management::{ClientGrant, Connection, ResourceServer};

/// The routes of the Management API.
pub fn router() -> Router<App> {
    let operations = operations();
    let document = Bytes::from(openapi::document(&operations).to_string());
    let show = move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    let routes = operations.into_iter().fold(Router::new(), |router, operation| operation.add_to(router));
    // It has no secrets, so it asks for no token.
    routes.route("/api/v2/openapi.json", get(show))
}

fn operations() -> Vec<Operation> {
    let mut operations = Vec::from(settings::operations());
    operations.extend(logs::operations());
    operations
        .extend(resources::operations::<ResourceServer>("/api/v2/resource-servers", "/api/v2/resource-servers/{id}"));
    operations.extend(resources::operations::<Connection>("/api/v2/connections", "/api/v2/connections/{id}"));
    operations.extend(resources::operations::<ClientGrant>("/api/v2/client-grants", "/api/v2/client-grants/{id}"));
    operations.extend(network_acls::operations());
    operations.extend(clients::operations());
    operations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::token::MANAGEMENT_SCOPES;
    use serde_json::Value;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn every_scope_is_asked_for_and_every_operation_asks_for_one() {
        let operations = operations();
        let asked: BTreeSet<&str> = operations.iter().flat_map(|o| &o.scopes.0).map(String::as_str).collect();
        assert_eq!(asked, MANAGEMENT_SCOPES.iter().copied().collect());
        assert!(operations.iter().all(|operation| !operation.scopes.0.is_empty()));
    }

    #[test]
    fn schemas_of_one_name_are_the_same() {
        let mut by_name: BTreeMap<&str, &Value> = BTreeMap::new();
        let operations = operations();
        for schema in operations.iter().flat_map(Operation::schemas) {
            assert_eq!(*by_name.entry(&schema.name).or_insert(&schema.json), &schema.json, "{}", schema.name);
        }
        assert!(!by_name.is_empty() && !by_name.contains_key("Error"));
    }

    #[test]
    fn a_description_has_no_default_of_a_change_and_no_null_in_place_of_an_absent_member() {
        let document = openapi::document(&operations());
        let schema = |name: &str| document["components"]["schemas"][name].clone();
        for name in ["ClientPatch", "ClientGrantPatch", "ResourceServerPatch", "ConnectionPatch", "SettingsPatch"] {
            assert!(!schema(name).to_string().contains("\"default\":"), "{name}");
        }
        for (name, member) in [
            ("ClientPatch", "name"),
            ("ClientPatch", "callbacks"),
            ("ClientPatch", "grant_types"),
            ("ClientPatch", "app_type"),
            ("ClientPatch", "redirection_policy"),
            ("ClientGrantRequest", "client_id"),
            ("ClientGrantRequest", "default_for"),
            ("ResourceServerRequest", "name"),
            ("ResourceServerPatch", "scopes"),
            ("ResourceServerPatch", "allow_offline_access"),
            ("ResourceServerPatch", "subject_type_authorization"),
            ("ConnectionRequest", "display_name"),
            ("ConnectionPatch", "is_domain_connection"),
            ("Client", "description"),
            ("Client", "logo_uri"),
        ] {
            let described = schema(name)["properties"][member].clone();
            assert!(
                described.is_object() && !described.to_string().contains("\"null\""),
                "{name}.{member}: {described}"
            );
        }
    }
}
