//! The permissive mode: who may choose it, and what clients of it are.

use serde_json::{Value, json};

use crate::support::store::{Answer, Caller, Folder, client_id, confidential, permissive_id, public};

const CLIENTS: &str = "/api/v2/clients";

fn mode(mode: &str) -> Value {
    json!({"dynamic_client_registration_security_mode": mode})
}

fn mode_of(answer: &Answer) -> Value {
    answer.json()["dynamic_client_registration_security_mode"].clone()
}

/// A folder with the tenant `default`, which the operator marked.
fn eligible() -> Folder {
    let folder = Folder::with_default_tenant();
    folder.succeed(&["tenant", "update", "default", "--permissive-eligible"]);
    folder
}

fn assert_refused(answer: &Answer, says: &str) {
    let body = answer.json();
    assert_eq!(answer.status, 400, "{says}: {body}");
    assert!(body["message"].as_str().unwrap().starts_with(says), "{says}: {body}");
}

fn grants(owner: &Caller, id: &str, grants: Value) -> Answer {
    owner.send("PATCH", &format!("{CLIENTS}/{id}"), &json!({"grant_types": grants}))
}

/// A client of the permissive mode with these members.
fn with_metadata(metadata: Value) -> Value {
    let mut registration = confidential();
    registration["metadata"] = metadata;
    registration
}

#[test]
fn only_a_tenant_that_the_operator_marked_may_choose_the_permissive_mode() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    let owner = store.owner("default");
    let refused = owner.patch_settings(&mode("permissive"));
    assert_eq!((refused.status, &refused.json()["errorCode"]), (403, &json!("not_eligible")));
    assert!(refused.json()["message"].as_str().unwrap().contains("--permissive-eligible"));
    assert_eq!(mode_of(&owner.get("/api/v2/tenants/settings")), "strict");
    assert_eq!(owner.patch_settings(&mode("strict")).status, 200);
    for own_word in [json!({"permissive_eligible": true}), json!({"dcr_edge": {"permissive_eligible": true}})] {
        assert_eq!(owner.patch_settings(&own_word).status, 400);
    }

    folder.succeed(&["tenant", "update", "default", "--permissive-eligible"]);
    let chosen = owner.patch_settings(&mode("permissive"));
    assert_eq!((chosen.status, mode_of(&chosen)), (200, json!("permissive")));
    assert!(chosen.header("warning").starts_with("299 - \"New registrations get no third-party controls"));
    let events = owner.get("/api/v2/logs?q=type:sapi").json();
    assert_eq!(events[0]["details"]["dynamic_client_registration_security_mode"], "permissive", "{events}");
    assert!(chosen.header("warning").contains(events[0]["details"]["warning"].as_str().unwrap()));
    // It is there already, and strict needs no warning.
    assert_eq!(owner.patch_settings(&mode("permissive")).header("warning"), "");
    assert_eq!(owner.patch_settings(&mode("strict")).header("warning"), "");
    assert_eq!(store.owner("other").patch_settings(&mode("permissive")).status, 403);
}

#[test]
fn what_the_operator_takes_away_puts_the_mode_back_to_strict() {
    let folder = Folder::empty();
    folder.succeed(&["tenant", "create", "default", "--domain", "default.example", "--permissive-eligible"]);
    folder.succeed(&["tenant", "create", "other", "--domain", "other.example", "--permissive-eligible=false"]);
    let store = folder.serve();
    let owner = store.owner("default");
    let show = |name: &str| -> Value { serde_json::from_str(&folder.succeed(&["tenant", "show", name])).unwrap() };
    let listed = || {
        let list = folder.succeed(&["tenant", "list"]);
        let row = list.lines().find(|line| line.starts_with("default ")).unwrap().to_owned();
        row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).nth(2).unwrap().to_owned()
    };
    assert_eq!((&show("default")["permissive_eligible"], listed()), (&json!(true), "eligible".to_owned()));
    assert_eq!(show("other")["permissive_eligible"], false);
    assert_eq!(owner.patch_settings(&mode("permissive")).status, 200);
    assert_eq!(listed(), "in force");

    // Another change leaves it alone.
    let update = |arguments: &[&str]| folder.succeed(&[&["tenant", "update", "default"], arguments].concat());
    assert_eq!(update(&["--burst", "8"]), "updated tenant default for default.example\n");
    assert_eq!((&show("default")["permissive_eligible"], listed()), (&json!(true), "in force".to_owned()));
    let said = update(&["--permissive-eligible=false"]);
    assert!(said.starts_with("updated tenant default for default.example\n"), "{said}");
    assert!(said.contains("dynamic_client_registration_security_mode is strict again"), "{said}");
    assert_eq!((&show("default")["permissive_eligible"], listed()), (&json!(false), "no".to_owned()));
    assert_eq!(mode_of(&owner.get("/api/v2/tenants/settings")), "strict");
    assert_eq!(update(&["--permissive-eligible=false"]), "nothing changed: tenant default for default.example\n");
    assert_eq!(owner.patch_settings(&mode("permissive")).status, 403);
}

#[test]
fn a_client_keeps_the_mode_that_it_was_made_under() {
    let folder = eligible();
    let store = folder.serve();
    let (owner, edge) = (store.owner("default"), store.edge());
    assert_eq!(edge.put_client("default", &client_id(1), &public()).status, 201);
    let refused = edge.put_client("default", &permissive_id(2), &public());
    assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("invalid_client_metadata")));
    owner.patch_settings(&mode("permissive"));
    assert_eq!(edge.put_client("default", &permissive_id(2), &public()).status, 201);
    assert_eq!(edge.put_client("default", &client_id(3), &public()).status, 400);
    owner.patch_settings(&mode("strict"));
    let shown = |id: &str| owner.get(&format!("{CLIENTS}/{id}")).json()["third_party_security_mode"].clone();
    assert_eq!((shown(&client_id(1)), shown(&permissive_id(2))), (json!("strict"), json!("permissive")));
    assert_eq!(owner.get(CLIENTS).json()[1]["third_party_security_mode"], "permissive");
}

#[test]
fn a_change_of_a_client_follows_the_rules_of_its_own_mode() {
    let folder = eligible();
    let store = folder.serve();
    let (owner, edge) = (store.owner("default"), store.edge());
    assert_eq!(edge.put_client("default", &client_id(1), &confidential()).status, 201);
    owner.patch_settings(&mode("permissive"));
    let everything = with_metadata(json!({
        "redirect_uris": ["https://app.example/cb"], "grant_types": ["authorization_code", "implicit"],
        "response_types": ["code", "code token"], "token_endpoint_auth_method": "client_secret_basic",
        "jwks": {"keys": []}, "default_max_age": 60
    }));
    assert_eq!(edge.put_client("default", &permissive_id(2), &everything).status, 201);
    assert_eq!(edge.put_client("default", &permissive_id(3), &public()).status, 201);
    owner.patch_settings(&mode("strict"));

    assert_refused(&grants(&owner, &client_id(1), json!(["authorization_code", "implicit"])), "grant_types: implicit");
    assert_refused(&grants(&owner, &client_id(1), json!(["client_credentials"])), "grant_types: client_credentials");
    let id = permissive_id(2);
    let answer = owner.get(&format!("{CLIENTS}/{id}"));
    let shown = answer.json();
    assert_eq!(shown["token_endpoint_auth_method"], "client_secret_basic");
    // No grant limits it, so there is nothing to show or to warn of.
    assert_eq!((shown.get("effective_permissions"), answer.header("warning")), (None, ""));
    let stored = || -> Value {
        folder.with_tables(async |pool| {
            let select = sqlx::query_scalar("SELECT metadata FROM clients WHERE client_id = ?").bind(permissive_id(2));
            serde_json::from_str(&select.fetch_one(pool).await.map(|text: String| text).unwrap()).unwrap()
        })
    };
    // Other members stay, and response types that no grant has any more go.
    let device = "urn:ietf:params:oauth:grant-type:device_code";
    let changed = grants(&owner, &id, json!(["authorization_code", "client_credentials", device]));
    assert_eq!(changed.json()["grant_types"], json!(["authorization_code", "client_credentials", device]));
    assert_eq!(
        (&stored()["response_types"], &stored()["jwks"], &stored()["default_max_age"]),
        (&json!(["code"]), &json!({"keys": []}), &json!(60))
    );
    assert_eq!(grants(&owner, &id, json!(["implicit"])).status, 200);
    assert_eq!(stored()["response_types"], json!(["token"]));
    assert_refused(&grants(&owner, &id, json!(["authorization_code", "password"])), "grant_types[1]: unknown variant");
    assert_refused(&grants(&owner, &id, json!([])), "grant_types: must not be empty");
    assert_refused(&grants(&owner, &id, json!(["refresh_token"])), "grant_types: must include");
    let machine = json!({"grant_types": ["client_credentials"], "callbacks": []});
    assert_eq!(owner.send("PATCH", &format!("{CLIENTS}/{id}"), &machine).json()["callbacks"], json!([]));
    assert_refused(&grants(&owner, &id, json!(["implicit"])), "callbacks: 1 to 50 are required");
    let public = grants(&owner, &permissive_id(3), json!(["authorization_code", "client_credentials"]));
    assert_refused(&public, "grant_types: client_credentials needs a client with a secret");
    let fixed = owner.send("PATCH", &format!("{CLIENTS}/{id}"), &json!({"third_party_security_mode": "strict"}));
    assert_refused(&fixed, "third_party_security_mode: cannot be changed");

    // What the owner makes is strict in either mode.
    owner.patch_settings(&mode("permissive"));
    let made = owner.send("POST", CLIENTS, &json!({"name": "Made", "callbacks": ["https://app.example/cb"]})).json();
    assert!(made["client_id"].as_str().unwrap().starts_with("tpc_"), "{made}");
    assert_eq!(made["third_party_security_mode"], "strict");
}

#[test]
fn an_authorization_server_reads_nothing_that_a_client_says_in_the_stores_name() {
    let folder = eligible();
    let store = folder.serve();
    store.owner("default").patch_settings(&mode("permissive"));
    let forged = with_metadata(json!({
        "redirect_uris": ["https://app.example/cb"], "policy": {"grants": ["all"]}, "client_metadata": {"a": "b"},
        "client_id": "other", "Redirect_URIs": ["javascript:1"], "backchannel_logout_uri": "https://app.example/out"
    }));
    assert_eq!(store.edge().put_client("default", &permissive_id(1), &forged).status, 201);
    let told = store.edge().get(&format!("/edge/v1/tenants/default/clients/{}", permissive_id(1)));
    let body = told.json();
    for member in ["\"policy\"", "\"client_metadata\"", "\"client_id\"", "redirect_uris\""] {
        assert!(told.text.to_ascii_lowercase().matches(member).count() <= 1, "{member}: {}", told.text);
    }
    assert_eq!((&body["client_id"], &body["policy"]["require_pkce"]), (&json!(permissive_id(1)), &json!(false)));
    assert_eq!(body["backchannel_logout_uri"], "https://app.example/out");
    assert_eq!((&body["policy"]["grants"], &body["third_party_security_mode"]), (&json!([]), &json!("permissive")));
}
