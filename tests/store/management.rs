//! The Management API over HTTP.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::http1;
use crate::support::store::{Folder, client_id, public};

const SETTINGS: &str = "/api/v2/tenants/settings";

#[test]
fn an_owner_sees_the_settings_that_are_in_force() {
    let folder = Folder::empty();
    folder.succeed(&["tenant", "create", "default", "--domain", "default.example"]);
    let store = folder.serve();
    let answer = store.owner("default").get(SETTINGS);
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({
            "flags": {"enable_dynamic_client_registration": false},
            "dynamic_client_registration_security_mode": "strict",
            "dcr_edge": {
                "rate_limit": {"burst": 5, "per_second": 5},
                "allowed_redirect_hosts": [],
                "custom_schemes": "any",
                "invalid_redirect_uris": "reject",
                "deduplicate_public_clients": false,
                "cors_origins": [],
                "registrar": "store",
                "unknown_clients": "pass",
                "third_party_oidc_scopes": false,
                "allow_organization": false,
                "client_lookups": {"burst": 50, "per_second": 50},
                "client_grace": 300,
                "paths": {
                    "authorization": ["/authorize"],
                    "token": ["/oauth/token"],
                    "userinfo": ["/userinfo"],
                    "closed": [
                        "/oauth/par", "/bc-authorize", "/oauth/device/code", "/dbconnections/*", "/passwordless/*",
                        "/delegation", "/oauth/ro", "/v2/logout", "/oidc/logout", "/samlp/*", "/wsfed/*"
                    ],
                    "discovery": ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"],
                    "server_registration": [
                        "/reg/*", "/oauth2/register/*", "/connect/register/*", "/connect/dcr/*", "/oauth2/v1/clients/*",
                        "/realms/*/clients-registrations/*"
                    ],
                    "forward_registration": "/reg"
                },
                "parameters": {"audience": "audience", "connection": "connection", "organization": "organization"},
                "log_retention": {"days": 30, "events": 100_000}
            }
        })
    );
}

#[test]
fn switching_registration_on_warns_of_what_follows() {
    let folder = Folder::empty();
    folder.succeed(&["tenant", "create", "default", "--domain", "default.example"]);
    let store = folder.serve();
    let on = json!({"flags": {"enable_dynamic_client_registration": true}});
    let switched = store.owner("default").patch_settings(&on);
    assert_eq!((switched.status, &switched.json()["flags"]), (200, &on["flags"]));
    assert!(switched.header("warning").starts_with("299 - \"Anyone may create applications"));
    assert_eq!(store.owner("default").patch_settings(&on).header("warning"), "");
    let off = json!({"flags": {"enable_dynamic_client_registration": false}});
    assert_eq!(store.owner("default").patch_settings(&off).header("warning"), "");
}

#[test]
fn deleting_unused_clients_warns_while_no_server_asked_for_any() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    store.edge().put_client("default", &client_id(1), &public());
    let warning = |dcr_edge: Value| {
        let answer = owner.patch_settings(&json!({"dcr_edge": dcr_edge}));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.header("warning").to_owned()
    };
    for sets in [json!({"client_quota": 9}), json!({"unused_client_ttl": 3_600})] {
        let text = warning(sets);
        assert!(text.starts_with("299 - \"All clients count as unused until"), "{text}");
    }
    for other in [json!({"client_quota": null, "unused_client_ttl": null}), json!({"custom_schemes": "any"})] {
        assert_eq!(warning(other), "");
    }
    folder.with_database(async |database| {
        let slot = database.tenant(&"default".parse().unwrap()).await.unwrap().unwrap().slot;
        database.note_client_uses(&[(slot, client_id(1))], 1_000).await.unwrap();
    });
    assert_eq!(warning(json!({"client_quota": 9, "unused_client_ttl": 3_600})), "");
    let refused = owner.patch_settings(&json!({"dcr_edge": {"unused_client_ttl": 3_599}}));
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("dcr_edge.unused_client_ttl: expected a whole number of seconds from 3600"));
}

#[test]
fn the_warning_names_what_third_parties_still_lack() {
    let folder = Folder::empty();
    folder.succeed(&["tenant", "create", "default", "--domain", "default.example"]);
    let store = folder.serve();
    let owner = store.owner("default");
    let warning = || {
        let switch = |on: bool| owner.patch_settings(&json!({"flags": {"enable_dynamic_client_registration": on}}));
        switch(false);
        switch(true).header("warning").to_owned()
    };
    let says = |warning: &str| (warning.contains("They can reach no API"), warning.contains("Nobody can log in"));
    assert_eq!(says(&warning()), (true, true));
    let connection = json!({"name": "db", "strategy": "auth0"});
    let id = owner.send("POST", "/api/v2/connections", &connection).json()["id"].as_str().unwrap().to_owned();
    assert_eq!(says(&warning()), (true, true));
    owner.send("PATCH", &format!("/api/v2/connections/{id}"), &json!({"is_domain_connection": true}));
    assert_eq!(says(&warning()), (true, false));
    owner.send("POST", "/api/v2/resource-servers", &json!({"identifier": "a"}));
    let grant = json!({"default_for": "third_party_clients", "audience": "a", "subject_type": "user"});
    let created = owner.send("POST", "/api/v2/client-grants", &grant);
    assert_eq!(created.status, 201);
    // It grants nothing.
    assert_eq!(says(&warning()), (true, false));
    let path = format!("/api/v2/client-grants/{}", created.json()["id"].as_str().unwrap());
    assert_eq!(owner.send("PATCH", &path, &json!({"allow_all_scopes": true})).status, 200);
    let policy = |policy: &str| {
        let patch = json!({"subject_type_authorization": {"user": {"policy": policy}}});
        assert_eq!(owner.send("PATCH", "/api/v2/resource-servers/a", &patch).status, 200);
    };
    policy("deny_all");
    assert_eq!(says(&warning()), (true, false));
    policy("require_client_grant");
    assert_eq!(says(&warning()), (false, false));
    let events = owner.get("/api/v2/logs?q=description:settings").json();
    let texts: Vec<_> = events.as_array().unwrap().iter().map(|event| &event["details"]["warning"]).collect();
    assert_eq!((texts.len(), texts[0].as_str()), (6, Some("Anyone may create applications now.")));
}

#[test]
fn a_patch_changes_what_it_names_and_counts_only_if_something_changed() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let head = || store.edge().get("/edge/v1/changes").json()["head"].as_u64().unwrap();
    let before = head();
    let changed =
        owner.patch_settings(&json!({"dcr_edge": {"client_quota": 9, "cors_origins": ["https://a.example"]}}));
    assert_eq!(changed.json()["flags"]["enable_dynamic_client_registration"], true);
    assert_eq!(head(), before + 1);
    let reset = owner.patch_settings(&json!({"dcr_edge": {"client_quota": null}}));
    assert_eq!(reset.json()["dcr_edge"].get("client_quota"), None);
    assert_eq!(reset.json()["dcr_edge"]["cors_origins"], json!(["https://a.example"]));
    for nothing in [json!({}), json!({"dcr_edge": {"cors_origins": ["https://a.example"]}})] {
        assert_eq!(owner.patch_settings(&nothing).status, 200);
    }
    assert_eq!(head(), before + 2);
    assert_eq!(owner.get(SETTINGS).json(), reset.json());
}

#[test]
fn a_bad_patch_is_refused_as_a_whole_and_the_member_named() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let before = owner.get(SETTINGS).json();
    let quota_and_typo = json!({"dcr_edge": {"client_quota": 1, "typo": 1}});
    for (patch, member) in [
        (quota_and_typo, "dcr_edge.typo: "),
        (json!({"friendly_name": "x"}), "friendly_name: "),
        (
            json!({"dcr_edge": {"rate_limit": {"burst": 0, "per_second": 1}}}),
            "dcr_edge.rate_limit.burst: expected a whole number",
        ),
        (
            json!({"dcr_edge": {"client_quota": 0}}),
            "dcr_edge.client_quota: expected a whole number from 1 to 4294967295",
        ),
        (json!({"flags": {"enable_dynamic_client_registration": "yes"}}), "flags.enable_dynamic_client_registration: "),
    ] {
        let answer = owner.patch_settings(&patch);
        let body = answer.json();
        assert_eq!((answer.status, &body["errorCode"]), (400, &json!("invalid_body")), "{body}");
        assert_eq!((&body["statusCode"], &body["error"]), (&json!(400), &json!("Bad Request")));
        assert!(body["message"].as_str().unwrap().starts_with(member), "{body}");
    }
    for body in ["", "[]", "null", "{"] {
        let answer = owner.call("PATCH", SETTINGS, &[("content-type", "application/json")], Some(body));
        assert_eq!((answer.status, &answer.json()["errorCode"]), (400, &json!("invalid_body")), "{body}");
    }
    assert_eq!(owner.get(SETTINGS).json(), before);
}

#[test]
fn a_request_that_is_not_as_the_api_wants_it_is_refused_in_the_apis_words() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let patch = |headers: &[(&str, &str)], body: &str| owner.call("PATCH", SETTINGS, headers, Some(body));
    let json = ("content-type", "application/json");
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(256 * 1024));
    for (answer, status) in [
        (owner.call("DELETE", SETTINGS, &[], None), 405),
        (owner.get("/api/v2/nothing"), 404),
        (patch(&[("content-type", "text/plain")], "{}"), 415),
        (patch(&[], "{}"), 415),
        (patch(&[json, json], "{}"), 415),
        (patch(&[json], &large), 413),
    ] {
        assert_eq!((answer.status, &answer.json()["statusCode"]), (status, &json!(status)), "{answer:?}");
        assert!(answer.json()["errorCode"].is_string());
    }
    assert_eq!(owner.call("DELETE", SETTINGS, &[], None).header("allow"), "GET,HEAD,PATCH");
    assert_eq!(patch(&[("content-type", "Application/JSON; charset=utf-8")], "{}").status, 200);
}

#[test]
fn the_tenant_is_that_of_the_tokens_audience_and_the_edge_must_agree() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({"client_quota": 7}));
    let store = folder.serve();
    let quota = |answer: Value| answer["dcr_edge"]["client_quota"].clone();
    assert_eq!(quota(store.owner("other").get(SETTINGS).json()), 7);
    let named = |name: &str| store.owner("other").call("GET", SETTINGS, &[("x-dcr-tenant", name)], None);
    assert_eq!(quota(named("other").json()), 7);
    for wrong in ["default", "nobody", ""] {
        assert_eq!((named(wrong).status, &named(wrong).json()["errorCode"]), (401, &json!("invalid_token")));
    }
    // Any domain of the tenant will do.
    let owner = store.owner("other");
    folder.succeed(&["tenant", "update", "other", "--domain", "new.example", "--add-domain", "other.example"]);
    assert_eq!(owner.get(SETTINGS).status, 200);
    folder.succeed(&["tenant", "update", "other", "--remove-domain", "other.example"]);
    assert_eq!(owner.get(SETTINGS).status, 401);
}

#[test]
fn a_connection_outlives_a_request_whose_body_nobody_wants() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let json = &[("content-type", b"application/json".as_slice()), ("authorization", b"Bearer x")];
    for (method, path, length) in [("PATCH", SETTINGS, 100), ("PATCH", SETTINGS, 100_000), ("POST", SETTINGS, 500_000)]
    {
        let mut connection = http1::Connection::open(store.address());
        let request = http1::request(method, path, json, &vec![b' '; length]);
        // A body may come after its head.
        let (head, body) = request.split_at(request.len() - length);
        connection.send(head);
        std::thread::sleep(Duration::from_millis(20));
        connection.send(body);
        let refused = connection.receive();
        assert!(matches!(refused.status, 401 | 405), "{}", refused.status);
        assert_eq!(refused.header("connection"), None);
        connection.send(&http1::request("GET", "/livez", &[], b""));
        assert_eq!(connection.receive().status, 200, "{length}");
    }
    for (headers, length) in [(&json[..], "9000000"), (&[json[0], ("expect", b"100-continue")], "2")] {
        let mut headers = headers.to_vec();
        headers.push(("content-length", length.as_bytes()));
        let mut connection = http1::Connection::open(store.address());
        connection.send(&http1::request("PATCH", SETTINGS, &headers, b""));
        let refused = connection.receive();
        assert_eq!((refused.status, refused.header("connection")), (401, Some("close")), "{length}");
    }
    // Chunks, whose number nobody announced, and a body that is too long from one who may write.
    let token = folder.succeed(&["token", "--tenant", "default"]);
    let bearer = format!("Bearer {}", token.trim());
    let chunks = http1::chunked(&[b" ".repeat(50_000).as_slice(), b"{}"]);
    let long = b" ".repeat(300 * 1024);
    for (authorization, coding, body, status) in
        [("Bearer x", "chunked", &chunks, 401), (&bearer, "", &long, 413), (&bearer, "chunked", &chunks, 200)]
    {
        let mut headers = vec![json[0], ("authorization", authorization.as_bytes())];
        if !coding.is_empty() {
            headers.push(("transfer-encoding", coding.as_bytes()));
        }
        let mut connection = http1::Connection::open(store.address());
        connection.send(&http1::request("PATCH", SETTINGS, &headers, body));
        let answer = connection.receive();
        assert_eq!((answer.status, answer.header("connection")), (status, None), "{}", answer.text());
        connection.send(&http1::request("GET", "/livez", &[], b""));
        assert_eq!(connection.receive().status, 200, "{status} {coding}");
    }
}

#[test]
fn whoever_withholds_a_body_is_answered_soon_and_loses_the_connection_and_delays_nobody() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let started = Instant::now();
    let withheld = http1::request("PATCH", SETTINGS, &[("content-length", b"100")], b"");
    let mut connections: Vec<_> = (0..64)
        .map(|_| {
            let mut connection = http1::Connection::open(store.address());
            connection.send(&withheld);
            connection
        })
        .collect();
    // Only 16 of them are waited for.
    let answers: Vec<_> = connections.iter_mut().rev().map(http1::Connection::receive).collect();
    let other = http1::exchange(store.address(), &http1::request("GET", "/livez", &[], b""));
    assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
    assert_eq!(other.status, 200);
    for answer in answers {
        assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
    }
    for connection in &mut connections {
        assert!(connection.has_ended());
    }
}
