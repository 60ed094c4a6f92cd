//! The Management API's clients over HTTP.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::store::{Answer, Caller, Folder, client_id, confidential, public};

const PATH: &str = "/api/v2/clients";

fn of(client: &Value) -> String {
    format!("{PATH}/{}", client["client_id"].as_str().unwrap())
}

fn made() -> Value {
    json!({"name": "Made", "callbacks": ["https://app.example/cb"]})
}

fn create(owner: &Caller, client: &Value) -> Value {
    let answer = owner.send("POST", PATH, client);
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

fn without_secret(client: &Value) -> Value {
    let mut client = client.clone();
    client.as_object_mut().unwrap().remove("client_secret");
    client
}

/// A client as it is shown by itself.
fn without_permissions(client: &Value) -> Value {
    let mut client = client.clone();
    client["effective_permissions"] = json!([]);
    client
}

fn assert_refused(answer: &Answer, says: &str) {
    let body = answer.json();
    assert_eq!((answer.status, &body["statusCode"]), (400, &json!(400)), "{says}: {body}");
    assert!(body["message"].as_str().unwrap().starts_with(says), "{says}: {body}");
}

fn stored_hash(folder: &Folder, client: &Value) -> Option<Vec<u8>> {
    folder.with_tables(async |pool| {
        sqlx::query_scalar("SELECT client_secret_sha256 FROM clients WHERE client_id = ?")
            .bind(client["client_id"].as_str().unwrap())
            .fetch_one(pool)
            .await
            .unwrap()
    })
}

fn stored_metadata(folder: &Folder, id: &str) -> Value {
    let metadata: String = folder.with_tables(async |pool| {
        let select = sqlx::query_scalar("SELECT metadata FROM clients WHERE client_id = ?").bind(id);
        select.fetch_one(pool).await.unwrap()
    });
    serde_json::from_str(&metadata).unwrap()
}

#[test]
fn an_owner_makes_sees_changes_and_deletes_a_client() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let answer = owner.send("POST", PATH, &made());
    assert_eq!((answer.status, answer.header("cache-control")), (201, "no-store"));
    let created = answer.json();
    let id = created["client_id"].as_str().unwrap();
    assert!(id.len() == 36 && id.starts_with("tpc_"), "{id}");
    let secret = created["client_secret"].as_str().unwrap();
    assert_eq!(secret.len(), 64);
    assert_eq!(stored_hash(&folder, &created), Some(Sha256::digest(secret).to_vec()));
    let shown = without_secret(&created);
    let expected = json!({
        "client_id": id, "tenant": "default", "name": "Made", "callbacks": ["https://app.example/cb"],
        "grant_types": ["authorization_code"], "token_endpoint_auth_method": "client_secret_post",
        "app_type": "regular_web", "is_first_party": false, "third_party_security_mode": "strict",
        "redirection_policy": "open_redirect_protection",
        "created_at": created["created_at"], "updated_at": created["created_at"]
    });
    assert_eq!(shown, expected);
    let path = of(&created);
    assert_eq!(owner.get(&path).json(), without_permissions(&shown));
    assert_eq!(owner.get(PATH).json(), json!([shown]));

    let patch = json!({
        "name": " Other ", "description": "d", "logo_uri": "https://app.example/l.png",
        "callbacks": ["cursor://a/cb", "http://localhost/cb", "cursor://a/cb"], "app_type": "native",
        "grant_types": ["refresh_token", "authorization_code", "client_credentials"],
        "client_metadata": {"a b": "c"}, "redirection_policy": "allow_always"
    });
    let changed = owner.send("PATCH", &path, &patch);
    let mut expected = shown.clone();
    expected.as_object_mut().unwrap().append(&mut patch.as_object().unwrap().clone());
    expected["name"] = json!("Other");
    expected["callbacks"] = json!(["cursor://a/cb", "http://localhost/cb"]);
    expected["grant_types"] = json!(["authorization_code", "refresh_token", "client_credentials"]);
    expected["updated_at"] = changed.json()["updated_at"].clone();
    assert_eq!((changed.status, changed.json()), (200, expected.clone()));
    assert!(expected["updated_at"].as_str() > expected["created_at"].as_str());
    assert_eq!(owner.get(&path).json(), without_permissions(&expected));
    // A change that changes nothing is none.
    assert_eq!(
        owner.send("PATCH", &path, &json!({"name": "Other", "callbacks": expected["callbacks"]})).json(),
        expected
    );
    assert_eq!(owner.send("PATCH", &path, &json!({})).json(), expected);

    let cleared =
        json!({"description": null, "logo_uri": "", "client_metadata": {}, "grant_types": ["authorization_code"]});
    let cleared = owner.send("PATCH", &path, &cleared).json();
    for member in ["description", "logo_uri", "client_metadata"] {
        assert_eq!(cleared.get(member), None, "{member}");
    }
    assert_eq!((&cleared["name"], &cleared["grant_types"]), (&json!("Other"), &json!(["authorization_code"])));

    for _ in 0..2 {
        let deleted = owner.call("DELETE", &path, &[], None);
        assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    }
    let rotate = format!("{path}/rotate-secret");
    for answer in [owner.get(&path), owner.send("PATCH", &path, &json!({})), owner.call("POST", &rotate, &[], None)] {
        assert_eq!((answer.status, &answer.json()["errorCode"]), (404, &json!("inexistent_client")));
    }
    let empty = json!({"start": 0, "limit": 50, "total": 0, "clients": []});
    assert_eq!(owner.get(&format!("{PATH}?include_totals=true")).json(), empty);
}

#[test]
fn a_client_that_registered_itself_is_known_as_such_and_its_other_members_stay() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let mut registration = public();
    registration["metadata"]["contacts"] = json!(["ops@a.example"]);
    registration["metadata"]["client_name#de"] = json!("Prüfung");
    assert_eq!(store.edge().put_client("default", &client_id(1), &registration).status, 201);
    let path = format!("{PATH}/{}", client_id(1));
    let shown = owner.get(&path).json();
    let expected = json!({
        "client_id": client_id(1), "tenant": "default", "name": "Test", "callbacks": ["https://app.example/cb"],
        "grant_types": ["authorization_code"], "token_endpoint_auth_method": "none", "app_type": "regular_web",
        "is_first_party": false, "third_party_security_mode": "strict",
        "redirection_policy": "open_redirect_protection", "external_metadata_type": "dcr",
        "external_metadata_created_by": "client", "created_at": shown["created_at"], "updated_at": shown["created_at"],
        "effective_permissions": []
    });
    assert_eq!(shown, expected);
    assert!(create(&owner, &made()).get("external_metadata_type").is_none());

    assert_eq!(owner.send("PATCH", &path, &json!({"name": "Known"})).json()["external_metadata_type"], "dcr");
    let mut expected = registration["metadata"].clone();
    expected.as_object_mut().unwrap().remove("client_name#de");
    expected["client_name"] = json!("Known");
    expected["grant_types"] = json!(["authorization_code"]);
    expected["response_types"] = json!(["code"]);
    expected["application_type"] = json!("web");
    assert_eq!(stored_metadata(&folder, &client_id(1)), expected);

    store.edge().put_client("default", &client_id(2), &confidential());
    let grants = json!({"grant_types": ["authorization_code", "client_credentials"]});
    let refused = owner.send("PATCH", &format!("{PATH}/{}", client_id(2)), &grants);
    assert_refused(&refused, "grant_types: client_credentials is not for a client that registered itself");
}

#[test]
fn a_secret_is_shown_when_it_is_made_and_never_again() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let created = create(&owner, &made());
    let path = of(&created);
    let rotated = owner.call("POST", &format!("{path}/rotate-secret"), &[], None);
    assert_eq!((rotated.status, rotated.header("cache-control")), (200, "no-store"));
    let secret = rotated.json()["client_secret"].as_str().unwrap().to_owned();
    assert!(secret.len() == 64 && secret != created["client_secret"]);
    assert_eq!(stored_hash(&folder, &created), Some(Sha256::digest(&secret).to_vec()));
    let looks = [
        owner.get(&path),
        owner.get(&format!("{path}?fields=client_secret,client_id")),
        owner.get(PATH),
        owner.send("PATCH", &path, &json!({"name": "x"})),
    ];
    for look in looks {
        assert!(look.status == 200 && !look.text.contains("secret\"") && !look.text.contains(&secret), "{look:?}");
    }
    let mut public = made();
    public["token_endpoint_auth_method"] = json!("none");
    let public = create(&owner, &public);
    assert_eq!((public.get("client_secret"), stored_hash(&folder, &public)), (None, None));
    let refused = owner.call("POST", &format!("{}/rotate-secret", of(&public)), &[], None);
    assert_refused(&refused, "token_endpoint_auth_method: a public client has no secret");
}

#[test]
fn another_tenants_client_is_not_there() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    let (owner, other) = (store.owner("default"), store.owner("other"));
    let created = create(&owner, &made());
    let path = of(&created);
    for answer in [
        other.get(&path),
        other.send("PATCH", &path, &json!({"name": "Theirs"})),
        other.call("POST", &format!("{path}/rotate-secret"), &[], None),
    ] {
        assert_eq!((answer.status, &answer.json()["errorCode"]), (404, &json!("inexistent_client")));
    }
    assert_eq!(other.call("DELETE", &path, &[], None).status, 204);
    assert_eq!(other.get(&format!("{PATH}?include_totals=true")).json()["total"], 0);
    assert_eq!(owner.get(PATH).json(), json!([without_secret(&created)]));
    for nobody in ["x", "%ff", &client_id(1)] {
        assert_eq!(owner.get(&format!("{PATH}/{nobody}")).status, 404, "{nobody}");
        assert_eq!(owner.call("DELETE", &format!("{PATH}/{nobody}"), &[], None).status, 204, "{nobody}");
    }
}

#[test]
fn bad_input_is_refused_and_the_member_named() {
    let folder = Folder::empty();
    folder.create_enabled_tenant(
        "default",
        json!({"allowed_redirect_hosts": [".example"], "invalid_redirect_uris": "skip"}),
    );
    let store = folder.serve();
    let owner = store.owner("default");
    let created = create(&owner, &made());
    let path = of(&created);
    let eleven: serde_json::Map<_, _> = (0..11).map(|n| (n.to_string(), json!("x"))).collect();
    let uri = "https://a.example/cb";
    for (member, value, says) in [
        ("name", json!(""), "name: must be 1 to 255"),
        ("name", json!(" "), "name: must be 1 to 255"),
        ("name", json!("\u{202e}x"), "name: control, line-break"),
        ("name", json!("x".repeat(256)), "name: must be 1 to 255"),
        ("name", json!(1), "name: "),
        ("name", Value::Null, "name: invalid type: null"),
        ("description", json!("x".repeat(141)), "description: expected 140"),
        ("description", json!("a\nb"), "description: control, line-break"),
        ("description", json!("a\u{202e}b"), "description: control, line-break and text-direction"),
        ("description", json!("\u{200b} "), "description: must have a character that can be seen"),
        ("logo_uri", json!("http://a.example/"), "logo_uri: http is allowed only for"),
        ("callbacks", json!([]), "callbacks: 1 to 50 are required"),
        ("callbacks", json!([uri, "https://a.example/#f"]), "callbacks[1]: fragment is not allowed"),
        ("callbacks", json!([uri, "http://a.example/"]), "callbacks[1]: http is allowed only for"),
        ("callbacks", json!([uri, "https://a.test/"]), "callbacks[1]: this host is not one of those the tenant allows"),
        ("callbacks", json!([uri, 1]), "callbacks[1]: invalid type"),
        ("grant_types", json!([]), "grant_types: must include authorization_code"),
        ("grant_types", json!(["refresh_token"]), "grant_types: must include authorization_code"),
        ("grant_types", json!(["client_credentials"]), "callbacks: a client whose only grant is client_credentials"),
        ("grant_types", json!(["client_credentials", "refresh_token"]), "grant_types: must include authorization_code"),
        (
            "grant_types",
            json!(["authorization_code", "implicit"]),
            "grant_types: implicit and device_code are only for",
        ),
        ("grant_types", json!(["authorization_code", "password"]), "grant_types[1]: unknown variant"),
        ("app_type", json!("rms"), "app_type: unknown variant"),
        ("client_metadata", eleven.into(), "client_metadata: expected 10 members at most"),
        ("client_metadata", json!({"a": 1}), "client_metadata.a: invalid type"),
        ("client_metadata", json!({"a": "x".repeat(256)}), "client_metadata.a: expected 255"),
        ("client_metadata", json!({"": "x"}), "client_metadata: expected names"),
        ("client_metadata", json!({"ü": "x"}), "client_metadata: expected names"),
        ("redirection_policy", json!("never"), "redirection_policy: unknown variant"),
        ("client_secret", json!("mine"), "client_secret: unknown field"),
        ("jwt_configuration", json!({}), "jwt_configuration: unknown field"),
        ("contacts", json!(["x"]), "contacts: unknown field"),
    ] {
        let mut body = made();
        body[member] = value.clone();
        assert_refused(&owner.send("POST", PATH, &body), says);
        assert_refused(&owner.send("PATCH", &path, &json!({member: value})), says);
    }
    for (member, value, says) in [
        ("is_first_party", json!(true), "is_first_party: expected false"),
        ("third_party_security_mode", json!("permissive"), "third_party_security_mode: expected strict"),
        ("token_endpoint_auth_method", json!("private_key_jwt"), "token_endpoint_auth_method: unknown variant"),
        ("client_id", json!("tpc_mine"), "client_id: unknown field"),
    ] {
        let mut body = made();
        body[member] = value;
        assert_refused(&owner.send("POST", PATH, &body), says);
    }
    assert_refused(&owner.send("PATCH", &path, &json!({"callbacks": null})), "callbacks: invalid type: null");
    assert_refused(&owner.send("PATCH", &path, &json!({"redirection_policy": null})), "redirection_policy: ");
    for (missing, says) in [("name", "missing field `name`"), ("callbacks", "callbacks: 1 to 50 are required")] {
        let mut body = made();
        body.as_object_mut().unwrap().remove(missing);
        assert_refused(&owner.send("POST", PATH, &body), says);
    }
    let web = json!({"name": "x", "callbacks": ["cursor://a/cb"], "app_type": "spa"});
    assert_refused(&owner.send("POST", PATH, &web), "app_type: web does not go with private-use");
    let machine = json!({"name": "x", "callbacks": [uri], "token_endpoint_auth_method": "none",
                         "grant_types": ["authorization_code", "client_credentials"]});
    assert_refused(&owner.send("POST", PATH, &machine), "grant_types: client_credentials needs a client with a secret");
    // Not even to what they are.
    for fixed in ["client_id", "tenant", "is_first_party", "third_party_security_mode", "token_endpoint_auth_method"] {
        let patch = json!({"name": "x", fixed: created[fixed]});
        assert_refused(&owner.send("PATCH", &path, &patch), &format!("{fixed}: cannot be changed"));
    }
    for (method, path) in [("POST", PATH), ("PATCH", &path)] {
        for body in ["", "[]", "null", "{"] {
            let answer = owner.call(method, path, &[("content-type", "application/json")], Some(body));
            assert_refused(&answer, "The body is not a JSON object");
        }
        let answer = owner.call(method, path, &[("content-type", "text/plain")], Some("{}"));
        assert_eq!(answer.status, 415);
    }
    assert_eq!(owner.get(PATH).json(), json!([without_secret(&created)]));
}

#[test]
fn callbacks_that_stricter_rules_came_after_stay_until_they_change() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let created = create(&owner, &made());
    let path = of(&created);
    assert_eq!(owner.patch_settings(&json!({"dcr_edge": {"allowed_redirect_hosts": ["other.example"]}})).status, 200);
    assert_eq!(owner.send("PATCH", &path, &json!({"name": "x"})).json()["callbacks"], created["callbacks"]);
    let whole = json!({"name": "y", "callbacks": created["callbacks"]});
    assert_eq!(owner.send("PATCH", &path, &whole).json()["name"], "y");
    let more = json!({"callbacks": ["https://other.example/cb", "https://app.example/cb", "https://app.example/2"]});
    assert_refused(&owner.send("PATCH", &path, &more), "callbacks[2]: this host is not one of those");
    let more = json!({"callbacks": ["https://other.example/cb", "https://app.example/cb"]});
    assert_eq!(owner.send("PATCH", &path, &more).json()["callbacks"], more["callbacks"]);
    let fewer = json!({"callbacks": ["https://app.example/cb"]});
    assert_eq!(owner.send("PATCH", &path, &fewer).json()["callbacks"], fewer["callbacks"]);
    let gone = owner.send("PATCH", &path, &json!({"callbacks": ["https://other.example/cb"]}));
    assert_eq!(gone.status, 200);
    // Once it is gone it is a new one.
    assert_refused(&owner.send("PATCH", &path, &fewer), "callbacks[0]: this host is not one of those");
}

#[test]
fn a_name_and_a_picture_of_the_owners_take_those_in_all_languages_away() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let tagged = ["client_name#de", "client_name#fr", "logo_uri#de"];
    let mut registration = public();
    for (member, value) in [
        ("client_name#de", "Ihre Bank"),
        ("client_name#fr", "Votre banque"),
        ("logo_uri", "https://app.example/l.png"),
        ("logo_uri#de", "https://app.example/de.png"),
        ("tos_uri#de", "https://app.example/de"),
    ] {
        registration["metadata"][member] = json!(value);
    }
    for (number, patch, left) in [
        (1, json!({"description": "d", "callbacks": ["https://app.example/2"]}), &tagged[..]),
        (2, json!({"name": "Known"}), &["logo_uri#de"]),
        (3, json!({"logo_uri": "https://app.example/other.png"}), &["client_name#de", "client_name#fr"]),
        (4, json!({"logo_uri": null}), &["client_name#de", "client_name#fr"]),
        (5, json!({"name": "Known", "logo_uri": ""}), &[]),
        // Also where they are said to be what they were.
        (6, json!({"name": " Test ", "logo_uri": "https://app.example/l.png"}), &[]),
    ] {
        let id = client_id(number);
        assert_eq!(store.edge().put_client("default", &id, &registration).status, 201);
        assert_eq!(owner.send("PATCH", &format!("{PATH}/{id}"), &patch).status, 200);
        let stored = stored_metadata(&folder, &id);
        let still: Vec<_> = tagged.into_iter().filter(|member| stored.get(member).is_some()).collect();
        assert_eq!(still, left, "{patch}");
        assert_eq!(stored["tos_uri#de"], "https://app.example/de");
    }
}

#[test]
fn an_owner_sees_what_a_client_may_do_and_is_warned_if_that_is_nothing() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    store.edge().put_client("default", &client_id(1), &public());
    let path = format!("{PATH}/{}", client_id(1));
    let create = |path: &str, object: Value| {
        let answer = owner.send("POST", path, &object);
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()["id"].as_str().unwrap().to_owned()
    };
    let seen = || {
        let answer = owner.get(&path);
        let warning = match answer.header("warning") {
            "" => "",
            text if text.starts_with("299 - \"This client can reach no API until") => "no grant",
            text if text.starts_with("299 - \"This client can reach no API: its own client grants") => "own grants",
            text => panic!("{text}"),
        };
        (answer.json()["effective_permissions"].clone(), warning)
    };
    assert_eq!(seen(), (json!([]), "no grant"));
    create("/api/v2/resource-servers", json!({"identifier": "a", "scopes": [{"value": "r"}, {"value": "w"}]}));
    let grants = "/api/v2/client-grants";
    create(
        grants,
        json!({"default_for": "third_party_clients", "audience": "a", "scope": ["r"], "subject_type": "user"}),
    );
    let default = json!([{"audience": "a", "subject_type": "user", "scope": ["r"], "source": "default"}]);
    assert_eq!(seen(), (default.clone(), ""));
    let own =
        create(grants, json!({"client_id": client_id(1), "audience": "a", "scope": ["w"], "subject_type": "user"}));
    let client_grant = json!([{"audience": "a", "subject_type": "user", "scope": ["w"], "source": "client_grant"}]);
    assert_eq!(seen(), (client_grant.clone(), ""));

    let only = owner.get(&format!("{path}?fields=effective_permissions")).json();
    assert_eq!(only, json!({"effective_permissions": client_grant}));
    owner.send("PATCH", &format!("{grants}/{own}"), &json!({"scope": []}));
    assert_eq!(seen(), (json!([]), "own grants"));
    for without in ["fields=name", "fields=effective_permissions&include_fields=false"] {
        let answer = owner.get(&format!("{path}?{without}"));
        assert_eq!((answer.json().get("effective_permissions"), answer.header("warning")), (None, ""), "{without}");
    }
    owner.call("DELETE", &format!("{grants}/{own}"), &[], None);
    assert_eq!(seen(), (default, ""));
    assert_eq!(owner.get(PATH).json()[0].get("effective_permissions"), None);
}

#[test]
fn null_stands_for_what_a_new_client_need_not_have() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let mut with_nulls = made();
    for member in ["client_metadata", "description", "logo_uri", "redirection_policy"] {
        with_nulls[member] = Value::Null;
    }
    let created = create(&store.owner("default"), &with_nulls);
    assert_eq!(created["redirection_policy"], "open_redirect_protection");
    for member in ["client_metadata", "description", "logo_uri"] {
        assert_eq!(created.get(member), None, "{member}");
    }
    let machine = json!({"name": "x", "grant_types": ["client_credentials"], "callbacks": null});
    assert_eq!(create(&store.owner("default"), &machine)["callbacks"], json!([]));
}

#[test]
fn what_an_owner_said_before_a_rule_came_stays_until_it_changes() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let path = of(&create(&owner, &made()));
    let said = json!({"description": "x".repeat(141), "client_metadata": {"ü": "x"},
                      "redirection_policy": "open_redirect_protection"});
    folder.with_tables(async |pool| {
        sqlx::query("UPDATE clients SET owner = ?").bind(said.to_string()).execute(pool).await.unwrap();
    });
    let renamed = owner.send("PATCH", &path, &json!({"name": "Other", "redirection_policy": "allow_always"}));
    assert_eq!((renamed.status, &renamed.json()["description"]), (200, &said["description"]), "{}", renamed.text);
    for (member, says) in
        [("description", "description: expected 140"), ("client_metadata", "client_metadata: expected")]
    {
        assert_refused(&owner.send("PATCH", &path, &json!({member: said[member]})), says);
        assert_eq!(owner.send("PATCH", &path, &json!({member: null})).status, 200);
    }
}

#[test]
fn a_client_that_only_acts_for_itself_needs_no_callbacks_and_has_none() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let machine = json!({"name": "Nightly job", "grant_types": ["client_credentials"]});
    let created = create(&owner, &machine);
    let id = created["client_id"].as_str().unwrap();
    let path = of(&created);
    assert!(created["client_secret"].is_string());
    assert_eq!(
        (&created["callbacks"], &created["grant_types"], &created["app_type"]),
        (&json!([]), &json!(["client_credentials"]), &json!("non_interactive"))
    );
    let stored = json!({"client_name": "Nightly job", "grant_types": ["client_credentials"],
                        "token_endpoint_auth_method": "client_secret_post"});
    assert_eq!(stored_metadata(&folder, id), stored);
    let renamed = json!({"name": "Job", "app_type": "regular_web", "callbacks": []});
    assert_eq!(owner.send("PATCH", &path, &renamed).json()["app_type"], "regular_web");
    assert_eq!(stored_metadata(&folder, id).as_object().unwrap().len(), 3);

    let mut public = machine.clone();
    public["token_endpoint_auth_method"] = json!("none");
    assert_refused(&owner.send("POST", PATH, &public), "grant_types: client_credentials needs a client with a secret");
    let with_users = json!({"grant_types": ["authorization_code", "client_credentials"]});
    assert_refused(&owner.send("PATCH", &path, &with_users), "callbacks: 1 to 50 are required");
    let callbacks = json!({"callbacks": ["https://app.example/cb"]});
    assert_refused(&owner.send("PATCH", &path, &callbacks), "callbacks: a client whose only grant is");
    let mut both = with_users.clone();
    both["callbacks"] = callbacks["callbacks"].clone();
    // It was named as such before, so it goes with the users that it gets.
    assert_eq!(owner.send("PATCH", &path, &json!({"app_type": "non_interactive"})).status, 200);
    assert_eq!(owner.send("PATCH", &path, &both).json()["app_type"], "regular_web");
    let stored = stored_metadata(&folder, id);
    assert_eq!((&stored["response_types"], &stored["redirect_uris"]), (&json!(["code"]), &both["callbacks"]));
    let back = json!({"grant_types": ["client_credentials"], "callbacks": []});
    let without = owner.send("PATCH", &path, &back).json();
    assert_eq!((&without["callbacks"], &without["app_type"]), (&json!([]), &json!("non_interactive")));
    let mut native = both.clone();
    native["app_type"] = json!("spa");
    assert_eq!(owner.send("PATCH", &path, &native).json()["app_type"], "spa");
    assert_eq!(
        owner.send("PATCH", &path, &json!({"name": "Job", "grant_types": ["authorization_code"]})).json()["app_type"],
        "spa"
    );
    assert_eq!(owner.send("PATCH", &path, &back).json()["app_type"], "non_interactive");
    assert_eq!(stored_metadata(&folder, id).as_object().unwrap().len(), 3);

    store.edge().put_client("default", &client_id(2), &confidential());
    let dynamic = owner.send("PATCH", &format!("{PATH}/{}", client_id(2)), &back);
    assert_refused(&dynamic, "grant_types: client_credentials is not for a client that registered itself");
}

#[test]
fn an_owner_makes_clients_whether_or_not_strangers_may() {
    let folder = Folder::empty();
    folder.create_enabled_tenant("default", json!({"client_quota": 1}));
    let store = folder.serve();
    let owner = store.owner("default");
    for _ in 0..2 {
        create(&owner, &made());
    }
    let full = store.edge().put_client("default", &client_id(1), &public());
    assert_eq!((full.status, &full.json()["error"]), (403, &json!("access_denied")));
    owner.patch_settings(&json!({"flags": {"enable_dynamic_client_registration": false}}));
    create(&owner, &made());
}

#[test]
fn a_list_comes_in_pages_by_type_and_with_the_fields_that_are_asked_for() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    for app_type in ["spa", "native", "regular_web", "spa", "non_interactive", "native"] {
        let mut client = made();
        client["app_type"] = json!(app_type);
        create(&owner, &client);
    }
    let types = |query: &str| -> Value {
        let list = owner.get(&format!("{PATH}?{query}")).json();
        list.as_array().unwrap().iter().map(|client| client["app_type"].clone()).collect()
    };
    let all = json!(["spa", "native", "regular_web", "spa", "non_interactive", "native"]);
    for query in ["", "is_first_party=false", "is_global=false&q=x&external=1&sort=x", "page=0&per_page=6"] {
        assert_eq!(types(query), all, "{query}");
    }
    for nothing in ["is_first_party=true", "is_global=true", "app_type=rms", "app_type=", "page=1&per_page=6"] {
        assert_eq!(types(nothing), json!([]), "{nothing}");
    }
    assert_eq!(types("app_type=native"), json!(["native", "native"]));
    assert_eq!(types("app_type=native,%20spa,box&per_page=3"), json!(["spa", "native", "spa"]));
    assert_eq!(types("app_type=native,spa&per_page=3&page=1"), json!(["native"]));
    assert_eq!(types("page=1&per_page=4"), json!(["non_interactive", "native"]));
    assert_eq!(types("page=4294967295&per_page=100"), json!([]));
    let page = owner.get(&format!("{PATH}?app_type=spa&page=1&per_page=1&include_totals=true&fields=app_type")).json();
    assert_eq!(page, json!({"start": 1, "limit": 1, "total": 2, "clients": [{"app_type": "spa"}]}));
    let rest = owner.get(&format!("{PATH}?per_page=1&fields=name,callbacks&include_fields=false")).json();
    assert_eq!((rest[0].get("name"), rest[0].get("callbacks"), &rest[0]["app_type"]), (None, None, &json!("spa")));
    for (query, says) in [
        ("is_first_party=1", "is_first_party: expected true or false"),
        ("include_fields=x", "include_fields: expected true or false"),
        ("per_page=101", "per_page: "),
    ] {
        assert_refused(&owner.get(&format!("{PATH}?{query}")), says);
    }
}

#[test]
fn two_changes_at_the_same_time_are_both_kept() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let path = of(&create(&owner, &made()));
    for round in 0..10 {
        let patches = [
            json!({"name": format!("round {round}")}),
            json!({"description": format!("round {round}")}),
            json!({"callbacks": [format!("https://app.example/{round}")]}),
        ];
        owner.patch_at_once(&path, &patches);
        let after = owner.get(&path).json();
        for patch in &patches {
            for (member, value) in patch.as_object().unwrap() {
                assert_eq!(&after[member], value);
            }
        }
    }
}
