//! The authorization server's metadata, through a real Envoy.

use serde_json::{Value, json};

use super::upstream::Upstream;
use super::{open, outcome};
use crate::support::gateway::{Gateway, Options};
use crate::support::http1::{self, Connection};
use crate::support::http2;
use crate::support::response::Response;
use crate::support::{envoy, process::eventually};

const PATH: &str = "/.well-known/openid-configuration";

const JSON: &str = "content-type: application/json\r\n";

/// What the server says, with validators of its own.
const DOCUMENT: &[u8] =
    br#"{"issuer":"https://as/","z":1.10,"registration_endpoint":"https://as/reg","code_challenge_methods_supported":["plain"]}"#;

fn completed(endpoint: &str) -> String {
    format!(
        "{}{endpoint}{}",
        r#"{"issuer":"https://as/","z":1.10,"registration_endpoint":""#,
        concat!(
            r#"","code_challenge_methods_supported":["plain","S256"],"#,
            r#""token_endpoint_auth_methods_supported":["client_secret_basic","none","client_secret_post"]}"#,
        )
    )
}

fn start(options: Options) -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    let gateway = open(upstream.behind(options), json!({}));
    (upstream, gateway)
}

fn is_withheld(response: &Response) -> bool {
    outcome(response) == (502, "bad_gateway".to_owned()) && response.json()["decision_id"].is_string()
}

#[test]
fn every_supported_envoy_completes_metadata_and_withholds_what_cannot_be_completed() {
    for envoy in envoy::matrix() {
        let version = envoy.display().to_string();
        let (upstream, gateway) = start(Options { envoy, ..Options::default() });
        let get = || http1::get(gateway.http_address(), PATH);
        upstream.says(200, JSON, DOCUMENT);
        let response = get();
        assert_eq!(
            (response.status, response.text()),
            (200, &*completed("http://localhost/oidc/register")),
            "{version}"
        );
        for (headers, body) in [
            (JSON.to_owned(), b"[]".to_vec()),
            (JSON.to_owned(), Vec::new()),
            (JSON.to_owned(), br#"{"a":1,"a":1}"#.to_vec()),
            (format!("{JSON}content-encoding: gzip\r\n"), b"\x1f\x8b".to_vec()),
            (JSON.to_owned(), vec![b' '; 300 * 1024]),
        ] {
            upstream.says(200, &headers, &body);
            let response = get();
            assert!(is_withheld(&response), "{version}: {response:?}");
        }
        assert_eq!(gateway.decisions("server_metadata"), 5, "{version}");
        upstream.says(200, JSON, DOCUMENT);
        assert_eq!(get().status, 200, "{version}");
    }
}

#[test]
fn the_server_is_asked_for_the_whole_document_as_it_is() {
    let (upstream, gateway) = start(Options::default());
    upstream.says(200, JSON, DOCUMENT);
    let headers: [(&str, &[u8]); 5] = [
        ("accept-encoding", b"gzip, br"),
        ("if-none-match", b"\"x\""),
        ("if-modified-since", b"Thu, 26 Nov 2026 00:00:00 GMT"),
        ("range", b"bytes=0-3"),
        ("accept", b"application/json"),
    ];
    assert_eq!(http1::exchange(gateway.http_address(), &http1::request("GET", PATH, &headers, b"")).status, 200);
    let request = upstream.last_request();
    assert!(request.contains("accept-encoding: identity\r\n") && request.contains("accept: application/json\r\n"));
    assert!(!request.contains("if-") && !request.contains("range:") && !request.contains("gzip"), "{request}");
    http1::exchange(gateway.http_address(), &http1::request("POST", PATH, &headers, b""));
    assert!(upstream.last_request().contains("accept-encoding: gzip, br\r\n"));
}

#[test]
fn lengths_and_validators_are_those_of_the_completed_document() {
    let (upstream, gateway) = start(Options::default());
    let validators =
        "etag: \"1\"\r\nlast-modified: x\r\naccept-ranges: bytes\r\ndigest: x\r\ncache-control: max-age=60\r\n";
    upstream.says(200, &format!("{JSON}{validators}"), DOCUMENT);
    let response = http1::get(gateway.http_address(), PATH);
    assert_eq!(response.header("content-length"), Some(response.body.len().to_string().as_str()));
    assert_eq!(response.header("cache-control"), Some("max-age=60"));
    for gone in ["etag", "last-modified", "accept-ranges", "digest", "transfer-encoding"] {
        assert_eq!(response.header(gone), None, "{gone}");
    }
    let head = format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n{JSON}{validators}\r\n", DOCUMENT.len());
    upstream.answers(&[head.as_bytes()]);
    let response = http1::exchange(gateway.http_address(), &http1::request("HEAD", PATH, &[], b""));
    assert_eq!((response.status, response.header("cache-control")), (200, Some("max-age=60")));
    for gone in ["content-length", "etag"] {
        assert_eq!(response.header(gone), None, "{response:?}");
    }
}

#[test]
fn a_document_in_pieces_is_completed_and_one_without_an_announced_end_is_bounded() {
    let (upstream, gateway) = start(Options::default());
    let head = format!("HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n{JSON}\r\n");
    let (one, two) = DOCUMENT.split_at(40);
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    for end in [&b"0\r\n\r\n"[..], b"0\r\nx-trailer: end\r\n\r\n"] {
        upstream.answers(&[head.as_bytes(), &chunk(one), &chunk(two), end]);
        let response = http1::get(gateway.http_address(), PATH);
        assert_eq!((response.status, response.text()), (200, &*completed("http://localhost/oidc/register")));
        assert_eq!(response.header("content-length"), Some(response.body.len().to_string().as_str()));
    }
    let piece = chunk(&[b' '; 60 * 1024]);
    upstream.answers(&[head.as_bytes(), &piece, &piece, &piece, &piece, &piece, b"0\r\n\r\n"]);
    let response = http1::get(gateway.http_address(), PATH);
    // The proxy's own buffer may be the first to be full.
    assert!(matches!(response.status, 500 | 502) && !response.text().contains("    "), "{response:?}");
    upstream.says(200, JSON, DOCUMENT);
    let request = http2::Request { path: PATH, ..Default::default() };
    let response = http2::exchange(gateway.http_address(), &request).unwrap();
    assert_eq!((response.status, response.text()), (200, &*completed("http://localhost/oidc/register")));
}

#[test]
fn whatever_is_no_document_passes_as_it_is() {
    let (upstream, gateway) = start(Options::default());
    for (status, headers, body) in [
        (404, JSON, &br#"{"error":"x"}"#[..]),
        (302, "location: https://as/elsewhere\r\n", b""),
        (200, "content-type: text/html\r\netag: \"1\"\r\n", b"<html>"),
        (500, JSON, b"[]"),
    ] {
        upstream.says(status, headers, body);
        let response = http1::get(gateway.http_address(), PATH);
        assert_eq!((response.status, &*response.body), (status, body), "{headers}");
        assert_eq!(response.header("etag").is_some(), headers.contains("etag"));
    }
}

#[test]
fn the_registration_endpoint_is_where_the_client_came_to_and_gone_while_nobody_may_register() {
    let upstream = Upstream::start();
    upstream.says(200, JSON, DOCUMENT);
    let gateway = open(upstream.behind(Options { trusted_hops: 1, ..Options::default() }), json!({}));
    let endpoint = |response: &Response| response.json()["registration_endpoint"].as_str().map(str::to_owned);
    let ask = |headers: &[(&str, &[u8])]| {
        endpoint(&http1::exchange(gateway.http_address(), &http1::request("GET", PATH, headers, b"")))
    };
    assert_eq!(ask(&[]).as_deref(), Some("http://localhost/oidc/register"));
    assert_eq!(ask(&[("host", b"LocalHost:8443")]).as_deref(), Some("http://LocalHost:8443/oidc/register"));
    // A proxy in front that ends TLS is believed where there is one.
    assert_eq!(ask(&[("x-forwarded-proto", b"https")]).as_deref(), Some("https://localhost/oidc/register"));
    let mut tls = Connection::open_tls(gateway.https_address(), &gateway.ca());
    tls.send(&http1::request("GET", PATH, &[], b""));
    assert_eq!(endpoint(&tls.receive()).as_deref(), Some("https://localhost/oidc/register"));

    let off: [Value; 2] = [
        json!({"flags": {"enable_dynamic_client_registration": false}}),
        json!({"flags": {"enable_dynamic_client_registration": true}, "dcr_edge": {"registrar": "off"}}),
    ];
    for settings in off {
        gateway.patch_settings(&settings);
        eventually("it is gone", || ask(&[]).is_none().then_some(()));
    }
}

#[test]
fn nobody_but_a_trusted_proxy_chooses_the_scheme() {
    let (upstream, gateway) = start(Options::default());
    upstream.says(200, JSON, DOCUMENT);
    let request = http1::request("GET", PATH, &[("x-forwarded-proto", b"https")], b"");
    let response = http1::exchange(gateway.http_address(), &request);
    assert_eq!(response.text(), completed("http://localhost/oidc/register"));
}
