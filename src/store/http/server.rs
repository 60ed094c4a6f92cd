//! What an authorization server asks of the store: a client, and whether a secret is the client's.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::App;
use super::edge::ClientPath;
use super::error::EdgeError;
use crate::edge_api::{AuthenticateClient, ClientInformation, Consent, EffectiveGrant, ThirdPartyPolicy};
use crate::store::db::{self, PermittedClient, StoredClient, permitted_client};
use crate::store::token::{self, Claims, Kind};
use crate::store::unix_now;
use crate::tenant::{Name, SecurityMode};

/// What the token of an authorization server says.
pub struct ServerToken(Claims);

impl FromRequestParts<App> for ServerToken {
    type Rejection = EdgeError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, EdgeError> {
        let missing = || invalid_token("send one token of the kind server in the authorization header");
        let token = super::bearer(&parts.headers).ok_or_else(missing)?;
        let claims = app.verifier.check(token, Kind::Server, unix_now()).await.map_err(|error| match error {
            token::Error::Database(error) => error.into(),
            error => invalid_token(&error.to_string()),
        })?;
        Ok(Self(claims))
    }
}

fn invalid_token(reason: &str) -> EdgeError {
    let description = format!("{reason}; make one with `dcr-store token --kind server --tenant NAME`");
    EdgeError::new(StatusCode::UNAUTHORIZED, "invalid_token", description)
}

/// `GET /edge/v1/tenants/{tenant}/clients/{client_id}`
pub async fn show(
    ServerToken(claims): ServerToken,
    State(app): State<App>,
    path: ClientPath,
) -> Result<Response, EdgeError> {
    let (slot, client_id) = opened(&app, &claims, path).await?;
    let _turn = app.permission_turn().await;
    let unknown = || EdgeError::new(StatusCode::NOT_FOUND, "unknown_client", "the tenant has no such client");
    let permitted = permitted_client(&*app.database, slot, &client_id).await?.ok_or_else(unknown)?;
    // Nobody logs in with a client without users.
    let connections =
        if permitted.abilities.has_users { app.database.domain_connections(slot).await? } else { Vec::new() };
    app.client_uses.note(slot, &permitted.client);
    Ok(Json(information(permitted, connections)?).into_response())
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
    let AuthenticateClient { client_secret } = AuthenticateClient::parse(&body?)
        .ok_or_else(|| EdgeError::bad_request("the body must be a JSON object with the text client_secret alone"))?;
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

/// The slot of the tenant that a path names, if the token opens it, and the id of the client.
async fn opened(app: &App, claims: &Claims, path: ClientPath) -> Result<(u32, String), EdgeError> {
    let Path((tenant, client_id)) = path.map_err(|_| EdgeError::bad_request("the path is not UTF-8"))?;
    let stored = match Name::try_from(tenant) {
        Ok(name) => app.database.tenant(&name).await?,
        Err(_) => None,
    };
    // Whether there is, or can be, a tenant of that name is none of another's business.
    let of_another = || invalid_token("the token is of another tenant, or of one that was deleted");
    let slot = stored.map(|stored| stored.slot).filter(|slot| claims.opens(*slot)).ok_or_else(of_another)?;
    Ok((slot, client_id))
}

fn information(permitted: PermittedClient, connections: Vec<String>) -> Result<ClientInformation, EdgeError> {
    let PermittedClient { client, permissions, .. } = permitted;
    let StoredClient { client_id, security_mode, issued_at, data, .. } = client;
    let metadata: Map<String, Value> = serde_json::from_str(&data.metadata)
        .map_err(|_| db::Error::Failed(format!("the client {client_id} cannot be read")))?;
    Ok(ClientInformation {
        client_id,
        client_id_issued_at: issued_at,
        metadata,
        third_party_security_mode: security_mode,
        client_metadata: data.owner.client_metadata,
        policy: ThirdPartyPolicy {
            require_pkce: security_mode == SecurityMode::Strict,
            grants: permissions.into_iter().map(EffectiveGrant::from).collect(),
            connections,
            consent: Consent::Always,
            refresh_token_rotation: true,
            loopback_any_port: true,
            redirection_policy: data.owner.redirection_policy,
        },
    })
}
