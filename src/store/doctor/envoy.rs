//! Envoy, by what its admin port shows.

use serde_json::Value;

use super::Finding;
use super::http::get;

/// The oldest release that the filter is tested with.
const OLDEST: (u32, u32) = (1, 36);

/// Looks at the admin port at this URL.
pub fn examine(url: &str) -> Vec<Finding> {
    let info = match get(url, "/server_info") {
        Ok(answer) if answer.status == 200 => answer.json(),
        Ok(answer) => {
            let found = format!("{url}/server_info is answered with {}", answer.status);
            return vec![Finding::failure("envoy.reachable", found, "look at --envoy-admin: it is Envoy's admin port")];
        }
        Err(error) => {
            let found = format!("{url} does not answer: {error}");
            return vec![Finding::failure("envoy.reachable", found, "ask on Envoy's machine: it listens on loopback")];
        }
    };
    let mut findings = vec![Finding::ok("envoy.reachable", url), version(&info)];
    match get(url, "/config_dump").map(|answer| answer.json()) {
        Ok(dump) => findings.extend(plugins(&dump)),
        Err(error) => findings.push(Finding::failure("envoy.plugin", error, "ask again")),
    }
    findings.extend(counters(url));
    findings
}

fn version(info: &Value) -> Finding {
    let (check, text) = ("envoy.release", info.get("version").and_then(Value::as_str).unwrap_or_default());
    let number = text.split('/').nth(1).unwrap_or_default();
    let mut parts = number.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Finding::ok(check, number),
        (Some(_), Some(_)) => {
            let found = format!("Envoy {number} is older than those that the filter is tested with");
            Finding::failure(check, found, "use 1.36 or later")
        }
        _ => Finding::warning(check, format!("it does not say which: {text}"), "use 1.36 or later"),
    }
}

/// The plugins among a configuration: what has a `vm_config`, with the settings beside it.
fn find<'v>(value: &'v Value, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(members) => {
            let is_ours = members.get("root_id").and_then(Value::as_str) == Some("dcr_edge");
            if is_ours && members.contains_key("vm_config") {
                found.push(value);
            }
            members.values().for_each(|member| find(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| find(item, found)),
        _ => {}
    }
}

fn plugins(dump: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    find(dump, &mut found);
    if found.is_empty() {
        let advice =
            "put the filter into the http_filters of the listener: envoy/envoy.yaml shows it; its root_id is dcr_edge";
        return vec![Finding::failure("envoy.plugin", "no listener has the filter dcr_edge", advice)];
    }
    let count = found.len();
    let lacks = |is_set: fn(&Value) -> bool| found.iter().filter(|plugin| !is_set(plugin)).count();
    let blind = lacks(|plugin| plugin.get("allow_on_headers_stop_iteration") == Some(&Value::Bool(true)));
    let open = lacks(|plugin| plugin.get("failure_policy").and_then(Value::as_str) == Some("FAIL_RELOAD"));
    vec![
        Finding::ok("envoy.plugin", format!("{count} listeners have the filter")),
        if blind == 0 {
            Finding::ok("envoy.flag", "allow_on_headers_stop_iteration is set")
        } else {
            Finding::failure(
                "envoy.flag",
                format!("{blind} of {count} plugins lack allow_on_headers_stop_iteration: true"),
                "set it in the plugin's config, beside vm_config: without it the filter sees no body",
            )
        },
        if open == 0 {
            Finding::ok("envoy.failure_policy", "FAIL_RELOAD")
        } else {
            Finding::warning(
                "envoy.failure_policy",
                format!("{open} of {count} plugins have another failure_policy than FAIL_RELOAD"),
                "set failure_policy: FAIL_RELOAD, so that a filter that failed refuses until its new VM is there",
            )
        },
    ]
}

/// What the filter itself says.
fn counters(url: &str) -> Vec<Finding> {
    let answer = get(url, "/stats?filter=dcr_edge&format=json");
    let stats = answer.map(|answer| answer.json()).unwrap_or_default();
    let stat = |name: &str| {
        let all = stats.get("stats").and_then(Value::as_array).into_iter().flatten();
        let mut named = all.filter(|stat| stat.get("name").and_then(Value::as_str).is_some_and(|n| n.ends_with(name)));
        named.find_map(|stat| stat.get("value").and_then(Value::as_u64))
    };
    let mut findings = Vec::new();
    findings.push(match stat("dcr_edge.settings_age_seconds") {
        Some(age) if age > 30 => Finding::failure(
            "envoy.settings",
            format!("the filter has heard nothing of the store for {age} seconds"),
            "Envoy's log says why: the cluster dcr_store, its certificates, DCR_EDGE_TOKEN",
        ),
        Some(age) => Finding::ok("envoy.settings", format!("heard of the store {age} seconds ago")),
        None => Finding::failure(
            "envoy.settings",
            "the filter has never heard of the store",
            "is it loaded? Envoy's log says why not: DCR_EDGE_TOKEN, the cluster dcr_store, a member of its configuration",
        ),
    });
    if let Some(hidden) = stat("dcr_edge.decisions.reason=bodies_hidden").filter(|count| *count > 0) {
        findings.push(Finding::failure(
            "envoy.bodies",
            format!("{hidden} requests were refused because the filter cannot see bodies"),
            "set allow_on_headers_stop_iteration: true in the plugin's config",
        ));
    }
    if let Some(rules) = stat("dcr_edge.decisions.reason=acl_without_source").filter(|count| *count > 0) {
        findings.push(Finding::warning(
            "envoy.signals",
            format!("{rules} times an access rule named a signal for which this Envoy has no source"),
            "a rule that blocks by it blocks nobody: set the signal and name it in signal_sources, or change the rule",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plugin_is_found_wherever_it_stands_and_what_it_lacks_is_told() {
        let plugin = |flag: Value, policy: &str| json!({"root_id": "dcr_edge", "vm_config": {}, "allow_on_headers_stop_iteration": flag, "failure_policy": policy});
        let dump = json!({"configs": [{"a": [plugin(json!(true), "FAIL_RELOAD")]}, {"b": {"c": plugin(json!(false), "FAIL_OPEN")}}]});
        let findings = plugins(&dump);
        let found: Vec<&str> = findings.iter().map(|finding| finding.found.as_str()).collect();
        assert!(
            found[0].starts_with("2 ") && found[1].starts_with("1 of 2") && found[2].starts_with("1 of 2"),
            "{found:?}"
        );
        assert_eq!(plugins(&json!({}))[0].level, super::super::Level::Failure);
    }

    #[test]
    fn a_release_is_judged_by_its_numbers() {
        use super::super::Level;
        for (text, level) in [
            ("abc/1.40.0/Clean/RELEASE/BoringSSL", Level::Ok),
            ("abc/1.36.4-dev/Clean", Level::Ok),
            ("abc/2.0.0/x", Level::Ok),
            ("abc/1.9.1/x", Level::Failure),
            ("abc/1.35.0/x", Level::Failure),
            ("strange", Level::Warning),
        ] {
            assert_eq!(version(&json!({"version": text})).level, level, "{text}");
        }
    }
}
