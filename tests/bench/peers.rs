//! Envoy's configurations: the shipped one with small changes, and what does the same work with Envoy's own filters.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Options};

const ROUTER: &str = "          - name: envoy.filters.http.router\n";
const LAST_ROUTE: &str = "              - match:
                  prefix: /
                route:
                  cluster: authorization_server
                  timeout: 30s
";

/// An address and the length of its prefix.
pub type Range = (std::net::Ipv4Addr, u8);

/// The configuration with another build of the filter.
pub fn with_wasm(configuration: &str, wasm: &str) -> String {
    let (before, rest) = configuration.split_once("filename: ").unwrap();
    let (own, after) = rest.split_once('\n').unwrap();
    assert!(own.contains("dcr_edge.wasm"), "{own}");
    format!("{before}filename: {wasm}\n{after}")
}

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
    // What registers without the filter has nothing to register with.
    let registration = "route:\n                  cluster: authorization_server\n";
    assert!(before.contains(registration));
    let before = before.replace(registration, &format!("{answer}\n"));
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

/// A script that compares the client's address with these ranges, one after the other, and denies as the filter does.
pub fn lua_acl(configuration: &str, ranges: &[Range]) -> String {
    let masked = |(address, length): &Range| {
        let mask = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
        format!("{{{}, {}}}", (address.to_bits() & mask).cast_signed(), mask.cast_signed())
    };
    let ranges: Vec<_> = ranges.iter().map(masked).collect();
    let script = format!(
        r#"
local ranges = {{{}}}
function envoy_on_request(handle)
  local a, b, c, d = string.match(handle:streamInfo():downstreamDirectRemoteAddress(), "^(%d+)%.(%d+)%.(%d+)%.(%d+)")
  local address = bit.tobit(a * 16777216 + b * 65536 + c * 256 + d)
  for _, range in ipairs(ranges) do
    if bit.band(address, range[2]) == range[1] then
      local id = handle:headers():get("x-request-id")
      handle:respond(
        {{[":status"] = "403", ["content-type"] = "application/json", ["cache-control"] = "no-store"}},
        '{{"error":"access_denied","error_description":"an access rule blocks it","decision_id":"' .. id .. '"}}')
      return
    end
  end
end"#,
        ranges.join(", ")
    );
    lua(configuration, &script)
}

/// A script with a token bucket, of which each worker has one of its own.
pub fn lua_limit(configuration: &str, burst: u32, per_second: u32) -> String {
    let script = format!(
        r#"
local tokens, last = {burst}, 0
function envoy_on_request(handle)
  local now = handle:timestamp(EnvoyTimestampResolution.MILLISECOND)
  tokens, last = math.min({burst}, tokens + (now - last) * {per_second} / 1000), now
  if tokens >= 1 then
    tokens = tokens - 1
    return
  end
  local id = handle:headers():get("x-request-id")
  handle:respond(
    {{[":status"] = "429", ["content-type"] = "application/json", ["cache-control"] = "no-store", ["retry-after"] = "1",
     ["x-ratelimit-limit"] = "{burst}", ["x-ratelimit-remaining"] = "0",
     ["x-ratelimit-reset"] = string.format("%d", math.ceil(now / 1000 + (1 - tokens) / {per_second}))}},
    '{{"error":"too_many_requests","error_description":"too many registration requests","decision_id":"' .. id .. '"}}')
end"#
    );
    lua(configuration, &script)
}

fn lua(configuration: &str, script: &str) -> String {
    let filter = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": script},
    });
    with_filter(configuration, "envoy.filters.http.lua", &filter)
}

/// An Envoy that asks a service over HTTP about each request: the store. It answers 404 to a path that it does not know,
/// which is as little as any service can do; so that is what the design costs at least.
pub fn ext_authz(configuration: &str) -> String {
    let filter = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "http_service": {
            "server_uri": {"uri": "http://dcr-store", "cluster": "dcr_store", "timeout": "2s"},
            "path_prefix": "/authorize-request",
        },
    });
    with_filter(configuration, "envoy.filters.http.ext_authz", &filter)
}

/// Starts a gateway and waits until the stand-in's settings are in force.
pub fn with_settings(options: Options) -> Gateway {
    let gateway = Gateway::start(options);
    gateway.wait_for_settings();
    gateway
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
