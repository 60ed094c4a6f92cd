//! The authorization server's metadata as clients get them, and which web pages may read what.

use serde_json::{Value, json};

use super::{open, outcome};
use crate::support::gateway::{AuthorizationServer, Gateway, Options};
use crate::support::http1::{self, Connection};
use crate::support::response::Response;
use crate::support::upstream::{Says, Upstream};

const PATHS: [&str; 2] = ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"];

/// What a server publishes that was made without third parties in mind; its numbers and its order are its own.
const DOCUMENT: &str = r#"{"issuer": "https://as.example", "x-number": 1.50, "registration_endpoint": "https://as.example/reg", "token_endpoint_auth_methods_supported": ["private_key_jwt"], "a-first": null}"#;

fn document() -> Says {
    Says { body: DOCUMENT.as_bytes().to_vec(), ..Says::json(200, &Value::Null) }
        .with("cache-control", "public, max-age=60")
        .with("etag", "\"1\"")
        .with("last-modified", "Thu, 26 Nov 2026 00:00:00 GMT")
}

fn gateway(upstream: &Upstream, dcr_edge: Value) -> Gateway {
    let authorization_server = AuthorizationServer::At(upstream.address());
    open(Options { authorization_server, ..Options::default() }, dcr_edge)
}

fn send(gateway: &Gateway, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    http1::exchange(gateway.http_address(), &http1::request(method, target, &headers, b""))
}

#[test]
fn a_document_gains_what_is_missing_and_loses_nothing_but_the_servers_own_registration() {
    let upstream = Upstream::start(|_| document());
    let gateway = gateway(&upstream, json!({}));
    let port = gateway.http_address().port();
    for path in PATHS {
        let host = format!("localhost:{port}");
        let headers = [
            ("host", host.as_str()),
            ("accept-encoding", "gzip, br"),
            ("if-none-match", "\"1\""),
            ("if-modified-since", "Thu, 26 Nov 2026 00:00:00 GMT"),
            ("range", "bytes=0-10"),
        ];
        let response = send(&gateway, "GET", path, &headers);
        assert_eq!(response.status, 200, "{response:?}");
        let text = response.text();
        for kept in [r#""x-number""#, "1.50", r#""a-first""#, "private_key_jwt"] {
            assert!(text.contains(kept), "{text}");
        }
        assert!(text.find("issuer").unwrap() < text.find("a-first").unwrap(), "{text}");
        let document = response.json();
        assert_eq!(document["registration_endpoint"], json!(format!("http://localhost:{port}/oidc/register")));
        assert_eq!(document["code_challenge_methods_supported"], json!(["S256"]));
        let methods = &document["token_endpoint_auth_methods_supported"];
        for method in ["private_key_jwt", "none", "client_secret_post"] {
            assert!(methods.as_array().unwrap().contains(&json!(method)), "{methods}");
        }
        assert_eq!(response.header("content-length"), Some(&*text.len().to_string()));
        assert_eq!(response.header("cache-control"), Some("public, max-age=60"));
        assert_eq!((response.header("etag"), response.header("last-modified")), (None, None));
        let seen = upstream.take().remove(0);
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        for name in ["if-none-match", "if-modified-since", "range"] {
            assert_eq!(seen.header(name), None);
        }
    }
    let head = send(&gateway, "HEAD", PATHS[0], &[]);
    assert_eq!((head.status, head.header("cache-control")), (200, Some("public, max-age=60")));
    // Over TLS the endpoint is there too.
    let mut connection = Connection::open_tls(gateway.https_address(), &gateway.ca());
    connection.send(&http1::request("GET", PATHS[0], &[], b""));
    assert_eq!(connection.receive().json()["registration_endpoint"], json!("https://localhost/oidc/register"));
}

#[test]
fn where_registration_is_off_no_endpoint_is_named() {
    let upstream = Upstream::start(|_| document());
    let gateway = gateway(&upstream, json!({}));
    gateway.patch_settings(&json!({"flags": {"enable_dynamic_client_registration": false}}));
    assert_eq!(send(&gateway, "GET", PATHS[0], &[]).json().get("registration_endpoint"), None);
    gateway.patch_settings(&json!({
        "flags": {"enable_dynamic_client_registration": true}, "dcr_edge": {"registrar": "off"}
    }));
    assert_eq!(send(&gateway, "GET", PATHS[0], &[]).json().get("registration_endpoint"), None);
}

#[test]
fn what_cannot_be_completed_is_not_passed_on_and_what_is_no_document_is() {
    let upstream = Upstream::start(|_| document());
    let gateway = gateway(&upstream, json!({}));
    let long = format!(r#"{{"issuer": "{}"}}"#, "x".repeat(300_000));
    for says in [
        document().with("content-encoding", "gzip"),
        Says { body: b"[]".to_vec(), ..document() },
        Says { body: b"{\"a\":1".to_vec(), ..document() },
        Says { body: Vec::new(), ..document() },
        Says { body: br#"{"issuer":"a","issuer":"b"}"#.to_vec(), ..document() },
        Says { body: long.into_bytes(), ..document() },
    ] {
        let shown = String::from_utf8_lossy(&says.body).chars().take(40).collect::<String>();
        upstream.set(move |_| says.clone());
        let response = send(&gateway, "GET", PATHS[0], &[("x-request-id", "id-1")]);
        assert_eq!(outcome(&response), (502, "bad_gateway".to_owned()), "{shown}");
        assert!(!response.text().contains("issuer"));
    }
    for says in [
        Says::json(404, &json!({"error": "x"})),
        Says::json(500, &json!({})),
        Says { body: b"<html>".to_vec(), ..Says::json(200, &Value::Null).with("content-type", "text/html") },
        Says::json(302, &json!({})).with("location", "/elsewhere"),
    ] {
        let (status, body) = (says.status, says.body.clone());
        upstream.set(move |_| says.clone());
        let response = send(&gateway, "GET", PATHS[0], &[]);
        assert_eq!((response.status, response.body), (status, body));
    }
}

#[test]
fn pages_of_the_tenants_origins_read_answers_whatever_the_server_says() {
    let upstream = Upstream::start(|_| {
        document()
            .with("access-control-allow-origin", "https://servers.example")
            .with("access-control-allow-credentials", "true")
            .with("vary", "accept")
    });
    let gateway = gateway(&upstream, json!({"cors_origins": ["https://app.example"]}));
    let allowed = |method: &str, target: &str, origin: &str, more: &[(&str, &str)]| {
        let headers = [&[("origin", origin)], more].concat();
        let response = send(&gateway, method, target, &headers);
        let text = |name| response.header(name).map(str::to_owned);
        (response.status, text("access-control-allow-origin"), text("vary"), text("access-control-allow-credentials"))
    };
    let app = Some("https://app.example".to_owned());
    for (method, target) in [("GET", PATHS[0]), ("POST", "/oauth/token")] {
        let (status, origin, vary, credentials) = allowed(method, target, "https://app.example", &[]);
        assert_eq!((status, origin, credentials), (200, app.clone(), None), "{target}");
        assert_eq!(vary.as_deref(), Some("accept, origin"), "{target}");
        for other in ["https://app.example.evil.example", "https://APP.example", "http://app.example", "null"] {
            assert_eq!(allowed(method, target, other, &[]).1, None, "{target} {other}");
        }
    }
    // A refusal of the edge's own is read by the page, too.
    let response = http1::exchange(
        gateway.http_address(),
        &http1::request(
            "POST",
            "/oauth/token",
            &[("origin", b"https://app.example"), ("content-type", b"application/x-www-form-urlencoded")],
            b"client_id=tpc_x&grant_type=authorization_code",
        ),
    );
    assert_eq!((response.status, response.header("access-control-allow-origin")), (401, Some("https://app.example")));
    upstream.take();
    for (target, method) in [(PATHS[0], "GET"), ("/oauth/token", "POST"), ("/oidc/register", "POST")] {
        let asks = [("access-control-request-method", method), ("access-control-request-headers", "content-type")];
        let headers = [&[("origin", "https://app.example")][..], &asks].concat();
        let response = send(&gateway, "OPTIONS", target, &headers);
        assert_eq!(
            (response.status, response.header("access-control-allow-origin")),
            (204, Some("https://app.example"))
        );
        assert_eq!(response.header("access-control-allow-methods"), Some(method));
        assert!(response.header("access-control-allow-headers").unwrap().contains("content-type"));
        let other = send(&gateway, "OPTIONS", target, &[&[("origin", "https://other.example")][..], &asks].concat());
        assert_eq!((other.status, other.header("access-control-allow-methods")), (204, None), "{target}");
    }
    assert_eq!(upstream.take().len(), 0, "a preflight does not reach the server");
}

#[test]
fn everybody_may_read_registration_and_discovery_where_the_tenant_says_so_but_tokens_are_for_named_origins() {
    let upstream = Upstream::start(|_| document());
    let gateway = gateway(&upstream, json!({"cors_origins": ["*"]}));
    let origin = |method: &str, target: &str| {
        let response = send(&gateway, method, target, &[("origin", "https://any.example")]);
        response.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(origin("GET", PATHS[0]).as_deref(), Some("*"));
    assert_eq!(origin("POST", "/oidc/register").as_deref(), Some("*"));
    assert_eq!(origin("POST", "/oauth/token"), None);
}

#[test]
fn without_origins_the_servers_own_word_stands() {
    let upstream = Upstream::start(|_| document().with("access-control-allow-origin", "https://servers.example"));
    let gateway = gateway(&upstream, json!({}));
    for (method, target) in [("GET", PATHS[0]), ("POST", "/oauth/token"), ("OPTIONS", "/oauth/token")] {
        let headers = [("origin", "https://servers.example"), ("access-control-request-method", "POST")];
        let response = send(&gateway, method, target, &headers);
        assert_eq!(
            (response.status, response.header("access-control-allow-origin")),
            (200, Some("https://servers.example"))
        );
    }
}

#[test]
fn an_error_that_the_server_sends_to_a_callback_becomes_a_page_unless_the_client_is_to_have_it() {
    use super::controls::{Protected, query};
    let upstream = Upstream::start(|seen| {
        let location = if seen.target.contains("nonce=login") {
            "/login?error=none".to_owned()
        } else {
            "https://app.example/cb?error=login_required&state=s".to_owned()
        };
        Says::json(303, &Value::Null).with("location", &location)
    });
    let authorization_server = AuthorizationServer::At(upstream.address());
    let protected = Protected::with(Options { authorization_server, ..Options::default() }, json!({}));
    let client = protected.public_client();
    let target = format!("/authorize?{}", query(&client.id));
    for _ in 0..4 {
        let response = protected.get(&target);
        assert_eq!(outcome(&response), (400, "login_required".to_owned()));
        assert_eq!((response.header("location"), response.header("cache-control")), (None, Some("no-store")));
        assert_eq!(protected.get(&format!("{target}&nonce=login")).status, 303);
    }
    // Another server's clients are none of the edge's business.
    assert_eq!(protected.get("/authorize?client_id=first").status, 303);
    let policy = json!({"redirection_policy": "allow_always"});
    protected.manage("PATCH", &format!("/api/v2/clients/{}", client.id), &policy, 200);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(protected.get(&target).header("location"), Some("https://app.example/cb?error=login_required&state=s"));
}
