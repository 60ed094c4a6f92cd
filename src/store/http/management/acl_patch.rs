//! What a change to an access rule means.

use serde_json::{Map, Value, json};

use super::body::checked;
use crate::acl::NetworkAcl;
use crate::store::db::{self, StoredAcl};
use crate::store::http::error::ManagementError;

/// The members that make the condition together.
const CONDITION: [&str; 3] = ["match", "not_match", "match_all"];

/// The rule after the change.
pub(super) fn patched(stored: &StoredAcl, patch: Map<String, Value>) -> Result<NetworkAcl, ManagementError> {
    let rule: Value = serde_json::from_str(stored.rule.get())
        .map_err(|_| db::Error::Failed("a stored access rule is not JSON".to_owned()))?;
    let StoredAcl { description, active, priority, .. } = stored;
    let mut acl = json!({"description": description, "active": active, "priority": priority, "rule": rule});
    merge(&mut acl, patch);
    checked(acl)
}

/// Members replace, save those of the rule.
fn merge(acl: &mut Value, patch: Map<String, Value>) {
    let Value::Object(acl) = acl else { return };
    for (name, value) in patch {
        match (name.as_str(), value, acl.get_mut(&name)) {
            ("rule", Value::Object(patch), Some(Value::Object(rule))) => merge_rule(rule, patch),
            (_, value, _) => _ = acl.insert(name, value),
        }
    }
}

/// The condition is replaced as a whole. An action of `log` alone keeps what else the action is.
fn merge_rule(rule: &mut Map<String, Value>, patch: Map<String, Value>) {
    if CONDITION.iter().any(|member| patch.contains_key(*member)) {
        for member in CONDITION {
            rule.remove(member);
        }
    }
    for (name, value) in patch {
        match (value, rule.get_mut(&name)) {
            (Value::Object(patch), Some(Value::Object(action))) if name == "action" && is_log_alone(&patch) => {
                action.extend(patch);
            }
            (value, _) => _ = rule.insert(name, value),
        }
    }
}

fn is_log_alone(action: &Map<String, Value>) -> bool {
    action.len() == 1 && action.contains_key("log")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::to_raw_value;

    fn after(action: Value, patch: Value) -> Result<Value, String> {
        let rule = json!({"action": action, "match": {"asns": [1]}, "not_match": {"asns": [2]}, "scope": "tenant"});
        let stored = StoredAcl {
            id: "acl_0000000000000000000000".to_owned(),
            version: 1,
            description: "d".to_owned(),
            active: true,
            priority: 7,
            rule: to_raw_value(&rule).unwrap(),
            created_at: 0,
            updated_at: 0,
        };
        let Value::Object(patch) = patch else { panic!("a patch is an object") };
        patched(&stored, patch).map(|acl| serde_json::to_value(acl).unwrap()).map_err(|error| format!("{error:?}"))
    }

    fn rule_after(action: Value, rule: Value) -> Value {
        after(action, json!({"rule": rule})).unwrap()["rule"].clone()
    }

    #[test]
    fn members_replace_and_what_is_not_named_stays() {
        let block = json!({"block": true});
        let unchanged = after(block.clone(), json!({})).unwrap();
        assert_eq!(after(block.clone(), json!({"rule": {}})).unwrap(), unchanged);
        let mut expected = unchanged.clone();
        expected["active"] = json!(false);
        expected["priority"] = json!(3);
        assert_eq!(after(block.clone(), json!({"active": false, "priority": 3})).unwrap(), expected);
        let scope = rule_after(block.clone(), json!({"scope": "dcr"}));
        assert_eq!(
            scope,
            json!({"action": block, "match": {"asns": [1]}, "not_match": {"asns": [2]},
                   "scope": "dynamic_client_registration"})
        );
    }

    #[test]
    fn a_member_of_the_condition_replaces_the_whole_condition() {
        let block = json!({"block": true});
        for condition in [
            json!({"match": {"asns": [3]}}),
            json!({"not_match": {"user_agents": ["x"]}}),
            json!({"match_all": true}),
            json!({"match": {"asns": [3]}, "not_match": {"asns": [4]}}),
        ] {
            let mut expected = condition.clone();
            expected["action"] = block.clone();
            expected["scope"] = json!("tenant");
            assert_eq!(rule_after(block.clone(), condition), expected);
        }
        let none = json!({"rule": {"match": null}});
        assert!(after(block, none).unwrap_err().contains("rule: expected a condition"));
    }

    #[test]
    fn an_action_of_log_alone_keeps_what_else_the_action_is() {
        let redirect = json!({"redirect": true, "redirect_uri": "https://x.example/"});
        let action =
            |stored: &Value, patch: Value| rule_after(stored.clone(), json!({"action": patch}))["action"].clone();
        let monitored = action(&redirect, json!({"log": true}));
        assert_eq!(monitored, json!({"redirect": true, "redirect_uri": "https://x.example/", "log": true}));
        assert_eq!(action(&monitored, json!({"log": false})), redirect);
        assert_eq!(action(&monitored, json!({"block": true})), json!({"block": true}));
        assert_eq!(action(&redirect, json!({"log": true, "allow": true})), json!({"allow": true, "log": true}));
        let ended = after(json!({"log": true}), json!({"rule": {"action": {"log": false}}}));
        assert!(ended.unwrap_err().contains("rule.action: expected an action"));
    }

    #[test]
    fn a_bad_change_is_refused_and_the_member_named() {
        for (patch, member) in [
            (json!({"typo": 1}), "typo"),
            (json!({"id": "acl_x"}), "id"),
            (json!({"description": ""}), "description"),
            (json!({"active": "yes"}), "active"),
            (json!({"priority": -1}), "priority"),
            (json!({"rule": 1}), "rule"),
            (json!({"rule": {"typo": 1}}), "rule.typo"),
            (json!({"rule": {"scope": null}}), "rule.scope"),
            (json!({"rule": {"action": {"log": 1}}}), "rule.action.log"),
            (json!({"rule": {"match": {"ipv4_cidrs": ["10.0.0.0/8", "x"]}}}), "rule.match.ipv4_cidrs[1]"),
        ] {
            let error = after(json!({"block": true}), patch).unwrap_err();
            assert!(error.contains(&format!("\"{member}: ")), "{error}");
        }
    }
}
