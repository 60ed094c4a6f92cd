//! Whether rules leave nobody a way to the Management API.

use super::index::covers;
use super::rule::{Condition, Effect, Rule, Signals};
use super::signal::{RequestKind, Signal, SignalSet};

/// Whether the rules, in the order of evaluation, refuse every request to the Management API. It says so only where
/// that is certain whatever the requests are like: a rule refuses everybody, and none before it allows anybody.
pub fn locks_out_management<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> bool {
    for rule in rules {
        if rule.action.log || !covers(rule.scope, RequestKind::Management) {
            continue;
        }
        match rule.action.effect {
            None => {}
            Some(Effect::Allow) => return false,
            Some(Effect::Block | Effect::Redirect(_)) if is_for_everybody(&rule.condition) => return true,
            Some(Effect::Block | Effect::Redirect(_)) => {}
        }
    }
    false
}

fn is_for_everybody(condition: &Condition) -> bool {
    match condition {
        Condition::MatchAll => true,
        Condition::Signals { matches: Some(signals), not_matches: None } => {
            let has_everything = |cidrs: &[crate::cidr::Cidr]| cidrs.iter().any(crate::cidr::Cidr::is_everything);
            let Signals { ipv4_cidrs, ipv6_cidrs, .. } = &**signals;
            signals.named() == SignalSet::from(Signal::Address)
                && has_everything(ipv4_cidrs)
                && has_everything(ipv6_cidrs)
        }
        Condition::Signals { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn locks_out(rules: &[Value]) -> bool {
        let rules: Vec<Rule> = rules.iter().map(|rule| serde_json::from_value(rule.clone()).unwrap()).collect();
        locks_out_management(&rules)
    }

    #[test]
    fn a_rule_that_refuses_everybody_locks_out_unless_one_before_it_allows() {
        let rule = |action: &str, scope: &str, condition: Value| {
            let mut rule = condition;
            rule["action"] = json!({action: true});
            if action == "redirect" {
                rule["action"]["redirect_uri"] = json!("https://x.example/");
            }
            rule["scope"] = json!(scope);
            rule
        };
        let everybody = json!({"match_all": true});
        let addresses = json!({"match": {"ipv4_cidrs": ["0.0.0.0/0"], "ipv6_cidrs": ["::/0"]}});
        let office = json!({"match": {"ipv4_cidrs": ["198.51.100.0/24"]}});
        for condition in [&everybody, &addresses] {
            for (action, scope) in [("block", "tenant"), ("block", "management"), ("redirect", "tenant")] {
                let all = rule(action, scope, condition.clone());
                assert!(locks_out(std::slice::from_ref(&all)), "{all}");
                assert!(!locks_out(&[rule("allow", "management", office.clone()), all.clone()]));
                assert!(locks_out(&[rule("allow", "dcr", office.clone()), all.clone()]));
                assert!(locks_out(&[all, rule("allow", "tenant", everybody.clone())]));
            }
        }
        for harmless in [
            rule("block", "authentication", everybody.clone()),
            rule("block", "dcr", everybody.clone()),
            rule("block", "tenant", office.clone()),
            rule("block", "tenant", json!({"not_match": {"ipv4_cidrs": ["198.51.100.0/24"]}})),
            rule("log", "tenant", everybody),
        ] {
            assert!(!locks_out(std::slice::from_ref(&harmless)), "{harmless}");
        }
    }
}
