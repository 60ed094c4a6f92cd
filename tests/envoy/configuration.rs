//! A configuration that is wrong stops Envoy's start with one line that says where and how.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::gateway::{Options, render, write_configuration};
use crate::support::{envoy, output_of, root};

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// Whether Envoy takes this filter configuration, and the filter's lines of the log.
fn validate(filter_configuration: Value, token: &str) -> (bool, Vec<String>) {
    let options = Options { filter_configuration, ..Options::default() };
    let dir = tempfile::tempdir().unwrap();
    let path = write_configuration(&options, dir.path(), NOWHERE, NOWHERE);
    let (status, log) = envoy::validate(&options.envoy, &path, token);
    let lines = log.lines().filter(|line| line.contains("dcr_edge configuration: ")).map(str::to_owned).collect();
    (status.success(), lines)
}

fn block_by_ja4() -> Value {
    let rule = json!({
        "action": {"block": true}, "scope": "tenant",
        "match": {"ja4_fingerprints": ["t13d1516h2_8daaf6152771_02713d6af862"]},
    });
    json!({"description": "d", "active": true, "rule": rule})
}

#[test]
fn a_wrong_configuration_stops_envoy_with_one_line_that_names_the_member() {
    let store = json!({"cluster": "dcr_store"});
    for (configuration, says) in [
        (json!({}), "missing field `store`"),
        (json!({"store": {}}), "store: missing field `cluster`"),
        (json!({"store": {"cluster": ""}}), "store.cluster: expected 1 to 255"),
        (json!({"store": store, "unknown_host": "pass"}), "unknown field `unknown_host`"),
        (json!({"store": {"cluster": "dcr_store", "timeout": 1}}), "store: unknown field `timeout`"),
        (
            json!({"store": {"cluster": "dcr_store", "timeout_ms": 0}}),
            "store.timeout_ms: expected a whole number from 1",
        ),
        (json!({"store": store, "unknown_hosts": "yes"}), "unknown_hosts: unknown variant"),
        (
            json!({"store": store, "network_acls": [block_by_ja4()]}),
            "network_acls: rules name signals that signal_sources",
        ),
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
    for envoy in envoy::matrix() {
        for geo in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = write_configuration(&Options { geo, ..Options::default() }, dir.path(), NOWHERE, NOWHERE);
            let (status, log) = envoy::validate(&envoy, &path, "token");
            assert!(status.success(), "{} {geo}: {log}", envoy.display());
        }
    }
}

#[test]
fn each_of_several_stores_is_an_endpoint_and_every_envoy_takes_them() {
    let (one, other): (SocketAddr, SocketAddr) = ("127.0.0.1:7".parse().unwrap(), "127.0.0.2:8".parse().unwrap());
    for envoy in envoy::matrix() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { more_stores: vec![other], ..Options::default() };
        let path = write_configuration(&options, dir.path(), one, NOWHERE);
        let (status, log) = envoy::validate(&envoy, &path, "token");
        assert!(status.success(), "{}: {log}", envoy.display());
        let rendered = std::fs::read_to_string(path).unwrap();
        for (host, port) in [("127.0.0.1", 7), ("127.0.0.2", 8)] {
            let endpoint = format!("address: '{host}'\n                port_value: {port}\n");
            assert_eq!(rendered.matches(&endpoint).count(), 1, "{rendered}");
        }
    }
}

#[test]
fn every_envoy_takes_the_stores_certificates() {
    let certificates = tempfile::tempdir().unwrap();
    output_of(Command::new(root().join("envoy/store-certificates.sh")).arg(certificates.path()));
    for envoy in envoy::matrix() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { store_certificates: Some(certificates.path().to_owned()), ..Options::default() };
        let path = write_configuration(&options, dir.path(), NOWHERE, NOWHERE);
        let (status, log) = envoy::validate(&envoy, &path, "token");
        assert!(status.success(), "{}: {log}", envoy.display());
    }
}

#[test]
fn an_endpoint_that_is_none_stops_rendering_with_one_line() {
    let mut command = render(&Options::default(), Path::new("/nowhere"), NOWHERE, NOWHERE);
    let output = command.env("STORE_ENDPOINTS", "store-1:8081 store-2").output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "render: STORE_ENDPOINTS has store-2 in it, which is no HOST:PORT\n"
    );
}

#[test]
fn without_databases_nobody_looks_for_a_location_and_the_filter_is_not_told_of_one() {
    let of_the_connection = json!(["connecting_address", "ja3", "ja4"]);
    let all = json!(["connecting_address", "ja3", "ja4", "country", "subdivision", "asn"]);
    for (geo, signals) in [(false, of_the_connection), (true, all)] {
        let options = Options { geo, ..Options::default() };
        let rendered = output_of(&mut render(&options, Path::new("/nowhere"), NOWHERE, NOWHERE));
        let (_, filter) = rendered.split_once("value: |\n").unwrap();
        let filter: Value = serde_json::Deserializer::from_str(filter).into_iter().next().unwrap().unwrap();
        assert_eq!(filter["signal_sources"], signals);
        assert_eq!(rendered.contains("envoy.filters.http.geoip"), geo);
    }
}

#[test]
fn one_database_without_the_other_stops_rendering_with_one_line() {
    for missing in ["GEOIP_CITY_DATABASE", "GEOIP_ASN_DATABASE"] {
        let options = Options { geo: true, ..Options::default() };
        let mut command = render(&options, Path::new("/nowhere"), NOWHERE, NOWHERE);
        let output = command.env_remove(missing).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            "render: one of GEOIP_CITY_DATABASE and GEOIP_ASN_DATABASE is set without the other: set both or none\n"
        );
    }
}
