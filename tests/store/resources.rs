//! The Management API's APIs, connections and client grants over HTTP.

use serde_json::{Value, json};

use crate::support::store::{Answer, Caller, Folder, client_id, public};

const APIS: &str = "/api/v2/resource-servers";
const CONNECTIONS: &str = "/api/v2/connections";
const GRANTS: &str = "/api/v2/client-grants";

fn create(owner: &Caller, path: &str, object: &Value) -> Value {
    let answer = owner.send("POST", path, object);
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

fn of(path: &str, object: &Value) -> String {
    format!("{path}/{}", object["id"].as_str().unwrap())
}

fn assert_refused(answer: &Answer, status: u16, code: &str, says: &str) {
    let body = answer.json();
    assert_eq!((answer.status, &body["errorCode"]), (status, &json!(code)), "{body}");
    assert!(body["message"].as_str().unwrap().contains(says), "{says}: {body}");
}

fn api(owner: &Caller, identifier: &str) -> Value {
    create(owner, APIS, &json!({"identifier": identifier, "scopes": [{"value": "read"}]}))
}

fn default_grant(audience: &str) -> Value {
    json!({"default_for": "third_party_clients", "audience": audience, "scope": ["read"], "subject_type": "user"})
}

#[test]
fn each_object_is_created_shown_changed_and_deleted() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    api(&owner, "https://api.example/");
    for (path, prefix, object, patch) in [
        (APIS, "rs_", json!({"identifier": "urn:b", "name": "B"}), json!({"scopes": [{"value": "w"}]})),
        (CONNECTIONS, "con_", json!({"name": "db", "strategy": "auth0"}), json!({"is_domain_connection": true})),
        (GRANTS, "cgr_", default_grant("https://api.example/"), json!({"allow_all_scopes": true})),
    ] {
        let created = create(&owner, path, &object);
        assert!(created["id"].as_str().unwrap().starts_with(prefix), "{created}");
        for (name, value) in object.as_object().unwrap() {
            assert_eq!(&created[name], value, "{path}");
        }
        let path_of_it = of(path, &created);
        assert_eq!(owner.get(&path_of_it).json(), created);
        let changed = owner.send("PATCH", &path_of_it, &patch);
        assert_eq!(changed.status, 200, "{}", changed.text);
        for (name, value) in patch.as_object().unwrap() {
            assert_eq!(&changed.json()[name], value, "{path}");
        }
        assert_eq!(owner.get(&path_of_it).json(), changed.json());
        for _ in 0..2 {
            let deleted = owner.call("DELETE", &path_of_it, &[], None);
            assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
        }
        assert_refused(&owner.get(&path_of_it), 404, "inexistent_resource", "no such");
        assert_refused(&owner.send("PATCH", &path_of_it, &json!({})), 404, "inexistent_resource", "no such");
    }
}

#[test]
fn an_object_like_another_is_a_conflict() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    store.edge().put_client("default", &client_id(1), &public());
    api(&owner, "a");
    let own = json!({"client_id": client_id(1), "audience": "a", "subject_type": "user"});
    for (path, object, other) in [
        (APIS, json!({"identifier": "b"}), json!({"identifier": "c"})),
        (CONNECTIONS, json!({"name": "b", "strategy": "auth0"}), json!({"name": "c", "strategy": "auth0"})),
        (GRANTS, default_grant("a"), own.clone()),
        (
            GRANTS,
            json!({"client_id": client_id(1), "audience": "a", "subject_type": "client"}),
            json!({"default_for": "third_party_clients", "audience": "b", "subject_type": "user"}),
        ),
    ] {
        create(&owner, path, &object);
        assert_refused(&owner.send("POST", path, &object), 409, "resource_exists", "already");
        create(&owner, path, &other);
    }
}

#[test]
fn bad_input_is_refused_and_the_member_named() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let grant = create(&owner, GRANTS, &{
        api(&owner, "a");
        default_grant("a")
    });
    for (path, object, says) in [
        (APIS, json!({"identifier": "b", "signing_alg": "RS256"}), "signing_alg: unknown field"),
        (APIS, json!({"identifier": "b", "scopes": [{"value": "a b"}]}), "scopes[0].value: expected a scope"),
        (CONNECTIONS, json!({"name": "b"}), "missing field `strategy`"),
        (CONNECTIONS, json!({"name": "b", "strategy": "auth0", "is_domain_connection": 1}), "is_domain_connection: "),
        (GRANTS, json!({"audience": "a"}), "one of client_id and default_for"),
        (GRANTS, json!({"client_id": 1, "audience": "a"}), "client_id: invalid type"),
    ] {
        assert_refused(&owner.send("POST", path, &object), 400, "invalid_body", says);
    }
    let both = json!({"scope": ["read"], "allow_all_scopes": true});
    assert_refused(&owner.send("PATCH", &of(GRANTS, &grant), &both), 400, "invalid_body", "scope: ");
    for never in ["id", "audience", "default_for", "client_id", "subject_type"] {
        let answer = owner.send("PATCH", &of(GRANTS, &grant), &json!({never: "x"}));
        assert_refused(&answer, 400, "invalid_body", &format!("{never}: unknown field"));
    }
}

#[test]
fn a_grant_is_for_an_api_and_a_client_of_the_tenant_and_goes_with_them() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    let (owner, other) = (store.owner("default"), store.owner("other"));
    let edge = store.edge();
    assert_eq!(edge.put_client("default", &client_id(1), &public()).status, 201);
    assert_eq!(edge.put_client("other", &client_id(2), &public()).status, 201);
    let a = api(&owner, "a");
    api(&other, "theirs");
    let own = |client: usize, audience: &str| json!({"client_id": client_id(client), "audience": audience, "scope": ["read"], "subject_type": "user"});
    assert_refused(&owner.send("POST", GRANTS, &default_grant("b")), 404, "inexistent_resource_server", "audience: ");
    assert_refused(
        &owner.send("POST", GRANTS, &default_grant("theirs")),
        404,
        "inexistent_resource_server",
        "audience",
    );
    assert_refused(&owner.send("POST", GRANTS, &own(2, "a")), 404, "inexistent_client", "client_id: ");
    assert_refused(&owner.send("POST", GRANTS, &own(3, "a")), 404, "inexistent_client", "client_id: ");

    create(&owner, GRANTS, &default_grant("a"));
    create(&owner, GRANTS, &own(1, "a"));
    assert_eq!(owner.get(GRANTS).json().as_array().unwrap().len(), 2);
    assert_eq!(owner.call("DELETE", &of(APIS, &a), &[], None).status, 204);
    assert_eq!(owner.get(GRANTS).json(), json!([]));
}

#[test]
fn a_grant_names_no_scope_that_its_api_does_not_have() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let a = api(&owner, "a");
    let mut grant = default_grant("a");
    grant["scope"] = json!(["read", "write"]);
    assert_refused(&owner.send("POST", GRANTS, &grant), 400, "invalid_body", "scope: the API has no scope write");
    let created = create(&owner, GRANTS, &default_grant("a"));
    let more = json!({"scope": ["write"]});
    assert_refused(&owner.send("PATCH", &of(GRANTS, &created), &more), 400, "invalid_body", "scope: ");
    owner.send("PATCH", &of(APIS, &a), &json!({"scopes": [{"value": "write"}]}));
    assert_eq!(owner.send("PATCH", &of(GRANTS, &created), &more).json()["scope"], json!(["write"]));
}

#[test]
fn an_api_is_also_found_by_its_identifier() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let a = api(&owner, "https://api.example/x");
    let path = format!("{APIS}/https%3A%2F%2Fapi.example%2Fx");
    assert_eq!(owner.get(&path).json(), a);
    assert_eq!(owner.send("PATCH", &path, &json!({"name": "X"})).json()["name"], "X");
    assert_eq!(owner.call("DELETE", &path, &[], None).status, 204);
    assert_eq!(owner.get(&of(APIS, &a)).status, 404);
}

#[test]
fn the_management_api_is_granted_to_nobody() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    for system in ["https://default.example/api/v2/", "https://Default.example/api/v2", "https://other.example/api/v2/"]
    {
        assert_refused(&owner.send("POST", APIS, &json!({"identifier": system})), 400, "invalid_body", "identifier: ");
        assert_refused(&owner.send("POST", GRANTS, &default_grant(system)), 400, "invalid_body", "audience: ");
    }
}

#[test]
fn lists_come_in_pages_and_by_checkpoints_in_the_order_of_creation() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    for name in ["e", "d", "c", "b", "a"] {
        create(&owner, CONNECTIONS, &json!({"name": name, "strategy": if name < "c" { "sms" } else { "auth0" }}));
    }
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&owner.get(CONNECTIONS).json()), ["e", "d", "c", "b", "a"]);
    let page = owner.get(&format!("{CONNECTIONS}?page=1&per_page=2&include_totals=true")).json();
    assert_eq!((&page["start"], &page["limit"], &page["total"]), (&json!(2), &json!(2), &json!(5)));
    assert_eq!(names(&page["connections"]), ["c", "b"]);
    assert_eq!(owner.get(&format!("{CONNECTIONS}?page=9")).json(), json!([]));

    let (mut all, mut from) = (Vec::new(), String::new());
    loop {
        let part = owner.get(&format!("{CONNECTIONS}?take=2&include_totals=true{from}")).json();
        all.extend(names(&part["connections"]));
        let Some(next) = part["next"].as_str() else { break };
        from = format!("&from={next}");
    }
    assert_eq!(all, ["e", "d", "c", "b", "a"]);
    assert_eq!(names(&owner.get(&format!("{CONNECTIONS}?strategy=sms")).json()), ["b", "a"]);
    assert_eq!(names(&owner.get(&format!("{CONNECTIONS}?name=c&strategy=auth0")).json()), ["c"]);
    let one = owner.get(&format!("{CONNECTIONS}?name=c&fields=name")).json();
    assert_eq!(one, json!([{"name": "c"}]));
    let rest = owner.get(&format!("{CONNECTIONS}?name=c&fields=id,options&include_fields=false")).json();
    assert_eq!(rest, json!([{"name": "c", "strategy": "auth0", "is_domain_connection": false}]));
    for name in ["x", "y", "z"] {
        api(&owner, name);
    }
    let found = owner.get(&format!("{APIS}?identifiers=x&identifiers=z&fields=identifier")).json();
    assert_eq!(found, json!([{"identifier": "x"}, {"identifier": "z"}]));
}

#[test]
fn grants_are_found_by_whom_and_what_they_are_for() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    store.edge().put_client("default", &client_id(1), &public());
    for audience in ["a", "b"] {
        api(&owner, audience);
        create(&owner, GRANTS, &default_grant(audience));
    }
    create(&owner, GRANTS, &json!({"client_id": client_id(1), "audience": "a", "subject_type": "user"}));
    create(&owner, GRANTS, &json!({"client_id": client_id(1), "audience": "b"}));
    let total = |query: &str| owner.get(&format!("{GRANTS}?include_totals=true&{query}")).json()["total"].clone();
    for (query, expected) in [
        ("", 4),
        ("audience=a", 2),
        ("default_for=third_party_clients", 2),
        (&format!("client_id={}", client_id(1)), 2),
        (&format!("client_id={}&subject_type=client", client_id(1)), 1),
        (&format!("client_id={}", client_id(2)), 0),
        ("subject_type=user", 3),
        ("unknown=x", 4),
    ] {
        assert_eq!(total(query), expected, "{query}");
    }
}
