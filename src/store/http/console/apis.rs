//! APIs, and what third-party applications may do with each by default.

use std::collections::HashMap;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::Method;
use axum::response::Response;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::api::{Api, segment};
use super::failure::Failure;
use super::form::{Fields, Posted};
use super::missing::Missing;
use super::objects::{Named, all, one};
use super::page::{Page, Question, badge, hidden, see, table};
use super::session::Session;
use crate::management::{ClientGrant, ResourceServer, SubjectType, UserPolicy};
use crate::store::db::DocumentKind;
use crate::store::http::App;

const PART: &str = "/console/apis";

/// The default grants for users, by the identifier of their API.
async fn default_grants(app: &App, session: &Session) -> Result<HashMap<String, Named<ClientGrant>>, Failure> {
    if !session.allows("read:client_grants") {
        return Ok(HashMap::new());
    }
    let members = vec![("default_for", vec!["third_party_clients".to_owned()])];
    let grants: Vec<Named<ClientGrant>> = all(app, session, DocumentKind::ClientGrant, members).await?;
    let of_users = grants.into_iter().filter(|grant| grant.object.subject_type == SubjectType::User);
    Ok(of_users.map(|grant| (grant.object.audience.clone(), grant)).collect())
}

/// `GET /console/apis`
pub async fn list(session: Session, State(app): State<App>) -> Result<Response, Failure> {
    let content = content(&app, &session, &Fields::default()).await?;
    Ok(Page::new(&session, PART, "APIs").respond(content))
}

async fn content(app: &App, session: &Session, sent: &Fields) -> Result<Markup, Failure> {
    session.require("read:resource_servers")?;
    let apis: Vec<Named<ResourceServer>> = all(app, session, DocumentKind::ResourceServer, Vec::new()).await?;
    let grants = default_grants(app, session).await?;
    let missing = Missing::of(app, session).await?;
    Ok(html! {
        (missing.show_permissions())
        @if apis.is_empty() {
            p { "There is no API yet. Third-party applications get tokens for the APIs that you name here." }
        } @else {
            (table("APIs", &["Name", "Identifier", "Scopes", "Default permissions of third-party applications"], html! {
                @for Named { id, object: api } in &apis {
                    tr {
                        td { a href={ (PART) "/" (id) } { (name(api)) } }
                        td { code { (api.identifier) } }
                        td class="number" { (api.scopes.len()) }
                        td {
                            @match grants.get(&api.identifier) {
                                None => (badge("off", "none")),
                                Some(_) if api.subject_type_authorization.user.policy == UserPolicy::DenyAll => {
                                    (badge("bad", "refused by the API"))
                                }
                                Some(grant) if grant.object.allow_all_scopes => (badge("good", "all scopes")),
                                Some(grant) => { (badge("good", "granted")) " " (grant.object.scope.join(" ")) }
                            }
                        }
                    }
                }
            }))
        }
        @if session.allows("create:resource_servers") {
            details class="card" open[!sent.is_empty()] {
                summary { "Add an API" }
                form method="post" action=(PART) {
                    (hidden(session))
                    label for="identifier" { "Identifier" }
                    input id="identifier" name="identifier" required autocomplete="off" spellcheck="false"
                        aria-describedby="identifier-help" value=(sent.text("identifier"));
                    p id="identifier-help" class="help" {
                        "What applications name as " code { "audience" } " or " code { "resource" }
                        ", such as https://api.example.com/. It never changes."
                    }
                    label for="name" { "Name (optional)" }
                    input id="name" name="name" autocomplete="off" value=(sent.text("name"));
                    label for="scopes" { "Scopes, one a line; what follows a space describes it" }
                    textarea id="scopes" name="scopes" rows="4" spellcheck="false"
                        placeholder="read:orders Read orders" { (sent.text("scopes")) }
                    p {
                        label class="choice" {
                            input type="checkbox" name="offline" value="yes" checked[sent.is_set("offline")];
                            " Issue refresh tokens for it (allow_offline_access)"
                        }
                    }
                    p class="buttons" { button class="primary" { "Add" } }
                }
            }
        }
    })
}

fn name(api: &ResourceServer) -> &str {
    api.name.as_deref().unwrap_or(&api.identifier)
}

/// `POST /console/apis`
pub async fn create(
    State(app): State<App>,
    Extension(api): Extension<Api>,
    Posted { session, fields }: Posted,
) -> Result<Response, Failure> {
    let scopes: Vec<Value> = fields
        .lines("scopes")
        .map(|line| match line.split_once(char::is_whitespace) {
            Some((value, description)) => json!({"value": value, "description": description.trim()}),
            None => json!({"value": line}),
        })
        .collect();
    let mut body = json!({
        "identifier": fields.text("identifier"),
        "scopes": scopes,
        "allow_offline_access": fields.is_set("offline"),
    });
    if let (true, Value::Object(members)) = (fields.is_set("name"), &mut body) {
        members.insert("name".to_owned(), fields.text("name").into());
    }
    match api.call(&session, Method::POST, "/api/v2/resource-servers", Some(&body)).await {
        Ok(answer) => {
            let path = match answer.body.get("id").and_then(Value::as_str) {
                Some(id) => format!("{PART}/{id}"),
                None => PART.to_owned(),
            };
            Ok(see(&path, answer.notice("The API is added. Choose what third-party applications may do with it.")))
        }
        Err(failure) if failure.is_about_input() => {
            let content = content(&app, &session, &fields).await?;
            Ok(Page::new(&session, PART, "APIs").with_error(failure.status, failure.message).respond(content))
        }
        Err(failure) => Err(failure),
    }
}

/// `GET /console/apis/{id}`
pub async fn show(session: Session, State(app): State<App>, Path(id): Path<String>) -> Result<Response, Failure> {
    session.require("read:resource_servers")?;
    let Named { id, object: api } = one::<ResourceServer>(&app, &session, DocumentKind::ResourceServer, &id).await?;
    let grant = default_grants(&app, &session).await?.remove(&api.identifier).map(|grant| grant.object);
    let may_change = ["create:client_grants", "update:client_grants", "delete:client_grants", "read:client_grants"]
        .iter()
        .all(|scope| session.allows(scope));
    let is_granted = |scope: &str| grant.as_ref().is_some_and(|grant| grant.scope.iter().any(|other| other == scope));
    let grants_all = grant.as_ref().is_some_and(|grant| grant.allow_all_scopes);
    let content = html! {
        section class="card" {
            dl {
                dt { "Identifier" } dd { code { (api.identifier) } }
                dt { "Refresh tokens" } dd { @if api.allow_offline_access { "are issued" } @else { "are not issued" } }
                dt { "Scopes" }
                dd {
                    @if api.scopes.is_empty() { span class="muted" { "none" } }
                    ul class="plain" {
                        @for scope in &api.scopes {
                            li { code { (scope.value) } @if let Some(text) = &scope.description { " " (text) } }
                        }
                    }
                }
            }
        }
        section class="card" {
            div class="heading" {
                h2 { "Default permissions of third-party applications" }
                @if grant.is_some() { (badge("good", "granted")) } @else { (badge("off", "none")) }
            }
            p {
                "What every application that registers itself may ask of this API on behalf of its users, unless it has a "
                "client grant of its own. Without default permissions such applications cannot reach the API."
            }
            @if api.subject_type_authorization.user.policy == UserPolicy::DenyAll {
                div class="notice warning" {
                    p { "The API refuses all tokens on behalf of users (subject_type_authorization), whatever is granted." }
                }
            }
            form method="post" action={ (PART) "/" (id) "/default-permissions" } {
                (hidden(&session))
                fieldset disabled[!may_change] {
                    legend { "Scopes" }
                    label class="choice" {
                        input type="checkbox" name="all" value="yes" checked[grants_all];
                        " All scopes, also those that the API gets later"
                    }
                    @for scope in &api.scopes {
                        label class="choice" {
                            input type="checkbox" name="scope" value=(scope.value) checked[is_granted(&scope.value)];
                            " " code { (scope.value) }
                            @if let Some(text) = &scope.description { " " span class="muted" { (text) } }
                        }
                    }
                    @if api.scopes.is_empty() { p class="help" { "The API has no scopes: tokens for it have none." } }
                }
                @if may_change {
                    p class="buttons" {
                        button class="primary" name="do" value="save" {
                            @if grant.is_some() { "Save default permissions" } @else { "Grant default permissions" }
                        }
                        @if grant.is_some() { button name="do" value="remove" { "Remove default permissions" } }
                    }
                }
            }
        }
        @if session.allows("delete:resource_servers") {
            p class="buttons" { a class="button danger" href={ (PART) "/" (id) "/delete" } { "Delete this API…" } }
        }
    };
    Ok(Page::new(&session, PART, name(&api)).respond(content))
}

/// `POST /console/apis/{id}/default-permissions`
pub async fn change_default_permissions(
    State(app): State<App>,
    Extension(api): Extension<Api>,
    Path(id): Path<String>,
    Posted { session, fields }: Posted,
) -> Result<Response, Failure> {
    session.require("read:client_grants")?;
    let found = one::<ResourceServer>(&app, &session, DocumentKind::ResourceServer, &id).await?;
    let audience = found.object.identifier;
    let there = default_grants(&app, &session).await?.remove(&audience);
    let path = |grant: &Named<ClientGrant>| format!("/api/v2/client-grants/{}", grant.id);
    let scope: Vec<&str> = fields.all("scope").collect();
    let grants_all = fields.is_set("all");
    let (answer, done) = match (fields.text("do"), &there) {
        ("remove", None) => return Err(Failure::not_found("The API has no default permissions, or no longer.")),
        ("remove", Some(grant)) => {
            (api.call(&session, Method::DELETE, &path(grant), None).await?, "The default permissions are removed.")
        }
        (_, Some(grant)) => {
            let body = if grants_all { json!({"allow_all_scopes": true}) } else { json!({"scope": scope}) };
            (api.call(&session, Method::PATCH, &path(grant), Some(&body)).await?, "The default permissions are saved.")
        }
        (_, None) => {
            let mut body = json!({
                "default_for": "third_party_clients",
                "audience": audience,
                "subject_type": "user",
            });
            let (member, value) = if grants_all { ("allow_all_scopes", json!(true)) } else { ("scope", json!(scope)) };
            if let Value::Object(members) = &mut body {
                members.insert(member.to_owned(), value);
            }
            (
                api.call(&session, Method::POST, "/api/v2/client-grants", Some(&body)).await?,
                "Third-party applications have these default permissions now.",
            )
        }
    };
    Ok(see(&format!("{PART}/{}", found.id), answer.notice(done)))
}

/// `GET /console/apis/{id}/delete`
pub async fn confirm_delete(
    session: Session,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    session.require("read:resource_servers")?;
    session.require("delete:resource_servers")?;
    let Named { id, object: api } = one::<ResourceServer>(&app, &session, DocumentKind::ResourceServer, &id).await?;
    let path = format!("{PART}/{id}");
    let text = html! {
        p { "No application gets a token for " strong { (name(&api)) } " any more, and all client grants for it go with it." }
    };
    let question = Question { action: &format!("{path}/delete"), button: "Delete it", is_dangerous: true, back: &path };
    Ok(Page::new(&session, PART, "Delete this API?").respond(question.show(&session, text, html! {})))
}

/// `POST /console/apis/{id}/delete`
pub async fn delete(
    Extension(api): Extension<Api>,
    Path(id): Path<String>,
    Posted { session, .. }: Posted,
) -> Result<Response, Failure> {
    let path = format!("/api/v2/resource-servers/{}", segment(&id)?);
    let answer = api.call(&session, Method::DELETE, &path, None).await?;
    Ok(see(PART, answer.notice("The API is deleted.")))
}
