//! `POST /oidc/register`, from the wire to the row.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{CLIENT, ECHO, open, open_gateway, outcome, register};
use crate::support::gateway::{Gateway, Options};
use crate::support::http1::{self, Connection};
use crate::support::http2::{self, Ending};
use crate::support::process::eventually;
use crate::support::response::Response;

const JSON: (&str, &[u8]) = ("content-type", b"application/json");

fn post(gateway: &Gateway, headers: &[(&str, &[u8])], body: &[u8]) -> Response {
    http1::exchange(gateway.http_address(), &http1::request("POST", "/oidc/register", headers, body))
}

/// The members of an answer that do not differ from one registration to the next.
fn without_credentials(response: &Response) -> Value {
    let mut body = response.json();
    for member in ["client_id", "client_secret", "client_id_issued_at"] {
        body.as_object_mut().unwrap().remove(member).unwrap();
    }
    body
}

#[test]
fn a_201_has_what_rfc_7591_promises_and_nothing_else() {
    let gateway = open(Options::default(), json!({"rate_limit": {"burst": 5, "per_second": 5}}));
    let body = json!({
        "redirect_uris": ["https://App.example/cb?x=%2f", "http://127.0.0.1:33418/", "cursor://a/cb"],
        "client_name": "  Test 📚 ", "client_name#de": "Prüfung", "client_uri": "", "logo_uri": null, "contacts": [],
        "grant_types": ["authorization_code", "refresh_token", "client_credentials"],
        "response_types": ["code", "token"], "scope": "openid read:a", "jwks_uri": "https://a/b", "unknown": {"a": 1}
    });
    let response = http1::post_json(gateway.http_address(), "/oidc/register", body.to_string().as_bytes());
    assert_eq!(response.status, 201, "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("pragma"), Some("no-cache"));
    assert_eq!(response.header("x-ratelimit-limit"), Some("5"));
    assert_eq!(response.header("x-ratelimit-remaining"), Some("4"));
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let reset: u64 = response.header("x-ratelimit-reset").unwrap().parse().unwrap();
    assert!((now..now + 3).contains(&reset), "{reset}");
    let answer = response.json();
    let id = answer["client_id"].as_str().unwrap();
    let of = |text: &str, more: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || more.as_bytes().contains(&b));
    assert!(id.len() == 36 && id.starts_with("tpc_") && of(&id[4..], ""), "{id}");
    let secret = answer["client_secret"].as_str().unwrap();
    assert!(secret.len() == 64 && of(secret, "_-"), "{secret}");
    assert!(answer["client_id_issued_at"].as_u64().unwrap().abs_diff(now) < 5);
    assert_eq!(
        without_credentials(&response),
        json!({
            "client_secret_expires_at": 0, "redirect_uris": body["redirect_uris"],
            "token_endpoint_auth_method": "client_secret_post", "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"], "application_type": "native", "client_name": "Test 📚",
            "client_name#de": "Prüfung", "scope": "openid read:a"
        })
    );
}

#[test]
fn a_permissive_tenant_registers_what_a_strict_one_beside_it_refuses() {
    let gateway = open(Options::default(), json!({}));
    gateway.store_command(&["tenant", "create", "strict", "--domain", "strict.test", "--burst", "100"]);
    gateway.store_command(&["tenant", "update", "default", "--permissive-eligible"]);
    gateway.patch_settings(&json!({"dynamic_client_registration_security_mode": "permissive"}));
    let token = gateway.store_command(&["token", "--tenant", "strict"]);
    let headers: [(&str, &[u8]); 3] = [
        ("host", b"strict.test"),
        ("authorization", &[b"Bearer ", token.trim().as_bytes()].concat()),
        ("content-type", b"application/json"),
    ];
    let body = json!({"flags": {"enable_dynamic_client_registration": true}}).to_string();
    let request = http1::request("PATCH", "/api/v2/tenants/settings", &headers, body.as_bytes());
    assert_eq!(http1::exchange(gateway.http_address(), &request).status, 200);
    gateway.wait_for_settings();

    let machine = json!({
        "client_name": "Nightly job", "token_endpoint_auth_method": "client_secret_basic",
        "grant_types": ["client_credentials", "password"], "jwks_uri": "https://app.example/jwks", "default_max_age": 60,
        "x-own": [1, true]
    });
    let send = |host: &str| {
        let host: (&str, &[u8]) = ("host", host.as_bytes());
        post(&gateway, &[host, JSON], machine.to_string().as_bytes())
    };
    let registered = send("localhost");
    assert_eq!(registered.status, 201, "{registered:?}");
    let answer = registered.json();
    let id = answer["client_id"].as_str().unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_alphanumeric()), "{id}");
    assert_eq!(answer["client_secret"].as_str().unwrap().len(), 64);
    assert_eq!(
        without_credentials(&registered),
        json!({
            "client_secret_expires_at": 0, "redirect_uris": [], "token_endpoint_auth_method": "client_secret_basic",
            "grant_types": ["client_credentials"], "response_types": [], "application_type": "web",
            "client_name": "Nightly job", "jwks_uri": "https://app.example/jwks", "default_max_age": 60
        })
    );
    assert!(gateway.client_ids().contains(id));
    assert_eq!(outcome(&send("strict.test")), (400, "invalid_redirect_uri".to_owned()));
    let with_uri = br#"{"redirect_uris":["https://a.example/"],"token_endpoint_auth_method":"client_secret_basic"}"#;
    let refused = post(&gateway, &[("host", b"strict.test"), JSON], with_uri);
    assert_eq!(outcome(&refused), (400, "invalid_client_metadata".to_owned()));

    // Without the operator's word the mode is strict again, at the edge too.
    gateway.store_command(&["tenant", "update", "default", "--permissive-eligible=false"]);
    gateway.wait_for_settings();
    assert_eq!(outcome(&send("localhost")), (400, "invalid_redirect_uri".to_owned()));
    assert!(register(gateway.http_address()).json()["client_id"].as_str().unwrap().starts_with("tpc_"));
}

#[test]
fn a_public_client_gets_no_secret() {
    let gateway = open_gateway();
    let body = br#"{"redirect_uris":["http://localhost:3334/cb"],"token_endpoint_auth_method":"none"}"#;
    let response = http1::post_json(gateway.http_address(), "/oidc/register", body);
    assert_eq!(response.status, 201);
    assert!(response.json().get("client_secret").is_none());
    assert_eq!(response.json()["client_secret_expires_at"], 0);
}

#[test]
fn a_body_may_travel_in_any_way() {
    let gateway = open_gateway();
    let address = gateway.http_address();
    let expected = without_credentials(&register(address));
    let head = http1::request("POST", "/oidc/register", &[JSON, ("transfer-encoding", b"chunked")], b"");
    let head_with_length =
        http1::request("POST", "/oidc/register", &[JSON, ("content-length", CLIENT.len().to_string().as_bytes())], b"");
    let bytes: Vec<&[u8]> = CLIENT.chunks(1).collect();

    let whole_chunk = [head.clone(), http1::chunked(&[CLIENT])].concat();
    let many_chunks = [head.clone(), http1::chunked(&bytes)].concat();
    for request in [whole_chunk, many_chunks] {
        assert_eq!(without_credentials(&http1::exchange(address, &request)), expected);
    }
    for (head, body) in [(head, http1::chunked(&bytes)), (head_with_length, CLIENT.to_vec())] {
        let mut connection = Connection::open(address);
        for byte in [head, body].concat().chunks(1) {
            connection.send(byte);
        }
        assert_eq!(without_credentials(&connection.receive()), expected);
    }
    let mut tls = Connection::open_tls(gateway.https_address(), &gateway.ca());
    tls.send(&http1::request("POST", "/oidc/register", &[JSON], CLIENT));
    assert_eq!(without_credentials(&tls.receive()), expected);

    for body in [&[CLIENT][..], &bytes] {
        for ending in [Ending::Body, Ending::EmptyData, Ending::Trailers] {
            let request = http2::Request {
                method: "POST",
                path: "/oidc/register",
                headers: &[JSON],
                body,
                ending,
                ..Default::default()
            };
            let response = http2::exchange(address, &request).unwrap();
            assert_eq!(without_credentials(&response), expected, "{ending:?}");
            let response = http2::exchange_tls(gateway.https_address(), &gateway.ca(), &request).unwrap();
            assert_eq!(without_credentials(&response), expected, "{ending:?}");
        }
    }
}

#[test]
fn metadata_that_breaks_a_rule_is_a_400_that_names_member_and_rule() {
    let gateway = open_gateway();
    let uri = "https://a.example/cb";
    let nested = format!(r#"{{"redirect_uris":["{uri}"],"x":{}{}}}"#, "[".repeat(40), "]".repeat(40));
    for (body, error, says) in [
        (String::new(), "invalid_client_metadata", "request body"),
        ("[]".into(), "invalid_client_metadata", "object"),
        ("{".into(), "invalid_client_metadata", "JSON"),
        (format!(r#"{{"redirect_uris":["{uri}"],"a":1,"a":2}}"#), "invalid_client_metadata", "request body"),
        (nested, "invalid_client_metadata", "nested"),
        ("{}".into(), "invalid_redirect_uri", "redirect_uris"),
        (r#"{"redirect_uris":[]}"#.into(), "invalid_redirect_uri", "redirect_uris"),
        (json!({"redirect_uris": [uri, "http://a.example/"]}).to_string(), "invalid_redirect_uri", "redirect_uris[1]"),
        (
            json!({"redirect_uris": [uri, uri, format!("{uri}#f")]}).to_string(),
            "invalid_redirect_uri",
            "redirect_uris[2]: fragment is not allowed",
        ),
        (json!({"redirect_uris": ["javascript:alert(1)"]}).to_string(), "invalid_redirect_uri", "redirect_uris[0]"),
        (
            json!({"redirect_uris": [uri], "token_endpoint_auth_method": "private_key_jwt"}).to_string(),
            "invalid_client_metadata",
            "none or client_secret_post",
        ),
        (
            json!({"redirect_uris": [uri], "grant_types": ["client_credentials"]}).to_string(),
            "invalid_client_metadata",
            "grant_types",
        ),
        (json!({"redirect_uris": [uri], "client_name": 1}).to_string(), "invalid_client_metadata", "client_name"),
        (
            json!({"redirect_uris": [uri], "software_statement": "e30."}).to_string(),
            "invalid_software_statement",
            "software_statement",
        ),
    ] {
        let response = http1::post_json(gateway.http_address(), "/oidc/register", body.as_bytes());
        assert_eq!(outcome(&response), (400, error.to_owned()), "{body}");
        assert!(response.json()["error_description"].as_str().unwrap().contains(says), "{body}: {response:?}");
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(response.json()["decision_id"].as_str(), response.header("x-request-id"));
    }
    // Bytes that are no text.
    assert_eq!(post(&gateway, &[JSON], b"{\"client_name\":\"\xff\"}").status, 400);
}

#[test]
fn sixty_four_kib_are_read_and_one_byte_more_is_not() {
    let gateway = open_gateway();
    let address = gateway.http_address();
    let padded = |size: usize| [CLIENT, &vec![b' '; size - CLIENT.len()][..]].concat();
    let chunked = |body: &[u8]| {
        let head = http1::request("POST", "/oidc/register", &[JSON, ("transfer-encoding", b"chunked")], b"");
        [head, http1::chunked(&[body])].concat()
    };
    for (size, status) in [(65_536, 201), (65_537, 413)] {
        let body = padded(size);
        let pieces: Vec<&[u8]> = body.chunks(16_384).collect();
        assert_eq!(post(&gateway, &[JSON], &body).status, status);
        assert_eq!(http1::exchange(address, &chunked(&body)).status, status);
        for ending in [Ending::Body, Ending::Trailers] {
            let request = http2::Request {
                method: "POST",
                path: "/oidc/register",
                headers: &[JSON],
                body: &pieces,
                ending,
                ..Default::default()
            };
            assert_eq!(http2::exchange(address, &request).unwrap().status, status, "{ending:?}");
        }
    }
    // The announced length is enough: no byte of the body is waited for.
    let mut connection = Connection::open(address);
    connection.send(&http1::request("POST", "/oidc/register", &[JSON, ("content-length", b"65537")], b""));
    assert_eq!(outcome(&connection.receive()), (413, "invalid_request".to_owned()));
}

#[test]
fn a_length_that_lies_registers_nothing() {
    let gateway = open_gateway();
    let address = gateway.http_address();
    let before = gateway.decisions("registered");
    let length = |length: usize| {
        http1::request("POST", "/oidc/register", &[JSON, ("content-length", length.to_string().as_bytes())], CLIENT)
    };
    // Shorter: the body is cut in the middle and the rest is no request.
    assert_eq!(http1::exchange(address, &length(CLIENT.len() - 10)).status, 400);
    // Two that disagree, and one that is no number.
    let lengths: [(&str, &[u8]); 3] = [JSON, ("content-length", b"67"), ("content-length", b"68")];
    assert_eq!(post(&gateway, &lengths, CLIENT).status, 400);
    assert_eq!(post(&gateway, &[JSON, ("content-length", b"+67")], CLIENT).status, 400);
    // Both a length and chunks: a request-smuggling classic.
    let both: [(&str, &[u8]); 3] = [JSON, ("content-length", b"5"), ("transfer-encoding", b"chunked")];
    assert_eq!(post(&gateway, &both, &http1::chunked(&[CLIENT])).status, 400);
    // Over HTTP/2 the frames must add up to the length.
    for lie in [b"1", b"9"] {
        let headers: [(&str, &[u8]); 2] = [JSON, ("content-length", lie)];
        let body = [CLIENT];
        let request = http2::Request {
            method: "POST",
            path: "/oidc/register",
            headers: &headers,
            body: &body,
            ..Default::default()
        };
        match http2::exchange(address, &request) {
            Ok(response) => assert_eq!(response.status, 400),
            Err(error) => assert!(error.contains("protocol error"), "{error}"),
        }
    }
    // Longer: the rest never comes, and then the client is gone.
    let mut connection = Connection::open(address);
    connection.send(&length(CLIENT.len() + 10));
    drop(connection);
    assert_eq!(gateway.decisions("registered"), before);
    assert_eq!(register(address).status, 201);
}

#[test]
fn a_client_that_leaves_in_the_middle_holds_nothing_up() {
    let gateway = open_gateway();
    let address = gateway.http_address();
    for _ in 0..20 {
        let mut connection = Connection::open(address);
        connection.send(&http1::request("POST", "/oidc/register", &[JSON, ("content-length", b"500")], b"{\"redi"));
        // Whole, but nobody waits for the answer.
        let mut impatient = Connection::open(address);
        impatient.send(&http1::request("POST", "/oidc/register", &[JSON], CLIENT));
    }
    let body: [&[u8]; 1] = [b"{\"redi"];
    let request = http2::Request {
        method: "POST",
        path: "/oidc/register",
        headers: &[JSON],
        body: &body,
        ending: Ending::Reset,
        ..Default::default()
    };
    assert!(http2::exchange(address, &request).is_err());
    assert_eq!(register(address).status, 201);
    eventually("no request is left over", || {
        let active = gateway.stats("http.gateway.downstream_rq_active");
        active.iter().all(|(_, count)| *count == 0).then_some(())
    });
}

#[test]
fn header_bytes_that_are_no_text_change_nothing() {
    let gateway = open_gateway();
    let odd: [(&str, &[u8]); 4] =
        [JSON, ("user-agent", b"\xa1\xff"), ("x-odd", b"caf\xe9"), ("authorization", b"Bearer \xfe")];
    for _ in 0..4 {
        assert_eq!(post(&gateway, &odd, CLIENT).status, 201);
    }
    assert_eq!(post(&gateway, &[("content-type", b"application/json\xa1")], CLIENT).status, 415);
    let request = http1::request("GET", "/", &[("x-odd", b"\xff")], b"");
    assert_eq!(http1::exchange(gateway.http_address(), &request).status, 200);
    // A worker that had trapped would have come back as a new one.
    assert!(gateway.stats("wasm.").iter().any(|(name, count)| name.ends_with("v8.created") && *count > 0));
    assert!(gateway.stats("wasm").iter().all(|(name, count)| !name.contains("reload") || *count == 0));
}

#[test]
fn what_is_not_one_json_body_is_a_415() {
    let gateway = open_gateway();
    let typed = |values: &[&'static str]| -> Vec<(&str, &[u8])> {
        values.iter().map(|value| ("content-type", value.as_bytes())).collect()
    };
    for good in ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"] {
        assert_eq!(post(&gateway, &typed(&[good]), CLIENT).status, 201, "{good}");
    }
    for bad in [
        &[][..],
        &["text/plain"],
        &["application/x-www-form-urlencoded"],
        &["application/json", "application/json"],
        &["application/json", "text/plain"],
        &["application/json, text/plain"],
    ] {
        assert_eq!(outcome(&post(&gateway, &typed(bad), CLIENT)), (415, "invalid_request".to_owned()), "{bad:?}");
    }
    assert_eq!(post(&gateway, &[JSON, ("content-encoding", b"gzip")], CLIENT).status, 415);
    assert_eq!(post(&gateway, &[JSON, ("content-encoding", b"identity")], CLIENT).status, 201);
}

#[test]
fn only_post_registers_and_a_token_is_never_an_error() {
    let gateway = open_gateway();
    let address = gateway.http_address();
    for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE"] {
        for target in ["/oidc/register", "/oidc/register/", "/oidc/register?x=1"] {
            let response = http1::exchange(address, &http1::request(method, target, &[], b""));
            assert_eq!((response.status, response.header("allow")), (405, Some("POST, OPTIONS")), "{method} {target}");
            if method != "HEAD" {
                assert_eq!(outcome(&response).1, "invalid_request");
            }
        }
    }
    for method in ["GET", "POST", "OPTIONS", "DELETE"] {
        let response = http1::exchange(address, &http1::request(method, "/oidc/register/tpc_1", &[], b""));
        assert_eq!(response.status, 405, "{method}");
    }
    for target in ["/oidc/register", "/oidc/register/", "/oidc/register?a=/../b", "/oidc/register?x=%zz"] {
        let headers: [(&str, &[u8]); 3] =
            [JSON, ("authorization", b"Bearer nonsense"), ("accept-encoding", b"gzip, br")];
        let response = http1::exchange(address, &http1::request("POST", target, &headers, CLIENT));
        assert_eq!((response.status, response.header("content-encoding")), (201, None), "{target}");
    }
}

#[test]
fn preflights_go_to_no_server_and_cost_no_token() {
    let limit = json!({"burst": 3, "per_second": 1});
    let gateway = open(Options::default(), json!({"rate_limit": limit, "cors_origins": ["https://app.example"]}));
    let send = |method: &str, origin: &str| {
        let headers: [(&str, &[u8]); 2] = [("origin", origin.as_bytes()), ("access-control-request-method", b"POST")];
        http1::exchange(gateway.http_address(), &http1::request(method, "/oidc/register", &headers, b""))
    };
    for _ in 0..10 {
        let response = send("OPTIONS", "https://app.example");
        assert_eq!((response.status, response.header(ECHO)), (204, None));
        assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example"));
        let allowed = "content-type, authorization, mcp-protocol-version";
        assert_eq!(response.header("access-control-allow-headers"), Some(allowed));
        assert_eq!(response.header("vary"), Some("origin"));
    }
    let stranger = send("OPTIONS", "https://evil.example");
    assert_eq!((stranger.status, stranger.header("access-control-allow-origin")), (204, None));
    let created = http1::exchange(
        gateway.http_address(),
        &http1::request("POST", "/oidc/register", &[JSON, ("origin", b"https://app.example")], CLIENT),
    );
    assert_eq!(created.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(created.status, 201);
    // Refusals carry the headers too, or the page could not read them.
    let mut last = send("POST", "https://app.example");
    assert_eq!((last.status, last.header("x-ratelimit-limit")), (415, Some("3")));
    while last.status != 429 {
        last = send("POST", "https://app.example");
    }
    assert_eq!(last.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(last.header("access-control-expose-headers").unwrap().contains("retry-after"));
}

#[test]
fn a_tenant_has_its_own_tokens_and_every_request_costs_one() {
    let gateway =
        open(Options { concurrency: 4, ..Options::default() }, json!({"rate_limit": {"burst": 7, "per_second": 1}}));
    gateway.store_command(&["tenant", "create", "other", "--domain", "other.test"]);
    gateway.wait_for_settings();
    let address = gateway.http_address();
    let started = Instant::now();
    // Valid or not, on whatever worker.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let send = |body: &'static [u8]| http1::post_json(address, "/oidc/register", body).status;
        let threads: Vec<_> =
            (0..30).map(|n| scope.spawn(move || send(if n % 2 == 0 { CLIENT } else { b"{}" }))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let admitted = statuses.iter().filter(|status| **status != 429).count();
    let most = 7 + usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    assert!((7..=most).contains(&admitted), "{statuses:?}");
    let denied = std::iter::repeat_with(|| register(address)).find(|response| response.status == 429).unwrap();
    assert_eq!(outcome(&denied).1, "too_many_requests");
    assert_eq!((denied.header("retry-after"), denied.header("x-ratelimit-remaining")), (Some("1"), Some("0")));
    // The other tenant's are untouched; it has registration switched off, which costs a token as well.
    let other = http1::request("POST", "/oidc/register", &[("host", b"other.test"), JSON], CLIENT);
    let response = http1::exchange(address, &other);
    assert_eq!(outcome(&response), (403, "access_denied".to_owned()));
    assert_eq!(response.header("x-ratelimit-remaining"), Some("4"));
    assert_eq!(gateway.decisions("limiter_contended"), 0);
}

#[test]
fn registration_is_off_until_the_owner_switches_it_on() {
    let gateway = Gateway::start(Options::default());
    assert_eq!(outcome(&register(gateway.http_address())), (403, "access_denied".to_owned()));
    gateway.patch_settings(&json!({"flags": {"enable_dynamic_client_registration": true}}));
    assert_eq!(register(gateway.http_address()).status, 201);
}

#[test]
fn public_clients_with_the_same_metadata_fold_if_the_tenant_wants_it() {
    let gateway = open(Options::default(), json!({"deduplicate_public_clients": true}));
    let id = |body: &[u8]| {
        let response = http1::post_json(gateway.http_address(), "/oidc/register", body);
        assert_eq!(response.status, 201);
        response.json()["client_id"].as_str().unwrap().to_owned()
    };
    let public = br#"{"redirect_uris":["http://localhost/cb"],"token_endpoint_auth_method":"none"}"#;
    assert_eq!(id(public), id(public));
    assert_ne!(id(CLIENT), id(CLIENT));
}

#[test]
fn a_quota_that_is_used_up_is_said_to_be() {
    let gateway = open(Options::default(), json!({"client_quota": 2}));
    for status in [201, 201, 403] {
        assert_eq!(register(gateway.http_address()).status, status);
    }
    let refused = register(gateway.http_address());
    assert_eq!(outcome(&refused), (403, "access_denied".to_owned()));
    assert!(refused.json()["error_description"].as_str().unwrap().contains("quota"));
    assert!(refused.json()["decision_id"].is_string());
    assert_eq!((gateway.decisions("quota_used_up"), gateway.decisions("store_refused")), (2, 0));
}

#[test]
fn the_reason_of_a_decision_is_in_the_access_log() {
    let gateway = open_gateway();
    http1::get(gateway.http_address(), "/OIDC/register");
    register(gateway.http_address());
    // Envoy writes its access log when it has enough of it, or after a while.
    let patience = Instant::now() + Duration::from_secs(15);
    while !gateway.envoy_log().contains(r#""reason":"disguised_path""#) {
        assert!(Instant::now() < patience, "{}", gateway.envoy_log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(gateway.envoy_log().contains(r#""reason":"registered""#));
}

#[test]
fn a_refusal_of_what_calls_itself_grpc_has_the_refusals_status() {
    let gateway = open_gateway();
    for (content_type, target, status) in [
        ("application/grpc", "/oidc/register", 415),
        ("application/grpc+json", "/oidc/register", 415),
        ("application/grpc", "/OIDC/register", 404),
    ] {
        let request = http1::request("POST", target, &[("content-type", content_type.as_bytes())], CLIENT);
        let response = http1::exchange(gateway.http_address(), &request);
        assert_eq!((response.status, response.header(ECHO)), (status, None), "{response:?}");
        let headers = [("content-type", content_type.as_bytes())];
        let body = [CLIENT];
        let request =
            http2::Request { method: "POST", path: target, headers: &headers, body: &body, ..Default::default() };
        assert_eq!(http2::exchange(gateway.http_address(), &request).unwrap().status, status);
    }
    // What is not ours is none of our business, gRPC or not.
    let request = http1::request("POST", "/svc/Call", &[("content-type", b"application/grpc")], CLIENT);
    assert_eq!(http1::exchange(gateway.http_address(), &request).status, 200);
}

#[test]
fn upgrades_and_tunnels_get_past_nothing() {
    let gateway = open_gateway();
    let upgrade: [(&str, &[u8]); 3] = [JSON, ("connection", b"upgrade"), ("upgrade", b"websocket")];
    let refused = post(&gateway, &upgrade, CLIENT);
    assert_eq!((refused.status, refused.header(ECHO)), (403, None));
    let connect =
        http1::exchange(gateway.http_address(), b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost:80\r\n\r\n");
    assert!(connect.status >= 400, "{connect:?}");
    let h2c: [(&str, &[u8]); 4] = [
        JSON,
        ("connection", b"upgrade, http2-settings"),
        ("upgrade", b"h2c"),
        ("http2-settings", b"AAMAAABkAAQAoAAAAAIAAAAA"),
    ];
    assert_eq!(post(&gateway, &h2c, b"{}").header(ECHO), None);
    assert_eq!(register(gateway.http_address()).status, 201);
}

#[test]
fn there_is_one_host_in_a_request() {
    let gateway = open_gateway();
    let two: [(&str, &[u8]); 3] = [("host", b"localhost"), ("host", b"other.test"), JSON];
    // Envoy joins them, and no tenant has such a host.
    assert!(matches!(post(&gateway, &two, CLIENT).status, 400 | 404));
    let headers: [(&str, &[u8]); 2] = [JSON, ("host", b"localhost")];
    let body = [CLIENT];
    let request = http2::Request {
        method: "POST",
        path: "/oidc/register",
        authority: "other.test",
        headers: &headers,
        body: &body,
        ..Default::default()
    };
    match http2::exchange(gateway.http_address(), &request) {
        Ok(response) => assert!(matches!(response.status, 400 | 404), "{response:?}"),
        Err(error) => assert!(error.contains("protocol error"), "{error}"),
    }
}

#[test]
fn settings_that_change_between_head_and_body_are_those_of_the_store() {
    let gateway = open_gateway();
    let mut connection = Connection::open(gateway.http_address());
    let length = CLIENT.len().to_string();
    connection.send(&http1::request("POST", "/oidc/register", &[JSON, ("content-length", length.as_bytes())], b""));
    eventually("the head has arrived", || {
        let active = gateway.stats("http.gateway.downstream_rq_active");
        active.iter().any(|(_, count)| *count > 0).then_some(())
    });
    gateway.patch_settings(&json!({"flags": {"enable_dynamic_client_registration": false}}));
    connection.send(CLIENT);
    assert_eq!(outcome(&connection.receive()), (403, "access_denied".to_owned()));
}
