//! Envoy's configurations: the shipped one with small changes, and what does the same work with Envoy's own filters.

use serde_json::{Value, json};

use crate::support::gateway::Options;

const ROUTER: &str = "          - name: envoy.filters.http.router\n";
const LAST_ROUTE: &str = "              - match:
                  prefix: /
                route:
                  cluster: authorization_server
                  timeout: 30s
";

/// An address and the length of its prefix.
pub type Range = (std::net::Ipv4Addr, u8);

/// What answers requests that nothing refuses: Envoy itself, so that no other server is in the figures.
pub fn answered_by_envoy(configuration: &str) -> String {
    with_last_route(configuration, "")
}

/// The same, on a route on which the filter is disabled as `envoy.yaml` shows it.
pub fn left_alone(configuration: &str) -> String {
    with_last_route(
        configuration,
        r#"                typed_per_filter_config:
                  dcr_edge:
                    "@type": type.googleapis.com/envoy.config.route.v3.FilterConfig
                    disabled: true
"#,
    )
}

fn with_last_route(configuration: &str, more: &str) -> String {
    let (before, after) = configuration.split_once(LAST_ROUTE).unwrap();
    let answer = r#"direct_response: {status: 200, body: {inline_string: "ok"}}"#;
    format!("{before}              - match: {{prefix: /}}\n                {answer}\n{more}{after}")
}

/// [`answered_by_envoy`] without the filter, its member of the access log and the label of its metrics. What else the
/// shipped configuration does stays: the paths' one spelling, the headers that no client may send, what it notes of each
/// connection.
pub fn bare(configuration: &str) -> String {
    let mut bare = answered_by_envoy(configuration);
    for (from, to) in [
        ("          - name: dcr_edge\n", ROUTER),
        ("                  reason: ", "                  details: "),
        ("stats_config:\n", "overload_manager:\n"),
    ] {
        let (before, rest) = bare.split_once(from).unwrap_or_else(|| panic!("{from}"));
        let (_, after) = rest.split_once(to).unwrap_or_else(|| panic!("{to}"));
        bare = format!("{before}{to}{after}");
    }
    bare
}

/// [`bare`] with one filter of Envoy's own.
fn with_filter(configuration: &str, name: &str, filter: &Value) -> String {
    // JSON is YAML.
    let filter = format!("          - {}\n{ROUTER}", json!({"name": name, "typed_config": filter}));
    bare(configuration).replacen(ROUTER, &filter, 1)
}

/// RBAC that denies these ranges one after the other.
pub fn rbac(configuration: &str, ranges: &[Range]) -> String {
    let ids: Vec<_> = cidr_ranges(ranges).into_iter().map(|range| json!({"remote_ip": range})).collect();
    let policy = json!({"permissions": [{"any": true}], "principals": [{"or_ids": {"ids": ids}}]});
    let filter = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": "DENY", "policies": {"block": policy}},
    });
    with_filter(configuration, "envoy.filters.http.rbac", &filter)
}

/// RBAC that looks the address up in a trie of these ranges.
pub fn rbac_trie(configuration: &str, ranges: &[Range]) -> String {
    let action = |action: &str| {
        let config =
            json!({"@type": "type.googleapis.com/envoy.config.rbac.v3.Action", "name": action, "action": action});
        json!({"action": {"name": "action", "typed_config": config}})
    };
    let input = json!({
        "name": "envoy.matching.inputs.source_ip",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.SourceIPInput"},
    });
    let trie = json!({
        "name": "envoy.matching.custom_matchers.trie_matcher",
        "typed_config": {
            "@type": "type.googleapis.com/xds.type.matcher.v3.IPMatcher",
            "range_matchers": [{"ranges": cidr_ranges(ranges), "on_match": action("DENY")}],
        },
    });
    let filter = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "matcher": {"matcher_tree": {"input": input, "custom_match": trie}, "on_no_match": action("ALLOW")},
    });
    with_filter(configuration, "envoy.filters.http.rbac", &filter)
}

fn cidr_ranges(ranges: &[Range]) -> Vec<Value> {
    ranges.iter().map(|(address, length)| json!({"address_prefix": address, "prefix_len": length})).collect()
}

/// The token bucket of Envoy: `burst` at once, `per_second` after that. All workers share it.
pub fn local_ratelimit(configuration: &str, burst: u32, per_second: u32) -> String {
    let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    let filter = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": burst, "tokens_per_fill": per_second, "fill_interval": "1s"},
        "filter_enabled": always,
        "filter_enforced": always,
    });
    with_filter(configuration, "envoy.filters.http.local_ratelimit", &filter)
}

/// A gateway with so many workers, the filter's configuration as shipped with these members besides, and a stand-in for
/// the store.
pub fn options(
    store: std::net::SocketAddr,
    workers: u32,
    filter: Value,
    edit: impl Fn(&str) -> String + 'static,
) -> Options {
    // Settings are looked for as often as shipped; the tests' 20 ms would be measured too.
    let mut configuration = json!({
        "store": {"cluster": "dcr_store"},
        "signal_sources": ["connecting_address", "ja3", "ja4", "country", "subdivision", "asn"],
    });
    if let (Some(all), Value::Object(more)) = (configuration.as_object_mut(), filter) {
        all.extend(more);
    }
    Options {
        concurrency: workers,
        store: Some(store),
        filter_configuration: configuration,
        edit: Box::new(move |configuration| edit(&configuration)),
        ..Options::default()
    }
}
