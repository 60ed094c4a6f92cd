//! A configuration that is wrong stops Envoy's start with one line that says where and how.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::envoy;
use crate::support::gateway::{Options, write_configuration};

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// Whether Envoy takes this filter configuration, and the filter's lines of the log.
fn validate(filter_configuration: Value, token: &str) -> (bool, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { filter_configuration, ..Options::default() };
    let path = write_configuration(&options, dir.path(), NOWHERE, NOWHERE);
    let (status, log) = envoy::validate(&envoy::binary(), &path, token);
    let lines = log.lines().filter(|line| line.contains("dcr_edge configuration: ")).map(str::to_owned).collect();
    (status.success(), lines)
}

#[test]
fn a_wrong_configuration_stops_envoy_with_one_line_that_names_the_path() {
    let store = json!({"cluster": "dcr_store"});
    for (configuration, says) in [
        (json!({}), "missing field `store`"),
        (json!({"store": {}}), "store: missing field `cluster`"),
        (json!({"store": {"cluster": ""}}), "store.cluster: expected 1 to 255"),
        (json!({"store": store, "unknown_host": "pass"}), "unknown_host: unknown field"),
        (json!({"store": {"cluster": "dcr_store", "timeout": 1}}), "store.timeout: unknown field"),
        (
            json!({"store": {"cluster": "dcr_store", "timeout_ms": 0}}),
            "store.timeout_ms: expected a whole number from 1",
        ),
        (json!({"store": store, "unknown_hosts": "yes"}), "unknown_hosts: unknown variant"),
        (json!({"store": store, "max_body_bytes": 1e9}), "max_body_bytes: expected a whole number from 1024"),
    ] {
        let (accepted, lines) = validate(configuration.clone(), "token");
        assert!(!accepted, "{configuration}");
        assert!(lines.len() == 1 && lines[0].contains(says), "{configuration}: {lines:?}");
    }
}

#[test]
fn a_missing_token_stops_envoy_with_one_line_that_says_where_to_get_one() {
    let (accepted, lines) = validate(json!({"store": {"cluster": "dcr_store"}}), "");
    assert!(!accepted);
    assert!(
        lines.len() == 1 && lines[0].contains("DCR_EDGE_TOKEN") && lines[0].contains("token --kind edge"),
        "{lines:?}"
    );
}

#[test]
fn the_shipped_configuration_is_valid() {
    let (accepted, lines) = validate(json!({"store": {"cluster": "dcr_store"}}), "token");
    assert!(accepted, "{lines:?}");
}
