//! What an authorization server asks of the store: a client, and whether a secret is the client's.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::App;
use super::error::EdgeError;
use crate::edge_api::{ClientInformation, Consent, EffectiveGrant, ThirdPartyPolicy};
use crate::store::db::{self, StoredClient, permissions_of};
use crate::store::token::{self, Claims, Kind};
use crate::store::unix_now;
use crate::tenant::{Name, SecurityMode};

/// Tenant and client of a request's path.
type ClientPath = Result<Path<(String, String)>, PathRejection>;

/// What the token of an authorization server says.
pub struct ServerToken(Claims);

impl FromRequestParts<App> for ServerToken {
    type Rejection = EdgeError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, EdgeError> {
        let token = super::bearer(&parts.headers).ok_or_else(|| missing("server"))?;
        Ok(Self(app.verifier.check(token, Kind::Server, unix_now()).await?))
    }
}

/// What the token of whoever may read a client says: an authorization server, or an edge.
pub struct ReaderToken(Claims);

impl FromRequestParts<App> for ReaderToken {
    type Rejection = EdgeError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, EdgeError> {
        let token = super::bearer(&parts.headers).ok_or_else(|| missing("server or edge"))?;
        let now = unix_now();
        match app.verifier.check(token, Kind::Server, now).await {
            Err(token::Error::WrongKind) => Ok(Self(app.verifier.check(token, Kind::Edge, now).await?)),
            verdict => Ok(Self(verdict?)),
        }
    }
}

/// `GET /edge/v1/tenants/{tenant}/clients/{client_id}`
pub async fn show(
    ReaderToken(claims): ReaderToken,
    State(app): State<App>,
    path: ClientPath,
) -> Result<Json<ClientInformation>, EdgeError> {
    let (slot, client_id) = opened(&app, &claims, path).await?;
    let unknown = || EdgeError::new(StatusCode::NOT_FOUND, "not_found", "the tenant has no such client");
    let client = app.database.client(slot, &client_id).await?.ok_or_else(unknown)?;
    let information = information(&app, slot, &client).await?;
    if claims.kind == Kind::Server {
        app.client_uses.note(slot, &client);
    }
    Ok(Json(information))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    client_secret: String,
}

/// `POST /edge/v1/tenants/{tenant}/clients/{client_id}/authenticate`
pub async fn authenticate(
    ServerToken(claims): ServerToken,
    State(app): State<App>,
    path: ClientPath,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, EdgeError> {
    let (slot, client_id) = opened(&app, &claims, path).await?;
    // What is wrong with the body is not said: it may be the secret.
    let Credentials { client_secret } = serde_json::from_slice(&body?)
        .map_err(|_| EdgeError::bad_request("the body must be a JSON object with the text client_secret alone"))?;
    let sent: [u8; 32] = Sha256::digest(&client_secret).into();
    let stored = app.database.client_secret_sha256(slot, &client_id).await?;
    // Where there is no secret one is compared all the same, so that the time tells nothing either.
    let has_secret = Choice::from(u8::from(stored.is_some()));
    let is_authentic = bool::from(stored.unwrap_or_default().ct_eq(&sent) & has_secret);
    let client = app.database.client(slot, &client_id).await?.filter(|_| is_authentic).ok_or_else(|| {
        let message = "the tenant has no such client, or it has no secret, or another one";
        EdgeError::new(StatusCode::UNAUTHORIZED, "invalid_client", message)
    })?;
    app.client_uses.note(slot, &client);
    Ok(StatusCode::NO_CONTENT)
}

/// Marks an answer as one that nobody may keep.
pub async fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn missing(kinds: &str) -> EdgeError {
    let message = format!("send one token of the kind {kinds} in the authorization header");
    EdgeError::new(StatusCode::UNAUTHORIZED, "invalid_token", message)
}

/// The slot of the tenant that a path names, if the token opens it, and the id of the client.
async fn opened(app: &App, claims: &Claims, path: ClientPath) -> Result<(u32, String), EdgeError> {
    let Path((tenant, client_id)) = path.map_err(|_| EdgeError::bad_request("the path is not UTF-8"))?;
    let not_found = |message: String| EdgeError::new(StatusCode::NOT_FOUND, "not_found", message);
    let name = Name::try_from(tenant).map_err(|reason| not_found(format!("no such tenant: {reason}")))?;
    let slot = app.database.tenant(&name).await?.map(|stored| stored.slot);
    if claims.kind == Kind::Server && !slot.is_some_and(|slot| claims.opens(slot)) {
        // Whether there is a tenant of that name is none of another's business.
        let message = "the token is of another tenant, or of one that was deleted";
        return Err(EdgeError::new(StatusCode::UNAUTHORIZED, "invalid_token", message));
    }
    let slot = slot.ok_or_else(|| not_found(format!("there is no tenant {name}")))?;
    Ok((slot, client_id))
}

async fn information(app: &App, slot: u32, client: &StoredClient) -> Result<ClientInformation, EdgeError> {
    let StoredClient { client_id, security_mode, issued_at, data, .. } = client;
    let metadata: Map<String, Value> = serde_json::from_str(&data.metadata)
        .map_err(|_| db::Error::Failed(format!("the client {client_id} cannot be read")))?;
    let permissions = permissions_of(&*app.database, slot, client_id).await?;
    let grants = permissions.into_iter().map(EffectiveGrant::from).collect();
    let connections = app.database.domain_connections(slot).await?;
    Ok(ClientInformation {
        client_id: client_id.clone(),
        client_id_issued_at: *issued_at,
        metadata,
        third_party_security_mode: *security_mode,
        client_metadata: data.owner.client_metadata.clone(),
        policy: ThirdPartyPolicy {
            require_pkce: *security_mode == SecurityMode::Strict,
            grants,
            connections,
            consent: Consent::Always,
            refresh_token_rotation: true,
            loopback_any_port: true,
            redirection_policy: data.owner.redirection_policy,
        },
    })
}
