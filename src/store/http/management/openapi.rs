//! The OpenAPI 3.1 description of the Management API.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::operation::{Answer, Operation, Parameter, Schema};
use crate::store::http::error::ManagementErrorBody;

/// Name of the security scheme.
const SECURITY_SCHEME: &str = "management_token";

/// The description of these operations.
pub(super) fn document(operations: &[Operation]) -> Value {
    let mut schemas = BTreeMap::from([("Error".to_owned(), Schema::of_output::<ManagementErrorBody>().json)]);
    let mut paths: Map<String, Value> = Map::new();
    let tags: BTreeSet<_> = operations.iter().map(Operation::tag).collect();
    let tags: Vec<_> = tags.into_iter().map(|name| json!({"name": name})).collect();
    for operation in operations {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Value::Object(path) = path {
            path.insert(operation.method.as_str().to_ascii_lowercase(), described(operation, &mut schemas));
        }
    }
    let scopes: BTreeSet<_> = operations.iter().flat_map(|operation| &operation.scopes.0).collect();
    let scopes: Vec<_> = scopes.into_iter().map(String::as_str).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "dcr-edge Management API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "What a tenant's owner sees and changes. Unknown members of a body are refused, unknown \
                            parameters of a query are ignored. A gateway refuses what its access rules block before \
                            it gets here."
        },
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {SECURITY_SCHEME: {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": format!(
                    "A token whose audience is https://DOMAIN/api/v2/ of the tenant. Scopes: {}.", scopes.join(", ")
                )
            }}
        }
    })
}

fn described(operation: &Operation, schemas: &mut BTreeMap<String, Value>) -> Value {
    let Operation { summary, scopes, parameters, body, .. } = operation;
    // Any one of the scopes is enough.
    let security: Vec<_> = scopes.0.iter().map(|scope| json!({SECURITY_SCHEME: [scope]})).collect();
    let mut described = json!({
        "operationId": id(operation),
        "tags": [operation.tag()],
        "summary": summary,
        "security": security,
        "responses": responses(operation, schemas)
    });
    let Value::Object(members) = &mut described else { return described };
    let in_path = operation
        .has_id()
        .then(|| json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}));
    let in_query = parameters.iter().map(|Parameter(name, schema, description)| {
        let mut parameter = json!({"name": name, "in": "query", "schema": schema, "description": description});
        if let (Some("array"), Value::Object(members)) = (schema["type"].as_str(), &mut parameter) {
            members.insert("style".to_owned(), "form".into());
            members.insert("explode".to_owned(), true.into());
        }
        parameter
    });
    let parameters: Vec<_> = in_path.into_iter().chain(in_query).collect();
    if !parameters.is_empty() {
        members.insert("parameters".to_owned(), parameters.into());
    }
    if let Some((schema, example)) = body {
        let content = json!({"application/json": {"schema": reference(schema, schemas), "example": example}});
        members.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    described
}

/// In the way of the hosted API: `patch_clients_by_id`.
fn id(operation: &Operation) -> String {
    let path = operation.path.trim_start_matches("/api/v2/");
    let parts = path.split('/').map(|part| if part == "{id}" { "by_id".to_owned() } else { part.replace('-', "_") });
    let path = parts.collect::<Vec<_>>().join("_");
    format!("{}_{path}", operation.method.as_str().to_ascii_lowercase())
}

fn responses(operation: &Operation, schemas: &mut BTreeMap<String, Value>) -> Map<String, Value> {
    let mut responses = Map::new();
    responses.insert(operation.status.as_str().to_owned(), success(operation, schemas));
    for status in operation.errors() {
        let mut response = json!({
            "description": status.canonical_reason(),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        });
        let text = json!({"required": true, "schema": text()});
        let header = match status {
            StatusCode::UNAUTHORIZED => Some("www-authenticate"),
            StatusCode::SERVICE_UNAVAILABLE => Some("retry-after"),
            _ => None,
        };
        if let (Some(header), Value::Object(members)) = (header, &mut response) {
            members.insert("headers".to_owned(), json!({header: text}));
        }
        responses.insert(status.as_str().to_owned(), response);
    }
    responses
}

fn success(operation: &Operation, schemas: &mut BTreeMap<String, Value>) -> Value {
    let schema = match &operation.answer {
        Answer::Nothing => None,
        Answer::One(schema) => Some(reference(schema, schemas)),
        Answer::List { name, entry, has_checkpoints, has_length } => {
            Some(list(name, reference(entry, schemas), *has_checkpoints, *has_length))
        }
    };
    let mut response = json!({"description": operation.status.canonical_reason()});
    let Value::Object(members) = &mut response else { return response };
    if let Some(schema) = schema {
        members.insert("content".to_owned(), json!({"application/json": {"schema": schema}}));
    }
    let mut headers = Map::new();
    if operation.warns {
        let description = "What the owner should know (RFC 7234 §5.5); there may be several.";
        headers.insert("warning".to_owned(), json!({"schema": text(), "description": description}));
    }
    if operation.is_secret {
        let schema = json!({"type": "string", "const": "no-store"});
        let description = "Nobody may keep the answer: it has a secret.";
        let header = json!({"required": true, "schema": schema, "description": description});
        headers.insert("cache-control".to_owned(), header);
    }
    if !headers.is_empty() {
        members.insert("headers".to_owned(), headers.into());
    }
    response
}

fn list(name: &str, entry: Value, has_checkpoints: bool, has_length: bool) -> Value {
    let entries = json!({"type": "array", "items": entry});
    let number = json!({"type": "integer", "minimum": 0});
    let mut counts = vec!["start", "limit", "total"];
    counts.extend(has_length.then_some("length"));
    let mut properties: Map<String, Value> = counts.iter().map(|name| ((*name).to_owned(), number.clone())).collect();
    properties.insert(name.to_owned(), entries.clone());
    counts.push(name);
    let page = json!({
        "type": "object",
        "description": "With include_totals.",
        "required": counts,
        "properties": properties
    });
    let checkpoint = json!({
        "type": "object",
        "description": "With from or take; next is the from of the next part.",
        "required": [name],
        "properties": {"next": {"type": "string"}, name: entries}
    });
    let forms = [Some(entries), Some(page), has_checkpoints.then_some(checkpoint)];
    json!({"anyOf": forms.into_iter().flatten().collect::<Vec<_>>()})
}

/// Puts the schema among the components.
fn reference(schema: &Schema, schemas: &mut BTreeMap<String, Value>) -> Value {
    schemas.entry(schema.name.clone()).or_insert_with(|| schema.json.clone());
    json!({"$ref": format!("#/components/schemas/{}", schema.name)})
}

/// The parameters of lists in pages.
pub(super) fn paging() -> Vec<Parameter> {
    vec![
        Parameter("page", json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}), "Number of the page, from 0."),
        Parameter("per_page", entries(), "Entries on it."),
        Parameter("include_totals", json!({"type": "boolean"}), "Whether the answer says how many there are."),
    ]
}

/// The parameters of lists in parts.
pub(super) fn checkpoints() -> Vec<Parameter> {
    vec![
        Parameter("from", json!({"type": "string", "pattern": "^[0-9]{1,19}$"}), "Where an earlier part ended."),
        Parameter("take", entries(), "Entries of the part."),
    ]
}

/// The parameters that choose members.
pub(super) fn fields() -> Vec<Parameter> {
    vec![
        Parameter("fields", text(), "Names of members, separated by commas: the answer has these only."),
        Parameter("include_fields", json!({"type": "boolean"}), "Whether it has these; false: all others."),
    ]
}

/// The schema of any text.
pub(super) fn text() -> Value {
    json!({"type": "string"})
}

/// The schema of any number of texts, each a parameter of the same name.
pub(super) fn texts() -> Value {
    json!({"type": "array", "items": text()})
}

/// The schema of one of these words.
pub(super) fn one_of(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

fn entries() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": 100})
}

/// The same schema for answers to whoever chooses members.
pub(super) fn some_of(schema: Schema) -> Schema {
    let name = format!("SomeOf{}", schema.name);
    schema.named(name).partial()
}
