//! Settings → Advanced: whether anyone may register, under which mode, and how many.

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::Method;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::Api;
use super::failure::Failure;
use super::form::{Fields, Posted};
use super::missing::Missing;
use super::page::{Page, Question, badge, hidden, see};
use super::session::Session;
use crate::store::http::App;
use crate::tenant::{DcrEdge, SecurityMode};

const PART: &str = "/console/settings";
const API: &str = "/api/v2/tenants/settings";
const SCOPE: &str = "update:tenant_settings";

/// What the documentation of the hosted product warns of where it says how to enable registration.
const OPEN: &str = "If enabled, anyone will be able to create applications in your tenant without a token.";

/// `GET /console/settings`
pub async fn show(session: Session, State(app): State<App>) -> Result<Response, Failure> {
    session.require("read:tenant_settings")?;
    Ok(Page::new(&session, PART, "Settings").respond(content(&app, &session, &DcrEdgeForm::of(&session)).await?))
}

async fn content(app: &App, session: &Session, limits: &DcrEdgeForm) -> Result<Markup, Failure> {
    let settings = &session.tenant.tenant.settings;
    let is_on = settings.flags.enable_dynamic_client_registration;
    let mode = settings.dynamic_client_registration_security_mode;
    let is_eligible = session.tenant.tenant.permissive_eligible;
    let missing = Missing::of(app, session).await?;
    let may_change = session.allows(SCOPE);
    Ok(html! {
        h2 { "Advanced" }
        @if !may_change { p class="muted" { "Your token lacks the scope " (SCOPE) ", so nothing can be changed here." } }
        section class="card" {
            div class="heading" {
                h3 { "Dynamic Client Registration (DCR)" }
                @if is_on { (badge("good", "on")) } @else { (badge("off", "off")) }
            }
            p {
                "Third-party applications register themselves at " code { "/oidc/register" } " of your gateway "
                "(RFC 7591), without a token."
            }
            @if is_on { (missing.show_connection()) (missing.show_permissions()) }
            p class="buttons" {
                @if may_change {
                    @if is_on {
                        a class="button" href="/console/settings/registration?enable=false" { "Disable…" }
                    } @else {
                        a class="button primary" href="/console/settings/registration?enable=true" { "Enable…" }
                    }
                }
            }
        }
        section class="card" {
            div class="heading" {
                h3 { "Security mode" }
                @match mode {
                    SecurityMode::Strict => (badge("good", "strict")),
                    SecurityMode::Permissive => (badge("bad", "permissive")),
                }
            }
            p {
                "In the strict mode applications that register get a " code { "tpc_" } " client ID, have to use PKCE, may "
                "use the grants authorization_code and refresh_token only, reach only APIs that are granted to them, and "
                "log users in only by domain-level connections. An application keeps the mode that it registered under."
            }
            @if mode == SecurityMode::Permissive {
                @if may_change {
                    p class="buttons" { a class="button" href="/console/settings/mode?mode=strict" { "Back to strict…" } }
                }
            } @else if is_eligible {
                @if may_change {
                    p class="buttons" { a class="button" href="/console/settings/mode?mode=permissive" { "Permissive…" } }
                }
            } @else {
                p class="muted" {
                    "This tenant is not eligible for the permissive mode. Whoever operates the gateway can change that: "
                    code { "dcr-store tenant update " (session.tenant.tenant.name) " --permissive-eligible" }
                }
            }
        }
        section class="card" {
            h3 { "Limits" }
            @if settings.dcr_edge.per_source.is_none() {
                p class="notice warning" {
                    "There is no limit for each source: one stranger can use up all registration requests of this tenant."
                }
            }
            form method="post" action="/console/settings/limits" {
                (hidden(session))
                fieldset disabled[!may_change] {
                    legend { "Registration requests of this tenant" }
                    div class="row" {
                        (number("burst", "At once", &limits.burst, true))
                        (number("per_second", "Each second", &limits.per_second, true))
                    }
                }
                fieldset disabled[!may_change] {
                    legend { "Registration requests of each source" }
                    p class="help" { "A source is an IPv4 address or an IPv6 network of 64 bits. Empty: not limited." }
                    div class="row" {
                        (number("source_burst", "At once", &limits.source_burst, false))
                        (number("source_per_second", "Each second", &limits.source_per_second, false))
                    }
                    label for="exempt" { "Addresses that many users share, one a line" }
                    textarea id="exempt" name="exempt" rows="3" spellcheck="false" { (limits.exempt) }
                }
                fieldset disabled[!may_change] {
                    legend { "Applications" }
                    div class="row" {
                        (number("client_quota", "Most applications (empty: no bound)", &limits.client_quota, false))
                        (number(
                            "unused_client_ttl",
                            "Seconds until an unused one is deleted (empty: never)",
                            &limits.unused_client_ttl,
                            false,
                        ))
                    }
                }
                @if may_change { p class="buttons" { button class="primary" { "Save limits" } } }
            }
        }
    })
}

fn number(name: &str, label: &str, value: &str, is_required: bool) -> Markup {
    html! {
        div {
            label for=(name) { (label) }
            input id=(name) name=(name) value=(value) inputmode="numeric" autocomplete="off" required[is_required];
        }
    }
}

/// What the form of the limits has in it.
struct DcrEdgeForm {
    burst: String,
    per_second: String,
    source_burst: String,
    source_per_second: String,
    exempt: String,
    client_quota: String,
    unused_client_ttl: String,
}

impl DcrEdgeForm {
    fn of(session: &Session) -> Self {
        let DcrEdge { rate_limit, per_source, client_quota, unused_client_ttl, .. } =
            &session.tenant.tenant.settings.dcr_edge;
        let source = |number: fn(&crate::tenant::PerSource) -> String| per_source.as_ref().map(number);
        Self {
            burst: rate_limit.burst.to_string(),
            per_second: rate_limit.per_second.to_string(),
            source_burst: source(|source| source.burst.to_string()).unwrap_or_default(),
            source_per_second: source(|source| source.per_second.to_string()).unwrap_or_default(),
            exempt: source(|source| source.exempt.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
                .unwrap_or_default(),
            client_quota: client_quota.map(|quota| quota.to_string()).unwrap_or_default(),
            unused_client_ttl: unused_client_ttl.map(|ttl| ttl.to_string()).unwrap_or_default(),
        }
    }

    fn sent(fields: &Fields) -> Self {
        let text = |name| fields.text(name).to_owned();
        Self {
            burst: text("burst"),
            per_second: text("per_second"),
            source_burst: text("source_burst"),
            source_per_second: text("source_per_second"),
            exempt: text("exempt"),
            client_quota: text("client_quota"),
            unused_client_ttl: text("unused_client_ttl"),
        }
    }
}

/// What a link to the question says.
#[derive(Deserialize)]
pub struct Registration {
    enable: bool,
}

/// `GET /console/settings/registration`
pub async fn confirm_registration(
    session: Session,
    State(app): State<App>,
    Query(Registration { enable }): Query<Registration>,
) -> Result<Response, Failure> {
    session.require(SCOPE)?;
    let more = html! { input type="hidden" name="enable" value=(enable); };
    let action = "/console/settings/registration";
    if !enable {
        let text = html! {
            p {
                "Nobody can register an application any more, at any gateway, within seconds. Applications that are there "
                "go on working."
            }
        };
        let question = Question { action, button: "Disable registration", is_dangerous: false, back: PART };
        let content = question.show(&session, text, more);
        return Ok(Page::new(&session, PART, "Disable Dynamic Client Registration?").respond(content));
    }
    let missing = Missing::of(&app, &session).await?;
    let text = html! {
        div class="notice warning" { p { strong { (OPEN) } } }
        (missing.show_connection())
        (missing.show_permissions())
        ul {
            li { "At most " (session.tenant.tenant.settings.dcr_edge.rate_limit.per_second) " each second register." }
            li {
                @match session.tenant.tenant.settings.dcr_edge.client_quota {
                    Some(quota) => { "At most " (quota) " applications are kept." },
                    None => "There is no bound to how many applications are kept.",
                }
            }
        }
    };
    let more = html! {
        (more)
        p {
            label class="choice" {
                input type="checkbox" name="understood" value="yes" required;
                " I understand that anyone can create applications in the tenant " (session.tenant.tenant.name)
                " without a token."
            }
        }
    };
    let question = Question { action, button: "Enable registration", is_dangerous: true, back: PART };
    let content = question.show(&session, text, more);
    Ok(Page::new(&session, PART, "Enable Dynamic Client Registration?").respond(content))
}

/// `POST /console/settings/registration`
pub async fn change_registration(
    Extension(api): Extension<Api>,
    Posted { session, fields }: Posted,
) -> Result<Response, Failure> {
    let enable = fields.text("enable") == "true";
    if enable && !fields.is_set("understood") {
        return Err(Failure::bad_request(
            "Nothing was changed: tick the box that says that you understand what it opens.",
        ));
    }
    let patch = json!({"flags": {"enable_dynamic_client_registration": enable}});
    let answer = api.call(&session, Method::PATCH, API, Some(&patch)).await?;
    let done = if enable { "Dynamic Client Registration is on." } else { "Dynamic Client Registration is off." };
    Ok(see(PART, answer.notice(done)))
}

/// What a link to the question says.
#[derive(Deserialize)]
pub struct Mode {
    mode: SecurityMode,
}

/// `GET /console/settings/mode`
pub async fn confirm_mode(session: Session, Query(Mode { mode }): Query<Mode>) -> Result<Response, Failure> {
    session.require(SCOPE)?;
    let text = match mode {
        SecurityMode::Permissive => html! {
            div class="notice warning" {
                p {
                    strong { "New registrations get no third-party controls. " }
                    "No PKCE is required of them, they may have more grant types, and no client grant limits what they "
                    "reach. Applications that register now stay permissive when the mode is strict again."
                }
            }
        },
        SecurityMode::Strict => html! {
            p { "New registrations get all controls again. Applications that are there keep the mode they have." }
        },
    };
    let question = Question {
        action: "/console/settings/mode",
        button: match mode {
            SecurityMode::Strict => "Use the strict mode",
            SecurityMode::Permissive => "Use the permissive mode",
        },
        is_dangerous: mode == SecurityMode::Permissive,
        back: PART,
    };
    let more = html! { input type="hidden" name="mode" value=(mode.as_str()); };
    let content = question.show(&session, text, more);
    Ok(Page::new(&session, PART, "Change the security mode?").respond(content))
}

/// `POST /console/settings/mode`
pub async fn change_mode(
    Extension(api): Extension<Api>,
    Posted { session, fields }: Posted,
) -> Result<Response, Failure> {
    let mode = fields.text("mode");
    let patch = json!({"dynamic_client_registration_security_mode": mode});
    let answer = api.call(&session, Method::PATCH, API, Some(&patch)).await?;
    Ok(see(PART, answer.notice(format!("The security mode is {mode}."))))
}

/// `POST /console/settings/limits`
pub async fn change_limits(
    State(app): State<App>,
    Extension(api): Extension<Api>,
    Posted { session, fields }: Posted,
) -> Result<Response, Failure> {
    let patch = json!({"dcr_edge": limits(&fields)});
    match api.call(&session, Method::PATCH, API, Some(&patch)).await {
        Ok(answer) => Ok(see(PART, answer.notice("The limits are saved."))),
        Err(failure) if failure.is_about_input() => {
            let content = content(&app, &session, &DcrEdgeForm::sent(&fields)).await?;
            Ok(Page::new(&session, PART, "Settings").with_error(failure.status, failure.message).respond(content))
        }
        Err(failure) => Err(failure),
    }
}

/// The members of `dcr_edge` that the form says.
fn limits(fields: &Fields) -> Value {
    let mut members = Map::new();
    members.insert(
        "rate_limit".to_owned(),
        json!({"burst": fields.number("burst"), "per_second": fields.number("per_second")}),
    );
    let (burst, per_second) = (fields.number("source_burst"), fields.number("source_per_second"));
    let exempt: Vec<&str> = fields.lines("exempt").collect();
    let per_source = if burst.is_null() && per_second.is_null() && exempt.is_empty() {
        Value::Null
    } else {
        json!({"burst": burst, "per_second": per_second, "exempt": exempt})
    };
    members.insert("per_source".to_owned(), per_source);
    for name in ["client_quota", "unused_client_ttl"] {
        members.insert(name.to_owned(), fields.number(name));
    }
    members.into()
}
