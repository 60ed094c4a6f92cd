//! What a registered client may do at the authorization server, through a real Envoy, in front of a real store.
//!
//! The decisions themselves are tested where they are; here is what a request has to go through: being recognised,
//! looked up, held to its client, and written anew.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ECHO, open, outcome};
use crate::support::gateway::{AuthorizationServer, Gateway, Options};
use crate::support::http1;
use crate::support::process::eventually;
use crate::support::response::Response;
use crate::support::upstream::{Says, Upstream};

const CALLBACK: &str = "https://app.example/cb";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const API: &str = "https://api.example";

/// A gateway of a tenant with one API, granted to all third-party clients with `read` and `write`, one connection at
/// domain level and one that is not.
pub struct Protected {
    pub gateway: Gateway,
    token: String,
}

/// A client as it registered.
pub struct Registered {
    pub id: String,
    pub secret: String,
}

impl Protected {
    pub fn start(dcr_edge: Value) -> Self {
        Self::with(Options::default(), dcr_edge)
    }

    pub fn with(options: Options, dcr_edge: Value) -> Self {
        let gateway = open(options, dcr_edge);
        let token = gateway.management_token();
        let protected = Self { gateway, token };
        let scopes = ["read", "write", "admin"].map(|value| json!({"value": value}));
        let api = json!({"identifier": API, "scopes": scopes, "allow_offline_access": true});
        protected.manage("POST", "/api/v2/resource-servers", &api, 201);
        let grant = json!({
            "default_for": "third_party_clients", "audience": API, "scope": ["read", "write"], "subject_type": "user"
        });
        protected.manage("POST", "/api/v2/client-grants", &grant, 201);
        for (name, at_domain_level) in [("staff", true), ("partners", false)] {
            let connection = json!({"name": name, "strategy": "auth0", "is_domain_connection": at_domain_level});
            protected.manage("POST", "/api/v2/connections", &connection, 201);
        }
        // What is asked while changes are told is asked again.
        protected.gateway.wait_for_settings();
        std::thread::sleep(Duration::from_millis(100));
        protected
    }

    pub fn manage(&self, method: &str, path: &str, body: &Value, status: u16) -> Value {
        let authorization = format!("Bearer {}", self.token);
        let headers: [(&str, &[u8]); 2] =
            [("authorization", authorization.as_bytes()), ("content-type", b"application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = http1::request(method, path, &headers, body.as_bytes());
        let response = http1::exchange(self.gateway.http_address(), &request);
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        if response.body.is_empty() { Value::Null } else { response.json() }
    }

    pub fn register(&self, metadata: &Value) -> Registered {
        let body = metadata.to_string();
        let response = http1::post_json(self.gateway.http_address(), "/oidc/register", body.as_bytes());
        assert_eq!(response.status, 201, "{response:?}");
        let text = |member: &str| response.json()[member].as_str().unwrap_or_default().to_owned();
        Registered { id: text("client_id"), secret: text("client_secret") }
    }

    pub fn public_client(&self) -> Registered {
        self.register(&json!({
            "redirect_uris": [CALLBACK], "client_name": "Test", "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"]
        }))
    }

    fn confidential_client(&self) -> Registered {
        self.register(&json!({"redirect_uris": [CALLBACK], "client_name": "Test"}))
    }

    pub fn get(&self, target: &str) -> Response {
        http1::get(self.gateway.http_address(), target)
    }

    fn send(&self, method: &str, target: &str, headers: &[(&str, &[u8])], body: &str) -> Response {
        let request = http1::request(method, target, headers, body.as_bytes());
        http1::exchange(self.gateway.http_address(), &request)
    }

    fn post(&self, target: &str, body: &str) -> Response {
        self.send("POST", target, &[("content-type", b"application/x-www-form-urlencoded")], body)
    }

    fn looked_up(&self) -> u64 {
        let name = "wasmcustom.dcr_edge.client_lookups.result=miss";
        self.gateway.stats(name).into_iter().map(|(_, count)| count).sum()
    }
}

/// The query of an authorization request that breaks no rule.
pub fn query(client_id: &str) -> String {
    format!(
        "client_id={client_id}&response_type=code&redirect_uri=https%3A%2F%2Fapp.example%2Fcb&state=s+1&scope=read\
         &code_challenge={CHALLENGE}&code_challenge_method=S256"
    )
}

fn authorize(client_id: &str) -> String {
    format!("/authorize?{}", query(client_id))
}

fn parameters(seen: &Value, kind: &str) -> Vec<(String, String)> {
    serde_json::from_value(seen[kind].clone()).unwrap()
}

fn parameter(seen: &Value, kind: &str, name: &str) -> Option<String> {
    parameters(seen, kind).into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

fn header(seen: &Value, name: &str) -> Option<String> {
    let headers: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone()).unwrap();
    let mut values = headers.into_iter().filter(|(n, _)| n == name).map(|(_, value)| value);
    let value = values.next();
    assert_eq!(values.next(), None, "{name}");
    value
}

/// What the server saw.
fn seen(response: &Response) -> Value {
    assert_eq!((response.status, response.header(ECHO)), (200, Some("echo")), "{response:?}");
    response.json()
}

fn refused(response: &Response, status: u16, error: &str) {
    assert_eq!(response.header(ECHO), None, "{response:?}");
    assert_eq!(outcome(response), (status, error.to_owned()), "{response:?}");
    assert_eq!(response.header("cache-control"), Some("no-store"));
}

#[test]
fn an_authorization_request_goes_on_cleaned_and_marked_whether_its_client_is_known_or_not() {
    let protected = Protected::start(json!({}));
    let client = protected.public_client();
    // The first of each worker asks the store.
    for _ in 0..8 {
        let seen = seen(&protected.get(&authorize(&client.id)));
        assert_eq!(header(&seen, "x-dcr-client"), Some(client.id.clone()));
        assert_eq!(header(&seen, "x-dcr-third-party").as_deref(), Some("1"));
        // With one connection at domain level the request names it.
        assert_eq!(header(&seen, "x-dcr-connections"), None);
        let value = |name| parameter(&seen, "query", name);
        assert_eq!(value("connection").as_deref(), Some("staff"));
        assert_eq!(value("audience").as_deref(), Some(API));
        assert_eq!(value("state").as_deref(), Some("s 1"));
        assert_eq!(value("client_id").as_deref(), Some(&*client.id));
        assert_eq!(value("redirect_uri").as_deref(), Some(CALLBACK));
    }
    assert!((1..=2).contains(&protected.looked_up()), "{}", protected.looked_up());
}

#[test]
fn an_authorization_request_as_a_form_goes_on_as_a_form_with_its_new_length() {
    let protected = Protected::start(json!({}));
    let client = protected.public_client();
    for _ in 0..4 {
        let seen = seen(&protected.post("/authorize", &query(&client.id)));
        assert_eq!(parameter(&seen, "form", "audience").as_deref(), Some(API));
        assert_eq!(header(&seen, "content-length"), Some(seen["body_bytes"].to_string()));
        assert_eq!(header(&seen, "x-dcr-client"), Some(client.id.clone()));
        assert_eq!(parameters(&seen, "query"), []);
    }
    let chunked = http1::chunked(&[&query(&client.id).as_bytes()[..20], &query(&client.id).as_bytes()[20..]]);
    let headers: [(&str, &[u8]); 2] =
        [("content-type", b"application/x-www-form-urlencoded"), ("transfer-encoding", b"chunked")];
    let request = http1::request("POST", "/authorize", &headers, &chunked);
    let seen = seen(&http1::exchange(protected.gateway.http_address(), &request));
    assert_eq!(parameter(&seen, "form", "audience").as_deref(), Some(API));
}

#[test]
fn several_connections_at_domain_level_are_told_in_a_header_that_no_client_can_forge() {
    let protected = Protected::start(json!({}));
    let connection = json!({"name": "guests", "strategy": "auth0", "is_domain_connection": true});
    protected.manage("POST", "/api/v2/connections", &connection, 201);
    let client = protected.public_client();
    let forged: [(&str, &[u8]); 4] = [
        ("x-dcr-connections", b"partners"),
        ("x-dcr-third-party", b"0"),
        ("x-dcr-client", b"first"),
        ("X-Dcr-Client", b"second"),
    ];
    let response = protected.send("GET", &authorize(&client.id), &forged, "");
    let seen_by_server = seen(&response);
    let mut connections: Vec<_> =
        header(&seen_by_server, "x-dcr-connections").unwrap().split(',').map(str::to_owned).collect();
    connections.sort();
    assert_eq!(connections, ["guests", "staff"]);
    assert_eq!(header(&seen_by_server, "x-dcr-third-party").as_deref(), Some("1"));
    assert_eq!(header(&seen_by_server, "x-dcr-client"), Some(client.id.clone()));
    for target in ["/", "/authorize?client_id=first-party", "/u/login"] {
        let seen = seen(&protected.send("GET", target, &forged, ""));
        for name in ["x-dcr-connections", "x-dcr-third-party", "x-dcr-client"] {
            assert_eq!(header(&seen, name), None, "{target}");
        }
    }
    let partners = format!("{}&connection=partners", authorize(&client.id));
    refused(&protected.get(&partners), 400, "invalid_request");
}

#[test]
fn a_first_partys_request_passes_untouched_and_is_never_looked_up() {
    let protected = Protected::start(json!({}));
    let target =
        "/authorize?client_id=first&response_type=id_token&x=%2f+%&y;z&redirect_uri=https://anywhere.example&x=1";
    assert_eq!(seen(&protected.get(target))["path"], target);
    let body = "grant_type=client_credentials&client_id=first&client_secret=s&x=%2f+%&x=1";
    let seen_by_server = seen(&protected.post("/oauth/token?a=b", body));
    assert_eq!(
        (&seen_by_server["path"], &seen_by_server["body_bytes"]),
        (&json!("/oauth/token?a=b"), &json!(body.len()))
    );
    for target in ["/userinfo", "/v2/logout?client_id=first", "/samlp/first", "/oauth/par"] {
        assert_eq!(seen(&protected.get(target))["path"], target);
    }
    assert_eq!(protected.looked_up(), 0);
}

#[test]
fn unknown_clients_are_refused_where_the_tenant_says_so() {
    let protected = Protected::start(json!({"unknown_clients": "refuse"}));
    refused(&protected.get("/authorize?client_id=first&response_type=code"), 400, "invalid_client");
    refused(&protected.post("/oauth/token", "grant_type=client_credentials&client_id=first"), 401, "invalid_client");
    let client = protected.public_client();
    seen(&protected.get(&authorize(&client.id)));
    seen(&protected.get("/other?client_id=first"));
}

#[test]
fn an_unregistered_third_party_client_never_reaches_the_server() {
    let protected = Protected::start(json!({}));
    let id = format!("tpc_{}", "a".repeat(32));
    for id in [id.as_str(), "tpc_x", "TPC_x", "tpc_%C3%A4", "%u0074pc_x", "tpc_x%00"] {
        for _ in 0..3 {
            let response = protected.get(&authorize(id));
            assert_eq!((response.status, response.header(ECHO)), (400, None), "{id}: {response:?}");
            let body = format!("grant_type=authorization_code&client_id={id}&code=c&code_verifier={CHALLENGE}");
            let response = protected.post("/oauth/token", &body);
            assert_eq!(response.header(ECHO), None, "{id}");
            assert!(matches!(response.status, 400 | 401), "{response:?}");
        }
    }
    let body = format!("grant_type=authorization_code&client_id={id}&code=c&code_verifier={CHALLENGE}");
    refused(&protected.post("/oauth/token", &body), 401, "invalid_client");
    refused(&protected.get(&authorize(&id)), 400, "invalid_client");
}

#[test]
fn no_number_of_other_ids_hides_a_client() {
    let protected = Protected::start(json!({}));
    let id = protected.public_client().id;
    let crowd = (0..8).map(|number| format!("client_id=c{number}")).collect::<Vec<_>>().join("&");
    for response in [
        protected.get(&format!("/authorize?{crowd}&client_id={id}")),
        protected.post(&format!("/oauth/token?{crowd}"), &format!("grant_type=client_credentials&client_id={id}")),
        protected.post(&format!("/oauth/par?{crowd}"), &format!("client_id={id}")),
        protected.get(&format!("/samlp/{}{id}", "a/b/c/d/e/f/g/h/1/2/3/4/5/6/7/8/")),
    ] {
        refused(&response, 400, "invalid_request");
    }
}

#[test]
fn a_request_whose_client_stands_elsewhere_is_refused_unless_it_names_one_besides() {
    let protected = Protected::start(json!({}));
    for hidden in ["request_uri=https%3A%2F%2Fevil.example%2Frequest.jwt", "request_uri=urn:x", "request=a.b.c.d.e"] {
        refused(&protected.get(&format!("/authorize?{hidden}")), 400, "invalid_request");
        refused(&protected.post("/authorize", hidden), 400, "invalid_request");
        let target = format!("/authorize?client_id=first&{hidden}");
        assert_eq!(seen(&protected.get(&target))["path"], target);
    }
    refused(
        &protected.post("/oauth/token", "grant_type=authorization_code&client_assertion=x"),
        400,
        "invalid_request",
    );
}

#[test]
fn what_a_client_may_not_ask_for_ends_in_a_page_and_not_at_its_callback() {
    let protected = Protected::start(json!({}));
    let client = protected.public_client();
    let good = query(&client.id);
    for (bad, error) in [
        (good.replace("&code_challenge_method=S256", "&code_challenge_method=plain"), "invalid_request"),
        (good.replace("&code_challenge_method=S256", ""), "invalid_request"),
        (good.replace(&format!("&code_challenge={CHALLENGE}"), ""), "invalid_request"),
        (good.replace("app.example%2Fcb", "evil.example%2Fcb"), "invalid_request"),
        (good.replace("%2Fcb", "%2Fcb%2F"), "invalid_request"),
        (good.replace("response_type=code", "response_type=id_token"), "unsupported_response_type"),
        (good.replace("scope=read", "scope=admin"), "invalid_scope"),
        (format!("{good}&audience=https://other.example"), "unauthorized_client"),
        (format!("{good}&resource=https://other.example"), "unauthorized_client"),
        (format!("{good}&resource=other"), "invalid_target"),
        (format!("{good}&request=e30.e30."), "invalid_request"),
        (format!("{good}&request_uri=urn:x"), "invalid_request"),
        (format!("{good}&organization=o"), "invalid_request"),
        (format!("{good}&state=again"), "invalid_request"),
        (format!("{good}&st%61te=again"), "invalid_request"),
        (format!("{good}&client_id={}", client.id), "invalid_request"),
        (format!("{good}&client_id=first"), "invalid_request"),
        (format!("{good}&nonce=%00"), "invalid_request"),
        (format!("{good}&nonce=%zz"), "invalid_request"),
        (format!("{good}&nonce=%ff"), "invalid_request"),
        (format!("{good};nonce=1"), "invalid_request"),
        (format!("{good}&nonce={}", "n".repeat(2_049)), "invalid_request"),
        (
            format!(
                "{good}&{}",
                (0..5).map(|n| format!("ext-{n}={}", "x".repeat(2_000))).collect::<Vec<_>>().join("&")
            ),
            "invalid_request",
        ),
    ] {
        refused(&protected.get(&format!("/authorize?{bad}")), 400, error);
        if bad.len() < 8_000 {
            refused(&protected.post("/authorize", &bad), 400, error);
        }
    }
    let headers: [(&str, &[u8]); 1] = [("accept", b"text/html")];
    let bad = authorize(&client.id).replace("S256", "plain");
    let page = protected.send("GET", &bad, &headers, "");
    assert_eq!((page.status, page.header("location")), (400, None));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("invalid_request"), "{page:?}");
}

#[test]
fn parameters_come_from_one_place_in_one_form() {
    let protected = Protected::start(json!({}));
    let client = protected.public_client();
    let good = query(&client.id);
    let form: (&str, &[u8]) = ("content-type", b"application/x-www-form-urlencoded");
    let no_method = protected.send("PUT", "/authorize", &[form], &good);
    refused(&no_method, 400, "invalid_request");
    refused(&protected.send("GET", &authorize(&client.id), &[form], "scope=read"), 400, "invalid_request");
    refused(&protected.post("/authorize?scope=read", &good), 400, "invalid_request");
    refused(&protected.post(&authorize(&client.id), ""), 400, "invalid_request");
    for content_type in [
        "application/x-www-form-urlencoded; charset=utf-16",
        "application/x-www-form-urlencoded; charset=utf-7",
        "application/x-www-form-urlencoded; boundary=x",
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=x",
    ] {
        let response = protected.send("POST", "/authorize", &[("content-type", content_type.as_bytes())], &good);
        refused(&response, 400, "invalid_request");
    }
    refused(&protected.send("POST", "/authorize", &[form, form], &good), 400, "invalid_request");
    let encoded = [form, ("content-encoding", &b"gzip"[..])];
    refused(&protected.send("POST", "/oauth/token", &encoded, "x"), 415, "invalid_request");
    let json = json!({"grant_type": "client_credentials", "client_id": client.id}).to_string();
    let response = protected.send("POST", "/oauth/token", &[("content-type", b"application/json")], &json);
    refused(&response, 400, "invalid_request");
    let long = format!("{good}&nonce={}", "n".repeat(70_000));
    assert_eq!(protected.post("/authorize", &long).status, 413);
}

#[test]
fn a_clients_secret_is_checked_before_anything_else_and_its_token_request_goes_on_cleaned() {
    let protected = Protected::start(json!({}));
    let client = protected.confidential_client();
    let good = format!(
        "grant_type=authorization_code&client_id={}&client_secret={}&code=c&redirect_uri={CALLBACK}\
         &code_verifier={CHALLENGE}",
        client.id, client.secret
    );
    for _ in 0..4 {
        let seen = seen(&protected.post("/oauth/token", &good));
        assert_eq!(header(&seen, "x-dcr-client"), Some(client.id.clone()));
        assert_eq!(parameter(&seen, "form", "client_secret"), Some(client.secret.clone()));
        assert_eq!(header(&seen, "content-length"), Some(seen["body_bytes"].to_string()));
    }
    for (bad, status, error) in [
        (good.replace(&client.secret, "wrong"), 401, "invalid_client"),
        (good.replace(&format!("&client_secret={}", client.secret), "&nonsense=1"), 401, "invalid_client"),
        (good.replace("grant_type=authorization_code", "grant_type=client_credentials"), 400, "unauthorized_client"),
        (good.replace("grant_type=authorization_code", "grant_type=password"), 400, "unauthorized_client"),
        (good.replace("grant_type=authorization_code", "grant_type=x"), 400, "unsupported_grant_type"),
        (
            good.replace("grant_type=authorization_code", "grant_type=refresh_token&refresh_token=r"),
            400,
            "unauthorized_client",
        ),
        (good.replace(&format!("&code_verifier={CHALLENGE}"), ""), 400, "invalid_request"),
        (format!("{good}&audience=https://other.example"), 400, "unauthorized_client"),
        (format!("{good}&scope=admin"), 400, "invalid_scope"),
        (format!("{good}&client_assertion=x"), 400, "invalid_request"),
    ] {
        let response = protected.post("/oauth/token", &bad);
        refused(&response, status, error);
        assert_eq!(response.header("www-authenticate"), None);
    }
    // Basic is no way for such a client, with the right secret too: `tpc_…:secret` in base64.
    let basic = base64(&format!("{}:{}", client.id, client.secret));
    let form: (&str, &[u8]) = ("content-type", b"application/x-www-form-urlencoded");
    let basic = format!("Basic {basic}");
    let headers = [form, ("authorization", basic.as_bytes())];
    let body = format!("grant_type=authorization_code&client_id={}&code=c&code_verifier={CHALLENGE}", client.id);
    let response = protected.send("POST", "/oauth/token", &headers, &body);
    refused(&response, 401, "invalid_client");
    assert!(response.header("www-authenticate").is_some());
    let body = format!("grant_type=authorization_code&code=c&code_verifier={CHALLENGE}");
    let response = protected.send("POST", "/oauth/token", &headers, &body);
    assert_eq!(response.header(ECHO), None);
    assert!(matches!(response.status, 400 | 401), "{response:?}");
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn closed_endpoints_refuse_a_third_party_client_however_it_is_named() {
    let protected = Protected::start(json!({}));
    let client = protected.confidential_client();
    let id = &client.id;
    let jwt = |claims: Value| {
        use base64::Engine;
        let encode = |text: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", encode(json!({"alg": "RS256"}).to_string()), encode(claims.to_string()))
    };
    for path in [
        "/userinfo",
        "/oauth/par",
        "/bc-authorize",
        "/oauth/device/code",
        "/dbconnections/signup",
        "/passwordless/start",
        "/delegation",
        "/oauth/ro",
        "/v2/logout",
        "/oidc/logout",
        "/wsfed/x",
        "/samlp/x",
    ] {
        refused(&protected.get(&format!("{path}?client_id={id}")), 403, "access_denied");
        refused(&protected.post(path, &format!("a=b&client_id={id}")), 403, "access_denied");
    }
    for path in ["/samlp/", "/wsfed/", "/samlp/x/", "/dbconnections/"] {
        refused(&protected.get(&format!("{path}{id}")), 403, "access_denied");
        refused(&protected.get(&format!("{path}{id}/metadata")), 403, "access_denied");
    }
    let json_body = json!({"email": "a@b.example", "client_id": id}).to_string();
    let json_type: (&str, &[u8]) = ("content-type", b"application/json");
    refused(&protected.send("POST", "/dbconnections/signup", &[json_type], &json_body), 403, "access_denied");
    let assertion = format!("client_assertion={}", jwt(json!({"sub": id})));
    refused(&protected.post("/oauth/par", &assertion), 403, "access_denied");
    for authorization in [
        format!("Basic {}", base64(&format!("{id}:x"))),
        format!("Bearer {}", jwt(json!({"azp": id}))),
        format!("bearer {}", jwt(json!({"client_id": id, "sub": "u"}))),
        format!("DPoP {}", jwt(json!({"azp": id}))),
    ] {
        let headers = [("authorization", authorization.as_bytes())];
        refused(&protected.send("GET", "/userinfo", &headers, ""), 403, "access_denied");
    }
    // Several values: any of them is enough.
    refused(&protected.get(&format!("/v2/logout?client_id=first&client_id={id}")), 403, "access_denied");
    let opaque = [("authorization", &b"Bearer opaque"[..])];
    seen(&protected.send("GET", "/userinfo", &opaque, ""));
    seen(&protected.post("/oauth/revoke", &format!("token=t&client_id={id}")));
}

#[test]
fn userinfo_is_open_where_third_parties_may_have_oidc_scopes() {
    let protected = Protected::start(json!({"third_party_oidc_scopes": true}));
    let client = protected.public_client();
    seen(&protected.get(&format!("/userinfo?client_id={}", client.id)));
    let with_openid = authorize(&client.id).replace("scope=read", "scope=openid%20read");
    let seen = seen(&protected.get(&with_openid));
    assert_eq!(parameter(&seen, "query", "scope").as_deref(), Some("openid read"));
}

#[test]
fn the_servers_own_registration_is_closed_in_every_mode() {
    for registrar in ["store", "off", "forward"] {
        let protected = Protected::start(json!({"registrar": registrar}));
        for path in
            ["/reg", "/reg/x", "/oauth2/register", "/connect/register", "/realms/r/clients-registrations/default"]
        {
            let response = protected.send("POST", path, &[("content-type", b"application/json")], "{}");
            refused(&response, 404, "not_found");
        }
    }
}

#[test]
fn a_deleted_and_a_changed_client_are_what_they_are_now_within_two_seconds() {
    let protected = Protected::with(
        Options { filter_configuration: json!({"store": {"cluster": "dcr_store"}}), ..Options::default() },
        json!({}),
    );
    let (client, other) = (protected.public_client(), protected.public_client());
    for client in [&client, &other] {
        for _ in 0..6 {
            seen(&protected.get(&authorize(&client.id)));
        }
    }
    let begin = Instant::now();
    let changed = json!({"callbacks": ["https://app.example/new"]});
    protected.manage("PATCH", &format!("/api/v2/clients/{}", client.id), &changed, 200);
    protected.manage("DELETE", &format!("/api/v2/clients/{}", other.id), &Value::Null, 204);
    std::thread::sleep(Duration::from_millis(1_500).saturating_sub(begin.elapsed()));
    for _ in 0..6 {
        refused(&protected.get(&authorize(&client.id)), 400, "invalid_request");
        refused(&protected.get(&authorize(&other.id)), 400, "invalid_client");
    }
    seen(&protected.get(&authorize(&client.id).replace("%2Fcb", "%2Fnew")));
}

#[test]
fn a_grant_that_is_taken_away_is_gone_for_every_client_within_two_seconds() {
    let protected = Protected::start(json!({}));
    let client = protected.public_client();
    for _ in 0..6 {
        seen(&protected.get(&authorize(&client.id)));
    }
    let grants = protected.manage("GET", "/api/v2/client-grants", &Value::Null, 200);
    let id = grants[0]["id"].as_str().unwrap();
    protected.manage("DELETE", &format!("/api/v2/client-grants/{id}"), &Value::Null, 204);
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..6 {
        let response = protected.get(&format!("{}&audience={API}", authorize(&client.id)));
        refused(&response, 400, "unauthorized_client");
    }
}

#[test]
fn without_the_store_a_known_client_works_on_for_its_grace_and_an_unknown_one_gets_503() {
    let mut protected = Protected::start(json!({"client_grace": 6}));
    let (client, stranger) = (protected.public_client(), protected.public_client());
    for _ in 0..12 {
        seen(&protected.get(&authorize(&client.id)));
    }
    protected.gateway.stop_store();
    let begin = Instant::now();
    refused(&protected.get(&authorize(&stranger.id)), 503, "temporarily_unavailable");
    std::thread::sleep(Duration::from_secs(3));
    for _ in 0..6 {
        seen(&protected.get(&authorize(&client.id)));
    }
    eventually("the grace is over", || (protected.get(&authorize(&client.id)).status == 503).then_some(()));
    assert!(begin.elapsed() >= Duration::from_secs(5), "{:?}", begin.elapsed());
    refused(&protected.post("/oauth/token", &format!("client_id={}", client.id)), 503, "temporarily_unavailable");
    protected.gateway.start_store();
    eventually("the store is back", || (protected.get(&authorize(&client.id)).status == 200).then_some(()));
}

#[test]
fn look_ups_of_ids_that_are_not_known_are_limited_and_known_clients_do_not_notice() {
    let protected = Protected::start(json!({"client_lookups": {"burst": 10, "per_second": 1}}));
    let client = protected.public_client();
    for _ in 0..8 {
        seen(&protected.get(&authorize(&client.id)));
    }
    let mut answers = std::collections::BTreeMap::new();
    for number in 0..40 {
        let response = protected.get(&authorize(&format!("tpc_{number:032}")));
        *answers.entry(response.status).or_insert(0) += 1;
    }
    assert!(answers[&400] <= 14 && answers[&503] >= 26, "{answers:?}");
    seen(&protected.get(&authorize(&client.id)));
}

#[test]
fn an_error_goes_to_the_callback_only_by_the_clients_own_policy_and_only_to_a_registered_one() {
    let protected = Protected::start(json!({}));
    let client = protected.public_client();
    let policy = json!({"redirection_policy": "allow_always"});
    protected.manage("PATCH", &format!("/api/v2/clients/{}", client.id), &policy, 200);
    let response = protected.get(&authorize(&client.id).replace("scope=read", "scope=admin"));
    assert_eq!(response.status, 302, "{response:?}");
    let location = response.header("location").unwrap();
    assert!(location.starts_with("https://app.example/cb?error=invalid_scope"), "{location}");
    assert!(location.contains("state=s%201") || location.contains("state=s+1"), "{location}");
    let foreign = protected.get(&authorize(&client.id).replace("app.example", "evil.example").replace("read", "admin"));
    refused(&foreign, 400, "invalid_request");
}

#[test]
fn the_cache_says_how_often_it_knew_a_client_and_how_large_it_is() {
    let protected = Protected::start(json!({}));
    let client = protected.public_client();
    for _ in 0..10 {
        seen(&protected.get(&authorize(&client.id)));
    }
    let stat = |name: &str| -> u64 {
        let name = format!("wasmcustom.dcr_edge.{name}");
        protected.gateway.stats(&name).into_iter().filter(|(n, _)| *n == name).map(|(_, value)| value).sum()
    };
    assert_eq!(stat("client_lookups.result=hit") + stat("client_lookups.result=miss"), 10);
    // Each worker that got a request asked once, and knows the client since.
    let workers = stat("client_lookups.result=miss");
    assert!((1..=2).contains(&workers), "{workers}");
    eventually("the gauges follow", || (stat("cached_clients") == workers).then_some(()));
    assert!(stat("cached_client_bytes") > 100);
}

#[test]
fn an_error_that_the_server_sends_to_a_callback_becomes_a_page_unless_the_client_is_to_have_it() {
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

#[test]
fn a_page_of_the_tenants_origin_reads_the_edges_own_refusal_at_the_token_endpoint() {
    let protected = Protected::start(json!({"cors_origins": ["https://app.example"]}));
    let form: (&str, &[u8]) = ("content-type", b"application/x-www-form-urlencoded");
    for (origin, allowed) in [("https://app.example", Some("https://app.example")), ("https://b.example", None)] {
        let body = "client_id=tpc_x&grant_type=authorization_code";
        let response = protected.send("POST", "/oauth/token", &[form, ("origin", origin.as_bytes())], body);
        refused(&response, 401, "invalid_client");
        assert_eq!(response.header("access-control-allow-origin"), allowed);
    }
}
