//! APIs, connections and client grants: objects that are listed, created, shown, changed and deleted alike.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::access::Access;
use super::body::{json_body, json_object};
use super::fields::Fields;
use super::id::Id;
use super::openapi;
use super::operation::{Answer, Operation, Parameter, Schema};
use super::paging::{Checkpoint, Paging};
use super::parameters::Parameters;
use crate::management::{
    ClientGrant, ClientGrantPatch, Connection, ConnectionPatch, ResourceServer, ResourceServerPatch, is_system_api,
};
use crate::store::clock::unix_millis;
use crate::store::db::{self, Document, DocumentKind, DocumentPage, DocumentQuery, update_document};
use crate::store::http::App;
use crate::store::http::error::ManagementError;

/// What tells one kind of object from another.
pub trait Resource: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// Its kind in the database.
    const KIND: DocumentKind;
    /// Its name in scopes and the member of an answer under which a list of them stands.
    const PLURAL: &'static str;
    /// Query parameters that choose among them.
    const FILTERS: &'static [Filter];
    /// Whether lists come by `from` and `take`, too.
    const HAS_CHECKPOINTS: bool;
    /// The body of a PATCH.
    type Patch: DeserializeOwned + JsonSchema + Clone + Send + Sync + 'static;

    /// The object after a change. The error says what would be wrong with it.
    fn apply(self, patch: Self::Patch) -> Result<Self, String>;

    /// Whether anybody may have it. The error names the member and says why not.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// A body of a POST and one of a PATCH that may follow, as the API's description has them.
    fn examples() -> (Value, Value);

    /// Adds to what is shown what nobody wrote.
    fn complete(_: &mut Map<String, Value>) {}

    /// Adds the same to the schema.
    fn completed(schema: Schema) -> Schema {
        schema
    }
}

/// A parameter of a query that chooses objects by a member.
pub struct Filter {
    /// Its name.
    parameter: &'static str,
    /// The member's name.
    member: &'static str,
    /// The values that the member can have; empty: any text.
    choices: &'static [&'static str],
    /// Whether it may be there several times.
    is_repeated: bool,
}

impl Filter {
    /// By the member of its own name.
    const fn of(parameter: &'static str) -> Self {
        Self { parameter, member: parameter, choices: &[], is_repeated: false }
    }

    /// By a member that can have these values only.
    const fn one_of(parameter: &'static str, choices: &'static [&'static str]) -> Self {
        Self { choices, ..Self::of(parameter) }
    }

    /// By any of the values that it is sent with.
    const fn any_of(parameter: &'static str, member: &'static str) -> Self {
        Self { member, is_repeated: true, ..Self::of(parameter) }
    }

    /// Its description.
    fn described(&self) -> Parameter {
        let Self { parameter, choices, is_repeated, .. } = self;
        if *is_repeated {
            return Parameter(parameter, openapi::texts(), "Those that have one of these values.");
        }
        let schema = if choices.is_empty() { openapi::text() } else { openapi::one_of(choices) };
        Parameter(parameter, schema, "Those that have this value.")
    }

    /// Its values in a query.
    fn values(&self, Parameters(parameters): &Parameters) -> Result<Vec<String>, ManagementError> {
        let sent = parameters.iter().filter(|(name, _)| name == self.parameter);
        let values: Vec<String> = sent.map(|(_, value)| value.clone()).collect();
        if self.choices.is_empty() || values.iter().all(|value| self.choices.contains(&value.as_str())) {
            Ok(values)
        } else {
            let message = format!("{}: expected {}", self.parameter, self.choices.join(" or "));
            Err(ManagementError::invalid_query(message))
        }
    }
}

impl Resource for ResourceServer {
    const KIND: DocumentKind = DocumentKind::ResourceServer;
    const PLURAL: &'static str = "resource_servers";
    const FILTERS: &'static [Filter] = &[Filter::any_of("identifiers", "identifier")];
    const HAS_CHECKPOINTS: bool = false;
    type Patch = ResourceServerPatch;

    fn apply(self, patch: ResourceServerPatch) -> Result<Self, String> {
        Ok(patch.apply(self))
    }

    fn check(&self) -> Result<(), String> {
        no_system_api("identifier", &self.identifier)
    }

    fn complete(shown: &mut Map<String, Value>) {
        let identifier = shown.get("identifier").cloned().unwrap_or_default();
        shown.entry("name").or_insert(identifier);
        shown.insert("is_system".to_owned(), false.into());
    }

    fn completed(schema: Schema) -> Schema {
        schema.with("name", openapi::text()).with("is_system", json!({"type": "boolean"}))
    }

    fn examples() -> (Value, Value) {
        let scopes = json!([{"value": "read:orders", "description": "Read orders"}]);
        (
            json!({"identifier": "https://api.example.com/", "name": "Orders", "scopes": scopes}),
            json!({"allow_offline_access": true}),
        )
    }
}

impl Resource for Connection {
    const KIND: DocumentKind = DocumentKind::Connection;
    const PLURAL: &'static str = "connections";
    const FILTERS: &'static [Filter] = &[Filter::of("name"), Filter::any_of("strategy", "strategy")];
    const HAS_CHECKPOINTS: bool = true;
    type Patch = ConnectionPatch;

    fn apply(self, patch: ConnectionPatch) -> Result<Self, String> {
        Ok(patch.apply(self))
    }

    fn examples() -> (Value, Value) {
        (json!({"name": "users", "strategy": "auth0"}), json!({"is_domain_connection": true}))
    }
}

impl Resource for ClientGrant {
    const KIND: DocumentKind = DocumentKind::ClientGrant;
    const PLURAL: &'static str = "client_grants";
    const FILTERS: &'static [Filter] = &[
        Filter::of("audience"),
        Filter::of("client_id"),
        Filter::one_of("subject_type", &["client", "user"]),
        Filter::one_of("default_for", &["third_party_clients"]),
    ];
    const HAS_CHECKPOINTS: bool = true;
    type Patch = ClientGrantPatch;

    fn apply(self, patch: ClientGrantPatch) -> Result<Self, String> {
        patch.apply(self)
    }

    fn check(&self) -> Result<(), String> {
        no_system_api("audience", &self.audience)
    }

    fn examples() -> (Value, Value) {
        let grant = json!({
            "default_for": "third_party_clients",
            "audience": "https://api.example.com/",
            "subject_type": "user",
            "scope": ["read:orders"]
        });
        (grant, json!({"allow_all_scopes": true}))
    }
}

/// A Management API is nobody's to grant, whichever tenant's it is: a token for it opens that tenant.
fn no_system_api(member: &str, identifier: &str) -> Result<(), String> {
    if is_system_api(identifier) {
        Err(format!("{member}: a Management API is a system API, which is not granted"))
    } else {
        Ok(())
    }
}

/// What can be done with such objects: `all` is the path of their list, `one` that of one of them.
pub(super) fn operations<R: Resource>(all: &'static str, one: &'static str) -> [Operation; 5] {
    let shown = || R::completed(Schema::of_output::<R>().with("id", openapi::text()));
    let scope = |verb: &str| format!("{verb}:{}", R::PLURAL);
    let checkpoints = if R::HAS_CHECKPOINTS { openapi::checkpoints() } else { Vec::new() };
    let filters = R::FILTERS.iter().map(Filter::described);
    let entry = openapi::some_of(shown());
    let (created, changed) = R::examples();
    let request = Schema::of_input::<R>().named(format!("{}Request", R::schema_name()));
    [
        Operation::new(Method::GET, all, "A list, in the order of creation", list::<R>)
            .scope(scope("read"))
            .query(openapi::paging())
            .query(checkpoints)
            .query(openapi::fields())
            .query(filters)
            .answers(
                StatusCode::OK,
                Answer::List { name: R::PLURAL, entry, has_checkpoints: R::HAS_CHECKPOINTS, has_length: false },
            ),
        Operation::new(Method::POST, all, "Makes one", create::<R>)
            .scope(scope("create"))
            .body(request, created)
            .error(StatusCode::CONFLICT)
            .answers(StatusCode::CREATED, Answer::One(shown())),
        Operation::new(Method::GET, one, "Shows one", show::<R>)
            .scope(scope("read"))
            .query(openapi::fields())
            .answers(StatusCode::OK, Answer::One(openapi::some_of(shown()))),
        Operation::new(Method::PATCH, one, "Changes members of one", change::<R>)
            .scope(scope("update"))
            .body(Schema::of_change::<R::Patch>(), changed)
            .answers(StatusCode::OK, Answer::One(shown())),
        Operation::new(Method::DELETE, one, "Deletes one", delete::<R>)
            .scope(scope("delete"))
            .answers(StatusCode::NO_CONTENT, Answer::Nothing),
    ]
}

/// `GET /api/v2/{resource}`
async fn list<R: Resource>(
    access: Access,
    paging: Paging,
    fields: Fields,
    parameters: Parameters,
    State(app): State<App>,
) -> Result<Response, ManagementError> {
    let mut members = Vec::new();
    for filter in R::FILTERS {
        let values = filter.values(&parameters)?;
        if !values.is_empty() {
            members.push((filter.member, values));
        }
    }
    let checkpoint = if R::HAS_CHECKPOINTS { Checkpoint::parse(&parameters)? } else { None };
    let query = match checkpoint {
        // One more shows whether there are more.
        Some(Checkpoint { from, take }) => {
            DocumentQuery { members, after: from, limit: take.saturating_add(1), ..DocumentQuery::default() }
        }
        None => {
            let with_total = paging.include_totals;
            DocumentQuery { members, after: 0, offset: paging.start(), limit: paging.per_page, with_total }
        }
    };
    let DocumentPage { mut documents, total } = app.database.documents(access.stored.slot, R::KIND, &query).await?;
    let next = checkpoint.and_then(|Checkpoint { take, .. }| {
        let take = usize::try_from(take).unwrap_or(usize::MAX);
        let has_more = documents.len() > take;
        documents.truncate(take);
        documents.last().filter(|_| has_more).map(|last| last.number.to_string())
    });
    let listed = documents.iter().map(|document| shown::<R>(document).and_then(|shown| fields.of(&shown)));
    let listed: Vec<Map<String, Value>> = listed.collect::<Result<_, _>>()?;
    if checkpoint.is_none() {
        return Ok(paging.answer(R::PLURAL, total, listed));
    }
    let mut answer = Map::new();
    answer.insert(R::PLURAL.to_owned(), listed.into());
    if let Some(next) = next {
        answer.insert("next".to_owned(), next.into());
    }
    Ok(Json(answer).into_response())
}

/// `POST /api/v2/{resource}`
async fn create<R: Resource>(
    access: Access,
    State(app): State<App>,
    request: Request,
) -> Result<Response, ManagementError> {
    let (_, body) = json_body(request).await?;
    let new: R = json_object(&body)?;
    new.check().map_err(ManagementError::invalid_body)?;
    let id = R::KIND.new_id()?;
    let data = written(&new)?;
    let created = app.database.create_document(access.stored.slot, R::KIND, &id, &data, unix_millis()).await?;
    let created = created.ok_or_else(ManagementError::tenant_deleted)?;
    Ok((StatusCode::CREATED, Json(shown::<R>(&created)?)).into_response())
}

/// `GET /api/v2/{resource}/{id}`
async fn show<R: Resource>(
    access: Access,
    fields: Fields,
    State(app): State<App>,
    id: Id,
) -> Result<Response, ManagementError> {
    let found = app.database.document(access.stored.slot, R::KIND, &id.or(unknown::<R>)?).await?;
    Ok(Json(fields.of(&shown::<R>(&found.ok_or_else(unknown::<R>)?)?)?).into_response())
}

/// `PATCH /api/v2/{resource}/{id}`
async fn change<R: Resource>(
    access: Access,
    State(app): State<App>,
    id: Id,
    request: Request,
) -> Result<Response, ManagementError> {
    let (_, body) = json_body(request).await?;
    let patch: R::Patch = json_object(&body)?;
    let change = |before: &Document| {
        let changed = read::<R>(before)?.apply(patch.clone()).map_err(ManagementError::invalid_body)?;
        written(&changed)
    };
    let (slot, id) = (access.stored.slot, id.or(unknown::<R>)?);
    let changed = update_document(&*app.database, slot, R::KIND, &id, unix_millis(), change).await?;
    Ok(Json(shown::<R>(&changed.ok_or_else(unknown::<R>)?)?).into_response())
}

/// `DELETE /api/v2/{resource}/{id}`
async fn delete<R: Resource>(access: Access, State(app): State<App>, id: Id) -> Result<Response, ManagementError> {
    if let Ok(id) = id.or(unknown::<R>) {
        app.database.delete_document(access.stored.slot, R::KIND, &id).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn unknown<R: Resource>() -> ManagementError {
    let message = format!("The tenant has no such {}", R::KIND.noun());
    ManagementError::new(StatusCode::NOT_FOUND, "inexistent_resource", message)
}

fn written<R: Resource>(object: &R) -> Result<String, ManagementError> {
    Ok(serde_json::to_string(object)
        .map_err(|_| db::Error::Failed(format!("the {} cannot be written as JSON", R::KIND.noun())))?)
}

fn read<R: Resource>(document: &Document) -> Result<R, ManagementError> {
    Ok(serde_json::from_str(&document.data).map_err(|_| unreadable::<R>(document))?)
}

/// An object as it is shown.
fn shown<R: Resource>(document: &Document) -> Result<Map<String, Value>, ManagementError> {
    let mut shown: Map<String, Value> = serde_json::from_str(&document.data).map_err(|_| unreadable::<R>(document))?;
    shown.insert("id".to_owned(), document.id.clone().into());
    R::complete(&mut shown);
    Ok(shown)
}

fn unreadable<R: Resource>(document: &Document) -> db::Error {
    db::Error::Failed(format!("the {} {} cannot be read", R::KIND.noun(), document.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenants_management_api_is_a_system_api() {
        for (identifier, is_system) in [
            ("https://a.example/api/v2/", true),
            ("https://a.example/api/v2", true),
            ("https://A.Example/api/v2/", true),
            ("https://a.example/api/v2//", true),
            ("https://a.example/api/v2x", false),
            ("https://a.example/api/v3/", false),
            ("https://api.a.example/", false),
            ("urn:api", false),
        ] {
            assert_eq!(no_system_api("audience", identifier).is_err(), is_system, "{identifier}");
        }
    }
}
