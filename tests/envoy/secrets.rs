//! No secret gets into a log, an error, a metric or what the admin port shows, however much is logged.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::gateway::{Gateway, Options};
use crate::support::http1;
use crate::support::postgres::{PASSWORD, Server};
use crate::support::store::Caller;

/// What nobody may find anywhere, and everything that was printed.
#[derive(Default)]
struct Run {
    secrets: Vec<(String, Vec<u8>)>,
    printed: Vec<(String, String)>,
}

impl Run {
    fn secret(&mut self, what: &str, secret: impl AsRef<[u8]>) {
        assert!(secret.as_ref().len() >= 12, "{what} is too short to look for");
        self.secrets.push((what.to_owned(), secret.as_ref().to_vec()));
    }

    /// Notes an answer that has no business with secrets.
    fn error(&mut self, what: &str, status: u16, expected: u16, body: impl Into<String>) {
        let body = body.into();
        assert_eq!(status, expected, "{what}: {body}");
        self.printed.push((format!("the answer to {what}"), body));
    }

    /// Panics with each place where a secret is: as it is, encoded, or as the hash that the store keeps.
    fn assert_clean(&self) {
        let mut found = Vec::new();
        for (what, secret) in &self.secrets {
            let hash = Sha256::digest(secret);
            let mut forms = vec![STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret), hex::encode(secret)];
            forms.extend([hex::encode(hash), STANDARD.encode(hash), URL_SAFE_NO_PAD.encode(hash)]);
            forms.extend(String::from_utf8(secret.clone()));
            for (place, text) in &self.printed {
                for form in forms.iter().filter(|form| text.contains(form.trim_end_matches('='))) {
                    let line = text.lines().find(|line| line.contains(form.trim_end_matches('='))).unwrap_or_default();
                    found.push(format!("{what} is in {place}: {}", &line[..line.len().min(300)]));
                }
            }
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

#[test]
fn no_secret_of_a_run_on_sqlite_is_ever_printed() {
    run(Options::default());
}

#[test]
fn no_secret_of_a_run_on_postgresql_is_ever_printed() {
    let Some(server) = Server::shared() else { return };
    run(Options { database_url: Some(server.create_database()), ..Options::default() });
}

fn run(options: Options) {
    let mut run = Run::default();
    run.secret("the database's password", PASSWORD);
    let launcher = ["env", "RUST_LOG=trace"].map(Into::into).to_vec();
    let mut gateway = Gateway::start(Options { store_launcher: launcher, ..options });
    log_all(&gateway);
    run.secret("the edge's token", gateway.edge_token());
    let token = gateway.management_token();
    run.secret("a management token", &token);
    let server_token = gateway.store_command(&["token", "--kind", "server", "--tenant", "default"]);
    run.secret("a server's token", server_token.trim());
    gateway.folder().with_database(async |database| {
        for key in database.signing_keys().await.unwrap() {
            run.secret("a key that signs tokens", key.seed);
        }
    });
    let free = json!({"rate_limit": {"burst": 100, "per_second": 100}});
    gateway.patch_settings(&json!({"flags": {"enable_dynamic_client_registration": true}, "dcr_edge": free}));

    let registered = register(&gateway, &json!({"redirect_uris": ["https://app.example/cb"], "client_name": "One"}));
    let (id, secret) = (text(&registered, "client_id"), text(&registered, "client_secret"));
    run.secret("a client's secret", &secret);
    let owner = Caller::new(gateway.store_address()).with_token(&token);
    let rotated = owner.send("POST", &format!("/api/v2/clients/{id}/rotate-secret"), &json!({}));
    assert_eq!(rotated.status, 200, "{rotated:?}");
    let rotated = text(&rotated.json(), "client_secret");
    run.secret("a secret after its rotation", &rotated);
    let made = owner.send(
        "POST",
        "/api/v2/clients",
        &json!({"name": "Made", "app_type": "regular_web", "callbacks": ["https://made.example/cb"]}),
    );
    assert_eq!(made.status, 201, "{made:?}");
    run.secret("the secret of a client that the owner made", text(&made.json(), "client_secret"));
    let options_secret = "of-an-upstream-identity-provider-91";
    run.secret("a connection's secret", options_secret);
    let connection = json!({"name": "corporate", "strategy": "oidc", "options": {"client_secret": options_secret}});
    assert_eq!(owner.send("POST", "/api/v2/connections", &connection).status, 201);

    // Right and wrong secrets, in the right place and in wrong ones.
    let server = Caller::new(gateway.store_address()).with_token(server_token.trim());
    let authenticate = format!("/edge/v1/tenants/default/clients/{id}/authenticate");
    for (secret, status) in [(rotated.as_str(), 204), (secret.as_str(), 401), ("another-secret-of-nobody", 401)] {
        run.secret("a secret that was tried", secret);
        let answer = server.send("POST", &authenticate, &json!({"client_secret": secret}));
        assert_eq!(answer.status, status, "{answer:?}");
        run.printed.push((format!("the answer {status} to an authentication"), answer.text));
    }
    wrong_places(&mut run, &gateway, &id);
    let key = gateway.store_command(&["key", "rotate"]);
    run.printed.push(("what `key rotate` prints".to_owned(), key));
    gateway.folder().with_database(async |database| {
        for key in database.signing_keys().await.unwrap() {
            run.secret("a key that signs tokens", key.seed);
        }
    });

    let anyone = Caller::new(gateway.store_address());
    for path in ["/metrics", "/.well-known/jwks.json", "/readyz"] {
        run.printed.push((format!("the store's {path}"), anyone.get(path).text));
    }
    for path in ["/stats", "/stats/prometheus", "/config_dump?include_eds", "/clusters", "/certs", "/server_info"] {
        let answer = http1::get(gateway.admin_address(), path);
        run.printed.push((format!("Envoy's {path}"), answer.text().to_owned()));
    }
    let logs = owner.get("/api/v2/logs?per_page=100").text;
    assert!(logs.contains("\"sapi\""), "{logs}");
    run.printed.push(("the tenant's log".to_owned(), logs));
    // Envoy writes the rest of its access log when it ends.
    gateway.restart_envoy();
    run.printed.push(("Envoy's log".to_owned(), gateway.envoy_log()));
    run.printed.push(("the store's log".to_owned(), gateway.store_log()));
    // What was looked at is what there is to look at.
    for (place, needle) in
        [("Envoy's log", "\"/oidc/register\""), ("the store's log", "listening on"), ("the tenant's log", id.as_str())]
    {
        let text = &run.printed.iter().find(|(name, _)| name == place).unwrap().1;
        assert!(text.contains(needle), "{place} has no {needle}");
    }
    run.assert_clean();
}

/// Sends secrets to where they do not belong: each request is refused.
fn wrong_places(run: &mut Run, gateway: &Gateway, id: &str) {
    let misplaced = "a-secret-in-a-wrong-place-4711";
    run.secret("a secret in a wrong place", misplaced);
    let post = |target: &str, headers: &[(&str, &[u8])], body: &str| {
        let response =
            http1::exchange(gateway.http_address(), &http1::request("POST", target, headers, body.as_bytes()));
        (response.status, response.text().to_owned())
    };
    let json_type: (&str, &[u8]) = ("content-type", b"application/json");
    let authorization = format!("Bearer {misplaced}");
    let (_, body) = post(
        &format!("/oidc/register?access_token={misplaced}"),
        &[json_type, ("authorization", authorization.as_bytes()), ("cookie", authorization.as_bytes())],
        r#"{"redirect_uris": ["https://app.example/cb"], "client_name": "Two"}"#,
    );
    run.secret("the secret of a second client", text(&serde_json::from_str(&body).unwrap(), "client_secret"));
    for (what, status, body) in [
        ("a malformed body", 400, format!(r#"{{"client_secret": "{misplaced}", "#)),
        ("an uri with a password", 400, format!(r#"{{"redirect_uris": ["https://user:{misplaced}@app.example/cb"]}}"#)),
        (
            "a member of a wrong type",
            400,
            format!(r#"{{"redirect_uris": ["{misplaced}"], "grant_types": "{misplaced}"}}"#),
        ),
        (
            "a statement",
            400,
            format!(r#"{{"redirect_uris": ["https://a.example/"], "software_statement": "{misplaced}"}}"#),
        ),
    ] {
        let (answered, body) = post("/oidc/register", &[json_type], &body);
        run.error(what, answered, status, body);
    }
    let wrong = Caller::new(gateway.store_address()).with_token(misplaced);
    for (what, path) in [
        ("a wrong management token", "/api/v2/clients".to_owned()),
        ("a wrong edge token", format!("/edge/v1/tenants/default/clients/{id}")),
    ] {
        let answer = wrong.get(&path);
        run.error(what, answer.status, 401, answer.text);
    }
    // A token of one kind, where another belongs.
    let edge = Caller::new(gateway.store_address()).with_token(gateway.edge_token());
    let answer = edge.get("/api/v2/clients");
    run.error("an edge's token for the Management API", answer.status, 401, answer.text);
    let owner = Caller::new(gateway.store_address()).with_token(gateway.management_token());
    let answer = owner.send("PATCH", "/api/v2/tenants/settings", &json!({"flags": misplaced}));
    run.error("settings of a wrong type", answer.status, 400, answer.text);
    let answer = owner.send("POST", "/api/v2/clients", &json!({"name": "x", "client_secret": misplaced}));
    run.error("a secret that the owner wants to choose", answer.status, 400, answer.text);
}

fn register(gateway: &Gateway, metadata: &Value) -> Value {
    let response = http1::post_json(gateway.http_address(), "/oidc/register", metadata.to_string().as_bytes());
    assert_eq!(response.status, 201, "{response:?}");
    response.json()
}

fn text(object: &Value, member: &str) -> String {
    object[member].as_str().unwrap_or_else(|| panic!("no {member}: {object}")).to_owned()
}

/// Has the filter log all that it can. Envoy itself shows every header in its own logs at this level, so those stay.
fn log_all(gateway: &Gateway) {
    let response = http1::exchange(gateway.admin_address(), &http1::request("POST", "/logging?wasm=trace", &[], b""));
    assert_eq!(response.status, 200, "{response:?}");
}
