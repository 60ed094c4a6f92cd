//! Clients.

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

use super::access::Access;
use super::body::{checked, json_body, json_object};
use super::fields::Fields;
use super::id::Id;
use super::openapi;
use super::operation::{Answer, Operation, Parameter, Schema};
use super::paging::Paging;
use super::parameters::Parameters;
use super::warning::warn;
use crate::management::{Permission, RedirectionPolicy};
use crate::registration::{ClientSecret, client_id, client_secret};
use crate::store::client::{AppType, ClientPatch, ClientRequest, Registered};
use crate::store::clock::{rfc3339, unix_millis};
use crate::store::db::{self, MadeClient, StoredClient, permitted_client, update_client};
use crate::store::http::App;
use crate::store::http::error::ManagementError;
use crate::tenant::SecurityMode;

/// A client as the Management API shows it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Client")]
struct Shown {
    client_id: String,
    tenant: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logo_uri: Option<String>,
    callbacks: Vec<String>,
    grant_types: Vec<String>,
    token_endpoint_auth_method: String,
    app_type: AppType,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    client_metadata: BTreeMap<String, String>,
    is_first_party: bool,
    third_party_security_mode: SecurityMode,
    redirection_policy: RedirectionPolicy,
    #[serde(flatten)]
    origin: Option<Origin>,
    #[schemars(extend("format" = "date-time"))]
    created_at: String,
    #[schemars(extend("format" = "date-time"))]
    updated_at: String,
}

/// Where a client comes from that the tenant's owner did not make.
#[derive(Serialize, JsonSchema)]
struct Origin {
    external_metadata_type: &'static str,
    external_metadata_created_by: &'static str,
}

/// What registered itself.
const DYNAMIC: Origin = Origin { external_metadata_type: "dcr", external_metadata_created_by: "client" };

impl Shown {
    fn new(access: &Access, client: StoredClient) -> Result<Self, ManagementError> {
        let StoredClient { client_id, is_dynamic, security_mode, issued_at, updated_at, data, .. } = client;
        let registered = Registered::read(&data.metadata)
            .ok_or_else(|| db::Error::Failed(format!("the client {client_id} cannot be read")))?;
        Ok(Self {
            client_id,
            tenant: access.stored.tenant.name.to_string(),
            name: registered.client_name,
            description: data.owner.description,
            logo_uri: registered.logo_uri,
            callbacks: registered.redirect_uris,
            grant_types: registered.grant_types,
            token_endpoint_auth_method: registered.token_endpoint_auth_method,
            app_type: data.app_type,
            client_metadata: data.owner.client_metadata,
            is_first_party: false,
            third_party_security_mode: security_mode,
            redirection_policy: data.owner.redirection_policy,
            origin: is_dynamic.then_some(DYNAMIC),
            created_at: rfc3339(issued_at.saturating_mul(1_000)),
            updated_at: rfc3339(updated_at),
        })
    }
}

/// A client with what it may do.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ClientWithPermissions")]
struct WithPermissions {
    #[serde(flatten)]
    client: Shown,
    /// Absent unless they are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_permissions: Option<Vec<Permission>>,
    /// What else a permissive client registered, by the names of RFC 7591.
    #[serde(skip_serializing_if = "Map::is_empty")]
    registered_metadata: Map<String, Value>,
}

/// Registered members that [`Shown`] has under its own names.
const SHOWN: [&str; 5] = ["client_name", "logo_uri", "redirect_uris", "grant_types", "token_endpoint_auth_method"];

/// What nobody would see otherwise of a client that may register more than the controls of third parties let pass.
fn registered_metadata(client: &StoredClient) -> Result<Map<String, Value>, ManagementError> {
    if client.security_mode == SecurityMode::Strict {
        return Ok(Map::new());
    }
    let mut members: Map<String, Value> = serde_json::from_str(&client.data.metadata)
        .map_err(|_| db::Error::Failed(format!("the client {} cannot be read", client.client_id)))?;
    members.retain(|name, _| !SHOWN.contains(&name.as_str()));
    Ok(members)
}

/// The warning in an answer that shows a client without permissions.
const WITHOUT_PERMISSIONS: &str = "This client can reach no API until it has a client grant, or default permissions for \
                                   third-party applications are defined: a client grant with default_for.";

/// The same where the client has grants of its own, which win over the defaults.
const GRANTS_ALLOW_NOTHING: &str = "This client can reach no API: its own client grants allow nothing, and they win \
                                    over the default permissions. Check their scope and subject_type, the grant_types \
                                    of the client, and the scopes and subject_type_authorization of the APIs.";

/// The same where the client has no users, for whom alone the defaults are.
const WITHOUT_USERS: &str = "This client can reach no API until it has a client grant with the subject_type client.";

/// A client with its secret, which is shown this once.
#[derive(Serialize)]
struct WithSecret<'a> {
    #[serde(flatten)]
    client: Shown,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<&'a str>,
}

impl<'a> WithSecret<'a> {
    /// The answer, which nobody may keep.
    fn response(client: Shown, secret: Option<&'a ClientSecret>, status: StatusCode) -> Response {
        let client_secret = secret.map(ClientSecret::expose);
        let mut response = (status, Json(Self { client, client_secret })).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Which clients are listed.
pub struct Filter {
    app_types: Vec<AppType>,
}

impl Filter {
    fn parse(parameters: &[(String, String)]) -> Result<Self, ManagementError> {
        let mut app_types = AppType::ALL.to_vec();
        for (name, value) in parameters {
            match name.as_str() {
                // No client is a first party's or the tenant's global one.
                "is_first_party" | "is_global" => match value.as_str() {
                    "true" => app_types.clear(),
                    "false" => {}
                    _ => return Err(ManagementError::invalid_query(format!("{name}: expected true or false"))),
                },
                // Types that no client can have are types all the same.
                "app_type" => {
                    app_types.retain(|app_type| value.split(',').any(|name| name.trim() == app_type.as_str()));
                }
                _ => {}
            }
        }
        Ok(Self { app_types })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Filter {
    type Rejection = ManagementError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ManagementError> {
        Self::parse(&Parameters::of(parts)?.0)
    }
}

/// What can be done with clients.
pub(super) fn operations() -> [Operation; 6] {
    const ALL: &str = "/api/v2/clients";
    const ONE: &str = "/api/v2/clients/{id}";
    let shown = || Schema::of_output::<Shown>();
    let new_secret = || shown().named("ClientWithNewSecret").with("client_secret", openapi::text());
    let with_secret = || {
        let mut schema = shown().named("ClientWithSecret");
        if let Some(Value::Object(members)) = schema.json.get_mut("properties") {
            let secret = json!({"type": "string", "description": "Absent for a client that has none."});
            members.insert("client_secret".to_owned(), secret);
        }
        schema
    };
    let switch = || json!({"type": "boolean"});
    let filters = [
        Parameter("is_first_party", switch(), "true: none, since every client is a third party's."),
        Parameter("is_global", switch(), "true: none."),
        Parameter("app_type", openapi::text(), "Types, separated by commas."),
    ];
    let example = json!({"name": "App", "callbacks": ["https://app.example.com/cb"], "app_type": "regular_web"});
    [
        Operation::new(Method::GET, ALL, "Clients, in the order of their creation", list)
            // No answer to a look has a key in it, so either scope is enough.
            .scope("read:clients")
            .scope("read:client_keys")
            .query(openapi::paging())
            .query(openapi::fields())
            .query(filters)
            .answers(
                StatusCode::OK,
                Answer::List {
                    name: "clients",
                    entry: openapi::some_of(shown()),
                    has_checkpoints: false,
                    has_length: false,
                },
            ),
        Operation::new(Method::POST, ALL, "Makes a client; the only answer with its secret", create)
            .scope("create:clients")
            .body(Schema::of_input::<ClientRequest>(), example)
            .answers(StatusCode::CREATED, Answer::One(with_secret()))
            .secret(),
        Operation::new(Method::GET, ONE, "A client", show)
            .scope("read:clients")
            .scope("read:client_keys")
            .query(openapi::fields())
            .answers(StatusCode::OK, Answer::One(openapi::some_of(Schema::of_output::<WithPermissions>())))
            .warns(),
        Operation::new(Method::PATCH, ONE, "Changes members of a client", change)
            .scope("update:clients")
            .body(Schema::of_change::<ClientPatch>(), json!({"description": "What it is for"}))
            .answers(StatusCode::OK, Answer::One(shown())),
        Operation::new(Method::DELETE, ONE, "Deletes a client", delete)
            .scope("delete:clients")
            .answers(StatusCode::NO_CONTENT, Answer::Nothing),
        Operation::new(
            Method::POST,
            "/api/v2/clients/{id}/rotate-secret",
            "Gives a client that has a secret another; the only answer with it",
            rotate_secret,
        )
        .scope("update:client_keys")
        .error(StatusCode::BAD_REQUEST)
        .answers(StatusCode::OK, Answer::One(new_secret()))
        .secret(),
    ]
}

/// `GET /api/v2/clients`
pub async fn list(
    access: Access,
    paging: Paging,
    filter: Filter,
    fields: Fields,
    State(app): State<App>,
) -> Result<Response, ManagementError> {
    let (slot, start) = (access.stored.slot, paging.start());
    let page = app.database.clients(slot, &filter.app_types, start, paging.per_page).await?;
    let shown = |client| fields.of(&Shown::new(&access, client)?);
    let clients = page.clients.into_iter().map(shown).collect::<Result<Vec<_>, ManagementError>>()?;
    Ok(paging.answer("clients", paging.include_totals.then_some(page.total), clients))
}

/// `POST /api/v2/clients`
pub async fn create(access: Access, State(app): State<App>, request: Request) -> Result<Response, ManagementError> {
    let (_, body) = json_body(request).await?;
    let request: ClientRequest = json_object(&body)?;
    let secret = request.is_confidential().then(new_secret).transpose()?;
    let data = request.checked(&access.stored.tenant.settings.dcr_edge).map_err(ManagementError::invalid_body)?;
    // What the owner makes is a third party's with all controls, whatever the mode of registrations.
    let client_id = client_id(SecurityMode::Strict, &mut random).map_err(|_| no_randomness())?;
    let client = MadeClient { client_id, client_secret_sha256: secret.as_ref().map(sha256), data };
    let created = app.database.create_client(access.stored.slot, &client, unix_millis()).await?;
    let created = Shown::new(&access, created.ok_or_else(ManagementError::tenant_deleted)?)?;
    Ok(WithSecret::response(created, secret.as_ref(), StatusCode::CREATED))
}

/// `GET /api/v2/clients/{id}`
pub async fn show(access: Access, fields: Fields, State(app): State<App>, id: Id) -> Result<Response, ManagementError> {
    let (slot, id) = (access.stored.slot, id.or(unknown)?);
    if !fields.has("effective_permissions") {
        let found = app.database.client(slot, &id).await?.ok_or_else(unknown)?;
        let registered_metadata = registered_metadata(&found)?;
        let client = Shown::new(&access, found)?;
        let shown = WithPermissions { client, effective_permissions: None, registered_metadata };
        return Ok(Json(fields.of(&shown)?).into_response());
    }
    let _turn = app.permission_turn().await;
    let found = permitted_client(&*app.database, slot, &id).await?.ok_or_else(unknown)?;
    // What a permissive client may reach is up to the APIs, so there is nothing to warn of.
    let is_strict = found.client.security_mode == SecurityMode::Strict;
    let warning = match (found.has_own_grants, found.abilities.has_users) {
        (true, _) => GRANTS_ALLOW_NOTHING,
        (false, true) => WITHOUT_PERMISSIONS,
        (false, false) => WITHOUT_USERS,
    };
    let is_without = is_strict && found.permissions.is_empty();
    let registered_metadata = registered_metadata(&found.client)?;
    let effective_permissions = Some(found.permissions);
    let client = Shown::new(&access, found.client)?;
    let shown = WithPermissions { client, effective_permissions, registered_metadata };
    let mut response = Json(fields.of(&shown)?).into_response();
    if is_without {
        warn(&mut response, warning);
    }
    Ok(response)
}

/// `PATCH /api/v2/clients/{id}`
pub async fn change(
    access: Access,
    State(app): State<App>,
    id: Id,
    request: Request,
) -> Result<Response, ManagementError> {
    let (_, body) = json_body(request).await?;
    let patch: Map<String, Value> = json_object(&body)?;
    if let Some(member) = ClientPatch::fixed(&patch) {
        return Err(ManagementError::invalid_body(format!("{member}: cannot be changed")));
    }
    let patch: ClientPatch = checked(Value::Object(patch))?;
    let rules = &access.stored.tenant.settings.dcr_edge;
    let change = |client: &StoredClient| {
        let changed = patch.clone().applied(&client.data, client.is_dynamic, client.security_mode, rules);
        changed.map_err(ManagementError::invalid_body)
    };
    let id = id.or(unknown)?;
    let changed = update_client(&*app.database, access.stored.slot, &id, unix_millis(), change).await?;
    Ok(Json(Shown::new(&access, changed.ok_or_else(unknown)?)?).into_response())
}

/// `DELETE /api/v2/clients/{id}`
pub async fn delete(access: Access, State(app): State<App>, id: Id) -> Result<StatusCode, ManagementError> {
    if let Ok(id) = id.or(unknown) {
        app.database.delete_client(access.stored.slot, &id).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v2/clients/{id}/rotate-secret`
pub async fn rotate_secret(access: Access, State(app): State<App>, id: Id) -> Result<Response, ManagementError> {
    let (slot, id) = (access.stored.slot, id.or(unknown)?);
    let found = app.database.client(slot, &id).await?.ok_or_else(unknown)?;
    if !found.has_secret {
        return Err(ManagementError::invalid_body("token_endpoint_auth_method: a public client has no secret"));
    }
    let secret = new_secret()?;
    let changed = app.database.replace_client_secret(slot, &id, sha256(&secret), unix_millis()).await?;
    let changed = Shown::new(&access, changed.ok_or_else(unknown)?)?;
    Ok(WithSecret::response(changed, Some(&secret), StatusCode::OK))
}

fn unknown() -> ManagementError {
    ManagementError::new(StatusCode::NOT_FOUND, "inexistent_client", "The tenant has no such client")
}

fn random(buffer: &mut [u8]) -> Result<(), getrandom::Error> {
    getrandom::fill(buffer)
}

fn new_secret() -> Result<ClientSecret, ManagementError> {
    client_secret(&mut random).map_err(|_| no_randomness())
}

fn no_randomness() -> ManagementError {
    db::Error::no_randomness().into()
}

fn sha256(secret: &ClientSecret) -> [u8; 32] {
    Sha256::digest(secret.expose()).into()
}
