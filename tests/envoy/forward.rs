//! Registration at an authorization server's own endpoint, with the guard rails before it and a record behind it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CLIENT, open, outcome, register};
use crate::support::gateway::{AuthorizationServer, Gateway, Options};
use crate::support::http1::{self, Connection};
use crate::support::process::eventually;
use crate::support::upstream::{Says, Seen, Upstream};

const TOKEN: &str = "registration-token-of-the-server";
const SECRET: &str = "a secret of the server's own";

/// What an honest server says to each request; clients have the ids `server-1`, `server-2` …
fn honest(seen: &Seen, number: usize) -> Says {
    if seen.method == "DELETE" {
        return Says { body: Vec::new(), ..Says::json(204, &Value::Null) };
    }
    if seen.target != "/reg" {
        return Says::json(200, &json!({})).with("x-upstream", "reached");
    }
    let metadata: Value = serde_json::from_str(&seen.body).unwrap();
    let mut client = metadata.clone();
    client["client_id"] = json!(format!("server-{number}"));
    client["client_id_issued_at"] = json!(1);
    client["registration_access_token"] = json!(TOKEN);
    client["registration_client_uri"] = json!(format!("https://inside.example/reg/server-{number}?x=1"));
    if metadata["token_endpoint_auth_method"] != "none" {
        client["client_secret"] = json!(SECRET);
        client["client_secret_expires_at"] = json!(4_000_000_000_u64);
    }
    Says::json(201, &client)
}

fn server() -> Upstream {
    let numbers = std::sync::atomic::AtomicUsize::new(0);
    Upstream::start(move |seen| {
        let number =
            if seen.target == "/reg" { numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 } else { 0 };
        honest(seen, number)
    })
}

/// The same with a change of the answer to a registration.
fn with(change: impl Fn(&mut Value) + Send + Sync + 'static) -> impl Fn(&Seen) -> Says + Send + Sync + 'static {
    move |seen| {
        let mut says = honest(seen, 7);
        if seen.target == "/reg" {
            let mut client = serde_json::from_slice(&says.body).unwrap();
            change(&mut client);
            says.body = client.to_string().into_bytes();
        }
        says
    }
}

fn gateway(server: &Upstream) -> Gateway {
    let options = Options { authorization_server: AuthorizationServer::At(server.address()), ..Options::default() };
    open(options, json!({"registrar": "forward"}))
}

/// The request to delete a client, once there is one.
fn deletion(server: &Upstream) -> Seen {
    eventually("the server's client is deleted", || server.seen().into_iter().find(|seen| seen.method == "DELETE"))
}

#[test]
fn the_servers_client_is_recorded_before_it_is_answered_and_its_management_stays_inside() {
    let server = server();
    let gateway = gateway(&server);
    let more = br#"{"redirect_uris":["http://127.0.0.1/cb"],"client_name":"Test","x":1,"token_endpoint_auth_method":"none","registration_access_token":"y","scope":"read"}"#;
    for (number, (body, is_public)) in [(CLIENT, false), (&more[..], true)].into_iter().enumerate() {
        let headers: [(&str, &[u8]); 4] = [
            ("content-type", b"application/json"),
            ("cookie", b"a=b"),
            ("authorization", b"Bearer x"),
            ("x-request-id", b"id-of-the-request"),
        ];
        let request = http1::request("POST", "/oidc/register", &headers, body);
        let response = http1::exchange(gateway.http_address(), &request);
        assert_eq!(response.status, 201, "{response:?}");
        let client = response.json();
        let id = format!("server-{}", number + 1);
        assert_eq!(client["client_id"], json!(id));
        assert_ne!(client["client_id_issued_at"], 1, "the store's");
        for hidden in ["registration_access_token", "registration_client_uri", "x"] {
            assert_eq!(client.get(hidden), None, "{hidden}");
        }
        let secret = (client.get("client_secret").cloned(), client["client_secret_expires_at"].clone());
        let expected = if is_public { (None, json!(0)) } else { (Some(json!(SECRET)), json!(4_000_000_000_u64)) };
        assert_eq!(secret, expected);
        assert!(gateway.client_ids().contains(&id));

        let [seen] = <[Seen; 1]>::try_from(server.take()).unwrap();
        assert_eq!((&*seen.method, &*seen.target), ("POST", "/reg"));
        assert_eq!((seen.header("cookie"), seen.header("authorization")), (None, None));
        assert_eq!((seen.header("host"), seen.header("x-forwarded-proto")), (Some("localhost"), Some("http")));
        let sent: Value = serde_json::from_str(&seen.body).unwrap();
        assert_eq!(
            (&sent["client_name"], sent.get("x"), &sent["response_types"]),
            (&json!("Test"), None, &json!(["code"]))
        );
    }
    assert!(!gateway.envoy_log().contains(TOKEN));
}

#[test]
fn a_servers_client_is_held_to_the_controls_and_other_ids_of_the_server_pass() {
    let server = server();
    let gateway = gateway(&server);
    assert_eq!(register(gateway.http_address()).status, 201);
    server.take();
    for _ in 0..4 {
        let response = http1::get(gateway.http_address(), "/authorize?client_id=server-1&response_type=code");
        assert_eq!(outcome(&response), (400, "invalid_request".to_owned()));
        let response = http1::get(gateway.http_address(), "/userinfo?client_id=server-1");
        assert_eq!(outcome(&response), (403, "access_denied".to_owned()));
    }
    assert_eq!(server.take().len(), 0);
    for target in ["/authorize?client_id=server-99", "/userinfo?client_id=first"] {
        assert_eq!(http1::get(gateway.http_address(), target).header("x-upstream"), Some("reached"), "{target}");
    }
}

#[test]
fn a_servers_client_is_held_to_the_controls_also_once_its_registrar_is_off() {
    let server = server();
    let gateway = gateway(&server);
    assert_eq!(register(gateway.http_address()).status, 201);
    gateway.patch_settings(&json!({"dcr_edge": {"registrar": "off"}}));
    for _ in 0..4 {
        let response = http1::get(gateway.http_address(), "/authorize?client_id=server-1&response_type=code");
        assert_eq!(outcome(&response), (400, "invalid_request".to_owned()));
    }
}

#[test]
fn what_the_store_does_not_record_is_deleted_at_the_server_and_is_a_503() {
    let server = server();
    let mut gateway = gateway(&server);
    gateway.stop_store();
    let response = register(gateway.http_address());
    assert_eq!(outcome(&response), (503, "temporarily_unavailable".to_owned()));
    let seen = deletion(&server);
    assert_eq!(
        (&*seen.target, seen.header("authorization")),
        ("/reg/server-1?x=1", Some("Bearer registration-token-of-the-server"))
    );
    assert_eq!(seen.header("host"), Some("localhost"));
    eventually("its end is counted", || (gateway.decisions("server_client_deleted") == 1).then_some(()));
    assert!(!gateway.envoy_log().contains(TOKEN) && !response.text().contains(TOKEN));
}

#[test]
fn an_answer_that_is_of_no_use_is_a_503_and_its_client_is_deleted() {
    let server = server();
    let gateway = gateway(&server);
    let changes: [fn(&mut Value); 8] = [
        |client| client["client_id"] = json!("a b"),
        |client| client["client_id"] = json!("tpc_00000000000000000000000000000000"),
        |client| client["client_id"] = json!(7),
        |client| _ = client.as_object_mut().unwrap().remove("client_id"),
        |client| _ = client.as_object_mut().unwrap().remove("client_secret"),
        |client| client["client_secret"] = json!(""),
        |client| client["token_endpoint_auth_method"] = json!("client_secret_basic"),
        |client| client["client_secret_expires_at"] = json!("never"),
    ];
    for change in changes {
        server.set(with(change));
        server.take();
        let response = register(gateway.http_address());
        assert_eq!(outcome(&response), (503, "temporarily_unavailable".to_owned()));
        assert_eq!(deletion(&server).target, "/reg/server-7?x=1");
    }
    assert_eq!(gateway.client_ids().len(), 0);
    // Without a word on how to delete it, it is counted as left.
    server.set(with(|client| {
        client["client_id"] = json!("a b");
        client.as_object_mut().unwrap().remove("registration_access_token");
    }));
    assert_eq!(register(gateway.http_address()).status, 503);
    eventually("it is counted", || (gateway.decisions("server_client_left") == 1).then_some(()));
}

#[test]
fn of_weighted_clusters_the_one_that_the_request_fell_to_registers() {
    let server = server();
    let weighted = |configuration: String| {
        let route = "path_separated_prefix: /oidc/register\n                route:\n                  cluster: authorization_server\n";
        let clusters = "path_separated_prefix: /oidc/register\n                route:\n                  \
                        weighted_clusters: {clusters: [{name: dcr_store, weight: 0}, {name: authorization_server, weight: 1}]}\n";
        assert!(configuration.contains(route));
        configuration.replace(route, clusters)
    };
    let authorization_server = AuthorizationServer::At(server.address());
    let options = Options { authorization_server, edit: Box::new(weighted), ..Options::default() };
    let gateway = open(options, json!({"registrar": "forward"}));
    assert_eq!(register(gateway.http_address()).json()["client_id"], "server-1");
}

#[test]
fn a_server_that_refuses_or_fails_registers_nobody() {
    let server = server();
    let gateway = gateway(&server);
    let refusal = |description: &str| json!({"error": "invalid_client_metadata", "error_description": description});
    server.set(move |_| Says::json(400, &refusal("logo_uri is too long")));
    let response = register(gateway.http_address());
    assert_eq!(outcome(&response), (400, "invalid_client_metadata".to_owned()));
    assert!(response.text().contains("logo_uri is too long"));
    server.set(move |_| Says::json(400, &refusal("<script>\n")));
    let response = register(gateway.http_address());
    assert_eq!(outcome(&response), (400, "invalid_client_metadata".to_owned()));
    assert!(!response.text().contains("<script>"));
    for says in [
        Says::json(400, &json!({"error": "server says no"})),
        Says::json(401, &json!({"error": "invalid_token"})),
        Says::json(403, &json!({"error": "insufficient_scope"})),
        Says::json(404, &json!({})),
        Says::json(500, &json!({})),
        Says::json(302, &json!({})).with("location", "/login"),
        Says::json(201, &json!([])),
        Says { body: vec![b' '; 100_000], ..Says::json(201, &json!({})) },
        Says { after: Duration::from_secs(4), ..Says::json(201, &json!({})) },
    ] {
        let status = says.status;
        server.set(move |_| says.clone());
        let response = register(gateway.http_address());
        assert_eq!(outcome(&response), (503, "temporarily_unavailable".to_owned()), "{status}");
        assert!(!response.text().contains("server says no"));
    }
    assert_eq!(gateway.client_ids().len(), 0);
    // Nor does the edge ask it for what breaks a rule.
    server.take();
    let bad = http1::post_json(gateway.http_address(), "/oidc/register", br#"{"redirect_uris":["http://a.example/"]}"#);
    assert_eq!((bad.status, server.take().len()), (400, 0));
}

#[test]
fn whoever_goes_away_while_the_server_registers_leaves_no_client_behind() {
    let server = server();
    let gateway = gateway(&server);
    server.set(|seen| Says { after: Duration::from_millis(400), ..honest(seen, 5) });
    let mut connection = Connection::open(gateway.http_address());
    connection.send(&http1::request("POST", "/oidc/register", &[("content-type", b"application/json")], CLIENT));
    eventually("the server is asked", || server.seen().iter().any(|seen| seen.target == "/reg").then_some(()));
    drop(connection);
    assert_eq!(deletion(&server).target, "/reg/server-5?x=1");
    assert_eq!(gateway.client_ids().len(), 0);
}

#[test]
fn many_at_once_are_each_answered_with_their_own_client() {
    let server = server();
    let gateway = gateway(&server);
    let address = gateway.http_address();
    let ids: std::collections::HashSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                scope.spawn(move || {
                    let register = |number: usize| {
                        let name = format!("Client {thread} {number}");
                        let body =
                            json!({"redirect_uris": ["https://app.example/cb"], "client_name": name}).to_string();
                        let response = http1::post_json(address, "/oidc/register", body.as_bytes());
                        assert_eq!(
                            (response.status, &response.json()["client_name"]),
                            (201, &json!(name)),
                            "{response:?}"
                        );
                        response.json()["client_id"].as_str().unwrap().to_owned()
                    };
                    (0..10).map(register).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!((ids.len(), gateway.client_ids()), (80, ids));
}

#[test]
fn a_tenant_whose_registrar_is_off_registers_nobody() {
    let gateway = open(Options::default(), json!({"registrar": "off"}));
    assert_eq!(outcome(&register(gateway.http_address())), (403, "access_denied".to_owned()));
    let discovery = http1::get(gateway.http_address(), "/.well-known/openid-configuration").json();
    assert_eq!(discovery.get("registration_endpoint"), None);
}
