//! The permissive mode: who may choose it, and what clients of it are.

use serde_json::{Value, json};

use crate::support::store::{Answer, Caller, Folder, Store, client_id, confidential, permissive_id, public};

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

/// What an authorization server is told of a client.
fn server_told(folder: &Folder, store: &Store, id: &str) -> Answer {
    let token = folder.succeed(&["token", "--kind", "server", "--tenant", "default"]);
    let answer = store.anyone().with_token(token.trim()).get(&format!("/edge/v1/tenants/default/clients/{id}"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer
}

/// What the tenant's log says of changes of the mode, the oldest first and without warnings.
fn changes_of_mode(owner: &Caller) -> Vec<Value> {
    let mut events = owner.get("/api/v2/logs?q=type:sapi").json();
    let details = events.as_array_mut().unwrap().iter_mut().rev().filter_map(|event| {
        let details = event["details"].take();
        details.get("dynamic_client_registration_security_mode").is_some().then_some(details)
    });
    let mut details: Vec<Value> = details.collect();
    for details in &mut details {
        details.as_object_mut().unwrap().remove("warning");
    }
    details
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
    assert_eq!(changes_of_mode(&owner), [json!({"dynamic_client_registration_security_mode": "permissive"})]);
    assert_eq!(owner.patch_settings(&mode("strict")).header("warning"), "");
    assert_eq!(changes_of_mode(&owner)[1..], [mode("strict")]);
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
    let by_operator = json!({"dynamic_client_registration_security_mode": "strict", "permissive_eligible": false});
    assert_eq!(&changes_of_mode(&owner)[1..], std::slice::from_ref(&by_operator));
    assert_eq!(update(&["--permissive-eligible=false"]), "nothing changed: tenant default for default.example\n");
    assert_eq!(update(&["--permissive-eligible"]), "updated tenant default for default.example\n");
    assert_eq!(update(&["--permissive-eligible=false"]), "updated tenant default for default.example\n");
    assert_eq!(changes_of_mode(&owner)[1..], [by_operator]);
    assert_eq!(owner.patch_settings(&mode("permissive")).status, 403);
}

#[test]
fn a_client_keeps_the_mode_that_it_was_made_under() {
    let folder = eligible();
    let store = folder.serve();
    let (owner, edge) = (store.owner("default"), store.edge());
    assert_eq!(edge.put_client("default", &client_id(1), &public()).status, 201);
    owner.patch_settings(&mode("permissive"));
    assert_eq!(edge.put_client("default", &permissive_id(2), &public()).status, 201);
    owner.patch_settings(&mode("strict"));
    let shown = |id: &str| owner.get(&format!("{CLIENTS}/{id}")).json()["third_party_security_mode"].clone();
    assert_eq!((shown(&client_id(1)), shown(&permissive_id(2))), (json!("strict"), json!("permissive")));
    assert_eq!(owner.get(CLIENTS).json()[1]["third_party_security_mode"], "permissive");
}

#[test]
fn an_edge_with_older_settings_registers_strict_clients_only() {
    let folder = eligible();
    let store = folder.serve();
    let (owner, edge) = (store.owner("default"), store.edge());
    // Nothing is wrong with the request, so the answer is not final.
    let refused = edge.put_client("default", &permissive_id(1), &public());
    assert_eq!((refused.status, &refused.json()["error"]), (503, &json!("temporarily_unavailable")));
    assert!(refused.json()["error_description"].as_str().unwrap().contains("older settings"));
    owner.patch_settings(&mode("permissive"));
    assert_eq!(edge.put_client("default", &client_id(2), &public()).status, 201);
    let machine = with_metadata(json!({"grant_types": ["client_credentials"]}));
    assert_eq!(edge.put_client("default", &client_id(3), &machine).status, 400);
    assert_eq!(owner.get(&format!("{CLIENTS}/{}", client_id(2))).json()["third_party_security_mode"], "strict");
}

#[test]
fn nobody_is_warned_of_grants_that_permissive_clients_do_not_need() {
    let folder = Folder::empty();
    folder.succeed(&["tenant", "create", "default", "--domain", "default.example", "--permissive-eligible"]);
    let store = folder.serve();
    let (owner, edge) = (store.owner("default"), store.edge());
    owner.patch_settings(&mode("permissive"));
    let enabled = owner.patch_settings(&json!({"flags": {"enable_dynamic_client_registration": true}}));
    assert_eq!(enabled.header("warning"), "299 - \"Anyone may create applications now.\"");
    for id in [permissive_id(1), client_id(2)] {
        assert_eq!(edge.put_client("default", &id, &public()).status, 201);
    }
    let events = owner.get("/api/v2/logs?q=type:sapi").json();
    let of = |id: &str| {
        let event = events.as_array().unwrap().iter().find(|event| event["client_id"] == id).unwrap();
        ["third_party_security_mode", "warning"].map(|member| event["details"].get(member).cloned())
    };
    assert_eq!(of(&permissive_id(1)), [Some(json!("permissive")), None]);
    let warning = "no default client grant: the client can reach no API";
    assert_eq!(of(&client_id(2)), [None, Some(json!(warning))]);
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
    // What it may reach is up to the APIs, so there is nothing to warn of.
    assert_eq!((&shown["effective_permissions"], answer.header("warning")), (&json!([]), ""));
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
    // The type follows the grants: without users, and with users again.
    let change = |grants: Value, callbacks: Value| {
        let patch = json!({"grant_types": grants, "callbacks": callbacks});
        owner.send("PATCH", &format!("{CLIENTS}/{id}"), &patch).json()["app_type"].clone()
    };
    for (grants, app_type) in [
        (json!(["authorization_code", "client_credentials"]), "regular_web"),
        (json!(["client_credentials", "refresh_token"]), "non_interactive"),
        (json!([device, "client_credentials"]), "regular_web"),
        (json!(["client_credentials"]), "non_interactive"),
    ] {
        assert_eq!(change(grants.clone(), json!(["https://app.example/cb"])), app_type, "{grants}");
    }
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
        "client_id": "other", "Redirect_URIs": ["javascript:1"], "backchannel_logout_uri": "https://app.example/out",
        "__proto__": {"policy": {}}, "sector_identifier_uri": "https://app.example/"
    }));
    assert_eq!(store.edge().put_client("default", &permissive_id(1), &forged).status, 201);
    let told = server_told(&folder, &store, &permissive_id(1));
    let body = told.json();
    for member in ["\"policy\"", "\"client_metadata\"", "\"client_id\"", "redirect_uris\""] {
        assert!(told.text.to_ascii_lowercase().matches(member).count() <= 1, "{member}: {}", told.text);
    }
    assert_eq!((&body["client_id"], &body["policy"]["require_pkce"]), (&json!(permissive_id(1)), &json!(false)));
    assert_eq!(body["backchannel_logout_uri"], "https://app.example/out");
    for left_out in ["__proto__", "sector_identifier_uri"] {
        assert!(!told.text.contains(left_out), "{}", told.text);
    }
    assert_eq!((&body["policy"]["grants"], &body["third_party_security_mode"]), (&json!([]), &json!("permissive")));
}

#[test]
fn a_permissive_client_may_reach_what_the_policy_of_each_api_allows() {
    let folder = eligible();
    let store = folder.serve();
    let (owner, edge) = (store.owner("default"), store.edge());
    owner.patch_settings(&mode("permissive"));
    let create = |path: &str, object: Value| {
        let answer = owner.send("POST", path, &object);
        assert_eq!(answer.status, 201, "{}", answer.text);
    };
    let policies = ["allow_all", "require_client_grant", "deny_all", "allow_all"];
    for (api, policy) in ["open", "closed", "denied", "granted"].into_iter().zip(policies) {
        let policy = json!({"user": {"policy": policy}, "client": {"policy": "require_client_grant"}});
        create(
            "/api/v2/resource-servers",
            json!({"identifier": api, "scopes": [{"value": "r"}, {"value": "w"}], "allow_offline_access": true,
                "subject_type_authorization": policy}),
        );
        // The default is for third parties with all controls.
        create(
            "/api/v2/client-grants",
            json!({"default_for": "third_party_clients", "subject_type": "user", "audience": api, "scope": ["w"]}),
        );
    }
    let (app, machine) = (permissive_id(1), permissive_id(2));
    let metadata = |grants: Value| json!({"redirect_uris": ["https://app.example/cb"], "grant_types": grants});
    let of_app = with_metadata(metadata(json!(["authorization_code", "refresh_token", "client_credentials"])));
    assert_eq!(edge.put_client("default", &app, &of_app).status, 201);
    let of_machine = with_metadata(metadata(json!(["client_credentials"])));
    assert_eq!(edge.put_client("default", &machine, &of_machine).status, 201);
    assert_eq!(edge.put_client("default", &client_id(3), &confidential()).status, 201);
    let told = |id: &str| server_told(&folder, &store, id).json()["policy"]["grants"].clone();
    let open = |api: &str, scope: Value| json!({"audience": api, "scope": scope, "subject_type": "user", "allow_offline_access": true});
    let both = json!(["r", "w"]);
    assert_eq!(told(&app), json!([open("open", both.clone()), open("granted", both.clone())]));
    assert_eq!(told(&machine), json!([]));

    for id in [&app, &machine] {
        for (api, subject_type) in [("closed", "user"), ("denied", "user"), ("granted", "user"), ("open", "client")] {
            let own = json!({"client_id": id, "audience": api, "subject_type": subject_type, "scope": ["r"]});
            create("/api/v2/client-grants", own);
        }
    }
    let of_machine =
        json!({"audience": "open", "scope": ["r"], "subject_type": "client", "allow_offline_access": false});
    let mut expected =
        [open("open", both.clone()), open("granted", both.clone()), open("closed", json!(["r"])), of_machine.clone()];
    let mut seen = told(&app).as_array().unwrap().clone();
    expected.sort_by_key(Value::to_string);
    seen.sort_by_key(Value::to_string);
    assert_eq!(seen, expected);
    assert_eq!(told(&machine), json!([of_machine]));
    let shown = owner.get(&format!("{CLIENTS}/{app}")).json()["effective_permissions"].clone();
    let source = |api: &str, subject_type: &str| {
        let is_it = |one: &&Value| one["audience"] == api && one["subject_type"] == subject_type;
        shown.as_array().unwrap().iter().find(is_it).map(|one| one["source"].clone())
    };
    assert_eq!(shown.as_array().unwrap().len(), 4, "{shown}");
    assert_eq!(source("granted", "user"), Some(json!("api_policy")));
    assert_eq!(
        (source("closed", "user"), source("open", "client")),
        (Some(json!("client_grant")), Some(json!("client_grant")))
    );
    // One with all controls needs a grant at each of them.
    assert_eq!(told(&client_id(3)).as_array().unwrap().len(), 3);
}

#[test]
fn an_answer_names_at_most_a_hundred_apis_that_need_no_grant() {
    let folder = eligible();
    let store = folder.serve();
    let (owner, edge) = (store.owner("default"), store.edge());
    owner.patch_settings(&mode("permissive"));
    for number in 0..101 {
        let api = json!({"identifier": format!("api-{number}"), "scopes": [{"value": "r"}]});
        assert_eq!(owner.send("POST", "/api/v2/resource-servers", &api).status, 201);
    }
    assert_eq!(edge.put_client("default", &permissive_id(1), &public()).status, 201);
    let grants = server_told(&folder, &store, &permissive_id(1)).json()["policy"]["grants"].clone();
    let grants = grants.as_array().unwrap();
    assert_eq!((grants.len(), &grants[99]["audience"]), (100, &json!("api-99")));
}

#[test]
fn an_owner_sees_what_else_a_permissive_client_registered() {
    let folder = eligible();
    let store = folder.serve();
    let (owner, edge) = (store.owner("default"), store.edge());
    assert_eq!(edge.put_client("default", &client_id(2), &public()).status, 201);
    owner.patch_settings(&mode("permissive"));
    let hostile = with_metadata(json!({
        "redirect_uris": ["https://app.example/cb"], "jwks_uri": "https://app.example/hostile", "client_name": "A",
        "client_name#de": "B", "logo_uri": "https://app.example/logo"
    }));
    assert_eq!(edge.put_client("default", &permissive_id(1), &hostile).status, 201);
    let path = format!("{CLIENTS}/{}", permissive_id(1));
    let expected = json!({
        "jwks_uri": "https://app.example/hostile", "client_name#de": "B", "response_types": ["code"],
        "application_type": "web"
    });
    assert_eq!(owner.get(&path).json()["registered_metadata"], expected);
    assert_eq!(
        owner.get(&format!("{path}?fields=registered_metadata")).json(),
        json!({"registered_metadata": expected})
    );
    assert_eq!(owner.get(&format!("{CLIENTS}/{}", client_id(2))).json().get("registered_metadata"), None);
    let patch = owner.send("PATCH", &path, &json!({"registered_metadata": {}}));
    assert_refused(&patch, "registered_metadata: cannot be changed");
    // Deleting it is the remedy.
    assert_eq!(owner.call("DELETE", &path, &[], None).status, 204);
    assert_eq!(owner.get(&path).status, 404);
}
