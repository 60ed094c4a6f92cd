//! Connections, and which of them third-party applications may log users in by.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::Method;
use axum::response::Response;
use maud::{Markup, html};
use serde_json::json;

use super::api::{Api, segment};
use super::failure::Failure;
use super::form::{Fields, Posted};
use super::missing::Missing;
use super::objects::{Named, all, one};
use super::page::{Page, Question, badge, hidden, see, table};
use super::session::Session;
use crate::management::Connection;
use crate::store::db::DocumentKind;
use crate::store::http::App;

const PART: &str = "/console/connections";

/// `GET /console/connections`
pub async fn list(session: Session, State(app): State<App>) -> Result<Response, Failure> {
    let content = content(&app, &session, &Fields::default()).await?;
    Ok(Page::new(&session, PART, "Connections").respond(content))
}

async fn content(app: &App, session: &Session, sent: &Fields) -> Result<Markup, Failure> {
    session.require("read:connections")?;
    let connections: Vec<Named<Connection>> = all(app, session, DocumentKind::Connection, Vec::new()).await?;
    let missing = Missing::of(app, session).await?;
    let (may_change, may_delete) = (session.allows("update:connections"), session.allows("delete:connections"));
    Ok(html! {
        (missing.show_connection())
        p {
            "Applications that registered themselves log users in by connections at domain level only, so that no "
            "connection that you made for one application is open to all."
        }
        @if connections.is_empty() {
            p { "There is no connection yet. Name here those that your authorization server has." }
        } @else {
            (table("Connections", &["Name", "Strategy", "Third-party applications", "Change"], html! {
                @for Named { id, object: connection } in &connections {
                    tr {
                        td {
                            (connection.display_name.as_deref().unwrap_or(&connection.name))
                            @if connection.display_name.is_some() { " " code { (connection.name) } }
                        }
                        td { (connection.strategy) }
                        td {
                            @if connection.is_domain_connection { (badge("good", "domain level")) }
                            @else { (badge("off", "not available")) }
                        }
                        td {
                            div class="buttons" {
                                @if may_change {
                                    form method="post" action={ (PART) "/" (id) "/domain-level" } {
                                        (hidden(session))
                                        @if connection.is_domain_connection {
                                            button name="promote" value="" {
                                                "Demote" span class="visually-hidden" { " " (connection.name) }
                                            }
                                        } @else {
                                            button name="promote" value="yes" class="primary" {
                                                "Promote to domain level"
                                                span class="visually-hidden" { " " (connection.name) }
                                            }
                                        }
                                    }
                                }
                                @if may_delete {
                                    a class="button" href={ (PART) "/" (id) "/delete" } {
                                        "Delete…" span class="visually-hidden" { " " (connection.name) }
                                    }
                                }
                            }
                        }
                    }
                }
            }))
        }
        @if session.allows("create:connections") {
            details class="card" open[!sent.is_empty()] {
                summary { "Add a connection" }
                form method="post" action=(PART) {
                    (hidden(session))
                    label for="name" { "Name" }
                    input id="name" name="name" required autocomplete="off" spellcheck="false"
                        aria-describedby="name-help" value=(sent.text("name"));
                    p id="name-help" class="help" {
                        "What the authorization server calls it in " code { "connection" } ". It never changes."
                    }
                    label for="strategy" { "Strategy" }
                    input id="strategy" name="strategy" required autocomplete="off" spellcheck="false"
                        aria-describedby="strategy-help" value=(sent.text("strategy"));
                    p id="strategy-help" class="help" { "Such as auth0 for a database, or google-oauth2." }
                    p {
                        label class="choice" {
                            input type="checkbox" name="promote" value="yes" checked[sent.is_set("promote")];
                            " Promote it to domain level: third-party applications may use it"
                        }
                    }
                    p class="buttons" { button class="primary" { "Add" } }
                }
            }
        }
    })
}

/// `POST /console/connections`
pub async fn create(
    State(app): State<App>,
    Extension(api): Extension<Api>,
    Posted { session, fields }: Posted,
) -> Result<Response, Failure> {
    let body = json!({
        "name": fields.text("name"),
        "strategy": fields.text("strategy"),
        "is_domain_connection": fields.is_set("promote"),
    });
    match api.call(&session, Method::POST, "/api/v2/connections", Some(&body)).await {
        Ok(answer) => Ok(see(PART, answer.notice("The connection is added."))),
        Err(failure) if failure.is_about_input() => {
            let content = content(&app, &session, &fields).await?;
            Ok(Page::new(&session, PART, "Connections").with_error(failure.status, failure.message).respond(content))
        }
        Err(failure) => Err(failure),
    }
}

/// `POST /console/connections/{id}/domain-level`
pub async fn change_level(
    Extension(api): Extension<Api>,
    Path(id): Path<String>,
    Posted { session, fields }: Posted,
) -> Result<Response, Failure> {
    let promote = fields.is_set("promote");
    let body = json!({"is_domain_connection": promote});
    let path = format!("/api/v2/connections/{}", segment(&id)?);
    let answer = api.call(&session, Method::PATCH, &path, Some(&body)).await?;
    let done = if promote {
        "The connection is at domain level: third-party applications may use it."
    } else {
        "The connection is not at domain level any more: third-party applications may not use it."
    };
    Ok(see(PART, answer.notice(done)))
}

/// `GET /console/connections/{id}/delete`
pub async fn confirm_delete(
    session: Session,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    session.require("read:connections")?;
    session.require("delete:connections")?;
    let Named { id, object } = one::<Connection>(&app, &session, DocumentKind::Connection, &id).await?;
    let text = html! {
        p { "Third-party applications cannot use " strong { (object.name) } " any more. The authorization server keeps it." }
    };
    let question =
        Question { action: &format!("{PART}/{id}/delete"), button: "Delete it", is_dangerous: true, back: PART };
    Ok(Page::new(&session, PART, "Delete this connection?").respond(question.show(&session, text, html! {})))
}

/// `POST /console/connections/{id}/delete`
pub async fn delete(
    Extension(api): Extension<Api>,
    Path(id): Path<String>,
    Posted { session, .. }: Posted,
) -> Result<Response, Failure> {
    let path = format!("/api/v2/connections/{}", segment(&id)?);
    let answer = api.call(&session, Method::DELETE, &path, None).await?;
    Ok(see(PART, answer.notice("The connection is deleted.")))
}
