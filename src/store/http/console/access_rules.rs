//! The access control list: its rules in the order of evaluation, and what each did lately.

use std::collections::HashMap;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::request::Parts;
use axum::http::{Method, Request};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Api, read, segment};
use super::failure::Failure;
use super::form::Posted;
use super::page::{Page, Question, badge, hidden, see};
use super::rule_form::{self, RuleForm};
use super::session::Session;
use crate::acl::rule::MAX_RULES;
use crate::acl::{Condition, Effect, Rule, Scope, Signals};
use crate::store::blocking;
use crate::store::clock::unix_millis;
use crate::store::db::{ACLS_SUMMARY, Error, LogField, LogFilter, LogOrder, LogQuery, StoredAcl};
use crate::store::http::App;
use crate::store::http::management::reorder_network_acls;

const PART: &str = "/console/access-control";

/// Milliseconds of the time for which counts are shown.
const COUNTED: u64 = 24 * 3_600_000;

/// Most events that counts are summed up from.
const MOST_SUMMARIES: u32 = 20_000;

/// Most values of a signal that a rule's line shows.
const SHOWN_VALUES: usize = 3;

/// A rule with what was read of it.
pub struct ReadRule {
    /// As it is in the database.
    pub stored: StoredAcl,
    /// What it does to whom.
    pub rule: Rule,
}

/// All rules of the tenant, in the order of evaluation.
pub async fn all(app: &App, session: &Session) -> Result<Vec<ReadRule>, Failure> {
    session.require("read:network_acls")?;
    let most = u32::try_from(MAX_RULES).unwrap_or(u32::MAX);
    let acls = app.database.network_acls(session.tenant.slot, 0, most).await?.acls;
    // They may be megabytes.
    let read = move || acls.into_iter().map(parse).collect::<Result<Vec<_>, Error>>();
    Ok(blocking::run(read).await??)
}

fn parse(stored: StoredAcl) -> Result<ReadRule, Error> {
    let rule = serde_json::from_str(stored.rule.get());
    let rule = rule.map_err(|_| Error::Failed(format!("the access rule {} cannot be read", stored.id)))?;
    Ok(ReadRule { stored, rule })
}

async fn one(app: &App, session: &Session, id: &str) -> Result<ReadRule, Failure> {
    session.require("read:network_acls")?;
    let unknown = || Failure::not_found("The tenant has no such access rule, or no longer.");
    let stored = app.database.network_acl(session.tenant.slot, id).await?.ok_or_else(unknown)?;
    Ok(blocking::run(move || parse(stored)).await??)
}

/// Requests of the last hours by rule: for how many it was evaluated, and how many it matched.
async fn counts(app: &App, session: &Session) -> Result<Option<HashMap<String, (u64, u64)>>, Failure> {
    if !session.allows("read:logs") {
        return Ok(None);
    }
    let slot = session.tenant.slot;
    // First what is not written yet: what is written in between is counted once at least.
    let mut counts = app.acl_counts.of_tenant(slot);
    let is_summary = LogFilter::Is { field: LogField::Type, value: ACLS_SUMMARY.to_owned(), prefix: false };
    let now = unix_millis();
    let filter = Some(LogFilter::All(vec![LogFilter::Between(now.saturating_sub(COUNTED), now), is_summary]));
    let query = LogQuery { filter, order: LogOrder::NewestFirst(0), limit: MOST_SUMMARIES };
    let events = match app.database.log_events(slot, &query).await {
        Ok(events) => events,
        Err(Error::SearchTooLong) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    for event in events {
        let Ok(data) = serde_json::from_str::<Value>(&event.data) else { continue };
        let number = |pointer| data.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        let Some(id) = data.get("acl_id").and_then(Value::as_str) else { continue };
        let (evaluated, matched) = counts.entry(id.to_owned()).or_default();
        *evaluated = evaluated.saturating_add(number("/total_request_count/successes"));
        *matched = matched.saturating_add(number("/match/success"));
    }
    Ok(Some(counts))
}

/// What the address may say.
#[derive(Deserialize)]
pub struct Asked {
    /// The rule that something was done with, which gets the focus.
    #[serde(default)]
    at: String,
}

/// `GET /console/access-control`
pub async fn list(
    session: Session,
    State(app): State<App>,
    Query(Asked { at }): Query<Asked>,
) -> Result<Response, Failure> {
    let rules = all(&app, &session).await?;
    let counts = counts(&app, &session).await?;
    let may_change = session.allows("update:network_acls");
    let last = rules.len().saturating_sub(1);
    let content = html! {
        p {
            "The first active rule that matches a request decides; a rule that only monitors counts and lets evaluation go "
            "on. Without a match the request passes."
        }
        p class="buttons" {
            @if session.allows("create:network_acls") {
                a class="button primary" href={ (PART) "/new" } { "Add a rule" }
            }
            a class="button" href={ (PART) "/try" } { "Which rule would match?" }
        }
        @if rules.is_empty() {
            p { "There are no rules: every request passes." }
        } @else {
            @if may_change && rules.len() > 1 {
                p class="help" id="order-help" {
                    "Drag a rule to another place, or use its buttons. With the focus on a button, Alt with an arrow key "
                    "moves the rule, too."
                }
            }
            form method="post" action={ (PART) "/order" } id="order" {
                (hidden(&session))
                // What a press of Enter does: nothing is moved.
                button class="visually-hidden" tabindex="-1" aria-hidden="true" name="move" value="" { "Keep the order" }
                ol class="rules" data-sortable[may_change] {
                    @for (place, ReadRule { stored, rule }) in rules.iter().enumerate() {
                        li id=(stored.id) class={ "rule" @if !stored.active { " idle" } @if stored.id == at { " at" } } draggable=[may_change.then_some("true")] {
                            input type="hidden" name="id" value=(stored.id);
                            div class="what" {
                                h2 { (stored.description) }
                                p {
                                    (action(rule)) " " (scope(rule.scope))
                                    @if !stored.active { " " (badge("off", "not active")) }
                                }
                                p class="condition" { (condition(&rule.condition)) }
                                p class="muted" {
                                    "Priority " (stored.priority)
                                    @if let Some(counts) = &counts {
                                        @let (evaluated, matched) = counts.get(&stored.id).copied().unwrap_or_default();
                                        " · 24 hours: " strong { (matched) } " of " (evaluated) " requests matched"
                                    }
                                }
                            }
                            div class="buttons" {
                                @if may_change {
                                    button name="move" value={ "up " (stored.id) } disabled[place == 0]
                                        autofocus[stored.id == at && place > 0] data-move="up" {
                                        "Up" span class="visually-hidden" { ": " (stored.description) }
                                    }
                                    button name="move" value={ "down " (stored.id) } disabled[place == last]
                                        autofocus[stored.id == at && place == 0] data-move="down" {
                                        "Down" span class="visually-hidden" { ": " (stored.description) }
                                    }
                                    button name="active" value=(if stored.active { "" } else { "yes" })
                                        formaction={ (PART) "/" (stored.id) "/active" } {
                                        @if stored.active { "Deactivate" } @else { "Activate" }
                                        span class="visually-hidden" { ": " (stored.description) }
                                    }
                                    a class="button" href={ (PART) "/" (stored.id) } {
                                        "Edit" span class="visually-hidden" { ": " (stored.description) }
                                    }
                                }
                                @if session.allows("delete:network_acls") {
                                    a class="button" href={ (PART) "/" (stored.id) "/delete" } {
                                        "Delete…" span class="visually-hidden" { ": " (stored.description) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(Page::new(&session, PART, "Access control list").respond(content))
}

/// What a rule does.
pub fn action(rule: &Rule) -> Markup {
    let does = match &rule.action.effect {
        Some(Effect::Allow) => badge("good", "allow"),
        Some(Effect::Block) => badge("bad", "block"),
        Some(Effect::Redirect(to)) => html! { (badge("open", "redirect")) " to " code { (to.as_str()) } },
        None => badge("off", "count"),
    };
    html! { (does) @if rule.action.log && rule.action.effect.is_some() { " " (badge("open", "monitoring only")) } }
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Tenant => "any request",
        Scope::Management => "requests to the Management API",
        Scope::Authentication => "all requests but those to the Management API",
        Scope::DynamicClientRegistration => "registrations",
    }
}

/// For whom a rule acts, in a line.
fn condition(condition: &Condition) -> Markup {
    let Condition::Signals { matches, not_matches } = condition else { return html! { "from anybody" } };
    html! {
        @if let Some(signals) = matches { "where " (values(signals)) }
        @if let Some(signals) = not_matches { @if matches.is_some() { ", and not where " } @else { "unless " } (values(signals)) }
    }
}

fn values(signals: &Signals) -> Markup {
    let Ok(Value::Object(members)) = serde_json::to_value(signals) else { return html! {} };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    html! {
        @for (place, (name, list)) in members.iter().enumerate() {
            @if place > 0 { " and " }
            @let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
            (rule_form::label(name)) " is "
            @for (place, value) in list.iter().take(SHOWN_VALUES).enumerate() {
                @if place > 0 { ", " } code { (text(value)) }
            }
            @if list.len() > SHOWN_VALUES { " or one of " (list.len().saturating_sub(SHOWN_VALUES)) " more" }
        }
    }
}

/// `POST /console/access-control/order`
pub async fn reorder(State(app): State<App>, Posted { session, fields }: Posted) -> Result<Response, Failure> {
    session.require("update:network_acls")?;
    let mut ids: Vec<String> = fields.all("id").map(str::to_owned).collect();
    let mut moved = "";
    if let Some((direction, id)) = fields.text("move").split_once(' ') {
        moved = id;
        let place = ids.iter().position(|other| other == id);
        let other = match direction {
            "up" => place.and_then(|place| place.checked_sub(1)),
            _ => place.and_then(|place| place.checked_add(1)).filter(|other| *other < ids.len()),
        };
        if let (Some(place), Some(other)) = (place, other) {
            ids.swap(place, other);
        }
    } else if fields.is_set("moved") {
        moved = fields.text("moved");
    }
    let (request, ()) = Request::new(()).into_parts();
    let request: Parts = request;
    let response = reorder_network_acls(&app, session.tenant.clone(), &ids, request).await?;
    let answer = read(response).await?;
    let path = if ids.iter().any(|id| id == moved) { format!("{PART}?at={moved}") } else { PART.to_owned() };
    Ok(see(&path, answer.notice("The rules are in the order that you see.")))
}

/// `GET /console/access-control/new`
pub async fn new(session: Session) -> Result<Response, Failure> {
    session.require("create:network_acls")?;
    let content = RuleForm::default().show(&session, &format!("{PART}/new"), "Add the rule");
    Ok(Page::new(&session, PART, "Add a rule").respond(content))
}

/// `POST /console/access-control/new`
pub async fn create(Extension(api): Extension<Api>, Posted { session, fields }: Posted) -> Result<Response, Failure> {
    let form = RuleForm::sent(&fields);
    match api.call(&session, Method::POST, "/api/v2/network-acls", Some(&form.body())).await {
        Ok(answer) => Ok(see(PART, answer.notice("The rule is added, as the last one."))),
        Err(failure) if failure.is_about_input() => {
            let content = form.show(&session, &format!("{PART}/new"), "Add the rule");
            Ok(Page::new(&session, PART, "Add a rule").with_error(failure.status, failure.message).respond(content))
        }
        Err(failure) => Err(failure),
    }
}

/// `GET /console/access-control/{id}`
pub async fn edit(session: Session, State(app): State<App>, Path(id): Path<String>) -> Result<Response, Failure> {
    session.require("update:network_acls")?;
    let ReadRule { stored, .. } = one(&app, &session, &id).await?;
    let content = RuleForm::of(&stored).show(&session, &format!("{PART}/{}", stored.id), "Save the rule");
    Ok(Page::new(&session, PART, "Edit a rule").respond(content))
}

/// `POST /console/access-control/{id}`
pub async fn change(
    Extension(api): Extension<Api>,
    Path(id): Path<String>,
    Posted { session, fields }: Posted,
) -> Result<Response, Failure> {
    let id = segment(&id)?;
    let form = RuleForm::sent(&fields);
    match api.call(&session, Method::PUT, &format!("/api/v2/network-acls/{id}"), Some(&form.body())).await {
        Ok(answer) => Ok(see(&format!("{PART}?at={id}"), answer.notice("The rule is saved."))),
        Err(failure) if failure.is_about_input() => {
            let content = form.show(&session, &format!("{PART}/{id}"), "Save the rule");
            Ok(Page::new(&session, PART, "Edit a rule").with_error(failure.status, failure.message).respond(content))
        }
        Err(failure) => Err(failure),
    }
}

/// `POST /console/access-control/{id}/active`
pub async fn change_active(
    Extension(api): Extension<Api>,
    Path(id): Path<String>,
    Posted { session, fields }: Posted,
) -> Result<Response, Failure> {
    let id = segment(&id)?;
    let active = fields.is_set("active");
    let body = json!({"active": active});
    let answer = api.call(&session, Method::PATCH, &format!("/api/v2/network-acls/{id}"), Some(&body)).await?;
    let done = if active { "The rule is active." } else { "The rule is not active any more." };
    Ok(see(&format!("{PART}?at={id}"), answer.notice(done)))
}

/// `GET /console/access-control/{id}/delete`
pub async fn confirm_delete(
    session: Session,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    session.require("delete:network_acls")?;
    let ReadRule { stored, rule } = one(&app, &session, &id).await?;
    let text = html! {
        p { strong { (stored.description) } ": " (action(&rule)) " " (scope(rule.scope)) " " (condition(&rule.condition)) }
    };
    let action = format!("{PART}/{}/delete", stored.id);
    let question = Question { action: &action, button: "Delete it", is_dangerous: true, back: PART };
    Ok(Page::new(&session, PART, "Delete this rule?").respond(question.show(&session, text, html! {})))
}

/// `POST /console/access-control/{id}/delete`
pub async fn delete(
    Extension(api): Extension<Api>,
    Path(id): Path<String>,
    Posted { session, .. }: Posted,
) -> Result<Response, Failure> {
    let path = format!("/api/v2/network-acls/{}", segment(&id)?);
    let answer = api.call(&session, Method::DELETE, &path, None).await?;
    Ok(see(PART, answer.notice("The rule is deleted.")))
}
