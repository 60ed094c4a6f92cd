//! What every page has.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};

use super::document::whole;
use super::session::{CSRF, Notice, Session};
use crate::store::clock::rfc3339;

/// The parts of the console, in the order in which they are listed: path and name.
const PARTS: [(&str, &str); 7] = [
    ("/console/", "Overview"),
    ("/console/applications", "Applications"),
    ("/console/apis", "APIs"),
    ("/console/connections", "Connections"),
    ("/console/access-control", "Access control list"),
    ("/console/logs", "Logs"),
    ("/console/settings", "Settings"),
];

/// A page of somebody who is signed in.
pub struct Page<'s> {
    session: &'s Session,
    part: &'static str,
    title: String,
    status: StatusCode,
    error: Option<String>,
}

impl<'s> Page<'s> {
    /// One of this part, which is a path among [`PARTS`].
    pub fn new(session: &'s Session, part: &'static str, title: impl Into<String>) -> Self {
        Self { session, part, title: title.into(), status: StatusCode::OK, error: None }
    }

    /// The same, saying what is wrong with what was sent.
    pub fn with_error(self, status: StatusCode, error: String) -> Self {
        Self { status, error: Some(error), ..self }
    }

    /// The page with its heading and this content.
    pub fn respond(self, content: Markup) -> Response {
        let tenant = &self.session.tenant.tenant;
        let inside = html! {
            header class="top" {
                p class="brand" { a href="/console/" { "dcr-edge" } }
                p class="tenant" {
                    span class="visually-hidden" { "Tenant " }
                    strong { (tenant.name) }
                    @if let Some(domain) = tenant.domains.first() { span class="muted" { (domain) } }
                }
                form method="post" action="/console/sign-out" {
                    (hidden(self.session))
                    button class="quiet" { "Sign out" }
                }
            }
            nav aria-label="Console" {
                ul {
                    @for (path, name) in PARTS {
                        li { a href=(path) aria-current=[(path == self.part).then_some("page")] { (name) } }
                    }
                }
            }
            main id="main" tabindex="-1" {
                h1 { (self.title) }
                @if let Some(error) = &self.error {
                    div class="notice error" role="alert" tabindex="-1" data-focus { p { (error) } }
                }
                @if let Some(Notice { done, warnings }) = &self.session.notice {
                    div class="notice" role="status" { p { (done) } }
                    @for warning in warnings {
                        div class="notice warning" role="alert" { p { strong { "Note: " } (warning) } }
                    }
                }
                (content)
            }
        };
        let title = format!("{} · {}", self.title, tenant.name);
        let mut response = (self.status, Html(whole(&title, &inside).into_string())).into_response();
        if self.session.notice.is_some() {
            response.headers_mut().append(header::SET_COOKIE, HeaderValue::from_static(Notice::SAID));
        }
        response
    }
}

/// What every form of a session has in it.
pub fn hidden(session: &Session) -> Markup {
    html! { input type="hidden" name=(CSRF) value=(session.csrf()); }
}

/// The answer to something that was done: the page at `path`, which says so.
pub fn see(path: &str, notice: Notice) -> Response {
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, path)]).into_response();
    if let Some(cookie) = notice.cookie() {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// A question that is asked before something is done.
pub struct Question<'q> {
    /// Where the answer goes.
    pub action: &'q str,
    /// The button that does it.
    pub button: &'q str,
    /// Whether what it does takes something away, or opens something.
    pub is_dangerous: bool,
    /// Where to go instead.
    pub back: &'q str,
}

impl Question<'_> {
    /// The question, with what has to be known before it is answered and what else the form sends.
    pub fn show(&self, session: &Session, text: Markup, more: Markup) -> Markup {
        let class = if self.is_dangerous { "danger" } else { "primary" };
        html! {
            section class="card question" {
                (text)
                form method="post" action=(self.action) {
                    (hidden(session))
                    (more)
                    p class="buttons" {
                        button class=(class) { (self.button) }
                        a class="button" href=(self.back) { "Cancel" }
                    }
                }
            }
        }
    }
}

/// A moment in UNIX milliseconds, to the second, in UTC.
pub fn moment(millis: u64) -> Markup {
    let exact = rfc3339(millis);
    let shown = exact.get(..19).unwrap_or(&exact).replace('T', " ");
    html! { time datetime=(exact) { (shown) " UTC" } }
}

/// A small word that says in which state something is.
pub fn badge(class: &str, text: &str) -> Markup {
    html! { span class={ "badge " (class) } { (text) } }
}

/// A table that scrolls by itself where there is little room.
pub fn table(label: &str, head: &[&str], rows: Markup) -> Markup {
    html! {
        div class="scroll" role="region" aria-label=(label) tabindex="0" {
            table {
                thead { tr { @for name in head { th scope="col" { (name) } } } }
                tbody { (rows) }
            }
        }
    }
}

/// Links to the pages before and after this one, which is counted from 0.
pub fn pages(address: impl Fn(u64) -> String, page: u64, has_next: bool) -> Markup {
    html! {
        @if page > 0 || has_next {
            nav class="pages" aria-label="Pages" {
                @if page > 0 { a class="button" rel="prev" href=(address(page.saturating_sub(1))) { "Newer" } }
                span { "Page " (page.saturating_add(1)) }
                @if has_next { a class="button" rel="next" href=(address(page.saturating_add(1))) { "Older" } }
            }
        }
    }
}
