//! The operations of the Management API: each says once at which path it is, who may call it, what it takes and what it
//! answers. The routes and the OpenAPI description are both made of them.

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Router};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::store::http::App;

/// Who may call an operation: whoever has one of these scopes. Errors name the first.
#[derive(Clone)]
pub(super) struct Scopes(pub(super) Vec<String>);

/// A schema by its name.
pub(super) struct Schema {
    /// Its name among the description's components.
    pub(super) name: String,
    /// The JSON Schema (draft 2020-12), without references.
    pub(super) json: Value,
}

impl Schema {
    /// Of what the handlers read.
    pub(super) fn of_input<T: JsonSchema>() -> Self {
        Self::made::<T>(SchemaSettings::draft2020_12().for_deserialize())
    }

    /// Of a change that the handlers read: what is absent stays as it is, so there are no defaults.
    pub(super) fn of_change<T: JsonSchema>() -> Self {
        Self::of_input::<T>().into_change()
    }

    /// Of what the handlers write.
    pub(super) fn of_output<T: JsonSchema>() -> Self {
        let mut schema = Self::made::<T>(SchemaSettings::draft2020_12().for_serialize());
        without_optional_nulls(&mut schema.json);
        schema
    }

    fn made<T: JsonSchema>(settings: SchemaSettings) -> Self {
        let settings = settings.with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        });
        let mut json = settings.into_generator().into_root_schema_for::<T>().to_value();
        for_readers(&mut json);
        Self { name: T::schema_name().into_owned(), json }
    }

    /// The same under another name.
    pub(super) fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Without defaults.
    pub(super) fn into_change(mut self) -> Self {
        without_defaults(&mut self.json);
        self
    }

    /// One without members that have to be there.
    pub(super) fn partial(mut self) -> Self {
        self.without_required("");
        self
    }

    /// Says that the object at `pointer` (RFC 6901) need not have any member.
    pub(super) fn without_required(&mut self, pointer: &str) {
        if let Some(Value::Object(object)) = self.json.pointer_mut(pointer) {
            object.remove("required");
        }
    }

    /// Says that each member of the object at `pointer` may be `null`.
    pub(super) fn with_nulls(&mut self, pointer: &str) {
        if let Some(Value::Object(members)) = self.json.pointer_mut(&format!("{pointer}/properties")) {
            for schema in members.values_mut() {
                *schema = json!({"anyOf": [schema.take(), {"type": "null"}]});
            }
        }
    }

    /// Describes what is at `pointer` (RFC 6901).
    pub(super) fn describe(&mut self, pointer: &str, description: &str) {
        if let Some(Value::Object(members)) = self.json.pointer_mut(pointer) {
            members.insert("description".to_owned(), description.into());
        }
    }

    /// Adds a member that is always there.
    pub(super) fn with(mut self, member: &str, schema: Value) -> Self {
        if let Some(Value::Object(members)) = self.json.get_mut("properties") {
            members.insert(member.to_owned(), schema);
        }
        let Value::Object(object) = &mut self.json else { return self };
        if let Value::Array(required) = object.entry("required").or_insert_with(|| json!([]))
            && !required.iter().any(|name| name == member)
        {
            required.push(member.into());
        }
        self
    }
}

/// Takes away what the code's own readers need: line ends and links in descriptions, names of types, and the `null` that
/// an absent member of a change is in the code.
fn for_readers(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("title").is_some_and(Value::is_string) {
                members.remove("title");
            }
            if members.get("default").is_some_and(Value::is_null) {
                members.remove("default");
            }
            if let Some(Value::String(description)) = members.get_mut("description") {
                *description = description.replace('\n', " ").replace("[`", "`").replace("`]", "`");
            }
            // Nobody sends an empty list where a list has something in it.
            if members.contains_key("minItems") && members.get("default") == Some(&json!([])) {
                members.remove("default");
            }
            if members.get("format").is_some_and(|format| format == "uint32") {
                members.entry("maximum").or_insert_with(|| u32::MAX.into());
            }
            members.values_mut().for_each(for_readers);
        }
        Value::Array(entries) => entries.iter_mut().for_each(for_readers),
        _ => {}
    }
}

fn without_defaults(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            // A member of an object may have the name as well; then it is a schema.
            members.retain(|name, value| name != "default" || value.get("type").is_some());
            members.values_mut().for_each(without_defaults);
        }
        Value::Array(entries) => entries.iter_mut().for_each(without_defaults),
        _ => {}
    }
}

/// Takes `null` away from members that need not be there: what has no value is left out of an answer.
fn without_optional_nulls(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let required: Vec<Value> = members.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
            if let Some(Value::Object(properties)) = members.get_mut("properties") {
                let optional = properties.iter_mut().filter(|(name, _)| !required.iter().any(|r| r == name.as_str()));
                optional.for_each(|(_, property)| without_null(property));
            }
            members.values_mut().for_each(without_optional_nulls);
        }
        Value::Array(entries) => entries.iter_mut().for_each(without_optional_nulls),
        _ => {}
    }
}

fn without_null(schema: &mut Value) {
    let Value::Object(members) = schema else { return };
    if let Some(Value::Array(types)) = members.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            members.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(forms)) = members.get_mut("anyOf") {
        forms.retain(|form| *form != json!({"type": "null"}));
        if let [Value::Object(one)] = forms.as_slice() {
            let one = one.clone();
            members.remove("anyOf");
            for (name, value) in one {
                members.entry(name).or_insert(value);
            }
        }
    }
}

/// What an operation answers when it succeeds.
pub(super) enum Answer {
    /// No body.
    Nothing,
    /// An object.
    One(Schema),
    /// A list: an array, or an object with the array under the name.
    List {
        /// The name.
        name: &'static str,
        /// Its entries.
        entry: Schema,
        /// Whether an answer to `from` and `take` is an object as well, with `next`.
        has_checkpoints: bool,
        /// Whether an answer with totals has the number of its entries as well.
        has_length: bool,
    },
}

/// A parameter of a query: its name, its schema and what it is for.
pub(super) struct Parameter(pub(super) &'static str, pub(super) Value, pub(super) &'static str);

/// An operation.
pub(super) struct Operation {
    /// The method.
    pub(super) method: Method,
    /// The path, with `{id}` for an id.
    pub(super) path: &'static str,
    /// What it does.
    pub(super) summary: &'static str,
    /// Who may call it.
    pub(super) scopes: Scopes,
    /// What the query may have.
    pub(super) parameters: Vec<Parameter>,
    /// What the body has, and an example of it.
    pub(super) body: Option<(Schema, Value)>,
    /// The status of success.
    pub(super) status: StatusCode,
    /// What comes with it.
    pub(super) answer: Answer,
    /// Whether an answer may have a `warning` header.
    pub(super) warns: bool,
    /// Whether the answer has a secret, which nobody may keep.
    pub(super) is_secret: bool,
    /// Statuses of errors beside those that follow from the rest.
    errors: Vec<StatusCode>,
    handler: MethodRouter<App>,
}

impl Operation {
    /// An operation that answers 200, without a body as yet.
    pub(super) fn new<H, T>(method: Method, path: &'static str, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        Self {
            method,
            path,
            summary,
            scopes: Scopes(Vec::new()),
            parameters: Vec::new(),
            body: None,
            status: StatusCode::OK,
            answer: Answer::Nothing,
            warns: false,
            is_secret: false,
            errors: Vec::new(),
            handler: on(filter, handler),
        }
    }

    /// Lets whoever has the scope call it.
    pub(super) fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scopes.0.push(scope.into());
        self
    }

    /// Adds parameters of the query.
    pub(super) fn query(mut self, parameters: impl IntoIterator<Item = Parameter>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    /// Has it read a body.
    pub(super) fn body(self, schema: Schema, example: Value) -> Self {
        Self { body: Some((schema, example)), ..self }
    }

    /// Has it read bodies of so many bytes.
    pub(super) fn max_body(self, bytes: usize) -> Self {
        Self { handler: self.handler.route_layer(DefaultBodyLimit::max(bytes)), ..self }
    }

    /// Has it answer so.
    pub(super) fn answers(self, status: StatusCode, answer: Answer) -> Self {
        Self { status, answer, ..self }
    }

    /// Has its answers warn.
    pub(super) fn warns(self) -> Self {
        Self { warns: true, ..self }
    }

    /// Has its answer show a secret.
    pub(super) fn secret(self) -> Self {
        Self { is_secret: true, ..self }
    }

    /// Adds a status of an error that does not follow from the rest.
    pub(super) fn error(mut self, status: StatusCode) -> Self {
        self.errors.push(status);
        self
    }

    /// What it is about: the first part of its path.
    pub(super) fn tag(&self) -> &'static str {
        self.path.trim_start_matches("/api/v2/").split('/').next().unwrap_or_default()
    }

    /// Whether its path has an id.
    pub(super) fn has_id(&self) -> bool {
        self.path.contains("{id}")
    }

    /// The schemas that it has.
    #[cfg(test)]
    pub(super) fn schemas(&self) -> impl Iterator<Item = &Schema> {
        let answered = match &self.answer {
            Answer::Nothing => None,
            Answer::One(schema) | Answer::List { entry: schema, .. } => Some(schema),
        };
        self.body.iter().map(|(schema, _)| schema).chain(answered)
    }

    /// Every status of an error that it answers with.
    pub(super) fn errors(&self) -> Vec<StatusCode> {
        let mut errors = vec![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::SERVICE_UNAVAILABLE];
        if !self.parameters.is_empty() {
            errors.push(StatusCode::BAD_REQUEST);
        }
        if self.body.is_some() {
            // A tenant may be deleted meanwhile.
            errors.extend([StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND]);
            errors.extend([StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNSUPPORTED_MEDIA_TYPE]);
        }
        // What is gone already is deleted all the same.
        if self.has_id() && self.method != Method::DELETE {
            errors.push(StatusCode::NOT_FOUND);
        }
        errors.extend(&self.errors);
        errors.sort_unstable();
        errors.dedup();
        errors
    }

    /// Adds it to the routes.
    pub(super) fn add_to(self, router: Router<App>) -> Router<App> {
        router.route(self.path, self.handler.route_layer(Extension(self.scopes)))
    }
}
