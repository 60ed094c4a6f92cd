//! No spelling of a path leads past the edge, and what is not ours is left alone.

use super::{CLIENT, ECHO, open, open_gateway, outcome};
use crate::support::gateway::{Gateway, Options};
use crate::support::http1;
use crate::support::response::Response;
use serde_json::json;

fn post(gateway: &Gateway, target: &str) -> Response {
    let request = http1::request("POST", target, &[("content-type", b"application/json")], CLIENT);
    http1::exchange(gateway.http_address(), &request)
}

#[test]
fn no_spelling_of_the_endpoint_reaches_the_authorization_server() {
    let gateway = open_gateway();
    // What the connection manager brings into its plain form is the endpoint.
    for target in [
        "/oidc/register",
        "/oidc/register/",
        "/oidc//register",
        "//oidc/register",
        "/oidc/%72egister",
        "/oidc%2fregister",
        "/oidc%5cregister",
        "/oidc\\register",
        "/x/../oidc/register",
        "/oidc/./register",
        "/%6f%69%64%63/register",
        "http://localhost/oidc/register",
        "http://localhost:1/oidc/register?x",
        "/oidc/register?x=/OIDC/register",
    ] {
        let response = post(&gateway, target);
        assert_eq!((response.status, response.header(ECHO)), (201, None), "{target}: {response:?}");
    }
    // What it leaves would be the endpoint for a generous server.
    for target in [
        "/OIDC/register",
        "/oidc/Register",
        "/oidc/regi%C5%BFter",
        "/oauth/to%E2%84%AAen",
        "/oidc/register%c2%a0",
        "/oidc/register;x=1",
        "/oidc;x/register",
        "/oidc/register%20",
        "/oidc/register%09",
        "/oidc/register%3f",
        "/oidc/register%3fx=1",
        "/oidc/register%23",
        "/oidc/%2572egister",
        "/oidc/register/.%2e/register;",
        "http://localhost/OIDC/register",
        "/API/v2/tenants/settings",
        "/api/v2;x/clients",
        "/Authorize",
        "/authorize/",
        "/authorize;x",
        "/oauth/token%20",
        "/OAuth/Token",
        "/userinfo%3f",
    ] {
        let response = post(&gateway, target);
        assert_eq!(response.header(ECHO), None, "{target}");
        assert_eq!(outcome(&response), (404, "not_found".to_owned()), "{target}");
    }
    for target in ["/oidc/register/x", "/oidc/register/tpc_1/", "/x/../oidc/register/y"] {
        assert_eq!(post(&gateway, target).status, 405, "{target}");
    }
}

#[test]
fn what_is_not_ours_reaches_the_authorization_server_as_it_was_sent() {
    let gateway = open_gateway();
    let (odd, form) = ("text/odd", "application/x-www-form-urlencoded");
    for (target, content_type) in [
        ("/", odd),
        ("/login?next=%2Foidc%2Fregister", odd),
        ("/u/Login/Identifier;a=b?x=%20", odd),
        ("/caf%C3%A9", odd),
        ("/oidc/registers", odd),
        ("/oidc", odd),
        ("/authorize?client_id=1&x=%2F", form),
        ("/oauth/token", form),
        ("/userinfo", form),
        ("/.well-known/jwks.json", odd),
    ] {
        let headers = [("content-type", content_type.as_bytes()), ("x-own", b"\xff1")];
        let request = http1::request("POST", target, &headers, b"a=body");
        let response = http1::exchange(gateway.http_address(), &request);
        assert_eq!((response.status, response.header(ECHO)), (200, Some("echo")), "{target}: {response:?}");
        let echo = response.json();
        assert_eq!((&echo["method"], &echo["path"], &echo["body_bytes"]), (&json!("POST"), &json!(target), &json!(6)));
    }
}

#[test]
fn discovery_names_the_registration_endpoint() {
    let gateway = open_gateway();
    for document in ["openid-configuration", "oauth-authorization-server"] {
        let response = http1::get(gateway.http_address(), &format!("/.well-known/{document}"));
        let endpoint = response.json()["registration_endpoint"].as_str().unwrap().to_owned();
        assert!(endpoint.ends_with("/oidc/register"), "{endpoint}");
    }
}

#[test]
fn a_host_of_no_tenant_gets_nowhere() {
    let gateway = open_gateway();
    let send = |gateway: &Gateway, host: &str, target: &str| {
        http1::exchange(gateway.http_address(), &http1::request("GET", target, &[("host", host.as_bytes())], b""))
    };
    for host in ["other.test", "localhost.evil.test", "127.0.0.2", "", "[::1]", "localhost:x", "local%68ost"] {
        for target in ["/", "/authorize", "/oidc/register", "/api/v2/tenants/settings"] {
            let response = send(&gateway, host, target);
            assert_eq!(response.header(ECHO), None, "{host} {target}");
            assert!(matches!(response.status, 400 | 404), "{host} {target}: {response:?}");
        }
    }
    for host in ["localhost", "LOCALHOST:99", "127.0.0.1:10000", "localhost."] {
        assert_eq!(send(&gateway, host, "/").status, 200, "{host}");
    }
    let pass = json!({"store": {"cluster": "dcr_store", "poll_interval_ms": 20}, "unknown_hosts": "pass"});
    let gateway = open(Options { filter_configuration: pass, ..Options::default() }, json!({}));
    assert_eq!(send(&gateway, "other.test", "/x").header(ECHO), Some("echo"));
    for ours in ["/oidc/register", "/OIDC/register", "/api/v2/tenants/settings"] {
        let response = send(&gateway, "other.test", ours);
        assert_eq!((response.status, response.header(ECHO)), (404, None), "{ours}");
    }
}

#[test]
fn a_client_cannot_name_the_tenant_of_its_management_request() {
    let gateway = open_gateway();
    gateway.store_command(&["tenant", "create", "other", "--domain", "other.test"]);
    gateway.wait_for_settings();
    let token = format!("Bearer {}", gateway.management_token());
    let send = |host: &str, tenant: &str| {
        let headers: [(&str, &[u8]); 3] =
            [("host", host.as_bytes()), ("authorization", token.as_bytes()), ("x-dcr-tenant", tenant.as_bytes())];
        http1::exchange(gateway.http_address(), &http1::request("GET", "/api/v2/tenants/settings", &headers, b""))
    };
    assert_eq!(send("localhost", "other").status, 200);
    // A token of one tenant is worth nothing at another's domain, whatever header comes with it.
    assert_eq!(send("other.test", "default").status, 401);
}
