//! What an authorization server asks of the store.

use std::time::{Duration, Instant};

use dcr_edge::store::unix_now;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::process::eventually;
use crate::support::store::{Answer, Caller, Folder, Store, client_id, confidential, public};

const SECRET: &str = "a secret of 384 random bits";

fn of(tenant: &str, client_id: &str) -> String {
    format!("/edge/v1/tenants/{tenant}/clients/{client_id}")
}

fn server(folder: &Folder, store: &Store, tenant: &str) -> Caller {
    store.anyone().with_token(folder.succeed(&["token", "--kind", "server", "--tenant", tenant]).trim())
}

fn authenticate(caller: &Caller, tenant: &str, client_id: &str, secret: &str) -> Answer {
    let body = json!({"client_secret": secret}).to_string();
    caller.call("POST", &format!("{}/authenticate", of(tenant, client_id)), &[], Some(&body))
}

/// A confidential client's registration with [`SECRET`].
fn with_secret() -> Value {
    let mut registration = confidential();
    registration["client_secret_sha256"] = json!(hex::encode(Sha256::digest(SECRET)));
    registration
}

fn create(owner: &Caller, path: &str, object: &Value) {
    let answer = owner.send("POST", path, object);
    assert_eq!(answer.status, 201, "{}", answer.text);
}

fn last_used_at(folder: &Folder, client_id: &str) -> Option<i64> {
    folder.with_tables(async |pool| {
        let select = sqlx::query_scalar("SELECT last_used_at FROM clients WHERE client_id = ?").bind(client_id);
        select.fetch_one(pool).await.unwrap()
    })
}

#[test]
fn a_server_is_told_a_client_and_what_it_may_do() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    let (owner, id) = (store.owner("default"), client_id(1));
    let mut registration = with_secret();
    registration["metadata"]["client_name#de"] = json!("Prüfung");
    registration["metadata"]["scope"] = json!("read write");
    assert_eq!(store.edge().put_client("default", &id, &registration).status, 201);
    let reader = server(&folder, &store, "default");
    let answer = reader.get(&of("default", &id));
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
    assert_eq!(answer.header("x-dcr-store-protocol"), "1");
    let mut expected = json!({
        "client_id": id, "client_id_issued_at": answer.json()["client_id_issued_at"],
        "client_name": "Test", "client_name#de": "Prüfung", "scope": "read write",
        "redirect_uris": ["https://app.example/cb"], "token_endpoint_auth_method": "client_secret_post",
        "grant_types": ["authorization_code"], "response_types": ["code"], "application_type": "web",
        "client_metadata": {}, "third_party_security_mode": "strict",
        "policy": {
            "require_pkce": true, "grants": [], "connections": [], "consent": "always", "refresh_token_rotation": true,
            "loopback_any_port": true, "redirection_policy": "open_redirect_protection"
        }
    });
    assert!(expected["client_id_issued_at"].is_u64());
    assert_eq!(answer.json(), expected);

    let scopes = json!([{"value": "read"}, {"value": "write"}]);
    for (tenant, audience) in [("default", "a"), ("default", "b"), ("other", "a")] {
        let owner = store.owner(tenant);
        create(&owner, "/api/v2/resource-servers", &json!({"identifier": audience, "scopes": scopes}));
        let default = json!({"default_for": "third_party_clients", "audience": audience, "subject_type": "user",
                             "scope": ["read"]});
        create(&owner, "/api/v2/client-grants", &default);
        for (name, is_domain_connection) in [("users", true), ("staff", false)] {
            let name = format!("{name}-{tenant}-{audience}");
            let connection = json!({"name": name, "strategy": "auth0", "is_domain_connection": is_domain_connection});
            create(&owner, "/api/v2/connections", &connection);
        }
    }
    let own = json!({"client_id": id, "audience": "b", "subject_type": "user", "allow_all_scopes": true});
    create(&owner, "/api/v2/client-grants", &own);
    let patch = json!({"redirection_policy": "allow_always", "client_metadata": {"contract": "7"}, "name": "Known"});
    assert_eq!(owner.send("PATCH", &format!("/api/v2/clients/{id}"), &patch).status, 200);
    expected["policy"]["grants"] = json!([
        {"audience": "a", "subject_type": "user", "scope": ["read"], "allow_offline_access": false},
        {"audience": "b", "subject_type": "user", "scope": ["read", "write"], "allow_offline_access": false}
    ]);
    expected["policy"]["connections"] = json!(["users-default-a", "users-default-b"]);
    expected["policy"]["redirection_policy"] = json!("allow_always");
    expected["client_metadata"] = json!({"contract": "7"});
    expected["client_name"] = json!("Known");
    expected.as_object_mut().unwrap().remove("client_name#de");
    assert_eq!(reader.get(&of("default", &id)).json(), expected);
    // A refresh token needs the API's leave and the client's grant type.
    let offline = json!({"allow_offline_access": true});
    assert_eq!(owner.send("PATCH", "/api/v2/resource-servers/b", &offline).status, 200);
    assert_eq!(reader.get(&of("default", &id)).json(), expected);
    let refreshes = json!({"grant_types": ["authorization_code", "refresh_token"]});
    assert_eq!(owner.send("PATCH", &format!("/api/v2/clients/{id}"), &refreshes).status, 200);
    expected["grant_types"] = refreshes["grant_types"].clone();
    expected["policy"]["grants"][1]["allow_offline_access"] = json!(true);
    assert_eq!(reader.get(&of("default", &id)).json(), expected);
    // An API's later scopes and policies count at once.
    let later = json!({"scopes": [{"value": "more"}]});
    assert_eq!(owner.send("PATCH", "/api/v2/resource-servers/b", &later).status, 200);
    let denied = json!({"subject_type_authorization": {"user": {"policy": "deny_all"}}});
    assert_eq!(owner.send("PATCH", "/api/v2/resource-servers/a", &denied).status, 200);
    let grants = reader.get(&of("default", &id)).json()["policy"]["grants"].clone();
    let b = json!([{"audience": "b", "subject_type": "user", "scope": ["more"], "allow_offline_access": true}]);
    assert_eq!(grants, b);

    for unknown in ["x", &client_id(2), "%20"] {
        let answer = reader.get(&of("default", unknown));
        assert_eq!((answer.status, &answer.json()["error"]), (404, &json!("unknown_client")), "{unknown}");
    }
    // That alone means that the client is gone.
    let elsewhere = reader.get(&format!("{}/x", of("default", &id)));
    assert_eq!((elsewhere.status, &elsewhere.json()["error"]), (404, &json!("not_found")));
    assert_eq!(owner.call("DELETE", &format!("/api/v2/clients/{id}"), &[], None).status, 204);
    assert_eq!(reader.get(&of("default", &id)).status, 404);
}

#[test]
fn a_client_is_authenticated_by_its_secret_alone() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    let reader = server(&folder, &store, "default");
    store.edge().put_client("default", &client_id(1), &with_secret());
    store.edge().put_client("default", &client_id(2), &public());
    store.edge().put_client("other", &client_id(3), &with_secret());
    let right = authenticate(&reader, "default", &client_id(1), SECRET);
    assert_eq!((right.status, right.text.as_str(), right.header("cache-control")), (204, "", "no-store"));
    let mut answers = std::collections::HashSet::new();
    for (id, secret) in [
        (client_id(1), "another"),
        (client_id(1), ""),
        (client_id(1), &SECRET.to_uppercase()),
        (client_id(2), SECRET),
        (client_id(2), ""),
        (client_id(3), SECRET),
        (client_id(4), SECRET),
        ("x".to_owned(), ""),
    ] {
        let answer = authenticate(&reader, "default", &id, secret);
        assert_eq!((answer.status, answer.header("cache-control")), (401, "no-store"), "{id} {secret}");
        assert_eq!((&answer.json()["error"], answer.header("www-authenticate")), (&json!("invalid_client"), ""));
        answers.insert(answer.text);
    }
    assert_eq!(answers.len(), 1, "{answers:?}");

    let path = format!("{}/authenticate", of("default", &client_id(1)));
    for body in [
        "",
        "null",
        "{}",
        "[]",
        "[\"hidden\"]",
        "\"hidden\"",
        r#"{"client_secret": 1}"#,
        r#"{"client_secret": null}"#,
        r#"{"client_secret": "hidden", "x": 1}"#,
        r#"{"client_secret": "hidden", "client_secret": "hidden"}"#,
    ] {
        let answer = reader.call("POST", &path, &[], Some(body));
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_request")), "{body}");
        assert!(!answer.text.contains("hidden"), "{}", answer.text);
        assert_eq!(answer.header("cache-control"), "no-store");
    }

    let rotate = format!("/api/v2/clients/{}/rotate-secret", client_id(1));
    let rotated = store.owner("default").call("POST", &rotate, &[], None).json();
    assert_eq!(authenticate(&reader, "default", &client_id(1), SECRET).status, 401);
    let new = rotated["client_secret"].as_str().unwrap();
    assert_eq!(authenticate(&reader, "default", &client_id(1), new).status, 204);
    let log = store.process.log();
    assert!(!log.contains(SECRET) && !log.contains("hidden") && !log.contains(new), "{log}");
}

#[test]
fn a_servers_token_opens_the_clients_of_its_tenant_and_nothing_else() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    let (id, edge) = (client_id(1), store.edge());
    edge.put_client("default", &id, &with_secret());
    let (reader, other) = (server(&folder, &store, "default"), server(&folder, &store, "other"));
    let path = of("default", &id);
    assert_eq!(reader.get(&path).status, 200);
    let refused = |answer: Answer| {
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"), "{answer:?}");
        assert!(!answer.text.contains("app.example"), "{}", answer.text);
        let body = answer.json();
        let code = body.get("error").filter(|code| *code == "invalid_token").or_else(|| body.get("errorCode"));
        assert_eq!(code, Some(&json!("invalid_token")));
        body
    };
    refused(reader.put_client("default", &client_id(2), &public()));
    for elsewhere in ["/edge/v1/changes", "/api/v2/clients", "/api/v2/tenants/settings"] {
        refused(reader.get(elsewhere));
    }
    refused(reader.call("POST", "/edge/v1/acl-counts", &[], Some("{\"counts\": []}")));
    // Another tenant's is refused like one that is not there.
    let theirs = refused(other.get(&path));
    for nobody in ["nobody", "No%20name", "-"] {
        assert_eq!(refused(other.get(&of(nobody, &id))), theirs);
    }
    assert!(theirs["error_description"].as_str().unwrap().ends_with("dcr-store token --kind server --tenant NAME`"));
    assert_eq!(refused(authenticate(&other, "default", &id, SECRET)), theirs);
    // The filter reads no client.
    for caller in [&store.anyone(), &store.owner("default"), &edge] {
        let says = refused(caller.get(&path))["error_description"].clone();
        assert!(
            says.as_str().unwrap().ends_with("; make one with `dcr-store token --kind server --tenant NAME`"),
            "{says}"
        );
        refused(authenticate(caller, "default", &id, SECRET));
    }
    assert_eq!(reader.call("DELETE", &path, &[], None).status, 405);
    assert_eq!(reader.get(&format!("{path}/authenticate")).status, 405);
    folder.succeed(&["tenant", "delete", "default"]);
    refused(reader.get(&path));
    folder.create_enabled_tenant("default", json!({}));
    refused(reader.get(&path));
}

#[test]
fn what_a_server_asks_for_is_noted_and_no_answer_waits_for_that() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let reader = server(&folder, &store, "default");
    let ids: Vec<_> = (1..=4).map(client_id).collect();
    for id in &ids {
        store.edge().put_client("default", id, &with_secret());
    }
    assert_eq!(store.edge().get(&of("default", &ids[0])).status, 401);
    assert_eq!(authenticate(&reader, "default", &ids[1], "wrong").status, 401);
    folder.with_tables(async |pool| {
        let writing = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let start = Instant::now();
        for _ in 0..50 {
            assert_eq!(reader.get(&of("default", &ids[2])).status, 200);
            assert_eq!(authenticate(&reader, "default", &ids[3], SECRET).status, 204);
        }
        // Each of them would wait for five seconds.
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        writing.rollback().await.unwrap();
    });
    for id in &ids[2..] {
        eventually("a use is noted", || last_used_at(&folder, id));
    }
    assert_eq!([&ids[0], &ids[1]].map(|id| last_used_at(&folder, id)), [None, None]);
}

#[test]
fn the_use_of_a_client_is_noted_once_an_hour_at_most() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let reader = server(&folder, &store, "default");
    let [recent, due] = [client_id(1), client_id(2)];
    let ago = |seconds: i64| i64::try_from(unix_now()).unwrap() - seconds;
    let (recently, before) = (ago(3_500), ago(3_700));
    for (id, last) in [(&recent, recently), (&due, before)] {
        assert_eq!(store.edge().put_client("default", id, &with_secret()).status, 201);
        folder.with_tables(async |pool| {
            let update = sqlx::query("UPDATE clients SET last_used_at = ? WHERE client_id = ?").bind(last).bind(id);
            update.execute(pool).await.unwrap();
        });
        assert_eq!(reader.get(&of("default", id)).status, 200);
    }
    // That of the other would be noted with it.
    eventually("the second use is noted", || last_used_at(&folder, &due).filter(|last| *last > before));
    assert_eq!(last_used_at(&folder, &recent), Some(recently));
}

#[test]
fn a_server_is_told_grants_and_connections_that_the_client_can_use_only() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let (owner, reader) = (store.owner("default"), server(&folder, &store, "default"));
    create(&owner, "/api/v2/resource-servers", &json!({"identifier": "a", "scopes": [{"value": "r"}]}));
    create(&owner, "/api/v2/connections", &json!({"name": "users", "strategy": "auth0", "is_domain_connection": true}));
    let default =
        json!({"default_for": "third_party_clients", "audience": "a", "subject_type": "user", "scope": ["r"]});
    create(&owner, "/api/v2/client-grants", &default);
    store.edge().put_client("default", &client_id(1), &with_secret());
    let make = |grants: Value, callbacks: Value| {
        let client = json!({"name": "Made", "grant_types": grants, "callbacks": callbacks});
        owner.send("POST", "/api/v2/clients", &client).json()["client_id"].as_str().unwrap().to_owned()
    };
    let machine = make(json!(["client_credentials"]), json!([]));
    let both = make(json!(["authorization_code", "client_credentials"]), json!(["https://app.example/cb"]));
    for (id, subject_types, connections) in [
        (&client_id(1), &["user"][..], json!(["users"])),
        (&machine, &["client"], json!([])),
        (&both, &["user", "client"], json!(["users"])),
    ] {
        // The defaults are for users.
        let without_users = connections == json!([]);
        let warning = owner.get(&format!("/api/v2/clients/{id}")).header("warning").to_owned();
        assert_eq!(warning.ends_with("client grant with the subject_type client.\""), without_users, "{warning}");
        let own = json!({"client_id": id, "audience": "a", "subject_type": "client", "scope": ["r"]});
        create(&owner, "/api/v2/client-grants", &own);
        let policy = reader.get(&of("default", id)).json()["policy"].clone();
        let told: Vec<_> =
            policy["grants"].as_array().unwrap().iter().map(|one| one["subject_type"].as_str().unwrap()).collect();
        assert_eq!((&*told, &policy["connections"]), (subject_types, &connections), "{id}");
        let shown = owner.get(&format!("/api/v2/clients/{id}")).json();
        assert_eq!(shown["effective_permissions"].as_array().unwrap().len(), subject_types.len());
    }
}

#[test]
fn uses_that_could_not_be_noted_are_noted_later_and_each_client_waits_once() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let reader = server(&folder, &store, "default");
    let ids: Vec<_> = (1..=3).map(client_id).collect();
    for id in &ids {
        store.edge().put_client("default", id, &public());
    }
    let run = |statement: &'static str| {
        folder.with_tables(async |pool| _ = sqlx::query(statement).execute(pool).await.unwrap());
    };
    run("CREATE TRIGGER fails BEFORE UPDATE OF last_used_at ON clients BEGIN SELECT RAISE(ABORT, 'no'); END");
    for id in &ids {
        assert_eq!(reader.get(&of("default", id)).status, 200);
    }
    eventually("a failure is said", || {
        store.process.log().contains("the uses of clients cannot be noted yet").then_some(())
    });
    assert_eq!([0, 1, 2].map(|index| last_used_at(&folder, &ids[index])), [None; 3]);
    run("DROP TRIGGER fails");
    for id in &ids {
        eventually("a use is noted", || last_used_at(&folder, id));
    }
    assert_eq!(store.process.log().matches("the uses of clients cannot be noted yet").count(), 1);
}
