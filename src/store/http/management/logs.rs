//! The tenant's log.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::access::Access;
use super::fields::Fields;
use super::openapi;
use super::operation::{Answer, Operation, Parameter, Schema};
use super::paging::{Checkpoint, Page, Paging};
use super::parameters::Parameters;
use crate::store::clock::rfc3339;
use crate::store::db::{self, LogEvent, LogFilter, LogOrder, LogQuery};
use crate::store::http::App;
use crate::store::http::error::ManagementError;

/// What can be done with the log.
pub(super) fn operations() -> [Operation; 2] {
    let event = || {
        let text = openapi::text();
        let json = json!({
            "type": "object",
            "description": "An event. What else it has depends on its type.",
            "required": ["_id", "log_id", "date", "type"],
            "properties": {"_id": text, "log_id": text, "date": {"type": "string", "format": "date-time"},
                "type": text, "description": text, "details": {"type": "object"}}
        });
        Schema { name: "LogEvent".to_owned(), json }
    };
    let sort = json!({"type": "string", "enum": ["date:1", "date:-1"]});
    let search = "A search such as type:sapi AND description:\"Dynamic client registration\".";
    let list_of = Operation::new(Method::GET, "/api/v2/logs", "Events, the newest first", list)
        .scope("read:logs")
        .query(openapi::paging())
        .query(openapi::checkpoints())
        .query(openapi::fields())
        .query(["q", "search"].map(|name| Parameter(name, openapi::text(), search)))
        .query([Parameter("sort", sort, "Which come first: the oldest or the newest.")])
        .answers(
            StatusCode::OK,
            Answer::List { name: "logs", entry: openapi::some_of(event()), has_checkpoints: false, has_length: true },
        );
    let one = Operation::new(Method::GET, "/api/v2/logs/{id}", "An event", show)
        .scope("read:logs")
        .answers(StatusCode::OK, Answer::One(event()));
    [list_of, one]
}

/// `GET /api/v2/logs`
pub async fn list(
    access: Access,
    paging: Paging,
    fields: Fields,
    parameters: Parameters,
    State(app): State<App>,
) -> Result<Response, ManagementError> {
    let (slot, search, checkpoint) =
        (access.stored.slot, Search::parse(&parameters.0)?, Checkpoint::parse(&parameters)?);
    // The hosted API ignores a search where a checkpoint is given; here both hold.
    let (order, limit) = match checkpoint {
        Some(checkpoint) => (LogOrder::After(checkpoint.from), checkpoint.take),
        None if search.oldest_first => (LogOrder::OldestFirst(paging.start()), paging.per_page),
        None => (LogOrder::NewestFirst(paging.start()), paging.per_page),
    };
    let query = LogQuery { filter: search.filter, order, limit };
    let events = app.database.log_events(slot, &query).await?;
    let logs = events.iter().map(|event| Ok(Value::Object(fields.of(&shown(event)?)?)));
    let logs: Vec<Value> = logs.collect::<Result<_, ManagementError>>()?;
    if !paging.include_totals || checkpoint.is_some() {
        return Ok(Json(logs).into_response());
    }
    let total = app.database.log_total(slot, query.filter.as_ref()).await?;
    let length = logs.len();
    Ok(Json(LogPage { length, page: Page { paging, total, name: "logs", entries: logs } }).into_response())
}

/// A page of the log also says how many events it has.
#[derive(Serialize)]
struct LogPage {
    length: usize,
    #[serde(flatten)]
    page: Page<Value>,
}

/// `GET /api/v2/logs/{id}`
pub async fn show(
    access: Access,
    State(app): State<App>,
    id: Result<Path<u64>, PathRejection>,
) -> Result<Response, ManagementError> {
    let unknown = || ManagementError::new(StatusCode::NOT_FOUND, "log_not_found", "The tenant's log has no such event");
    let Path(id) = id.map_err(|_| unknown())?;
    let event = app.database.log_event(access.stored.slot, id).await?.ok_or_else(unknown)?;
    Ok(Json(shown(&event)?).into_response())
}

/// What a query says beside the part of the list.
struct Search {
    filter: Option<LogFilter>,
    oldest_first: bool,
}

impl Search {
    fn parse(parameters: &[(String, String)]) -> Result<Self, ManagementError> {
        let mut search = Self { filter: None, oldest_first: false };
        for (name, value) in parameters {
            let bad = |reason: &str| ManagementError::invalid_query(format!("{name}: {reason}"));
            match name.as_str() {
                "q" | "search" if !value.trim().is_empty() => {
                    let filter = LogFilter::parse(value).map_err(|reason| bad(&reason))?;
                    search.filter = Some(match search.filter.take() {
                        Some(other) => LogFilter::All(vec![other, filter]),
                        None => filter,
                    });
                }
                "sort" => match value.as_str() {
                    "date:1" => search.oldest_first = true,
                    "date:-1" | "" => search.oldest_first = false,
                    _ => return Err(bad("expected date:1 or date:-1")),
                },
                _ => {}
            }
        }
        Ok(search)
    }
}

fn shown(event: &LogEvent) -> Result<Map<String, Value>, db::Error> {
    let mut shown: Map<String, Value> = serde_json::from_str(&event.data)
        .map_err(|_| db::Error::Failed(format!("the event {} of a log cannot be read", event.id)))?;
    let id = event.id.to_string();
    for (name, value) in
        [("_id", id.clone()), ("log_id", id), ("date", rfc3339(event.date)), ("type", event.event_type.clone())]
    {
        shown.insert(name.to_owned(), value.into());
    }
    Ok(shown)
}
