//! Access rules, with the signals that a real Envoy supplies.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{CLIENT, ECHO, open, outcome, register};
use crate::support::gateway::{Gateway, Options};
use crate::support::process::eventually;
use crate::support::response::Response;
use crate::support::store::Caller;
use crate::support::{envoy, http1};

/// A client's address that the location databases know: CH, ZH, AS 64500.
const KNOWN: &str = "198.51.100.7";

/// One that they do not know.
const UNKNOWN: &str = "192.0.2.7";

/// What the shipped configuration says with location databases.
fn filter_configuration() -> Value {
    json!({
        "store": {"cluster": "dcr_store", "poll_interval_ms": 20},
        "signal_sources": ["connecting_address", "ja3", "ja4", "country", "subdivision", "asn"]
    })
}

/// A gateway behind one proxy, with every source of signals.
fn gateway() -> Gateway {
    gateway_of(Options::default())
}

fn gateway_of(options: Options) -> Gateway {
    let options = Options { geo: true, trusted_hops: 1, filter_configuration: filter_configuration(), ..options };
    open(options, json!({}))
}

fn acl(rule: Value) -> Value {
    json!({"description": "test", "active": true, "rule": rule})
}

fn block(condition: Value) -> Value {
    with_action(json!({"block": true}), condition)
}

fn with_action(action: Value, condition: Value) -> Value {
    let mut rule = condition;
    rule["action"] = action;
    if rule.get("scope").is_none() {
        rule["scope"] = json!("authentication");
    }
    acl(rule)
}

/// The Management API of the tenant `default`, on the store's own port.
struct Rules<'g> {
    gateway: &'g Gateway,
    caller: Caller,
    id: String,
}

impl<'g> Rules<'g> {
    /// With one rule, which looks at nobody yet.
    fn new(gateway: &'g Gateway) -> Self {
        let caller = Caller::new(gateway.store_address()).with_token(gateway.management_token());
        let mut rules = Self { gateway, caller, id: String::new() };
        let harmless = block(json!({"match": {"asns": [1]}}));
        rules.id = rules.add(&harmless);
        rules
    }

    /// Adds a rule, and waits until it is in force.
    fn add(&self, acl: &Value) -> String {
        let headers = [("content-type", "application/json")];
        let answer = self.caller.call("POST", "/api/v2/network-acls", &headers, Some(&acl.to_string()));
        assert_eq!(answer.status, 201, "{answer:?}");
        self.gateway.wait_for_settings();
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Puts another rule in the place of the one, and waits until it is in force.
    fn set(&self, acl: &Value) {
        let headers = [("content-type", "application/json")];
        let path = format!("/api/v2/network-acls/{}", self.id);
        let answer = self.caller.call("PUT", &path, &headers, Some(&acl.to_string()));
        assert_eq!(answer.status, 200, "{answer:?}");
        self.gateway.wait_for_settings();
    }
}

fn get_from(address: SocketAddr, client: &str, headers: &[(&str, &str)]) -> Response {
    let mut all = vec![("x-forwarded-for", client.as_bytes())];
    all.extend(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
    http1::exchange(address, &http1::request("GET", "/", &all, b""))
}

fn get_by_tls(gateway: &Gateway, server_name: &str, host: &str) -> Response {
    let mut connection = http1::Connection::open_tls_to(gateway.https_address(), &gateway.ca(), server_name);
    connection.send(&http1::request("GET", "/", &[("host", host.as_bytes())], b""));
    connection.receive()
}

/// Shows each client the fingerprints of its own TLS.
fn show_fingerprints(configuration: String) -> String {
    let headers = "            name: gateway\n            response_headers_to_add:\n            \
                   - header: {key: x-test-ja3, value: \"%TLS_JA3_FINGERPRINT%\"}\n            \
                   - header: {key: x-test-ja4, value: \"%TLS_JA4_FINGERPRINT%\"}\n";
    configuration.replacen("            name: gateway\n", headers, 1)
}

#[test]
fn each_signal_comes_from_envoy_and_an_unknown_one_matches_nothing() {
    for envoy in envoy::matrix() {
        let version = envoy.display().to_string();
        let gateway = gateway_of(Options { envoy, edit: Box::new(show_fingerprints), ..Options::default() });
        let rules = Rules::new(&gateway);
        let address = gateway.http_address();
        let passes = |response: &Response| match response.status {
            200 => response.header(ECHO).is_some(),
            403 => false,
            other => panic!("{version}: {other}"),
        };
        let from = |client: &str| passes(&get_from(address, client, &[]));

        // A rule that blocks by a signal: who is blocked by `match`, and who by `not_match`.
        for (signals, same, other) in [
            (json!({"ipv4_cidrs": ["198.51.100.0/24"]}), KNOWN, UNKNOWN),
            (json!({"ipv4_cidrs": ["198.51.100.0/24"]}), "::ffff:198.51.100.9", UNKNOWN),
            (json!({"ipv6_cidrs": ["2001:db8:1::/48"]}), "2001:db8:1::7", "2001:db8:2::7"),
            (json!({"asns": [64500]}), KNOWN, "203.0.113.7"),
            (json!({"asns": [64500]}), KNOWN, UNKNOWN),
            (json!({"geo_country_codes": ["ch"]}), KNOWN, "203.0.113.7"),
            (json!({"geo_country_codes": ["CH"]}), KNOWN, UNKNOWN),
            (json!({"geo_subdivision_codes": ["CH-ZH"]}), KNOWN, "203.0.113.7"),
            (json!({"geo_subdivision_codes": ["US-NY"]}), "203.0.113.7", UNKNOWN),
        ] {
            rules.set(&block(json!({"match": signals})));
            assert!(!from(same) && from(other), "{version} match {signals}");
            rules.set(&block(json!({"not_match": signals})));
            assert!(from(same) && !from(other), "{version} not_match {signals}");
        }

        // The peer is the same whoever the client is.
        rules.set(&block(json!({"match": {"connecting_ipv4_cidrs": ["127.0.0.1"]}})));
        assert!(!from(KNOWN) && !from(UNKNOWN), "{version}");
        rules.set(&block(json!({"match": {"connecting_ipv4_cidrs": ["198.51.100.0/24"]}})));
        assert!(from(KNOWN), "{version}");

        rules.set(&block(json!({"match": {"user_agents": ["bad*"]}})));
        for (agent, pass) in [("badger/1", false), ("good", true)] {
            assert_eq!(passes(&get_from(address, KNOWN, &[("user-agent", agent)])), pass, "{version}");
        }
        assert!(from(KNOWN), "{version}");

        // This client's TLS has another JA3 on each connection.
        let mut connection = http1::Connection::open_tls(gateway.https_address(), &gateway.ca());
        let mut by_tls = || {
            connection.send(&http1::request("GET", "/", &[], b""));
            connection.receive()
        };
        rules.set(&block(json!({"match": {"asns": [1]}})));
        let shown = by_tls();
        for (name, header) in [("ja3_fingerprints", "x-test-ja3"), ("ja4_fingerprints", "x-test-ja4")] {
            let value = shown.header(header).unwrap();
            rules.set(&block(json!({"match": {name: [value]}})));
            assert!(!passes(&by_tls()) && from(KNOWN), "{version} {name}");
            rules.set(&block(json!({"not_match": {name: [value]}})));
            assert!(passes(&by_tls()) && !from(KNOWN), "{version} {name}");
        }
    }
}

#[test]
fn the_lowest_priority_comes_first_equal_ones_as_they_were_made_and_inactive_ones_never() {
    let gateway = gateway();
    let rules = Rules::new(&gateway);
    let add = |action: &str, active: bool, priority: u32| {
        let mut acl = with_action(json!({action: true}), json!({"match": {"user_agents": ["order"]}}));
        acl["active"] = active.into();
        acl["priority"] = priority.into();
        rules.add(&acl);
        get_from(gateway.http_address(), KNOWN, &[("user-agent", "order")]).status
    };
    // Each comes before those that were made before it, or it changes nothing.
    for (action, active, priority, status) in [
        ("block", true, 9, 403),
        ("allow", true, 7, 200),
        ("block", true, 7, 200),
        ("block", true, 8, 200),
        ("block", false, 1, 200),
        ("block", true, 6, 403),
        ("allow", false, 2, 403),
        ("allow", true, 0, 200),
    ] {
        assert_eq!(add(action, active, priority), status, "{action} {active} {priority}");
    }
}

#[test]
fn the_tenants_log_shows_of_a_registration_what_envoy_knows_of_its_client() {
    let gateway = gateway();
    let headers: [(&str, &[u8]); 3] =
        [("x-forwarded-for", KNOWN.as_bytes()), ("user-agent", b"the agent"), ("content-type", b"application/json")];
    let request = http1::request("POST", "/oidc/register", &headers, CLIENT);
    let mut connection = http1::Connection::open_tls_to(gateway.https_address(), &gateway.ca(), "localhost");
    connection.send(&request);
    let registered = connection.receive();
    assert_eq!(registered.status, 201, "{registered:?}");
    let owner = Caller::new(gateway.store_address()).with_token(gateway.management_token());
    let events = owner.get("/api/v2/logs?q=description:registration").json();
    let event = &events[0];
    assert_eq!(event["client_id"], registered.json()["client_id"]);
    assert_eq!(
        (&event["ip"], &event["user_agent"], &event["hostname"]),
        (&json!(KNOWN), &json!("the agent"), &json!("localhost"))
    );
    let details = &event["details"];
    assert_eq!(
        (&details["country"], &details["subdivision"], &details["asn"]),
        (&json!("CH"), &json!("ZH"), &json!(64_500))
    );
    assert!(details["ja4"].as_str().unwrap().starts_with("t13d") && details["ja3"].is_string(), "{details}");
}

#[test]
fn hostnames_are_the_server_name_and_the_authority() {
    let gateway = gateway();
    let rules = Rules::new(&gateway);
    gateway.store_command(&["tenant", "update", "default", "--add-domain", "second.test"]);
    let by_host = |host: &str| get_from(gateway.http_address(), KNOWN, &[("host", host)]).status;
    let by_tls = |host: &str| get_by_tls(&gateway, "localhost", host).status;
    rules.set(&block(json!({"match": {"hostnames": ["SECOND.test"]}})));
    assert_eq!((by_host("second.test:8080"), by_host("Second.Test."), by_host("localhost")), (403, 403, 200));
    assert_eq!((by_tls("localhost"), by_tls("second.test")), (200, 403));
    rules.set(&block(json!({"match": {"hostnames": ["localhost"]}})));
    assert_eq!((by_tls("localhost"), by_tls("second.test"), by_host("second.test")), (403, 403, 200));
    // A rule that allows needs both names.
    rules.set(&with_action(json!({"allow": true}), json!({"match": {"hostnames": ["second.test"]}})));
    rules.add(&block(json!({"match_all": true})));
    assert_eq!((by_tls("second.test"), by_host("second.test")), (403, 200));
}

#[test]
fn a_server_name_and_an_authority_of_different_tenants_are_misdirected() {
    let gateway = gateway();
    gateway.store_command(&["tenant", "create", "other", "--domain", "other.test"]);
    gateway.wait_for_settings();
    let misdirected = get_by_tls(&gateway, "localhost", "other.test");
    assert_eq!(outcome(&misdirected), (421, "misdirected_request".to_owned()));
    assert_eq!(misdirected.header(ECHO), None);
    assert_eq!(get_by_tls(&gateway, "other.test", "other.test").status, 200);
    assert_eq!(get_by_tls(&gateway, "other.test", "localhost").status, 421);
    // A name of no tenant says nothing of tenants.
    assert_eq!(get_by_tls(&gateway, "gateway.test", "other.test").status, 200);
}

#[test]
fn a_client_cannot_set_a_signal() {
    let gateway = gateway();
    let rules = Rules::new(&gateway);
    let forged = [
        ("x-dcr-geo-country", "US"),
        ("x-dcr-geo-region", "NY"),
        ("x-dcr-geo-asn", "64501"),
        ("x-dcr-client-address", "203.0.113.7"),
        ("X-Forwarded-For", "203.0.113.7"),
    ];
    let everybody_else = block(json!({"match_all": true}));
    for signals in [
        json!({"geo_country_codes": ["US"]}),
        json!({"geo_subdivision_codes": ["US-NY"]}),
        json!({"asns": [64501]}),
        json!({"ipv4_cidrs": ["203.0.113.0/24"]}),
    ] {
        rules.set(&with_action(json!({"allow": true}), json!({"match": signals})));
        let last = rules.add(&everybody_else);
        for client in [KNOWN, UNKNOWN] {
            // What the trusted proxy says comes last.
            let mut headers: Vec<(&str, &[u8])> =
                forged.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            headers.push(("x-forwarded-for", client.as_bytes()));
            let response = http1::exchange(gateway.http_address(), &http1::request("GET", "/", &headers, b""));
            assert_eq!(response.status, 403, "{signals} {client}");
        }
        let answer = rules.caller.call("DELETE", &format!("/api/v2/network-acls/{last}"), &[], None);
        assert_eq!(answer.status, 204);
    }
}

#[test]
fn a_denial_is_json_or_a_page_and_a_redirect_has_a_location_and_no_body() {
    let gateway = gateway();
    let rules = Rules::new(&gateway);
    rules.set(&block(json!({"match_all": true})));
    let denied = register(gateway.http_address());
    assert_eq!(outcome(&denied), (403, "access_denied".to_owned()));
    assert_eq!(denied.header("x-request-id"), denied.json()["decision_id"].as_str());
    let page = get_from(gateway.http_address(), KNOWN, &[("accept", "text/html,*/*;q=0.8")]);
    assert_eq!((page.status, page.header("content-type")), (403, Some("text/html; charset=utf-8")));
    assert!(page.text().contains(page.header("x-request-id").unwrap()));
    rules.set(&with_action(
        json!({"redirect": true, "redirect_uri": "https://www.example.com/blocked"}),
        json!({"match_all": true}),
    ));
    let away = register(gateway.http_address());
    assert_eq!((away.status, away.header("location")), (302, Some("https://www.example.com/blocked")));
    assert_eq!((away.body.len(), away.header("content-type")), (0, None));
    assert_eq!((gateway.decisions("acl_blocked"), gateway.decisions("acl_redirected")), (2, 1));
}

#[test]
fn a_rule_that_locks_the_management_api_out_never_closes_the_stores_own_port() {
    let gateway = gateway();
    let rules = Rules::new(&gateway);
    rules.set(&block(json!({"match_all": true, "scope": "management"})));
    for path in ["/api/v2/tenants/settings", "/scim/v2/Users"] {
        assert_eq!(http1::get(gateway.http_address(), path).status, 403, "{path}");
    }
    assert_eq!(http1::get(gateway.http_address(), "/").status, 200);
    rules.set(&block(json!({"match": {"asns": [1]}, "scope": "management"})));
    assert_eq!(gateway.try_patch_settings(&json!({})).status, 200);
}

#[test]
fn a_change_of_the_rules_is_in_force_everywhere_within_two_seconds_and_without_a_reload() {
    let configuration = json!({"store": {"cluster": "dcr_store"}});
    let options = Options { concurrency: 4, filter_configuration: configuration, ..Options::default() };
    let gateway = open(options, json!({}));
    let rules = Rules::new(&gateway);
    let reloads = gateway.stats("listener_manager.listener_modified");
    let mut connections: Vec<_> = (0..16).map(|_| http1::Connection::open(gateway.http_address())).collect();
    for (rule, expected) in [
        (block(json!({"match_all": true})), 403),
        (with_action(json!({"block": true, "log": true}), json!({"match_all": true})), 200),
        (with_action(json!({"allow": true}), json!({"match_all": true})), 200),
        (block(json!({"match": {"ipv4_cidrs": ["127.0.0.0/8"]}})), 403),
    ] {
        let path = format!("/api/v2/network-acls/{}", rules.id);
        let headers = [("content-type", "application/json")];
        assert_eq!(rules.caller.call("PUT", &path, &headers, Some(&rule.to_string())).status, 200);
        let since = Instant::now();
        eventually("the rule is in force in all workers", || {
            let mut statuses = connections.iter_mut().map(|connection| {
                connection.send(&http1::request("GET", "/", &[], b""));
                connection.receive().status
            });
            statuses.all(|status| status == expected).then_some(())
        });
        assert!(since.elapsed() < Duration::from_secs(2), "{rule} {:?}", since.elapsed());
    }
    assert_eq!(gateway.stats("listener_manager.listener_modified"), reloads);
}

#[test]
fn the_configurations_rules_come_before_the_tenants_and_cost_no_store() {
    let configuration = json!({
        "store": {"cluster": "dcr_store", "poll_interval_ms": 20},
        "network_acls": [
            {"description": "partners", "active": true, "priority": 1,
             "rule": {"action": {"allow": true}, "match": {"ipv4_cidrs": ["198.51.100.0/24"]}, "scope": "tenant"}},
            {"description": "nobody else registers", "active": true, "priority": 2,
             "rule": {"action": {"block": true}, "match_all": true, "scope": "dcr"}}
        ]
    });
    let options = Options { trusted_hops: 1, filter_configuration: configuration, ..Options::default() };
    let gateway = open(options, json!({}));
    let rules = Rules::new(&gateway);
    rules.set(&block(json!({"match_all": true, "scope": "tenant"})));
    let register_from = |client: &str| {
        let headers = [("content-type", &b"application/json"[..]), ("x-forwarded-for", client.as_bytes())];
        http1::exchange(gateway.http_address(), &http1::request("POST", "/oidc/register", &headers, CLIENT)).status
    };
    assert_eq!((register_from(KNOWN), register_from(UNKNOWN)), (201, 403));
    assert_eq!(get_from(gateway.http_address(), UNKNOWN, &[]).status, 403);
    assert_eq!(get_from(gateway.http_address(), KNOWN, &[]).status, 200);
}

#[test]
fn what_rules_did_reaches_the_store() {
    let gateway = gateway();
    let rules = Rules::new(&gateway);
    rules.set(&with_action(json!({"block": true, "log": true}), json!({"match": {"ipv4_cidrs": ["198.51.100.0/24"]}})));
    for client in [KNOWN, KNOWN, UNKNOWN] {
        assert_eq!(get_from(gateway.http_address(), client, &[]).status, 200);
    }
    assert_eq!((gateway.decisions("acl_monitored"), gateway.decisions("acl_blocked")), (2, 0));
    let store = Caller::new(gateway.store_address());
    let counted = || {
        let text = store.get("/metrics").text;
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        Some((value("dcr_store_acl_evaluations_total")?, value("dcr_store_acl_matches_total")?))
    };
    eventually("the counts have come", || (counted()? == (3.0, 2.0)).then_some(()));
}
