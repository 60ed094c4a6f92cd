//! Access rules.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::access::Access;
use super::acl_patch::patched;
use super::acl_warnings;
use super::body::{json_body, json_object};
use super::id::Id;
use super::openapi;
use super::operation::{Answer, Operation, Schema};
use super::paging::Paging;
use crate::acl::{NetworkAcl, Rule};
use crate::store::blocking;
use crate::store::clock::{rfc3339, unix_millis};
use crate::store::db::{NewAcl, StoredAcl, StoredTenant, acl_id, update_network_acl};
use crate::store::http::App;
use crate::store::http::error::ManagementError;

/// Longest body with an access rule, in bytes: as many ranges as a tenant may have, each as long as it can be.
const MAX_ACL_BYTES: usize = 8 * 1024 * 1024;

/// An access rule as the Management API shows it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NetworkAcl")]
struct Shown {
    id: String,
    description: String,
    active: bool,
    priority: u32,
    #[schemars(with = "Rule")]
    rule: Box<RawValue>,
    #[schemars(extend("format" = "date-time"))]
    created_at: String,
    #[schemars(extend("format" = "date-time"))]
    updated_at: String,
}

impl From<StoredAcl> for Shown {
    fn from(acl: StoredAcl) -> Self {
        let StoredAcl { id, description, active, priority, rule, created_at, updated_at, .. } = acl;
        let (created_at, updated_at) = (rfc3339(created_at), rfc3339(updated_at));
        Self { id, description, active, priority, rule, created_at, updated_at }
    }
}

/// What can be done with access rules.
pub(super) fn operations() -> [Operation; 6] {
    const ALL: &str = "/api/v2/network-acls";
    const ONE: &str = "/api/v2/network-acls/{id}";
    let shown = || Answer::One(Schema::of_output::<Shown>());
    let input = |name: &str| {
        let mut schema = Schema::of_input::<NetworkAcl>().named(name);
        if let Some(Value::Array(scopes)) = schema.json.pointer_mut("/properties/rule/properties/scope/oneOf") {
            scopes.push(json!({"type": "string", "const": "dcr", "description": "Registrations, in short."}));
        }
        schema
    };
    // No rule loses its place by a change that does not speak of it.
    let keeps_priority = |schema: &mut Schema| {
        let text = "Lower numbers come first, equal ones in the order of creation. Without one the rule keeps its own.";
        schema.describe("/properties/priority", text);
    };
    let example = || {
        let rule = json!({"action": {"block": true}, "match": {"geo_country_codes": ["CH"]}, "scope": "dynamic_client_registration"});
        json!({"description": "No registrations from here", "active": true, "priority": 7, "rule": rule})
    };
    let mut replacement = input("NetworkAclReplacement");
    keeps_priority(&mut replacement);
    let mut patch = input("NetworkAclPatch").partial().into_change();
    keeps_priority(&mut patch);
    patch.without_required("/properties/rule");
    patch.describe(
        "/properties/rule",
        "Members replace those that were. Any of match, not_match and match_all replaces all three.",
    );
    patch.describe(
        "/properties/rule/properties/action",
        "It is replaced as a whole, but one with log alone keeps what else the action was.",
    );
    [
        Operation::new(Method::GET, ALL, "Access rules, in the order of evaluation", list)
            .scope("read:network_acls")
            .query(openapi::paging())
            .answers(
                StatusCode::OK,
                Answer::List {
                    name: "network_acls",
                    entry: Schema::of_output::<Shown>(),
                    has_checkpoints: false,
                    has_length: false,
                },
            ),
        Operation::new(Method::POST, ALL, "Makes an access rule", create)
            .scope("create:network_acls")
            .body(input("NetworkAclRequest"), example())
            .max_body(MAX_ACL_BYTES)
            .answers(StatusCode::CREATED, shown())
            .warns(),
        Operation::new(Method::GET, ONE, "An access rule", show)
            .scope("read:network_acls")
            .answers(StatusCode::OK, shown()),
        Operation::new(Method::PUT, ONE, "Replaces an access rule", replace)
            .scope("update:network_acls")
            .body(replacement, example())
            .max_body(MAX_ACL_BYTES)
            .answers(StatusCode::OK, shown())
            .warns(),
        Operation::new(Method::PATCH, ONE, "Changes members of an access rule", change)
            .scope("update:network_acls")
            .body(patch, json!({"active": false}))
            .max_body(MAX_ACL_BYTES)
            .answers(StatusCode::OK, shown())
            .warns(),
        Operation::new(Method::DELETE, ONE, "Deletes an access rule", delete)
            .scope("delete:network_acls")
            .answers(StatusCode::NO_CONTENT, Answer::Nothing)
            .warns(),
    ]
}

/// `GET /api/v2/network-acls`
pub async fn list(access: Access, paging: Paging, State(app): State<App>) -> Result<Response, ManagementError> {
    let page = app.database.network_acls(access.stored.slot, paging.start(), paging.per_page).await?;
    let network_acls: Vec<Shown> = page.acls.into_iter().map(Shown::from).collect();
    Ok(paging.answer("network_acls", paging.include_totals.then_some(page.total), network_acls))
}

/// `POST /api/v2/network-acls`
pub async fn create(access: Access, State(app): State<App>, request: Request) -> Result<Response, ManagementError> {
    let (parts, body) = json_body(request).await?;
    let read = move || {
        let acl: NetworkAcl = json_object(&body)?;
        Ok::<_, ManagementError>((NewAcl::new(&acl)?, acl.rule))
    };
    let (acl, rule) = blocking::run(read).await??;
    let id = acl_id()?;
    let created = app.database.create_network_acl(access.stored.slot, &id, &acl, unix_millis()).await?;
    let created = created.ok_or_else(ManagementError::tenant_deleted)?;
    let mut response = (StatusCode::CREATED, Json(Shown::from(created))).into_response();
    if acl.active {
        acl_warnings::add_for_list(&mut response, &app, access.stored, parts).await;
    }
    acl_warnings::add_for_rule(&mut response, &app, &rule);
    Ok(response)
}

/// Puts all access rules of the tenant at once into the order of these ids, with the warnings that this calls for. The
/// hosted API has no such call: there each rule's priority is changed by itself, and every order between is in force.
pub(in crate::store::http) async fn reorder(
    app: &App,
    tenant: StoredTenant,
    ids: &[String],
    request: Parts,
) -> Result<Response, ManagementError> {
    for id in ids {
        app.acl_counts.write_rule(&*app.database, tenant.slot, id).await;
    }
    let others = || {
        let message = "There are other access rules by now than those that were put in order; look at the list again";
        ManagementError::new(StatusCode::CONFLICT, "other_network_acls", message)
    };
    let is_altered = app.database.reorder_network_acls(tenant.slot, ids, unix_millis()).await?.ok_or_else(others)?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    if is_altered {
        acl_warnings::add_for_list(&mut response, app, tenant, request).await;
    }
    Ok(response)
}

/// `GET /api/v2/network-acls/{id}`
pub async fn show(access: Access, State(app): State<App>, id: Id) -> Result<Response, ManagementError> {
    let found = app.database.network_acl(access.stored.slot, &id.or(unknown)?).await?;
    Ok(Json(Shown::from(found.ok_or_else(unknown)?)).into_response())
}

/// `PUT /api/v2/network-acls/{id}`
pub async fn replace(
    access: Access,
    State(app): State<App>,
    id: Id,
    request: Request,
) -> Result<Response, ManagementError> {
    let (parts, body) = json_body(request).await?;
    update(&app, access, id, parts, move |_| json_object(&body)).await
}

/// `PATCH /api/v2/network-acls/{id}`
pub async fn change(
    access: Access,
    State(app): State<App>,
    id: Id,
    request: Request,
) -> Result<Response, ManagementError> {
    let (parts, body) = json_body(request).await?;
    let change = move |stored: &StoredAcl| {
        let patch: Map<String, Value> = json_object(&body)?;
        patched(stored, patch)
    };
    update(&app, access, id, parts, change).await
}

/// `DELETE /api/v2/network-acls/{id}`
pub async fn delete(access: Access, State(app): State<App>, id: Id, parts: Parts) -> Result<Response, ManagementError> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(id) = id.or(unknown) {
        let slot = access.stored.slot;
        app.acl_counts.write_rule(&*app.database, slot, &id).await;
        if app.database.delete_network_acl(slot, &id).await? {
            acl_warnings::add_for_list(&mut response, &app, access.stored, parts).await;
        }
    }
    Ok(response)
}

fn unknown() -> ManagementError {
    ManagementError::new(StatusCode::NOT_FOUND, "inexistent_network_acl", "The tenant has no such network ACL")
}

async fn update(
    app: &App,
    access: Access,
    id: Id,
    parts: Parts,
    change: impl Fn(&StoredAcl) -> Result<NetworkAcl, ManagementError> + Send + Sync + 'static,
) -> Result<Response, ManagementError> {
    let (slot, id) = (access.stored.slot, id.or(unknown)?);
    app.acl_counts.write_rule(&*app.database, slot, &id).await;
    let changed = update_network_acl(&*app.database, slot, &id, unix_millis(), change).await?.ok_or_else(unknown)?;
    let (has_effect, was_or_is_active) = (changed.has_effect(), changed.before.active || changed.after.active);
    let mut response = Json(Shown::from(changed.after)).into_response();
    if has_effect {
        if was_or_is_active {
            acl_warnings::add_for_list(&mut response, app, access.stored, parts).await;
        }
        acl_warnings::add_for_rule(&mut response, app, &changed.rule);
    }
    Ok(response)
}
