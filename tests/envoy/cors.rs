//! Which web pages may read answers, through a real Envoy.

use serde_json::{Value, json};

use super::upstream::Upstream;
use super::{ECHO, open};
use crate::support::gateway::{Gateway, Options};
use crate::support::http1;
use crate::support::response::Response;

const TOKEN: &str = "/oauth/token";
const DISCOVERY: &str = "/.well-known/openid-configuration";

const PAGE: &[u8] = b"https://app.example";

/// What the server says to pages on its own.
const OWN_WORD: &str = "content-type: application/json\r\nvary: accept\r\nvary: cookie\r\n\
                        access-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\n\
                        access-control-expose-headers: dpop-nonce\r\n";

fn start(origins: Value) -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    upstream.says(200, OWN_WORD, b"{}");
    let gateway = open(upstream.behind(Options::default()), json!({"cors_origins": origins}));
    (upstream, gateway)
}

fn send(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &[u8])]) -> Response {
    http1::exchange(gateway.http_address(), &http1::request(method, path, headers, b""))
}

fn preflight(gateway: &Gateway, path: &str, origin: &[u8]) -> Response {
    send(gateway, "OPTIONS", path, &[("origin", origin), ("access-control-request-method", b"POST")])
}

fn allowed(response: &Response) -> Option<&str> {
    response.header("access-control-allow-origin")
}

#[test]
fn preflights_of_the_token_endpoint_and_discovery_are_answered_at_the_edge() {
    let (upstream, gateway) = start(json!(["https://app.example"]));
    for (path, method) in [(TOKEN, "POST"), (DISCOVERY, "GET")] {
        let response = preflight(&gateway, path, PAGE);
        assert_eq!((response.status, allowed(&response)), (204, Some("https://app.example")), "{path}");
        assert_eq!(response.header("access-control-allow-methods"), Some(method));
        assert!(response.header("access-control-allow-headers").unwrap().contains("mcp-protocol-version"));
        assert_eq!((response.header("vary"), response.header(ECHO)), (Some("origin"), None));
        for stranger in [&b"https://evil.example"[..], b"null", b"HTTPS://app.example"] {
            let response = preflight(&gateway, path, stranger);
            assert_eq!((response.status, allowed(&response)), (204, None), "{path}");
            assert_eq!(response.header("access-control-allow-methods"), None);
        }
    }
    assert_eq!(upstream.requests(), 0);
    // What is no preflight is the server's.
    assert_eq!(send(&gateway, "OPTIONS", TOKEN, &[("origin", PAGE)]).status, 200);
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn the_tenants_word_replaces_the_servers() {
    let (_upstream, gateway) = start(json!(["https://app.example"]));
    for (method, path) in [("GET", DISCOVERY), ("POST", TOKEN)] {
        let response = send(&gateway, method, path, &[("origin", PAGE)]);
        assert_eq!((response.status, allowed(&response)), (200, Some("https://app.example")), "{path}");
        assert_eq!(response.header("access-control-allow-credentials"), None);
        assert_eq!(response.header("access-control-expose-headers"), Some("dpop-nonce"));
        assert_eq!(response.header("vary"), Some("accept, cookie, origin"));
        for headers in [&[("origin", &b"https://evil.example"[..])][..], &[("origin", b"null")], &[]] {
            let response = send(&gateway, method, path, headers);
            let own = response.headers.iter().filter(|(name, _)| name.starts_with("access-control-"));
            assert_eq!((response.status, own.count()), (200, 0), "{path}");
            assert_eq!(response.header("vary"), Some("accept, cookie, origin"));
        }
    }
    // What is none of these endpoints is the server's business.
    let response = send(&gateway, "GET", "/elsewhere", &[("origin", PAGE)]);
    assert_eq!((allowed(&response), response.header("access-control-allow-credentials")), (Some("*"), Some("true")));
}

#[test]
fn a_star_counts_for_discovery_and_registration_and_never_for_the_token_endpoint() {
    let (_upstream, gateway) = start(json!(["*"]));
    let origin: &[(&str, &[u8])] = &[("origin", b"https://anybody.example")];
    for path in [DISCOVERY, "/oidc/register"] {
        assert_eq!(allowed(&preflight(&gateway, path, b"https://anybody.example")), Some("*"), "{path}");
        assert_eq!(allowed(&preflight(&gateway, path, b"null")), None, "{path}");
    }
    assert_eq!(allowed(&send(&gateway, "GET", DISCOVERY, origin)), Some("*"));
    assert_eq!(allowed(&preflight(&gateway, TOKEN, b"https://anybody.example")), None);
    assert_eq!(allowed(&send(&gateway, "POST", TOKEN, origin)), None);
}

#[test]
fn without_origins_the_servers_word_stays() {
    let (upstream, gateway) = start(json!([]));
    for (method, path) in [("OPTIONS", TOKEN), ("OPTIONS", DISCOVERY), ("POST", TOKEN), ("GET", DISCOVERY)] {
        let response = send(&gateway, method, path, &[("origin", PAGE), ("access-control-request-method", b"POST")]);
        assert_eq!((response.status, allowed(&response)), (200, Some("*")), "{method} {path}");
        assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
    }
    assert_eq!(upstream.requests(), 4);
}

#[test]
fn a_page_can_read_why_metadata_are_withheld() {
    let (upstream, gateway) = start(json!(["https://app.example"]));
    upstream.says(200, OWN_WORD, b"[]");
    let response = send(&gateway, "GET", DISCOVERY, &[("origin", PAGE)]);
    assert_eq!((response.status, allowed(&response)), (502, Some("https://app.example")));
    assert_eq!((response.header("vary"), response.header("cache-control")), (Some("origin"), Some("no-store")));
}
