//! The edge's interface: [`crate::edge_api`] over HTTP.

use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use hex::FromHex;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::App;
use super::error::{EdgeError, Reason};
use crate::edge_api::{
    Changes, ClientControls, ClientRecord, Count, EffectiveGrant, MAX_COUNTS, Permissions, REQUEST_ID_HEADER,
    RegisterClient, RegisteredBy, RegisteredClient, Report, is_harmless_id, shortened_user_agent,
};
use crate::registration::{client_id_mode, is_servers_client_id};
use crate::store::admission::NewClient;
use crate::store::client::Registered;
use crate::store::db::{self, ControlledClient, PermittedClient, StoredClient};
use crate::store::token::Kind;
use crate::store::unix_now;
use crate::tenant::Name;

/// Tenant and client of a request's path.
pub type ClientPath = Result<Path<(String, String)>, PathRejection>;

/// Proof that the request carries an edge's token.
pub struct EdgeToken;

impl FromRequestParts<App> for EdgeToken {
    type Rejection = EdgeError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, EdgeError> {
        let missing = "send one token of the kind edge in the authorization header; make one with \
                       `dcr-store token --kind edge`";
        let token = super::bearer(&parts.headers)
            .ok_or_else(|| EdgeError::new(StatusCode::UNAUTHORIZED, "invalid_token", missing))?;
        match &app.edge_tokens {
            Some(listed) if listed.has(token) => {}
            Some(_) => {
                let description = "the token is none of those that this store has in its list (--edge-tokens)";
                return Err(EdgeError::new(StatusCode::UNAUTHORIZED, "invalid_token", description));
            }
            None => _ = app.verifier.check(token, Kind::Edge, unix_now()).await?,
        }
        Ok(Self)
    }
}

/// `PUT /edge/v1/tenants/{tenant}/clients/{client_id}`
pub async fn register(
    _: EdgeToken,
    State(app): State<App>,
    path: ClientPath,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<RegisteredClient>), EdgeError> {
    let (tenant, client_id) = named(path)?;
    let request: RegisterClient<Box<RawValue>> = serde_json::from_slice(&body?)
        .map_err(|error| EdgeError::bad_request(format!("the body is not a registration: {error}")))?;
    let is_fit = match request.registered_by {
        RegisteredBy::Edge => client_id_mode(&client_id).is_some(),
        RegisteredBy::Server => is_servers_client_id(&client_id),
    };
    if !is_fit {
        return Err(EdgeError::bad_request("the path does not end with a client_id"));
    }
    let client_secret_sha256 = request.client_secret_sha256.as_deref().map(sha256_digest).transpose()?;
    let RegisterClient { metadata, mut origin, registered_by, .. } = request;
    origin.user_agent = origin.user_agent.map(shortened_user_agent);
    let request_id = request_id(&headers);
    let client = NewClient { tenant, client_id, registered_by, client_secret_sha256, metadata, origin, request_id };
    let registered = app.writer.register(client).await?;
    let status = if registered.created { StatusCode::CREATED } else { StatusCode::OK };
    let body = RegisteredClient { client_id: registered.client_id, client_id_issued_at: registered.issued_at };
    Ok((status, Json(body)))
}

/// Tenant and client that a path names.
fn named(path: ClientPath) -> Result<(Name, String), EdgeError> {
    let Path((tenant, client_id)) = path.map_err(|_| EdgeError::bad_request("the path is not UTF-8"))?;
    let tenant = Name::try_from(tenant).map_err(|reason| no_tenant(&format!("no such tenant: {reason}")))?;
    Ok((tenant, client_id))
}

fn no_tenant(description: &str) -> EdgeError {
    EdgeError::new(StatusCode::NOT_FOUND, "not_found", description)
}

/// `GET /edge/v1/tenants/{tenant}/clients/{client_id}/controls`
pub async fn controls(
    _: EdgeToken,
    State(app): State<App>,
    path: ClientPath,
) -> Result<Json<ClientControls>, EdgeError> {
    let (name, client_id) = named(path)?;
    let slot = match app.database.tenant(&name).await? {
        Some(stored) => stored.slot,
        None => return Err(no_tenant("there is no such tenant")),
    };
    let _turn = app.permission_turn().await;
    let controlled = app.database.controlled_client(slot, &client_id).await?;
    app.metrics.controls_read(controlled.is_some());
    let unknown = || EdgeError::new(StatusCode::NOT_FOUND, "unknown_client", "the tenant has no such client");
    let controlled = controlled.ok_or_else(unknown)?;
    app.client_uses.note(slot, &controlled.permitted.client);
    Ok(Json(told(controlled)?))
}

/// What the edge is told of a client.
fn told(controlled: ControlledClient) -> Result<ClientControls, EdgeError> {
    let ControlledClient { permitted, client_secret_sha256, connections } = controlled;
    let PermittedClient { client, permissions, .. } = permitted;
    let StoredClient { client_id, is_dynamic, security_mode, data, .. } = client;
    let registered = Registered::read(&data.metadata)
        .ok_or_else(|| db::Error::Failed(format!("the client {client_id} cannot be read")))?;
    let texts = |texts: Vec<String>| texts.into_iter().map(String::into_boxed_str).collect();
    Ok(ClientControls {
        client: ClientRecord {
            client_id: client_id.into(),
            security_mode,
            self_registered: is_dynamic,
            redirect_uris: texts(registered.redirect_uris),
            grant_types: texts(registered.grant_types),
            token_endpoint_auth_method: registered.token_endpoint_auth_method.into(),
            client_secret_sha256: client_secret_sha256.map(|hash| hex::encode(hash).into()),
            redirection_policy: data.owner.redirection_policy,
        },
        permissions: Permissions {
            grants: permissions.into_iter().map(EffectiveGrant::from).collect(),
            connections: texts(connections),
        },
    })
}

/// Logs a registration that was not made, without anything that its client sent.
pub async fn log_refusal(path: ClientPath, request: Request, next: Next) -> Response {
    let request_id = request_id(request.headers());
    let response = next.run(request).await;
    if let Some(Reason { error, outcome }) = response.extensions().get() {
        let tenant = path.ok().and_then(|Path((tenant, _))| Name::try_from(tenant).ok());
        let tenant = tenant.as_ref().map(Name::as_str);
        tracing::info!(request_id, tenant, outcome, error, "a registration was not made");
    }
    response
}

/// A request's id, unless it could harm a log.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID_HEADER)?.to_str().ok().filter(|id| is_harmless_id(id.as_bytes()))?;
    Some(id.to_owned())
}

fn sha256_digest(text: &str) -> Result<[u8; 32], EdgeError> {
    let is_lower = !text.bytes().any(|b| b.is_ascii_uppercase());
    <[u8; 32]>::from_hex(text)
        .ok()
        .filter(|_| is_lower)
        .ok_or_else(|| EdgeError::bad_request("client_secret_sha256 must have 64 lower-case hexadecimal digits"))
}

/// What a reader of the change feed says.
#[derive(Deserialize)]
pub struct ChangesQuery {
    #[serde(default)]
    after: u64,
    instance: Option<String>,
    signals: Option<String>,
}

/// `GET /edge/v1/changes`
pub async fn changes(
    _: EdgeToken,
    State(app): State<App>,
    query: Result<Query<ChangesQuery>, QueryRejection>,
) -> Result<Json<Changes>, EdgeError> {
    let Query(query) = query.map_err(|_| EdgeError::bad_request("after must be the number of a change"))?;
    app.edge_signals.polled(query.signals.as_deref(), Instant::now());
    let changes = app.database.changes(query.after, query.instance.as_deref()).await?;
    // An edge names what it has in force, so this one has everything.
    if query.instance.as_ref() == Some(&changes.instance) && query.after == changes.head {
        app.in_force.store(true, Ordering::Relaxed);
    }
    Ok(Json(changes))
}

/// `POST /edge/v1/acl-counts`
pub async fn report(
    _: EdgeToken,
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, EdgeError> {
    let body = body?;
    let Report { counts } = serde_json::from_slice::<Report<&RawValue>>(&body)
        .map_err(|error| EdgeError::bad_request(format!("the body is not a report: {error}")))?;
    if counts.len() > MAX_COUNTS {
        return Err(EdgeError::bad_request(format!("a report has at most {MAX_COUNTS} entries")));
    }
    let (mut of_rules, mut refusals) = (Vec::new(), Vec::new());
    for count in counts {
        match serde_json::from_str(count.get()) {
            // A rule cannot match more requests than it looked at.
            Ok(Count::Acl(count)) if count.matched <= count.evaluated => of_rules.push(count),
            Ok(Count::Refusals(count)) => refusals.push(count),
            // An edge would send all of the report again and again, or lose it.
            Ok(Count::Acl(_)) | Err(_) => app.metrics.report_entry_dropped(),
        }
    }
    app.acl_counts.add(of_rules);
    app.refusals.add(refusals);
    Ok(StatusCode::NO_CONTENT)
}
