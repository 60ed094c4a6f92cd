//! The first page: whether registration works, what is missing, and what happened lately.

use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::chart::{self, Series};
use super::failure::Failure;
use super::logs;
use super::missing::Missing;
use super::page::{Page, badge};
use super::session::Session;
use crate::filter::reason::Reason;
use crate::store::client::AppType;
use crate::store::clock::{rfc3339, unix_millis};
use crate::store::db::{Activity, Error, LogOrder, LogQuery};
use crate::store::http::App;
use crate::tenant::SecurityMode;

const HOUR: u64 = 3_600_000;

/// What a token has to allow for the state of the tenant to be shown.
const STATE: [&str; 5] =
    ["read:tenant_settings", "read:clients", "read:client_grants", "read:resource_servers", "read:connections"];

/// A stretch of time: its word in the address, its name, a slice in milliseconds, and how many slices there are.
struct Period(&'static str, &'static str, u64, u64);

const PERIODS: [Period; 3] = [
    Period("day", "24 hours", HOUR, 24),
    Period("week", "7 days", 6 * HOUR, 28),
    Period("month", "30 days", 24 * HOUR, 30),
];

/// What the address may say.
#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    period: String,
}

/// `GET /console/`
pub async fn show(session: Session, State(app): State<App>, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    let content = html! {
        @if STATE.iter().all(|scope| session.allows(scope)) { (state(&app, &session).await?) }
        @else { p class="muted" { "Whether registration works is shown to tokens with the scopes " (STATE.join(", ")) "." } }
        (activity(&app, &session, &asked.period).await?)
        (latest(&app, &session).await?)
    };
    Ok(Page::new(&session, "/console/", "Overview").respond(content))
}

/// Whether anybody can register and make use of it, step by step.
async fn state(app: &App, session: &Session) -> Result<Markup, Failure> {
    let (tenant, slot) = (&session.tenant.tenant, session.tenant.slot);
    let settings = &tenant.settings;
    let is_on = settings.registers_clients();
    let mode = settings.dynamic_client_registration_security_mode;
    let missing = Missing::of(app, session).await?;
    let limit = settings.dcr_edge.rate_limit;
    let applications = app.database.clients(slot, &AppType::ALL, 0, 1).await?.total;
    let step = |is_done: bool, done: &str, open: &str, path: &str, link: &str| {
        html! {
            li {
                @if is_done { (badge("good", "done")) (done) }
                @else { (badge("open", "open")) (open) " " a href=(path) { (link) } }
            }
        }
    };
    Ok(html! {
        div class="cards" {
            section class="card" {
                h2 { "Registration" }
                p class="big" { @if is_on { (badge("good", "on")) } @else { (badge("off", "off")) } }
                p class="muted" {
                    @if is_on { "Anyone can create applications in this tenant without a token." }
                    @else { "Nobody can register. " a href="/console/settings" { "Settings → Advanced" } }
                }
            }
            section class="card" {
                h2 { "Security mode" }
                p class="big" {
                    @match mode {
                        SecurityMode::Strict => (badge("good", "strict")),
                        SecurityMode::Permissive => (badge("bad", "permissive")),
                    }
                }
                p class="muted" {
                    @match mode {
                        SecurityMode::Strict => "PKCE, two grants, granted APIs and domain-level connections only.",
                        SecurityMode::Permissive => "New registrations get no third-party controls.",
                    }
                }
            }
            section class="card" {
                h2 { "Applications" }
                p class="big" { a href="/console/applications" { (applications) } }
                p class="muted" {
                    @match settings.dcr_edge.client_quota {
                        Some(quota) => { "of " (quota) " that the quota allows" },
                        None => "no quota is set",
                    }
                }
            }
            section class="card" {
                h2 { "Rate limit" }
                p class="big" { (limit.burst) " / " (limit.per_second) }
                p class="muted" {
                    "requests at once / each second. "
                    @if settings.dcr_edge.per_source.is_none() { "One stranger can use all of them up." }
                }
            }
        }
        section class="card" {
            h2 { "From nothing to an application that works" }
            ol class="steps" {
                (step(
                    !missing.connection,
                    "Users can log in: a connection is promoted to domain level.",
                    "Users cannot log in: no connection is promoted to domain level.",
                    "/console/connections",
                    "Promote a connection",
                ))
                (step(
                    !missing.permissions,
                    "Applications can reach an API: it has default permissions.",
                    "Applications can reach no API: none has default permissions.",
                    "/console/apis",
                    "Choose an API",
                ))
                (step(
                    is_on,
                    "Dynamic Client Registration is on.",
                    "Dynamic Client Registration is off.",
                    "/console/settings",
                    "Switch it on",
                ))
                (step(
                    applications > 0,
                    "An application has registered.",
                    "No application has registered yet.",
                    "/console/applications",
                    "Register the first",
                ))
            }
        }
    })
}

/// What happened to registrations over time.
async fn activity(app: &App, session: &Session, asked: &str) -> Result<Markup, Failure> {
    if !session.allows("read:logs") {
        return Ok(html! { p class="muted" { "Charts and events need a token with the scope read:logs." } });
    }
    let [first, ..] = &PERIODS;
    let period = PERIODS.iter().find(|Period(word, ..)| *word == asked).unwrap_or(first);
    let Period(.., slice, slices) = *period;
    // The last slice is the one that has begun.
    let now = unix_millis();
    let end = now.saturating_sub(now.checked_rem(slice).unwrap_or_default()).saturating_add(slice);
    let since = end.saturating_sub(slice.saturating_mul(slices));
    let shown = match app.database.registration_activity(session.tenant.slot, since, slice).await {
        Ok(rows) => {
            let labels: Vec<String> =
                (0..slices).map(|place| label(since.saturating_add(slice.saturating_mul(place)), slice)).collect();
            chart::show(&series(&rows, slices), &labels)
        }
        Err(Error::SearchTooLong) => html! { p { "The log has too many events for a chart of this period." } },
        Err(error) => return Err(error.into()),
    };
    Ok(html! {
        section class="card" {
            div class="heading" {
                h2 { "Requests to register" }
                nav class="tabs" aria-label="Period" {
                    @for other in &PERIODS {
                        a href={ "/console/?period=" (other.0) } aria-current=[(other.0 == period.0).then_some("true")] {
                            (other.1)
                        }
                    }
                }
            }
            (shown)
            p class="muted" {
                "Times are UTC. What gateways refuse arrives here when its minute is over. "
                a href="/console/logs" { "All events" }
            }
        }
    })
}

fn label(millis: u64, slice: u64) -> String {
    let text = rfc3339(millis);
    let (date, time) = (text.get(5..10).unwrap_or_default(), text.get(11..16).unwrap_or_default());
    if slice >= 24 * HOUR { date.to_owned() } else { format!("{date} {time}") }
}

fn series(rows: &[Activity], slices: u64) -> [Series; 4] {
    let mut series = [
        ("registered", "Registered"),
        ("blocked", "Blocked by the access control list"),
        ("limited", "Over a limit"),
        ("refused", "Refused for another reason"),
    ]
    .map(|(class, title)| Series { class, title, counts: vec![0; usize::try_from(slices).unwrap_or_default()] });
    for Activity { slice, refused_for, count } in rows {
        let [registered, blocked, limited, refused] = &mut series;
        let of = match refused_for.as_deref() {
            None => registered,
            Some(word) => match Reason::of_refusal(word) {
                Some(Reason::AclBlocked | Reason::AclRedirected) => blocked,
                Some(reason) if reason.is_limit() => limited,
                _ => refused,
            },
        };
        if let Some(sum) = usize::try_from(*slice).ok().and_then(|slice| of.counts.get_mut(slice)) {
            *sum = sum.saturating_add(*count);
        }
    }
    series
}

/// The newest events.
async fn latest(app: &App, session: &Session) -> Result<Markup, Failure> {
    if !session.allows("read:logs") {
        return Ok(html! {});
    }
    let query = LogQuery { filter: None, order: LogOrder::NewestFirst(0), limit: 6 };
    let events = app.database.log_events(session.tenant.slot, &query).await?;
    Ok(html! {
        section class="card" {
            h2 { "Latest events" }
            @if events.is_empty() { p { "Nothing has happened yet." } } @else { (logs::table(&events)) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_of_the_log_comes_into_one_chart_at_its_place() {
        let row = |slice, refused_for: Option<&str>, count| Activity {
            slice,
            refused_for: refused_for.map(str::to_owned),
            count,
        };
        let rows = [
            row(0, None, 3),
            row(2, None, 1),
            row(1, Some("acl_blocked"), 5),
            row(1, Some("acl_redirected"), 2),
            row(2, Some("source_limited"), 7),
            row(2, Some("fleet_limited"), 1),
            row(0, Some("registration_disabled"), 4),
            row(0, Some("a word of a later release"), 1),
            row(9, None, 100),
        ];
        let counts = series(&rows, 3).map(|series| series.counts);
        assert_eq!(counts, [[3, 0, 1], [0, 7, 0], [0, 0, 8], [5, 0, 0]]);
    }
}
