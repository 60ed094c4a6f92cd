//! Which rule would match a request: the gateway's own evaluation, with facts that somebody enters.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::access_rules::{ReadRule, action, all};
use super::failure::Failure;
use super::page::{Page, badge, table};
use super::session::Session;
use crate::acl::{Facts, Index, RequestKind, Verdict};
use crate::store::blocking;
use crate::store::http::App;

const PART: &str = "/console/access-control";

/// What is known of the request, as it was entered.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    kind: String,
    address: String,
    connecting_address: String,
    asn: String,
    country: String,
    subdivision: String,
    user_agent: String,
    host: String,
    ja3: String,
    ja4: String,
}

const KINDS: [(&str, &str, RequestKind); 3] = [
    ("registration", "A registration", RequestKind::Registration),
    ("management", "A request to the Management API", RequestKind::Management),
    ("other", "Any other request", RequestKind::Other),
];

impl Asked {
    fn kind(&self) -> Option<RequestKind> {
        KINDS.iter().find(|(word, ..)| *word == self.kind).map(|(.., kind)| *kind)
    }

    /// What was entered, as the gateway would know it. An error says what cannot be.
    fn facts(&self) -> Result<Facts<'_>, String> {
        let some = |text: &'_ str| !text.trim().is_empty();
        let address = |text: &str, what: &str| match text.trim() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| format!("{what}: {text} is not an IP address.")),
        };
        let asn = match self.asn.trim() {
            "" => None,
            text => Some(text.parse().map_err(|_| format!("Autonomous system: {text} is not a number."))?),
        };
        // The gateway knows the part after the country.
        let subdivision = self.subdivision.trim();
        let subdivision = subdivision.split_once('-').map_or(subdivision, |(_, part)| part);
        Ok(Facts {
            address: address(&self.address, "Client address")?,
            connecting_address: address(&self.connecting_address, "Direct peer")?,
            asn,
            country: some(&self.country).then(|| self.country.trim()),
            subdivision: some(subdivision).then_some(subdivision),
            ja3: some(&self.ja3).then(|| self.ja3.trim()),
            ja4: some(&self.ja4).then(|| self.ja4.trim()),
            user_agent: some(&self.user_agent).then(|| self.user_agent.trim().as_bytes()),
            authority: some(&self.host).then(|| self.host.trim()),
            server_name: None,
        })
    }
}

/// What became of the request.
struct Outcome {
    verdict: String,
    class: &'static str,
    /// The rules that were evaluated, by their places among the active ones, and whether each matched.
    seen: Vec<(usize, bool)>,
}

fn evaluate(rules: &[ReadRule], kind: RequestKind, asked: &Asked) -> Result<Outcome, String> {
    let facts = asked.facts()?;
    let index = Index::new(rules.iter().map(|rule| &rule.rule));
    let mut seen = Vec::new();
    let verdict = index.evaluate(kind, &facts, |place, matched| seen.push((place, matched)));
    let (verdict, class) = match verdict {
        Verdict::NoMatch => ("No rule decides: the request passes.".to_owned(), "good"),
        Verdict::Allow => ("The request passes: a rule allows it.".to_owned(), "good"),
        Verdict::Block => ("The request is blocked.".to_owned(), "bad"),
        Verdict::Redirect { uri, .. } => (format!("The request is redirected to {uri}."), "open"),
    };
    Ok(Outcome { verdict, class, seen })
}

/// `GET /console/access-control/try`
pub async fn show(session: Session, State(app): State<App>, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    let mut rules = all(&app, &session).await?;
    rules.retain(|rule| rule.stored.active);
    let page = Page::new(&session, PART, "Which rule would match?");
    let Some(kind) = asked.kind() else {
        return Ok(page.respond(form(&asked)));
    };
    let evaluated = asked.clone();
    let run = move || {
        let outcome = evaluate(&rules, kind, &evaluated);
        (outcome, rules)
    };
    match blocking::run(run).await? {
        (Ok(outcome), rules) => Ok(page.respond(html! { (shown(&outcome, &rules)) (form(&asked)) })),
        (Err(error), _) => Ok(page.with_error(StatusCode::BAD_REQUEST, error).respond(form(&asked))),
    }
}

fn shown(outcome: &Outcome, rules: &[ReadRule]) -> Markup {
    let decides = |rule: &ReadRule| rule.rule.action.effect.is_some() && !rule.rule.action.log;
    html! {
        section class="card" aria-live="polite" {
            p class="big" id="verdict" { (badge(outcome.class, &outcome.verdict)) }
            @if outcome.seen.is_empty() {
                p { "No active rule looks at such requests." }
            } @else {
                (table("Rules that were evaluated", &["Rule", "Does", "This request"], html! {
                    @for (place, matched) in &outcome.seen {
                        @if let Some(rule) = rules.get(*place) {
                            tr {
                                td { a href={ (PART) "?at=" (rule.stored.id) } { (rule.stored.description) } }
                                td { (action(&rule.rule)) }
                                td {
                                    @if !matched { "does not match" }
                                    @else if decides(rule) { (badge("open", "matches and decides")) }
                                    @else { (badge("open", "matches and is counted")) }
                                }
                            }
                        }
                    }
                }))
                p class="muted" { "What comes after a rule that decides is not evaluated." }
            }
        }
    }
}

fn form(asked: &Asked) -> Markup {
    let fields = [
        ("address", "Client address", &asked.address, "203.0.113.7"),
        ("country", "Country", &asked.country, "CH"),
        ("subdivision", "Subdivision", &asked.subdivision, "CH-ZH"),
        ("asn", "Autonomous system", &asked.asn, "64496"),
        ("user_agent", "User agent", &asked.user_agent, "curl/8.0"),
        ("host", "Host", &asked.host, "login.example.com"),
        ("ja3", "JA3 fingerprint", &asked.ja3, ""),
        ("ja4", "JA4 fingerprint", &asked.ja4, ""),
        ("connecting_address", "Direct peer", &asked.connecting_address, "198.51.100.7"),
    ];
    html! {
        form method="get" class="card" {
            p {
                "The active rules judge a request of which the gateway knows what you enter here. Nothing is sent, and "
                "nothing is counted. What you leave empty is not known, as where a gateway has no source for it."
            }
            label for="kind" { "Request" }
            select id="kind" name="kind" {
                @for (word, name, _) in KINDS { option value=(word) selected[word == asked.kind] { (name) } }
            }
            div class="signals" {
                @for (name, label, value, example) in fields {
                    div {
                        label for=(name) { (label) }
                        input id=(name) name=(name) value=(value) placeholder=(example) autocomplete="off" spellcheck="false";
                    }
                }
            }
            p class="buttons" {
                button class="primary" { "Try it" }
                a class="button" href=(PART) { "Back to the list" }
            }
        }
    }
}
