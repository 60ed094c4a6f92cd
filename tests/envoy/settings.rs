//! Settings that change while requests run.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{ECHO, open_gateway, outcome, register};
use crate::support::gateway::{Gateway, Options};
use crate::support::http1::{self, Connection};
use crate::support::process::eventually;

/// The shipped interval between two looks, instead of the tests' short one.
fn as_shipped() -> Options {
    Options { filter_configuration: json!({"store": {"cluster": "dcr_store"}}), ..Options::default() }
}

#[test]
fn a_change_is_in_force_within_two_seconds_without_a_reload() {
    let gateway = Gateway::start(as_shipped());
    let version = gateway.stats("listener_manager.listener_modified");
    assert_eq!(register(gateway.http_address()).status, 403);
    for (enabled, status) in [(true, 201), (false, 403)] {
        let changed = gateway.try_patch_settings(&json!({"flags": {"enable_dynamic_client_registration": enabled}}));
        assert_eq!(changed.status, 200);
        let since = Instant::now();
        eventually("the change is in force", || {
            std::thread::sleep(Duration::from_millis(250));
            (register(gateway.http_address()).status == status).then_some(())
        });
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    }
    assert_eq!(gateway.stats("listener_manager.listener_modified"), version);
}

#[test]
fn once_a_worker_has_answered_under_a_version_every_worker_does() {
    let gateway = super::open(Options { concurrency: 4, ..Options::default() }, json!({}));
    // Connections stay on the worker that took them; so many of them are on all four.
    let mut connections: Vec<_> = (0..16).map(|_| Connection::open(gateway.http_address())).collect();
    let allows = |connection: &mut Connection<_>, origin: &str| {
        let headers = [("origin", origin.as_bytes())];
        connection.send(&http1::request("OPTIONS", "/oidc/register", &headers, b""));
        connection.receive().header("access-control-allow-origin").is_some()
    };
    for version in 0..20 {
        let origin = format!("https://v{version}.example");
        assert!(!connections.iter_mut().any(|connection| allows(connection, &origin)));
        assert_eq!(gateway.try_patch_settings(&json!({"dcr_edge": {"cors_origins": [origin]}})).status, 200);
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut turn = (0..connections.len()).cycle();
        while !allows(&mut connections[turn.next().unwrap()], &origin) {
            assert!(Instant::now() < deadline);
        }
        assert!(connections.iter_mut().all(|connection| allows(connection, &origin)), "version {version}");
    }
}

#[test]
fn the_last_settings_stay_in_force_while_the_store_is_away() {
    let mut gateway = open_gateway();
    gateway.patch_settings(&json!({"flags": {"enable_dynamic_client_registration": false}}));
    gateway.stop_store();
    eventually("a look for settings has failed", || (gateway.decisions("store_connect_error") > 2).then_some(()));
    assert_eq!(outcome(&register(gateway.http_address())), (403, "access_denied".to_owned()));
    assert_eq!(http1::get(gateway.http_address(), "/").header(ECHO), Some("echo"));
    let errors = gateway.envoy_log().matches("settings cannot be loaded").count();
    // Two workers and the main thread look in turn.
    assert!((1..=3).contains(&errors), "one line for each that looks, not one for each look: {errors}");
    gateway.start_store();
    gateway.wait_for_settings();
    gateway.patch_settings(&json!({"flags": {"enable_dynamic_client_registration": true}}));
    assert_eq!(register(gateway.http_address()).status, 201);
}

#[test]
fn before_the_first_settings_every_route_but_an_opted_out_one_answers_503() {
    let opt_out = |configuration: String| {
        let route = "routes:\n              - match: {prefix: /static/}\n                route: {cluster: authorization_server}\n                \
                     typed_per_filter_config:\n                  dcr_edge: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}\n";
        configuration.replacen("routes:\n", route, 1)
    };
    let mut gateway = Gateway::start(Options { edit: Box::new(opt_out), ..as_shipped() });
    gateway.stop_store();
    gateway.restart_envoy();
    for target in [
        "/",
        "/oidc/register",
        "/OIDC/register",
        "/authorize",
        "/api/v2/tenants/settings",
        "/.well-known/openid-configuration",
    ] {
        for host in ["localhost", "other.test"] {
            let request = http1::request("GET", target, &[("host", host.as_bytes())], b"");
            let response = http1::exchange(gateway.http_address(), &request);
            assert_eq!(outcome(&response), (503, "temporarily_unavailable".to_owned()), "{target}");
            assert_eq!((response.header("retry-after"), response.header(ECHO)), (Some("2"), None));
        }
    }
    // The opted-out route has no rules at all, not even that of the host.
    let request = http1::request("GET", "/static/a", &[("host", b"other.test")], b"");
    assert_eq!(http1::exchange(gateway.http_address(), &request).header(ECHO), Some("echo"));
    gateway.start_store();
    gateway.wait_for_settings();
    assert_eq!(http1::get(gateway.http_address(), "/").header(ECHO), Some("echo"));
    assert_eq!(register(gateway.http_address()).status, 403);
}

#[test]
fn tenants_come_and_go_and_change_their_hosts_while_the_gateway_runs() {
    let gateway = open_gateway();
    let status = |host: &str| {
        http1::exchange(gateway.http_address(), &http1::request("GET", "/", &[("host", host.as_bytes())], b"")).status
    };
    let after = |arguments: &[&str]| {
        gateway.store_command(arguments);
        gateway.wait_for_settings();
    };
    assert_eq!(status("new.test"), 404);
    after(&["tenant", "create", "new", "--domain", "new.test", "--burst", "1", "--per-second", "1"]);
    assert_eq!(status("new.test"), 200);
    after(&["tenant", "update", "new", "--domain", "newer.test"]);
    assert_eq!((status("new.test"), status("newer.test")), (404, 200));
    after(&["tenant", "create", "other", "--domain", "new.test"]);
    assert_eq!((status("new.test"), status("newer.test")), (200, 200));
    after(&["tenant", "delete", "new"]);
    assert_eq!((status("new.test"), status("newer.test"), status("localhost")), (200, 404, 200));
}

#[test]
fn a_change_of_settings_gives_nobody_tokens_back_and_a_lower_limit_is_in_force_at_once() {
    let gateway = super::open(Options::default(), json!({"rate_limit": {"burst": 600, "per_second": 1}}));
    let send = || register(gateway.http_address());
    let remaining = || send().header("x-ratelimit-remaining").unwrap().parse::<u32>().unwrap();
    let first = remaining();
    gateway.patch_settings(&json!({"dcr_edge": {"cors_origins": ["https://a.example"]}}));
    assert!(remaining() < first + 5);
    while remaining() > 300 {}
    gateway.patch_settings(&json!({"dcr_edge": {"rate_limit": {"burst": 2, "per_second": 2}}}));
    let denied = send();
    assert_eq!((denied.status, denied.header("retry-after")), (429, Some("1")));
    // What `retry-after` says is true.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(send().status, 201);
}
