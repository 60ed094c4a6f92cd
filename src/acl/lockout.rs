//! Whether rules leave nobody a way to the Management API.

use super::index::covers;
use super::rule::{Condition, Effect, Rule, Signals};
use super::signal::{RequestKind, Signal, SignalSet};
use crate::cidr::{Cidr, CidrSet};
use crate::tenant::Domain;

/// What is known of every request of a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Known<'k> {
    /// The hosts that it may be for.
    pub domains: &'k [Domain],
    /// The signals that no edge has a source for, so that no request has them.
    pub absent: SignalSet,
}

/// Whether the rule looks at requests to the Management API and may decide what becomes of them.
pub fn decides_management(rule: &Rule) -> bool {
    !rule.action.log && rule.action.effect.is_some() && covers(rule.scope, RequestKind::Management)
}

/// Whether the rules, in the order of evaluation, refuse every request to the Management API. It says so only where
/// that is certain whatever the requests are like: before any rule that may allow somebody, one refuses everybody, or
/// several refuse every address together.
pub fn locks_out_management<'r>(rules: impl IntoIterator<Item = &'r Rule>, known: Known) -> bool {
    let mut refused: Vec<&Cidr> = Vec::new();
    for rule in rules.into_iter().filter(|rule| decides_management(rule)) {
        if rule.action.effect == Some(Effect::Allow) {
            // A rule that allows asks for every signal that it names.
            if rule.named_signals().intersection(known.absent).is_empty() {
                break;
            }
            continue;
        }
        match who(&rule.condition, known) {
            Who::Everybody => return true,
            Who::Addresses(signals) => refused.extend(signals.ipv4_cidrs.iter().chain(&signals.ipv6_cidrs)),
            Who::Some => {}
        }
    }
    refused.into_iter().collect::<CidrSet>().is_everything()
}

/// Whom a rule that refuses is certain to refuse.
enum Who<'r> {
    Everybody,
    /// Everybody with one of the client's addresses here.
    Addresses(&'r Signals),
    /// Those of whom nothing is certain.
    Some,
}

fn who<'r>(condition: &'r Condition, known: Known) -> Who<'r> {
    let Condition::Signals { matches, not_matches } = condition else { return Who::Everybody };
    // A signal that a request does not have spares nobody.
    let spares = |signals: &Signals| !signals.named().without(known.absent).is_empty();
    if not_matches.as_deref().is_some_and(spares) {
        return Who::Some;
    }
    let Some(signals) = matches.as_deref() else { return Who::Everybody };
    let has_all_hosts = known.domains.iter().all(|domain| signals.hostnames.contains(domain));
    let certain = if has_all_hosts { Signal::Host.into() } else { SignalSet::default() };
    let asked = signals.named().without(certain);
    if asked.is_empty() {
        Who::Everybody
    } else if asked == Signal::Address.into() {
        Who::Addresses(signals)
    } else {
        Who::Some
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn locks_out(rules: &[Value]) -> bool {
        let rules: Vec<Rule> = rules.iter().map(|rule| serde_json::from_value(rule.clone()).unwrap()).collect();
        let domains = ["a.example", "b.example"].map(|domain| domain.parse().unwrap());
        let absent = [Signal::Ja3, Signal::Ja4].into_iter().collect();
        locks_out_management(&rules, Known { domains: &domains, absent })
    }

    fn rule(action: &str, scope: &str, condition: &Value) -> Value {
        let mut rule = condition.clone();
        rule["action"] = json!({action: true});
        if action == "redirect" {
            rule["action"]["redirect_uri"] = json!("https://x.example/");
        }
        rule["scope"] = json!(scope);
        rule
    }

    fn addresses(cidrs: &[&str]) -> Value {
        let (v6, v4): (Vec<&str>, Vec<&str>) = cidrs.iter().partition(|cidr| cidr.contains(':'));
        let mut signals = json!({});
        for (name, list) in [("ipv4_cidrs", v4), ("ipv6_cidrs", v6)] {
            if !list.is_empty() {
                signals[name] = json!(list);
            }
        }
        json!({"match": signals})
    }

    const JA3: &str = "773906b0efdefa24a7f2b8eb6985bf37";
    const JA4: &str = "t13d1516h2_8daaf6152771_02713d6af862";

    #[test]
    fn a_rule_that_refuses_everybody_locks_out_unless_one_before_it_allows() {
        let office = json!({"match": {"ipv4_cidrs": ["198.51.100.0/24"]}});
        for condition in [
            json!({"match_all": true}),
            addresses(&["0.0.0.0/0", "::/0"]),
            addresses(&["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"]),
            json!({"match": {"hostnames": ["b.example", "c.example", "a.example"]}}),
            json!({"match": {"hostnames": ["b.example", "a.example"],
                             "ipv4_cidrs": ["0.0.0.0/0"], "ipv6_cidrs": ["::/0"]}}),
            json!({"not_match": {"ja3_fingerprints": [JA3]}}),
            json!({"match": {"hostnames": ["b.example", "a.example"]},
                   "not_match": {"ja3_fingerprints": [JA3], "ja4_fingerprints": [JA4]}}),
        ] {
            for (action, scope) in [("block", "tenant"), ("block", "management"), ("redirect", "tenant")] {
                let all = rule(action, scope, &condition);
                assert!(locks_out(std::slice::from_ref(&all)), "{all}");
                assert!(!locks_out(&[rule("allow", "management", &office), all.clone()]));
                assert!(locks_out(&[rule("allow", "dcr", &office), all.clone()]));
                assert!(locks_out(&[all, rule("allow", "tenant", &json!({"match_all": true}))]));
            }
        }
    }

    #[test]
    fn rules_that_refuse_somebody_do_not_lock_out() {
        let everybody = json!({"match_all": true});
        for harmless in [
            rule("block", "authentication", &everybody),
            rule("block", "dcr", &everybody),
            rule("log", "tenant", &everybody),
            rule("block", "tenant", &addresses(&["198.51.100.0/24"])),
            rule("block", "tenant", &addresses(&["0.0.0.0/1", "128.0.0.0/1"])),
            rule("block", "tenant", &addresses(&["0.0.0.0/1", "192.0.0.0/2", "::/0"])),
            rule("block", "tenant", &json!({"not_match": {"ipv4_cidrs": ["198.51.100.0/24"]}})),
            rule("block", "tenant", &json!({"match": {"hostnames": ["a.example"]}})),
            rule("block", "tenant", &json!({"match": {"hostnames": ["a.example", "b.example"], "asns": [1]}})),
            rule("block", "tenant", &json!({"match": {"ja3_fingerprints": [JA3]}})),
            rule("block", "tenant", &json!({"not_match": {"ja3_fingerprints": [JA3], "asns": [1]}})),
        ] {
            assert!(!locks_out(std::slice::from_ref(&harmless)), "{harmless}");
        }
    }

    #[test]
    fn rules_that_refuse_every_address_together_lock_out() {
        let block = |cidrs: &[&str]| rule("block", "tenant", &addresses(cidrs));
        let (first, second) = (block(&["0.0.0.0/1", "::/0"]), block(&["128.0.0.0/1"]));
        let allow = |condition: &Value| rule("allow", "tenant", condition);
        assert!(locks_out(&[first.clone(), second.clone()]));
        assert!(locks_out(&[first.clone(), second.clone(), allow(&json!({"match_all": true}))]));
        assert!(!locks_out(&[first.clone(), allow(&addresses(&["198.51.100.0/24"])), second.clone()]));
        // A signal that is never there allows nobody.
        for nobody in [
            json!({"match": {"ja3_fingerprints": [JA3]}}),
            json!({"not_match": {"ja4_fingerprints": [JA4], "asns": [1]}}),
        ] {
            assert!(locks_out(&[first.clone(), allow(&nobody), second.clone()]), "{nobody}");
        }
    }
}
