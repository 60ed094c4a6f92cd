//! What an edge is told of clients after their registration: what it holds them to, and which of them changed.

use serde_json::{Value, json};

use crate::support::process::eventually;
use crate::support::store::{Answer, Caller, Folder, Store, client_id, confidential, public};

fn controls(caller: &Caller, tenant: &str, client_id: &str) -> Answer {
    caller.get(&format!("/edge/v1/tenants/{tenant}/clients/{client_id}/controls"))
}

fn create(owner: &Caller, path: &str, object: &Value) -> Value {
    let answer = owner.send("POST", path, object);
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

/// A reader of the change feed.
struct Reader {
    edge: Caller,
    instance: String,
    head: u64,
}

impl Reader {
    /// One that knows everything of this moment.
    fn new(store: &Store) -> Self {
        let edge = store.edge();
        let page = edge.get("/edge/v1/changes").json();
        assert_eq!((&page["full"], &page["more"]), (&json!(true), &json!(false)));
        Self { edge, instance: page["instance"].as_str().unwrap().to_owned(), head: page["head"].as_u64().unwrap() }
    }

    fn page(&mut self) -> Value {
        let path = format!("/edge/v1/changes?after={}&instance={}", self.head, self.instance);
        let page = self.edge.get(&path).json();
        assert_eq!(page["full"], false);
        self.head = page["head"].as_u64().unwrap();
        page
    }

    /// The clients that are told to have changed since the last call, `*` for all of the tenant.
    fn changed(&mut self) -> Vec<String> {
        let mut changed = Vec::new();
        loop {
            let page = self.page();
            assert_eq!(page["all_clients"], false);
            let clients = page["clients"].as_array().unwrap().iter();
            changed.extend(clients.map(|change| change["client_id"].as_str().unwrap_or("*").to_owned()));
            if page["more"] == false {
                return changed;
            }
        }
    }
}

#[test]
fn an_edge_is_told_what_it_holds_a_client_to() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    let (owner, edge) = (store.owner("default"), store.edge());
    let (ours, public_id) = (client_id(1), client_id(2));
    assert_eq!(edge.put_client("default", &ours, &confidential()).status, 201);
    assert_eq!(edge.put_client("default", &public_id, &public()).status, 201);
    create(&owner, "/api/v2/resource-servers", &json!({"identifier": "a", "scopes": [{"value": "r"}, {"value": "w"}]}));
    create(
        &owner,
        "/api/v2/client-grants",
        &json!({"default_for": "third_party_clients", "audience": "a", "scope": ["r"], "subject_type": "user"}),
    );
    for (name, at_domain_level) in [("staff", true), ("partners", false)] {
        let connection = json!({"name": name, "strategy": "auth0", "is_domain_connection": at_domain_level});
        create(&owner, "/api/v2/connections", &connection);
    }
    let answer = controls(&edge, "default", &ours);
    assert_eq!((answer.status, answer.header("x-dcr-store-protocol")), (200, "1"));
    let grant = json!({"audience": "a", "scope": ["r"], "subject_type": "user", "allow_offline_access": false});
    let expected = json!({
        "client": {
            "client_id": ours, "security_mode": "strict", "self_registered": true,
            "redirect_uris": ["https://app.example/cb"], "grant_types": ["authorization_code"],
            "token_endpoint_auth_method": "client_secret_post", "client_secret_sha256": "ab".repeat(32),
            "redirection_policy": "open_redirect_protection"
        },
        "permissions": {"grants": [grant], "connections": ["staff"]}
    });
    assert_eq!(answer.json(), expected);
    let client = controls(&edge, "default", &public_id).json()["client"].clone();
    assert_eq!((&client["token_endpoint_auth_method"], client.get("client_secret_sha256")), (&json!("none"), None));
    let own = json!({"name": "Own", "app_type": "non_interactive", "grant_types": ["client_credentials"]});
    let own = create(&owner, "/api/v2/clients", &own)["client_id"].as_str().unwrap().to_owned();
    assert_eq!(controls(&edge, "default", &own).json()["client"]["self_registered"], false);

    for (tenant, id, error) in
        [("default", "tpc_x", "unknown_client"), ("other", &ours, "unknown_client"), ("nobody", &ours, "not_found")]
    {
        let answer = controls(&edge, tenant, id);
        assert_eq!((answer.status, &answer.json()["error"]), (404, &json!(error)), "{tenant} {id}");
    }
    let server =
        store.anyone().with_token(folder.succeed(&["token", "--kind", "server", "--tenant", "default"]).trim());
    for caller in [server, owner, store.anyone()] {
        assert_eq!(controls(&caller, "default", &ours).status, 401);
    }
}

#[test]
fn reading_what_a_client_is_held_to_uses_it() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    store.edge().put_client("default", &client_id(1), &public());
    assert_eq!(controls(&store.edge(), "default", &client_id(1)).status, 200);
    eventually("its use is noted", || {
        let used: Option<i64> = folder.with_tables(async |pool| {
            sqlx::query_scalar("SELECT last_used_at FROM clients").fetch_one(pool).await.unwrap()
        });
        used
    });
}

#[test]
fn whatever_changes_what_a_client_may_do_is_told_and_a_registration_is_not() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let (owner, mut reader) = (store.owner("default"), Reader::new(&store));
    let id = client_id(1);
    assert_eq!(store.edge().put_client("default", &id, &confidential()).status, 201);
    assert_eq!(reader.changed(), [""; 0]);

    let client = format!("/api/v2/clients/{id}");
    let send = |method: &str, path: &str, body: Value| {
        let answer = owner.send(method, path, &body);
        assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text);
        if answer.text.is_empty() { Value::Null } else { answer.json() }
    };
    send("PATCH", &client, json!({"callbacks": ["https://app.example/new"]}));
    assert_eq!(reader.changed(), [id.as_str()]);
    send("POST", &format!("{client}/rotate-secret"), json!({}));
    assert_eq!(reader.changed(), [id.as_str()]);

    let api = json!({"identifier": "a", "scopes": [{"value": "r"}]});
    let api = send("POST", "/api/v2/resource-servers", api)["id"].as_str().unwrap().to_owned();
    reader.changed();
    let own = json!({"client_id": id, "audience": "a", "scope": ["r"], "subject_type": "user"});
    let own = send("POST", "/api/v2/client-grants", own)["id"].as_str().unwrap().to_owned();
    assert_eq!(reader.changed(), [id.as_str()]);
    send("PATCH", &format!("/api/v2/client-grants/{own}"), json!({"scope": []}));
    assert_eq!(reader.changed(), [id.as_str()]);
    send("DELETE", &format!("/api/v2/client-grants/{own}"), Value::Null);
    assert_eq!(reader.changed(), [id.as_str()]);
    let default =
        json!({"default_for": "third_party_clients", "audience": "a", "scope": ["r"], "subject_type": "user"});
    let default = send("POST", "/api/v2/client-grants", default)["id"].as_str().unwrap().to_owned();
    assert_eq!(reader.changed(), ["*"]);
    send("PATCH", &format!("/api/v2/client-grants/{default}"), json!({"scope": []}));
    assert_eq!(reader.changed(), ["*"]);
    send("PATCH", &format!("/api/v2/resource-servers/{api}"), json!({"allow_offline_access": true}));
    assert_eq!(reader.changed(), ["*"]);
    let connection = json!({"name": "staff", "strategy": "auth0", "is_domain_connection": true});
    let connection = send("POST", "/api/v2/connections", connection)["id"].as_str().unwrap().to_owned();
    assert_eq!(reader.changed(), ["*"]);
    send("PATCH", &format!("/api/v2/connections/{connection}"), json!({"is_domain_connection": false}));
    assert_eq!(reader.changed(), ["*"]);
    send("DELETE", &format!("/api/v2/client-grants/{default}"), Value::Null);
    assert_eq!(reader.changed(), ["*"]);
    send("DELETE", &format!("/api/v2/resource-servers/{api}"), Value::Null);
    assert_eq!(reader.changed(), ["*"]);
    send("DELETE", &client, Value::Null);
    assert_eq!(reader.changed(), [id.as_str()]);
    assert_eq!(reader.changed(), [""; 0]);
}

#[test]
fn changes_are_told_in_pages_of_which_none_is_missed_and_who_was_away_for_too_long_hears_that() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let (mut reader, mut late) = (Reader::new(&store), Reader::new(&store));
    folder.with_tables(async |pool| {
        let insert = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2500) \
             INSERT INTO client_changes (version, tenant, client_id) \
             SELECT changes + n, (SELECT slot FROM tenants), 'c' || n FROM n CROSS JOIN store";
        sqlx::query(insert).execute(pool).await.unwrap();
        sqlx::query("UPDATE store SET changes = changes + 2500").execute(pool).await.unwrap();
    });
    // A tenant's change lies behind them.
    assert_eq!(store.owner("default").patch_settings(&json!({"dcr_edge": {"client_quota": 7}})).status, 200);
    let mut told = Vec::new();
    let sizes: Vec<_> = (0..3)
        .map(|_| {
            let page = reader.page();
            told.extend(page["clients"].as_array().unwrap().iter().map(|change| change["client_id"].clone()));
            (page["clients"].as_array().unwrap().len(), page["tenants"].as_array().unwrap().len(), page["more"] == true)
        })
        .collect();
    assert_eq!(sizes, [(1_000, 0, true), (1_000, 0, true), (500, 1, false)]);
    assert_eq!(told, (1..=2_500).map(|number| json!(format!("c{number}"))).collect::<Vec<_>>());

    let newest = folder.with_database(async |database| database.forget_client_changes(1_000, u64::MAX).await.unwrap());
    assert_eq!(newest, reader.head);
    let page = late.page();
    assert_eq!((&page["all_clients"], page["clients"].as_array().unwrap().len()), (&json!(true), 0));
    assert_eq!(late.head, reader.head);
    assert_eq!(reader.changed(), [""; 0]);
}

#[test]
fn a_servers_client_is_a_strict_third_party_whatever_its_id_looks_like_and_its_registration_is_told() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("forward", json!({"registrar": "forward", "deduplicate_public_clients": true}));
    folder.create_enabled_tenant("off", json!({"registrar": "off"}));
    let store = folder.serve();
    let (edge, mut reader) = (store.edge(), Reader::new(&store));
    let mut registration = public();
    registration["registered_by"] = json!("server");
    let ids = ["a", &"0".repeat(32), "b-1.2_3~4"];
    for id in ids {
        let answer = edge.put_client("forward", id, &registration);
        assert_eq!((answer.status, &answer.json()["client_id"]), (201, &json!(id)), "{}", answer.text);
        assert_eq!(edge.put_client("forward", id, &registration).status, 200);
        assert_eq!(controls(&edge, "forward", id).json()["client"]["security_mode"], "strict");
    }
    let mut told = reader.changed();
    told.sort();
    let mut expected = ids.map(str::to_owned);
    expected.sort();
    assert_eq!(told, expected);

    let server =
        store.anyone().with_token(folder.succeed(&["token", "--kind", "server", "--tenant", "forward"]).trim());
    let owner = store.owner("forward");
    for id in ids {
        assert_eq!(
            server.get(&format!("/edge/v1/tenants/forward/clients/{id}")).json()["policy"]["require_pkce"],
            true
        );
        let client = owner.get(&format!("/api/v2/clients/{id}")).json();
        assert_eq!((&client["client_id"], &client["third_party_security_mode"]), (&json!(id), &json!("strict")));
    }
    assert_eq!(edge.put_client("forward", &client_id(5), &confidential()).status, 503);
    let mut other = registration.clone();
    other["metadata"]["client_name"] = json!("Another");
    assert_eq!(edge.put_client("forward", "a", &other).status, 409);
    for id in ["tpc_x", &client_id(1), "TPC_x", "a%20b", "a%2fb", &"x".repeat(129)] {
        assert_eq!(edge.put_client("forward", id, &registration).status, 400, "{id}");
    }
    assert_eq!(edge.put_client("default", "a2", &registration).status, 503);
    for registration in [registration, public()] {
        let answer = edge.put_client("off", &client_id(9), &registration);
        assert!(matches!(answer.status, 400 | 403), "{}", answer.text);
    }

    let exported = folder.path().join("forward.jsonl");
    std::fs::write(&exported, folder.succeed(&["export", "--tenant", "forward"])).unwrap();
    assert_eq!(owner.call("DELETE", "/api/v2/clients/a", &[], None).status, 204);
    assert_eq!(controls(&edge, "forward", "a").status, 404);
    let elsewhere = Folder::empty();
    elsewhere.create_enabled_tenant("x", json!({}));
    elsewhere.succeed(&["import", exported.to_str().unwrap()]);
    let elsewhere_store = elsewhere.serve();
    assert_eq!(controls(&elsewhere_store.edge(), "forward", "a").json()["client"]["security_mode"], "strict");
}
