//! A plugin without the setting that lets it see bodies.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{CLIENT, ECHO, open, outcome, register};
use crate::support::envoy;
use crate::support::gateway::{Gateway, Options};
use crate::support::http1;
use crate::support::process::eventually;

const SETTING: &str = "allow_on_headers_stop_iteration: true";

fn without_the_setting(envoy: std::path::PathBuf) -> Gateway {
    let edit = Box::new(|configuration: String| {
        assert!(configuration.contains(SETTING));
        configuration.replace(SETTING, "")
    });
    open(Options { envoy, edit, ..Options::default() }, json!({}))
}

#[test]
fn every_supported_envoy_refuses_registrations_at_once_where_the_setting_is_missing_and_names_it_in_the_log() {
    for envoy in envoy::matrix() {
        let version = envoy.display().to_string();
        let gateway = without_the_setting(envoy);
        let address = gateway.http_address();
        let mut took = Vec::new();
        // Each of the two workers finds out by itself.
        for _ in 0..20 {
            let started = Instant::now();
            let refused = register(address);
            took.push(started.elapsed());
            assert_eq!(outcome(&refused), (503, "temporarily_unavailable".to_owned()), "{version}");
            assert_eq!(refused.header("retry-after"), Some("2"), "{version}");
        }
        assert!(took.iter().all(|took| *took < Duration::from_secs(2)), "{version}: {took:?}");
        assert!(took.iter().filter(|took| **took > Duration::from_millis(200)).count() <= 2, "{version}: {took:?}");
        let log = gateway.envoy_log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(SETTING)).collect();
        assert!((1..=2).contains(&lines.len()), "{version}: {lines:#?}");
        // Nothing else is refused.
        assert_eq!(http1::get(address, "/anything").header(ECHO), Some("echo"), "{version}");
        assert_eq!(http1::post_json(address, "/anything", CLIENT).header(ECHO), Some("echo"), "{version}");
        assert!(gateway.client_ids().is_empty());
        eventually("the refusals among the stats", || (gateway.decisions("bodies_hidden") == 20).then_some(()));
    }
}

#[test]
fn a_token_request_is_refused_at_once_too_where_the_setting_is_missing() {
    let gateway = without_the_setting(envoy::binary());
    let started = Instant::now();
    let headers: [(&str, &[u8]); 2] = [("host", b"localhost"), ("content-type", b"application/x-www-form-urlencoded")];
    let form = http1::request("POST", "/oauth/token", &headers, b"grant_type=authorization_code&client_id=tpc_x");
    let refused = http1::exchange(gateway.http_address(), &form);
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_client_that_is_slow_to_send_its_body_is_not_taken_for_a_missing_setting() {
    let gateway = open(Options { concurrency: 1, ..Options::default() }, json!({}));
    let headers: [(&str, &[u8]); 2] = [("host", b"localhost"), ("content-type", b"application/json")];
    let request = http1::request("POST", "/oidc/register", &headers, CLIENT);
    let (head, body) = request.split_at(request.len() - CLIENT.len());
    let mut connection = http1::Connection::open(gateway.http_address());
    connection.send(head);
    std::thread::sleep(Duration::from_millis(1_500));
    connection.send(body);
    let slow = connection.receive();
    assert_eq!(slow.status, 201, "{slow:?}");
    assert!(!gateway.envoy_log().contains("allow_on_headers_stop_iteration"));
}
