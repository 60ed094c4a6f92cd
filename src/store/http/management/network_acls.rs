//! Access rules.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::access::Access;
use super::acl_patch::patched;
use super::acl_warnings;
use super::body::{checked, json_object};
use super::paging::Paging;
use crate::acl::{NetworkAcl, Rule};
use crate::store::clock::{rfc3339, unix_millis};
use crate::store::db::{self, StoredAcl, acl_id, update_network_acl};
use crate::store::http::App;
use crate::store::http::error::ManagementError;

/// An access rule as the Management API shows it.
#[derive(Serialize)]
struct Shown {
    id: String,
    description: String,
    active: bool,
    priority: u32,
    rule: Box<RawValue>,
    created_at: String,
    updated_at: String,
}

impl From<StoredAcl> for Shown {
    fn from(acl: StoredAcl) -> Self {
        let StoredAcl { id, description, active, priority, rule, created_at, updated_at, .. } = acl;
        let (created_at, updated_at) = (rfc3339(created_at), rfc3339(updated_at));
        Self { id, description, active, priority, rule, created_at, updated_at }
    }
}

/// A page of access rules with how many there are.
#[derive(Serialize)]
struct Page {
    start: u64,
    limit: u32,
    total: u64,
    network_acls: Vec<Shown>,
}

/// `GET /api/v2/network-acls`
pub async fn list(access: Access, paging: Paging, State(app): State<App>) -> Result<Response, ManagementError> {
    access.require("read:network_acls")?;
    let (start, limit) = (paging.start(), paging.per_page);
    let page = app.database.network_acls(access.stored.slot, start, limit).await?;
    let network_acls: Vec<Shown> = page.acls.into_iter().map(Shown::from).collect();
    Ok(if paging.include_totals {
        Json(Page { start, limit, total: page.total, network_acls }).into_response()
    } else {
        Json(network_acls).into_response()
    })
}

/// `POST /api/v2/network-acls`
pub async fn create(
    access: Access,
    State(app): State<App>,
    parts: Parts,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ManagementError> {
    access.require("create:network_acls")?;
    let acl = network_acl(&parts.headers, body)?;
    let id = acl_id().ok_or_else(|| db::Error::Failed("the system has no randomness".to_owned()))?;
    let created = app.database.create_network_acl(access.stored.slot, &id, &acl, unix_millis()).await?;
    let created = created.ok_or_else(ManagementError::tenant_deleted)?;
    Ok(written(&app, &access, StatusCode::CREATED, created, &acl.rule, &parts).await)
}

/// `GET /api/v2/network-acls/{id}`
pub async fn show(access: Access, State(app): State<App>, id: AclId) -> Result<Response, ManagementError> {
    access.require("read:network_acls")?;
    let found = app.database.network_acl(access.stored.slot, &acl_of(id)?).await?;
    Ok(Json(Shown::from(found.ok_or_else(unknown)?)).into_response())
}

/// `PUT /api/v2/network-acls/{id}`
pub async fn replace(
    access: Access,
    State(app): State<App>,
    id: AclId,
    parts: Parts,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ManagementError> {
    access.require("update:network_acls")?;
    let acl = network_acl(&parts.headers, body)?;
    update(&app, &access, id, &parts, |_| Ok(acl.clone())).await
}

/// `PATCH /api/v2/network-acls/{id}`
pub async fn change(
    access: Access,
    State(app): State<App>,
    id: AclId,
    parts: Parts,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ManagementError> {
    access.require("update:network_acls")?;
    let patch = json_object(&parts.headers, body)?;
    update(&app, &access, id, &parts, |stored| patched(stored, patch.clone())).await
}

/// `DELETE /api/v2/network-acls/{id}`
pub async fn delete(access: Access, State(app): State<App>, id: AclId) -> Result<StatusCode, ManagementError> {
    access.require("delete:network_acls")?;
    if let Ok(id) = acl_of(id) {
        app.database.delete_network_acl(access.stored.slot, &id).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The id in the path.
type AclId = Result<Path<String>, PathRejection>;

/// An id that is no text is nobody's.
fn acl_of(id: AclId) -> Result<String, ManagementError> {
    id.map(|Path(id)| id).map_err(|_| unknown())
}

fn unknown() -> ManagementError {
    ManagementError::new(StatusCode::NOT_FOUND, "inexistent_network_acl", "The tenant has no such network ACL")
}

fn network_acl(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<NetworkAcl, ManagementError> {
    checked(Value::Object(json_object(headers, body)?))
}

async fn update(
    app: &App,
    access: &Access,
    id: AclId,
    parts: &Parts,
    change: impl Fn(&StoredAcl) -> Result<NetworkAcl, ManagementError>,
) -> Result<Response, ManagementError> {
    let (slot, id) = (access.stored.slot, acl_of(id)?);
    let changed = update_network_acl(&*app.database, slot, &id, unix_millis(), change).await?.ok_or_else(unknown)?;
    let rule: Rule = serde_json::from_str(changed.rule.get())
        .map_err(|_| db::Error::Failed("a stored access rule cannot be read".to_owned()))?;
    Ok(written(app, access, StatusCode::OK, changed, &rule, parts).await)
}

/// The answer to a rule that was written.
async fn written(
    app: &App,
    access: &Access,
    status: StatusCode,
    acl: StoredAcl,
    rule: &Rule,
    request: &Parts,
) -> Response {
    let mut response = (status, Json(Shown::from(acl))).into_response();
    acl_warnings::add(&mut response, app, access.stored.slot, rule, request).await;
    response
}
