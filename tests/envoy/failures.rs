//! Whatever becomes of the call to the store: one 503 outside, one reason each inside.

use serde_json::json;

use super::stand_in::{Behaviour, StandIn, answer};
use super::{CLIENT, open_gateway, outcome, register};
use crate::support::gateway::{Gateway, Options};
use crate::support::http1;
use crate::support::process::eventually;
use crate::support::response::Response;

/// A 503 that says nothing of what happened, counted and logged under `reason`.
fn assert_fails(gateway: &Gateway, reason: &str, response: &Response) {
    assert_eq!(outcome(response), (503, "temporarily_unavailable".to_owned()), "{reason}: {response:?}");
    assert_eq!(response.header("retry-after"), Some("2"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let description = "the client could not be registered now, try again later";
    assert_eq!(response.json()["error_description"], description);
    assert!(gateway.decisions(reason) >= 1, "{reason}: {:?}", gateway.stats("wasmcustom.dcr_edge"));
    let id = response.json()["decision_id"].as_str().unwrap().to_owned();
    assert!(gateway.envoy_log().contains(&format!("registration {id} failed: {reason}")), "{}", gateway.envoy_log());
}

#[test]
fn each_failure_of_the_call_has_its_own_reason_and_the_same_503() {
    let stand_in = StandIn::start();
    let store = json!({"cluster": "dcr_store", "poll_interval_ms": 20, "timeout_ms": 300});
    let gateway = Gateway::start(Options {
        store: Some(stand_in.address()),
        filter_configuration: json!({"store": store}),
        ..Options::default()
    });
    gateway.wait_for_settings();
    let registered = r#"{"client_id":"tpc_a","client_id_issued_at":1}"#;
    for (reason, behaviour) in [
        ("store_reset", Behaviour::Close),
        ("store_timeout", Behaviour::Hang),
        ("store_not_ours", answer(200, None, registered)),
        ("store_not_ours", answer(503, None, "down for maintenance")),
        ("store_wrong_version", answer(201, Some("3"), registered)),
        ("store_oversized", answer(201, Some("1"), &" ".repeat(70_000))),
        ("store_oversized", answer(201, Some("1"), &" ".repeat(5_000_000))),
        ("store_unauthorized", answer(401, Some("1"), "{}")),
        ("store_conflict", answer(409, Some("1"), "{}")),
        ("store_error", answer(500, Some("1"), "{}")),
        ("store_error", answer(201, Some("1"), "[]")),
        ("store_error", answer(400, Some("1"), "<script>")),
    ] {
        stand_in.set(behaviour);
        assert_fails(&gateway, reason, &register(gateway.http_address()));
    }
    // An answer that never was HTTP.
    stand_in.set(Behaviour::Answer(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()));
    assert_fails(&gateway, "store_not_ours", &register(gateway.http_address()));
    // And then all is well again.
    stand_in.set(answer(201, Some("1"), registered));
    let response = register(gateway.http_address());
    assert_eq!((response.status, &response.json()["client_id"]), (201, &json!("tpc_a")));
}

#[test]
fn a_refusal_of_the_store_is_passed_on_with_its_words() {
    let stand_in = StandIn::start();
    let gateway = Gateway::start(Options { store: Some(stand_in.address()), ..Options::default() });
    gateway.wait_for_settings();
    stand_in.set(answer(
        400,
        Some("1"),
        r#"{"error":"invalid_redirect_uri","error_description":"redirect_uris[0]: no"}"#,
    ));
    let response = register(gateway.http_address());
    assert_eq!(outcome(&response), (400, "invalid_redirect_uri".to_owned()));
    assert_eq!(response.json()["error_description"], "redirect_uris[0]: no");
    assert!(response.json()["decision_id"].is_string());
}

#[test]
fn a_store_that_is_away_is_a_503_until_it_is_back() {
    let mut gateway = open_gateway();
    assert_eq!(register(gateway.http_address()).status, 201);
    gateway.stop_store();
    assert_fails(&gateway, "store_connect_error", &register(gateway.http_address()));
    gateway.start_store();
    eventually("the store is back", || (register(gateway.http_address()).status == 201).then_some(()));
}

#[test]
fn a_store_that_no_health_check_finds_is_a_503() {
    let without_panic = |configuration: String| {
        let panic = "healthy_panic_threshold:\n        value: 1\n";
        configuration.replacen(panic, "healthy_panic_threshold:\n        value: 0\n", 1)
    };
    let mut gateway = super::open(Options { edit: Box::new(without_panic), ..Options::default() }, json!({}));
    assert_eq!(register(gateway.http_address()).status, 201);
    gateway.stop_store();
    eventually("the store is found to be ill", || {
        let unhealthy = gateway.stats("cluster.dcr_store.membership_healthy");
        unhealthy.iter().all(|(_, count)| *count == 0).then_some(())
    });
    assert_fails(&gateway, "store_no_healthy_host", &register(gateway.http_address()));
}

#[test]
fn a_cluster_that_is_not_there_is_said_to_be_missing_and_lets_nothing_through() {
    let stand_in = StandIn::start();
    let gateway = Gateway::start(Options {
        store: Some(stand_in.address()),
        filter_configuration: json!({"store": {"cluster": "nope", "poll_interval_ms": 20}}),
        ..Options::default()
    });
    eventually("the missing cluster is logged", || {
        gateway.envoy_log().contains("store_no_cluster: store.cluster names no cluster of this Envoy").then_some(())
    });
    assert_eq!(http1::get(gateway.http_address(), "/").status, 503);
    assert!(gateway.decisions("store_no_cluster") >= 1);
}

#[test]
fn no_failure_of_the_store_reaches_what_is_not_its_own() {
    let mut gateway = open_gateway();
    gateway.kill_store();
    let request = http1::request("POST", "/login", &[("content-type", b"application/json")], CLIENT);
    assert_eq!(http1::exchange(gateway.http_address(), &request).status, 200);
}
