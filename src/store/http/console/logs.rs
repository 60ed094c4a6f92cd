//! The tenant's log.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::failure::Failure;
use super::page::{self, Page, badge, moment, pages};
use super::session::Session;
use crate::store::db::{
    ACLS_SUMMARY, Error, LogEvent, LogField, LogFilter, LogOrder, LogQuery, REFUSED, REGISTERED, TOO_MANY,
};
use crate::store::http::App;

const PART: &str = "/console/logs";

/// Events on a page.
const PER_PAGE: u32 = 50;

/// Types of events, and what they are.
const TYPES: [(&str, &str); 4] =
    [(REGISTERED, "Success"), (REFUSED, "Failure"), (TOO_MANY, "Rate limit"), (ACLS_SUMMARY, "Access control summary")];

/// What the address may say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    r#type: String,
    search: String,
    from: String,
    to: String,
    page: u64,
}

impl Asked {
    /// What has to hold of an event. The search is in the Management API's query language, or words that are in it.
    fn filter(&self) -> Result<Option<LogFilter>, String> {
        let mut filters = Vec::new();
        if !self.r#type.is_empty() {
            filters.push(LogFilter::Is { field: LogField::Type, value: self.r#type.clone(), prefix: false });
        }
        let search = self.search.trim();
        if !search.is_empty() {
            filters.push(LogFilter::parse(search).map_err(|reason| format!("Search: {reason}"))?);
        }
        if !self.from.is_empty() || !self.to.is_empty() {
            let end = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
            let range = format!("date:[{} TO {}]", end(&self.from, "1970-01-01"), end(&self.to, "9999-12-31"));
            filters.push(LogFilter::parse(&range).map_err(|reason| format!("Time: {reason}"))?);
        }
        Ok((!filters.is_empty()).then_some(LogFilter::All(filters)))
    }

    fn address(&self, page: u64) -> String {
        let mut address = form_urlencoded::Serializer::new(format!("{PART}?"));
        for (name, value) in [("type", &self.r#type), ("search", &self.search), ("from", &self.from), ("to", &self.to)]
        {
            if !value.is_empty() {
                address.append_pair(name, value);
            }
        }
        address.append_pair("page", &page.to_string()).finish()
    }
}

/// `GET /console/logs`
pub async fn list(session: Session, State(app): State<App>, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    session.require("read:logs")?;
    let page = Page::new(&session, PART, "Logs");
    let filter = match asked.filter() {
        Ok(filter) => filter,
        Err(reason) => return Ok(page.with_error(StatusCode::BAD_REQUEST, reason).respond(form(&asked))),
    };
    let offset = asked.page.saturating_mul(PER_PAGE.into());
    // One more tells whether there is a next page.
    let query = LogQuery { filter, order: LogOrder::NewestFirst(offset), limit: PER_PAGE.saturating_add(1) };
    let mut events = match app.database.log_events(session.tenant.slot, &query).await {
        Ok(events) => events,
        Err(Error::SearchTooLong) => {
            let text = "The search takes too long: ask for a shorter time.".to_owned();
            return Ok(page.with_error(StatusCode::BAD_REQUEST, text).respond(form(&asked)));
        }
        Err(error) => return Err(error.into()),
    };
    let shown = usize::try_from(PER_PAGE).unwrap_or(usize::MAX);
    let has_next = events.len() > shown;
    events.truncate(shown);
    let content = html! {
        (form(&asked))
        @if events.is_empty() {
            p role="status" { "There is no such event." }
        } @else {
            (table(&events))
            (pages(|page| asked.address(page), asked.page, has_next))
        }
    };
    Ok(page.respond(content))
}

fn form(asked: &Asked) -> Markup {
    html! {
        form method="get" role="search" class="search" aria-label="Events" {
            div class="row" {
                div {
                    label for="type" { "Type" }
                    select id="type" name="type" {
                        option value="" { "All" }
                        @for (word, name) in TYPES { option value=(word) selected[word == asked.r#type] { (name) } }
                    }
                }
                div class="wide" {
                    label for="search" { "Search" }
                    input id="search" name="search" type="search" value=(asked.search) autocomplete="off"
                        spellcheck="false" placeholder="client_name:my* AND NOT ip:203.0.113.7";
                }
                div {
                    label for="from" { "From (UTC)" }
                    input id="from" name="from" type="date" value=(asked.from);
                }
                div {
                    label for="to" { "To (UTC)" }
                    input id="to" name="to" type="date" value=(asked.to);
                }
                div class="end" { button { "Show" } }
            }
        }
    }
}

/// Events in a table.
pub fn table(events: &[LogEvent]) -> Markup {
    page::table(
        "Events",
        &["When", "Type", "What", "Details"],
        html! {
            @for event in events { (row(event)) }
        },
    )
}

fn row(event: &LogEvent) -> Markup {
    let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
    let text = |name: &str| data.get(name).and_then(Value::as_str);
    let name =
        TYPES.iter().find(|(word, _)| *word == event.event_type).map_or(event.event_type.as_str(), |(_, name)| name);
    let class = match event.event_type.as_str() {
        REGISTERED => "good",
        REFUSED => "bad",
        TOO_MANY => "open",
        _ => "off",
    };
    let whole = serde_json::to_string_pretty(&data).unwrap_or_default();
    html! {
        tr {
            td { (moment(event.date)) }
            td { (badge(class, name)) }
            td {
                (text("description").unwrap_or("Event"))
                @if let Some(client_name) = text("client_name") { ": " strong { (client_name) } }
                @if let Some(client_id) = text("client_id") {
                    " " a href={ "/console/applications?search=" (client_id) } { code { (client_id) } }
                }
                @if let Some(address) = text("ip") { " from " code { (address) } }
                @if let Some(reasons) = data.pointer("/details/reasons").and_then(Value::as_object) {
                    " (" @for (place, (reason, count)) in reasons.iter().enumerate() {
                        @if place > 0 { ", " } (reason.replace('_', " ")) ": " (count)
                    } ")"
                }
                @if let Some(matched) = data.pointer("/match/success").and_then(Value::as_u64) {
                    ": matched " (matched) " of "
                    (data.pointer("/total_request_count/successes").and_then(Value::as_u64).unwrap_or_default())
                    " requests"
                }
                @if let Some(warning) = data.pointer("/details/warning").and_then(Value::as_str) {
                    " " (badge("open", "note")) " " (warning)
                }
            }
            td {
                details { summary { "Show" span class="visually-hidden" { " event " (event.id) } } pre tabindex="0" { (whole) } }
            }
        }
    }
}
