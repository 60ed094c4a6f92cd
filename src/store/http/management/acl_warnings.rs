//! What an owner should know after a change to the access rules.

use std::net::IpAddr;
use std::time::Instant;

use axum::http::header;
use axum::http::request::Parts;
use axum::response::Response;

use super::warning::warn;
use crate::acl::{
    Condition, Effect, Facts, Index, Known, RequestKind, Rule, Signal, SignalSet, Signals, Verdict, decides_management,
    locks_out_management,
};
use crate::edge_api::{ASN_HEADER, CLIENT_ADDRESS_HEADER, COUNTRY_HEADER, REGION_HEADER};
use crate::store::blocking;
use crate::store::db::{Error, StoredTenant};
use crate::store::http::App;

const LOCKED_OUT: &str = "The active access rules refuse every request to the Management API that comes through a \
                          gateway. The store's own port stays open.";

/// Adds the warnings that the tenant's active rules together call for, after a change to them.
pub(super) async fn add_for_list(response: &mut Response, app: &App, tenant: StoredTenant, request: Parts) {
    let absent = app.edge_signals.without_any_source(Instant::now());
    let texts = match app.database.active_rules(tenant.slot).await {
        Ok(rules) => {
            let read = move || of_list(&rules, Known { domains: &tenant.tenant.domains, absent }, &request);
            blocking::run(read).await.and_then(|texts| texts)
        }
        Err(error) => Err(error),
    };
    match texts {
        Ok(texts) => texts.iter().for_each(|text| warn(response, text)),
        // The change is made, and that is what the answer must say.
        Err(error) => {
            tracing::error!(%error, "a change to access rules was answered without the warnings that it may call for");
        }
    }
}

fn of_list(rules: &[String], known: Known, request: &Parts) -> Result<Vec<String>, Error> {
    let rules: Vec<Rule> = rules
        .iter()
        .map(|rule| serde_json::from_str(rule))
        .collect::<Result<_, _>>()
        .map_err(|_| Error::Failed("a stored access rule cannot be read".to_owned()))?;
    let mut texts = Vec::new();
    if locks_out_management(&rules, known) {
        texts.push(LOCKED_OUT.to_owned());
    }
    if let Some(address) = refused_client(&rules, request) {
        texts.push(format!("The active access rules refuse your own requests to the Management API from {address}."));
    }
    Ok(texts)
}

/// The address of the client that sent the request through a gateway, if the rules would refuse it. The store does not
/// see all that an edge sees: from the first rule on that asks for anything else, it says nothing.
fn refused_client(rules: &[Rule], request: &Parts) -> Option<IpAddr> {
    let unseen: SignalSet = [Signal::Ja3, Signal::Ja4, Signal::ConnectingAddress, Signal::Host].into_iter().collect();
    let text = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
    let address: IpAddr = text(CLIENT_ADDRESS_HEADER)?.parse().ok()?;
    let facts = Facts {
        address: Some(address),
        asn: text(ASN_HEADER).and_then(|asn| asn.parse().ok()),
        country: text(COUNTRY_HEADER),
        subdivision: text(REGION_HEADER),
        user_agent: request.headers.get(header::USER_AGENT).map(|value| value.as_bytes()),
        ..Facts::default()
    };
    for rule in rules.iter().filter(|rule| decides_management(rule)) {
        if !rule.named_signals().intersection(unseen).is_empty() {
            return None;
        }
        // One by one: the rules after the one that decides may be large.
        match Index::new([rule]).evaluate(RequestKind::Management, &facts, |_, _| {}) {
            Verdict::NoMatch => {}
            Verdict::Allow => return None,
            Verdict::Block | Verdict::Redirect { .. } => return Some(address),
        }
    }
    None
}

/// Adds the warning that `rule`, which was just written, calls for by itself.
pub(super) fn add_for_rule(response: &mut Response, app: &App, rule: &Rule) {
    if let Some(text) = without_source(rule, app.edge_signals.without_source(Instant::now())) {
        warn(response, &text);
    }
}

/// What the rule does where an edge has no source for the signals in `missing`, if it names any.
fn without_source(rule: &Rule, missing: SignalSet) -> Option<String> {
    let Condition::Signals { matches, not_matches } = &rule.condition else { return None };
    let named = |signals: &Option<Box<Signals>>| signals.as_deref().map(Signals::named).unwrap_or_default();
    let (matched, excluded) = (named(matches), named(not_matches));
    let (lacks, cannot_exclude) = (matched.intersection(missing), excluded.intersection(missing));
    let (signals, what) = if !lacks.is_empty() {
        (lacks, "a rule that matches on it never fires".to_owned())
    } else if cannot_exclude.is_empty() {
        return None;
    } else if rule.action.effect == Some(Effect::Allow) {
        (cannot_exclude, "a rule that allows by it never fires".to_owned())
    } else {
        let does = match &rule.action.effect {
            Some(Effect::Redirect(_)) if !rule.action.log => "redirects",
            Some(Effect::Block) if !rule.action.log => "blocks",
            _ => "counts",
        };
        let is_whole_condition = matches.is_none() && excluded == cannot_exclude;
        let whom = if is_whole_condition { "of its scope" } else { "for which the rest of its condition holds" };
        (cannot_exclude, format!("not_match on it spares nobody, and the rule {does} every request {whom}"))
    };
    let names: Vec<&str> = signals.iter().map(Signal::as_str).collect();
    Some(format!("An edge has no source for {}: there {what}.", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_signal_without_a_source_is_warned_of_by_what_the_rule_does_then() {
        let (ja3, asn) = (json!({"ja3_fingerprints": ["773906b0efdefa24a7f2b8eb6985bf37"]}), json!({"asns": [1]}));
        let both = json!({"ja3_fingerprints": ja3["ja3_fingerprints"], "asns": [1]});
        let (block, allow, log) = (json!({"block": true}), json!({"allow": true}), json!({"block": true, "log": true}));
        let redirect = json!({"redirect": true, "redirect_uri": "https://x.example/"});
        let text = |action: &Value, condition: Value| {
            let mut rule = condition;
            rule["action"] = action.clone();
            rule["scope"] = json!("tenant");
            without_source(&serde_json::from_value(rule).unwrap(), Signal::Ja3.into())
        };
        for (action, condition, what) in [
            (&block, json!({"match": ja3}), "a rule that matches on it never fires"),
            (&allow, json!({"match": both, "not_match": asn}), "a rule that matches on it never fires"),
            (&block, json!({"match": ja3, "not_match": ja3}), "a rule that matches on it never fires"),
            (&allow, json!({"not_match": both}), "a rule that allows by it never fires"),
            (
                &block,
                json!({"not_match": ja3}),
                "not_match on it spares nobody, and the rule blocks every request of its scope",
            ),
            (
                &redirect,
                json!({"not_match": both}),
                "not_match on it spares nobody, and the rule redirects every request for which the rest of its \
                 condition holds",
            ),
            (
                &log,
                json!({"match": asn, "not_match": ja3}),
                "not_match on it spares nobody, and the rule counts every request for which the rest of its condition \
                 holds",
            ),
        ] {
            let expected = format!("An edge has no source for ja3: there {what}.");
            assert_eq!(text(action, condition.clone()), Some(expected), "{action} {condition}");
        }
        for fine in [json!({"match": asn}), json!({"not_match": asn}), json!({"match_all": true})] {
            assert_eq!(text(&block, fine), None);
        }
    }
}
