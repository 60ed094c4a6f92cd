//! Applications: those that registered themselves, and those that the tenant's owner made.

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::api::{Answer, Api, segment};
use super::failure::Failure;
use super::form::Posted;
use super::missing::Missing;
use super::page::{Page, Question, badge, moment, pages, see, table};
use super::session::{Notice, Session};
use crate::store::client::{AppType, Registered};
use crate::store::db::{Error, StoredClient};
use crate::store::http::App;
use crate::tenant::SecurityMode;

const PART: &str = "/console/applications";

/// Applications on a page.
const PER_PAGE: u64 = 25;

/// Most applications that a search shows.
const MOST_FOUND: u32 = 100;

/// What the address may say.
#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    search: String,
    #[serde(default)]
    page: u64,
}

/// `GET /console/applications`
pub async fn list(session: Session, State(app): State<App>, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    session.require("read:clients")?;
    let (slot, search) = (session.tenant.slot, asked.search.trim());
    let found = if search.is_empty() {
        newest(&app, slot, asked.page).await?
    } else {
        match app.database.find_clients(slot, search, MOST_FOUND).await {
            Ok(clients) => Found { note: note(clients.len()), clients, has_next: false },
            Err(Error::SearchTooLong) => Found {
                clients: app.database.client(slot, search).await?.into_iter().collect(),
                note: Some(
                    "There are too many applications to search their names; a whole client ID is found.".to_owned(),
                ),
                has_next: false,
            },
            Err(error) => return Err(error.into()),
        }
    };
    let content = html! {
        form method="get" role="search" class="search" {
            label for="search" { "Client ID, or a part of the name" }
            div class="row" {
                input id="search" name="search" type="search" value=(search) autocomplete="off" spellcheck="false";
                button { "Search" }
                @if !search.is_empty() { a class="button" href=(PART) { "All" } }
            }
        }
        @if let Some(note) = &found.note { p role="status" { (note) } }
        @if found.clients.is_empty() {
            @if !search.is_empty() { p role="status" { "No application is like that." } }
            @else if asked.page > 0 { p role="status" { "There are no more. " a href=(PART) { "To the newest" } } }
            @else { (none_yet(&session)) }
        } @else {
            (table("Applications", &["Name", "Client ID", "Kind", "Registered", "Last used"], rows(&found.clients)))
            @if search.is_empty() {
                (pages(|page| format!("{PART}?page={page}"), asked.page, found.has_next))
            }
        }
    };
    Ok(Page::new(&session, PART, "Applications").respond(content))
}

struct Found {
    clients: Vec<StoredClient>,
    note: Option<String>,
    has_next: bool,
}

fn note(found: usize) -> Option<String> {
    let is_cut = found >= usize::try_from(MOST_FOUND).unwrap_or(usize::MAX);
    is_cut.then(|| format!("These are the newest {MOST_FOUND}; say more of the name to see others."))
}

/// A page of all applications, the newest first: the database counts them from the oldest on.
async fn newest(app: &App, slot: u32, page: u64) -> Result<Found, Failure> {
    let total = app.database.clients(slot, &AppType::ALL, 0, 1).await?.total;
    let end = total.saturating_sub(page.saturating_mul(PER_PAGE));
    let start = end.saturating_sub(PER_PAGE);
    let limit = u32::try_from(end.saturating_sub(start)).unwrap_or_default();
    let mut clients =
        if limit == 0 { Vec::new() } else { app.database.clients(slot, &AppType::ALL, start, limit).await?.clients };
    clients.reverse();
    Ok(Found { clients, note: None, has_next: start > 0 })
}

fn rows(clients: &[StoredClient]) -> Markup {
    html! {
        @for client in clients {
            tr {
                td { a href={ (PART) "/" (client.client_id) } { (name(client)) } }
                td { code { (client.client_id) } }
                td {
                    (client.data.app_type.as_str())
                    @if client.security_mode == SecurityMode::Permissive { " " (badge("bad", "permissive")) }
                    @if !client.is_dynamic { " " (badge("off", "made by the owner")) }
                }
                td { (moment(client.issued_at.saturating_mul(1_000))) }
                td { (last_use(client)) }
            }
        }
    }
}

fn last_use(client: &StoredClient) -> Markup {
    html! {
        @match client.last_used_at {
            Some(seconds) => (moment(seconds.saturating_mul(1_000))),
            None => span class="muted" { "never" },
        }
    }
}

/// What an application is called. Anyone can choose the name of another, or none.
fn name(client: &StoredClient) -> String {
    let registered = Registered::read(&client.data.metadata).and_then(|registered| registered.client_name);
    registered.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| "(no name)".to_owned())
}

fn none_yet(session: &Session) -> Markup {
    let tenant = &session.tenant.tenant;
    let host = tenant.domains.first().map_or("HOST", |domain| domain.as_str());
    html! {
        section class="card" {
            h2 { "No application has registered yet" }
            @if !tenant.settings.registers_clients() {
                p { "Registration is off. " a href="/console/settings" { "Switch it on" } " first." }
            }
            p { "An application registers itself at your gateway, such as:" }
            pre tabindex="0" {
                "curl -i https://" (host) "/oidc/register \\\n"
                "  -H 'content-type: application/json' \\\n"
                "  -d '{\"client_name\": \"My Dynamic Application\",\n"
                "       \"redirect_uris\": [\"https://application.example.com/callback\"],\n"
                "       \"token_endpoint_auth_method\": \"none\"}'"
            }
            p class="muted" { "A gateway on another port than 443 has it in the address: " code { (host) ":PORT" } "." }
        }
    }
}

async fn find(app: &App, session: &Session, id: &str) -> Result<StoredClient, Failure> {
    session.require("read:clients")?;
    let unknown = || Failure::not_found("The tenant has no such application, or no longer.");
    app.database.client(session.tenant.slot, id).await?.ok_or_else(unknown)
}

/// `GET /console/applications/{id}`
pub async fn show(
    session: Session,
    State(app): State<App>,
    Extension(api): Extension<Api>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let client = find(&app, &session, &id).await?;
    let content = detail(&app, &session, &api, &client, html! {}).await?;
    Ok(Page::new(&session, PART, name(&client)).respond(content))
}

async fn detail(
    app: &App,
    session: &Session,
    api: &Api,
    client: &StoredClient,
    first: Markup,
) -> Result<Markup, Failure> {
    let id = segment(&client.client_id)?;
    let Answer { body, warnings } = api.call(session, Method::GET, &format!("/api/v2/clients/{id}"), None).await?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let texts = |name: &str| -> Vec<String> {
        let list = body.get(name).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|value| value.as_str().map(str::to_owned)).collect()
    };
    let permissions = body.get("effective_permissions").and_then(Value::as_array).cloned().unwrap_or_default();
    let missing = Missing::of(app, session).await?;
    let is_strict = client.security_mode == SecurityMode::Strict;
    let path = format!("{PART}/{id}");
    let logo = text("logo_uri");
    let more = body.get("registered_metadata").and_then(|members| serde_json::to_string_pretty(members).ok());
    Ok(html! {
        (first)
        @for warning in &warnings { div class="notice warning" { p { (warning) } } }
        @if is_strict { (missing.show_connection()) }
        section class="card" {
            dl {
                dt { "Client ID" } dd { code id="client-id" { (client.client_id) } }
                dt { "Application type" } dd { (client.data.app_type.as_str()) }
                dt { "Security mode" }
                dd { @if is_strict { (badge("good", "strict")) } @else { (badge("bad", "permissive")) } }
                dt { "Who made it" }
                dd { @if client.is_dynamic { "It registered itself." } @else { "The tenant's owner." } }
                dt { "Token endpoint authentication" } dd { (text("token_endpoint_auth_method")) }
                dt { "Grant types" } dd { (texts("grant_types").join(", ")) }
                dt { "Callbacks" }
                dd { ul class="plain" { @for uri in texts("callbacks") { li { code { (uri) } } } } }
                @if !logo.is_empty() {
                    // Not shown as a picture: it would tell whoever registered it who looks at it.
                    dt { "Logo" } dd { code { (logo) } }
                }
                @if !text("description").is_empty() { dt { "Description" } dd { (text("description")) } }
                dt { "Registered" } dd { (moment(client.issued_at.saturating_mul(1_000))) }
                dt { "Changed" } dd { (moment(client.updated_at)) }
                dt { "Last used" } dd { (last_use(client)) }
            }
        }
        section class="card" {
            h2 { "What it may do" }
            @if permissions.is_empty() {
                p { "It can reach no API." }
            } @else {
                (table("Permissions", &["API", "On behalf of", "Scopes", "By"], html! {
                    @for permission in &permissions { (shown_permission(permission)) }
                }))
            }
        }
        @if let Some(more) = more {
            section class="card" { h2 { "What else it registered" } pre tabindex="0" { (more) } }
        }
        section class="card" {
            h2 { "Change it" }
            p class="buttons" {
                @if client.has_secret && session.allows("update:client_keys") {
                    a class="button" href={ (path) "/rotate-secret" } { "Rotate secret…" }
                }
                @if session.allows("delete:clients") {
                    a class="button danger" href={ (path) "/delete" } { "Delete…" }
                }
            }
            @if !client.has_secret { p class="muted" { "It is a public client: it has no secret." } }
        }
    })
}

fn shown_permission(permission: &Value) -> Markup {
    let text = |name: &str| permission.get(name).and_then(Value::as_str).unwrap_or_default();
    let scopes: Vec<&str> =
        permission.get("scope").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    html! {
        tr {
            td { code { (text("audience")) } }
            td { (text("subject_type")) }
            td { @if scopes.is_empty() { span class="muted" { "none" } } @else { (scopes.join(" ")) } }
            td { (text("source").replace('_', " ")) }
        }
    }
}

/// `GET /console/applications/{id}/delete`
pub async fn confirm_delete(
    session: Session,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    session.require("delete:clients")?;
    let client = find(&app, &session, &id).await?;
    let path = format!("{PART}/{}", client.client_id);
    let text = html! {
        p { strong { (name(&client)) } " (" code { (client.client_id) } ") loses all access at once, and its grants go with it." }
        @if client.is_dynamic {
            p { "Whoever runs it can register it again, as another application, while registration is on." }
        }
    };
    let question = Question { action: &format!("{path}/delete"), button: "Delete it", is_dangerous: true, back: &path };
    Ok(Page::new(&session, PART, "Delete this application?").respond(question.show(&session, text, html! {})))
}

/// `POST /console/applications/{id}/delete`
pub async fn delete(
    Extension(api): Extension<Api>,
    Path(id): Path<String>,
    Posted { session, .. }: Posted,
) -> Result<Response, Failure> {
    let path = format!("/api/v2/clients/{}", segment(&id)?);
    let answer = api.call(&session, Method::DELETE, &path, None).await?;
    Ok(see(PART, answer.notice(format!("The application {id} is deleted."))))
}

/// `GET /console/applications/{id}/rotate-secret`
pub async fn confirm_rotate(
    session: Session,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    session.require("update:client_keys")?;
    let client = find(&app, &session, &id).await?;
    let path = format!("{PART}/{}", client.client_id);
    let text = html! {
        p {
            "The secret of " strong { (name(&client)) } " (" code { (client.client_id) } ") stops working at once. The new "
            "one is shown once, on the next page."
        }
    };
    let question =
        Question { action: &format!("{path}/rotate-secret"), button: "Rotate it", is_dangerous: true, back: &path };
    Ok(Page::new(&session, PART, "Rotate the secret?").respond(question.show(&session, text, html! {})))
}

/// `POST /console/applications/{id}/rotate-secret`: the answer itself has the secret, which is nowhere else afterwards.
pub async fn rotate(
    State(app): State<App>,
    Extension(api): Extension<Api>,
    Path(id): Path<String>,
    Posted { mut session, .. }: Posted,
) -> Result<Response, Failure> {
    // Before anything is done: whoever may not see the page that follows would not see the secret either.
    session.require("read:clients")?;
    let path = format!("/api/v2/clients/{}/rotate-secret", segment(&id)?);
    let answer = api.call(&session, Method::POST, &path, None).await?;
    let no_secret = || Failure::new(StatusCode::SERVICE_UNAVAILABLE, "The answer has no secret; rotate it again.");
    let secret = answer.body.get("client_secret").and_then(Value::as_str).ok_or_else(no_secret)?.to_owned();
    session.notice = Some(Notice { done: "The secret is another one now.".to_owned(), warnings: answer.warnings });
    let first = html! {
        section class="card" {
            h2 { "The new secret" }
            p { "It is shown this once. Give it to whoever runs the application, by a way that nobody else reads." }
            p class="secret" {
                code id="secret" { (secret) }
                button type="button" data-copy="secret" hidden { "Copy" }
            }
        }
    };
    let client = find(&app, &session, &id).await?;
    let content = detail(&app, &session, &api, &client, first).await?;
    Ok(Page::new(&session, PART, name(&client)).respond(content))
}
