//! The edge's interface over HTTP.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::store::{Folder, client_id, confidential, public};

#[test]
fn a_client_is_registered_once_however_often_it_is_put() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let first = store.edge().put_client("default", &client_id(1), &confidential());
    assert_eq!((first.status, &first.json()["client_id"]), (201, &json!(client_id(1))));
    let again = store.edge().put_client("default", &client_id(1), &confidential());
    assert_eq!((again.status, again.json()), (200, first.json()));
    assert_eq!(folder.client_ids(), HashSet::from([client_id(1)]));
    assert_eq!(store.metric("dcr_store_registrations_total{outcome=\"created\"}"), 1.0);
    assert_eq!(store.metric("dcr_store_registrations_total{outcome=\"existing\"}"), 1.0);
}

#[test]
fn an_id_that_another_client_has_is_a_conflict() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    store.edge().put_client("default", &client_id(1), &confidential());
    let mut changed = confidential();
    changed["client_secret_sha256"] = json!("cd".repeat(32));
    for answer in [
        store.edge().put_client("default", &client_id(1), &changed),
        store.edge().put_client("other", &client_id(1), &confidential()),
    ] {
        assert_eq!((answer.status, &answer.json()["error"]), (409, &json!("conflict")));
    }
}

#[test]
fn a_registration_that_breaks_a_rule_is_refused_with_the_rules_error() {
    let folder = Folder::with_default_tenant();
    folder.succeed(&["tenant", "create", "off", "--domain", "off.example"]);
    folder.create_enabled_tenant("full", json!({"client_quota": 1}));
    let store = folder.serve();
    let edge = store.edge();
    assert_eq!(edge.put_client("full", &client_id(99), &confidential()).status, 201);
    let with = |member: &str, value: Value| {
        let mut registration = confidential();
        registration[member] = value;
        registration
    };
    let without_secret = json!({"metadata": confidential()["metadata"]});
    for (tenant, id, registration, status, error, text) in [
        ("default", "tpc_short", confidential(), 400, "invalid_request", "client_id"),
        ("default", "tpc_%20", confidential(), 400, "invalid_request", "client_id"),
        ("default", &client_id(1), with("client_secret_sha256", json!("AB".repeat(32))), 400, "invalid_request", "hex"),
        ("default", &client_id(1), with("client_secret_sha256", json!("ab")), 400, "invalid_request", "64"),
        ("default", &client_id(1), with("client_secret", json!("x")), 400, "invalid_request", "client_secret"),
        ("default", &client_id(1), with("metadata", json!({})), 400, "invalid_redirect_uri", "redirect_uris"),
        ("default", &client_id(1), with("metadata", json!([])), 400, "invalid_client_metadata", ""),
        ("default", &client_id(1), with("metadata", public()["metadata"].clone()), 400, "invalid_request", "secret"),
        ("default", &client_id(1), without_secret, 400, "invalid_request", "secret"),
        ("default", &client_id(1), json!({}), 400, "invalid_request", "metadata"),
        ("off", &client_id(1), confidential(), 403, "access_denied", "disabled"),
        ("full", &client_id(1), confidential(), 403, "access_denied", "the tenant's client quota is used up"),
        ("nobody", &client_id(1), confidential(), 404, "not_found", "tenant"),
        ("No_Name", &client_id(1), confidential(), 404, "not_found", "tenant"),
    ] {
        let answer = edge.put_client(tenant, id, &registration);
        let body = answer.json();
        assert_eq!((answer.status, body["error"].as_str()), (status, Some(error)), "{registration}: {body}");
        assert!(body["error_description"].as_str().unwrap().contains(text), "{body}");
        assert_eq!(answer.header("content-type"), "application/json");
    }
    assert_eq!(folder.client_ids(), HashSet::from([client_id(99)]));
}

#[test]
fn a_body_that_is_no_json_is_refused() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let path = format!("/edge/v1/tenants/default/clients/{}", client_id(1));
    for body in ["", "{", "null", "[]", "{\"metadata\":{},\"metadata\":{}}"] {
        let answer = store.edge().call("PUT", &path, &[], Some(body));
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_request")), "{body}");
    }
}

#[test]
fn equal_public_clients_get_one_id_if_the_tenant_folds_them() {
    let folder = Folder::empty();
    folder.create_enabled_tenant("default", json!({"deduplicate_public_clients": true}));
    let store = folder.serve();
    let first = store.edge().put_client("default", &client_id(1), &public());
    let second = store.edge().put_client("default", &client_id(2), &public());
    assert_eq!((first.status, second.status), (201, 200));
    assert_eq!(second.json(), first.json());
}

#[test]
fn every_answer_of_the_edges_interface_names_its_protocol() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let path = format!("/edge/v1/tenants/default/clients/{}", client_id(1));
    let large = "x".repeat(256 * 1024 + 1);
    let (edge, anyone) = (store.edge(), store.anyone());
    for (answer, status) in [
        (edge.get("/edge/v1/changes"), 200),
        (edge.get("/edge/v1/changes?after=x"), 400),
        (anyone.get("/edge/v1/changes"), 401),
        (anyone.call("PUT", &path, &[], Some("{}")), 401),
        (anyone.get("/edge/v1/ready"), 200),
        (edge.get("/edge/v1/nothing"), 404),
        (edge.get("/edge/v2/changes"), 404),
        (edge.call("DELETE", &path, &[], None), 405),
        (edge.call("PUT", &path, &[], Some(&large)), 413),
        (edge.put_client("default", &client_id(1), &confidential()), 201),
    ] {
        assert_eq!((answer.status, answer.header("x-dcr-store-protocol")), (status, "1"), "{answer:?}");
        if status >= 400 {
            assert!(answer.json()["error_description"].is_string());
        }
        if status == 401 {
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    assert_eq!(anyone.get("/livez").header("x-dcr-store-protocol"), "");
}

#[test]
fn the_change_feed_tells_what_the_command_line_changed_while_the_store_runs() {
    let folder = Folder::empty();
    let store = folder.serve();
    let edge = store.edge();
    let start = edge.get("/edge/v1/changes").json();
    assert_eq!((&start["full"], &start["tenants"]), (&json!(true), &json!([])));
    let since = |page: &Value| {
        let instance = page["instance"].as_str().unwrap();
        edge.get(&format!("/edge/v1/changes?after={}&instance={instance}", page["head"])).json()
    };
    folder.succeed(&[
        "tenant",
        "create",
        "default",
        "--domain",
        "default.example",
        "--burst",
        "7",
        "--per-second",
        "9",
    ]);
    let created = since(&start);
    let change = &created["tenants"][0];
    assert_eq!((&created["full"], &change["tenant"]["name"]), (&json!(false), &json!("default")));
    assert_eq!(change["tenant"]["settings"]["dcr_edge"]["rate_limit"], json!({"burst": 7, "per_second": 9}));

    // The registrations' own view of the tenants follows too.
    let put = |number| edge.put_client("default", &client_id(number), &confidential()).status;
    assert_eq!(put(1), 403);
    let patch = json!({"flags": {"enable_dynamic_client_registration": true}});
    assert_eq!(store.owner("default").patch_settings(&patch).status, 200);
    assert_eq!(put(2), 201);
    folder.succeed(&["tenant", "delete", "default"]);
    assert_eq!(put(3), 404);
    let deleted = since(&created);
    assert_eq!((&deleted["tenants"][0]["tenant"], deleted["tenants"].as_array().unwrap().len()), (&Value::Null, 1));
}

#[test]
fn health_and_unknown_paths_need_no_token() {
    let folder = Folder::empty();
    let store = folder.serve();
    assert_eq!(store.anyone().get("/livez").status, 200);
    assert_eq!(store.anyone().get("/readyz").status, 200);
    let unknown = store.anyone().get("/nothing");
    assert_eq!((unknown.status, &unknown.json()["error"]), (404, &json!("not_found")));
    assert_eq!(store.anyone().get("/metrics").header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(store.metric("dcr_store_http_responses_total{status_class=\"4xx\"}"), 1.0);
}

#[test]
fn a_store_that_waits_for_an_edge_is_ready_once_one_has_everything_in_force() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve_with(&["--ready-after-edge"]);
    let (edge, anyone) = (store.edge(), store.anyone());
    let told = edge.get("/edge/v1/changes").json();
    let (instance, head) = (told["instance"].as_str().unwrap(), told["head"].as_u64().unwrap());
    let all = |instance, after| format!("/edge/v1/changes?after={after}&instance={instance}");
    for (caller, path, status) in [
        (&edge, "/edge/v1/changes".to_owned(), 200),
        (&anyone, all(instance, head), 401),
        (&store.owner("default"), all(instance, head), 401),
        (&edge, all("another", head), 200),
        (&edge, all(instance, head - 1), 200),
        (&edge, all(instance, head + 1), 200),
        (&edge, format!("/edge/v1/changes?after={head}"), 200),
    ] {
        assert_eq!(caller.get(&path).status, status);
        let ready = anyone.get("/readyz");
        assert_eq!((ready.status, &ready.json()["error"]), (503, &json!("temporarily_unavailable")), "{path}");
    }
    assert_eq!(edge.get(&all(instance, head)).status, 200);
    assert_eq!(anyone.get("/readyz").status, 200);
    folder.create_enabled_tenant("other", json!({}));
    assert_eq!(edge.get(&all(instance, head)).status, 200);
    assert_eq!(anyone.get("/readyz").status, 200);
}

#[test]
fn a_registration_that_is_not_made_is_logged_once_without_its_metadata() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let (edge, anyone) = (store.edge(), store.anyone());
    edge.put_client("default", &client_id(1), &confidential());
    let mut other = confidential();
    other["metadata"]["client_name"] = json!("Other");
    let bad_uri = json!({"metadata": {"redirect_uris": ["http://metadata.example/cb"]}});
    for (caller, request_id, tenant, registration, outcome) in [
        (&edge, "id-1", "nobody", confidential(), r#"outcome="unknown_tenant" error="not_found""#),
        (&edge, "id-2", "default", other, r#"outcome="conflict" error="conflict""#),
        (&edge, "id-3", "default", bad_uri, r#"outcome="invalid" error="invalid_redirect_uri""#),
        (&edge, "id-4", "default", json!([]), r#"outcome="invalid_request" error="invalid_request""#),
        (&anyone, "id-5", "default", confidential(), r#"outcome="invalid_token" error="invalid_token""#),
    ] {
        let path = format!("/edge/v1/tenants/{tenant}/clients/{}", client_id(1));
        let headers = [("x-request-id", request_id)];
        let answer = caller.call("PUT", &path, &headers, Some(&registration.to_string()));
        assert!(answer.status >= 400, "{answer:?}");
        let log = store.process.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&format!("\"{request_id}\""))).collect();
        let [line] = lines[..] else { panic!("{request_id}: {log}") };
        for part in [" INFO ", &format!("tenant=\"{tenant}\" {outcome}")] {
            assert!(line.contains(part), "{line}");
        }
    }
    folder.with_tables(async |pool| _ = sqlx::query("DROP TABLE clients").execute(pool).await.unwrap());
    assert_eq!(edge.put_client("default", &client_id(2), &confidential()).status, 503);
    let failed = r#"not made tenant="default" outcome="failed" error="temporarily_unavailable""#;
    assert_eq!(store.process.log().matches(failed).count(), 1);

    // An id that could harm the log, and a path that names no tenant, are left out.
    let path = format!("/edge/v1/tenants/No_Name/clients/{}", client_id(1));
    let long = "a".repeat(129);
    for request_id in ["a b", "a\"", "", &long] {
        assert_eq!(edge.call("PUT", &path, &[("x-request-id", request_id)], Some("{}")).status, 404);
    }
    let log = store.process.log();
    assert_eq!(log.matches(r#"not made outcome="not_found""#).count(), 4, "{log}");
    assert_eq!(log.matches("a registration was not made").count(), 10);
    assert!(!log.contains("metadata.example") && !log.contains("Other"), "{log}");
    assert!(!log.contains('\x1b'), "colours in a file: {log}");
}
