//! The OpenAPI description of the Management API, and what each operation in it lets whom do. A route that is added is
//! in the description, and so in these tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use dcr_edge::store::token::MANAGEMENT_SCOPES;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Options};
use crate::support::store::{Answer, Caller, Folder, client_id, confidential};
use crate::support::{process, root};

const DOCUMENT: &str = "/api/v2/openapi.json";
const SETTINGS: &str = "/api/v2/tenants/settings";

/// Every operation with the scopes of which any one is enough, as the hosted API has them.
#[rustfmt::skip]
const OPERATIONS: [(&str, &str, &[&str]); 31] = [
    ("GET", "/api/v2/tenants/settings", &["read:tenant_settings"]),
    ("PATCH", "/api/v2/tenants/settings", &["update:tenant_settings"]),
    ("GET", "/api/v2/network-acls", &["read:network_acls"]),
    ("POST", "/api/v2/network-acls", &["create:network_acls"]),
    ("GET", "/api/v2/network-acls/{id}", &["read:network_acls"]),
    ("PUT", "/api/v2/network-acls/{id}", &["update:network_acls"]),
    ("PATCH", "/api/v2/network-acls/{id}", &["update:network_acls"]),
    ("DELETE", "/api/v2/network-acls/{id}", &["delete:network_acls"]),
    ("GET", "/api/v2/clients", &["read:clients", "read:client_keys"]),
    ("POST", "/api/v2/clients", &["create:clients"]),
    ("GET", "/api/v2/clients/{id}", &["read:clients", "read:client_keys"]),
    ("PATCH", "/api/v2/clients/{id}", &["update:clients"]),
    ("DELETE", "/api/v2/clients/{id}", &["delete:clients"]),
    ("POST", "/api/v2/clients/{id}/rotate-secret", &["update:client_keys"]),
    ("GET", "/api/v2/client-grants", &["read:client_grants"]),
    ("POST", "/api/v2/client-grants", &["create:client_grants"]),
    ("GET", "/api/v2/client-grants/{id}", &["read:client_grants"]),
    ("PATCH", "/api/v2/client-grants/{id}", &["update:client_grants"]),
    ("DELETE", "/api/v2/client-grants/{id}", &["delete:client_grants"]),
    ("GET", "/api/v2/resource-servers", &["read:resource_servers"]),
    ("POST", "/api/v2/resource-servers", &["create:resource_servers"]),
    ("GET", "/api/v2/resource-servers/{id}", &["read:resource_servers"]),
    ("PATCH", "/api/v2/resource-servers/{id}", &["update:resource_servers"]),
    ("DELETE", "/api/v2/resource-servers/{id}", &["delete:resource_servers"]),
    ("GET", "/api/v2/connections", &["read:connections"]),
    ("POST", "/api/v2/connections", &["create:connections"]),
    ("GET", "/api/v2/connections/{id}", &["read:connections"]),
    ("PATCH", "/api/v2/connections/{id}", &["update:connections"]),
    ("DELETE", "/api/v2/connections/{id}", &["delete:connections"]),
    ("GET", "/api/v2/logs", &["read:logs"]),
    ("GET", "/api/v2/logs/{id}", &["read:logs"]),
];

/// An operation of the description.
struct Operation {
    method: String,
    path: String,
    scopes: Vec<String>,
    statuses: BTreeSet<u16>,
    body: Option<Value>,
}

impl Operation {
    /// The path of the list that it is about.
    fn list(&self) -> &str {
        self.path.split("/{id}").next().unwrap()
    }

    fn has_id(&self) -> bool {
        self.path.contains("{id}")
    }

    fn is_delete(&self) -> bool {
        self.method == "DELETE"
    }

    /// Sends it with the example of its body.
    fn send(&self, caller: &Caller, ids: &BTreeMap<String, String>, header: Option<(&str, &str)>) -> Answer {
        let path = ids.get(self.list()).map_or(self.path.clone(), |id| self.path.replace("{id}", id));
        let content_type = self.body.is_some().then_some(("content-type", "application/json"));
        let headers: Vec<_> = content_type.into_iter().chain(header).collect();
        let body = self.body.as_ref().map(Value::to_string);
        let answer = caller.call(&self.method, &path, &headers, body.as_deref());
        assert!(self.statuses.contains(&answer.status), "{} {path}: {answer:?}", self.method);
        answer
    }
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let scopes = operation["security"].as_array().unwrap().iter();
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                scopes: scopes.map(|any| any["management_token"][0].as_str().unwrap().to_owned()).collect(),
                statuses: operation["responses"].as_object().unwrap().keys().map(|s| s.parse().unwrap()).collect(),
                body: operation.pointer("/requestBody/content/application~1json/example").cloned(),
            });
        }
    }
    // A grant needs its API, and what is deleted is of no more use.
    operations.sort_by_key(|operation| (operation.is_delete(), !operation.path.ends_with("resource-servers")));
    operations
}

/// The id of an object, whatever it is.
fn id_of(object: &Value) -> String {
    let id = ["id", "client_id", "log_id"].into_iter().find_map(|member| object[member].as_str());
    id.unwrap_or_else(|| panic!("no id: {object}")).to_owned()
}

/// Makes one object of each kind from the examples, and gives their ids by the path of their list.
fn make_objects(operations: &[Operation], owner: &Caller) -> BTreeMap<String, String> {
    let mut ids = BTreeMap::new();
    let settings = operations.iter().filter(|operation| operation.path.ends_with("/settings"));
    let made = operations.iter().filter(|operation| operation.method == "POST" && !operation.has_id());
    for operation in settings.chain(made) {
        let answer = operation.send(owner, &ids, None);
        assert!(matches!(answer.status, 200 | 201), "{}: {answer:?}", operation.path);
        if operation.method == "POST" {
            ids.insert(operation.path.clone(), id_of(&answer.json()));
        }
    }
    // That registration was switched on is an event.
    ids.insert("/api/v2/logs".to_owned(), id_of(&owner.get("/api/v2/logs").json()[0]));
    ids
}

/// The objects as their owner sees them.
fn objects(operations: &[Operation], owner: &Caller, ids: &BTreeMap<String, String>) -> Vec<Value> {
    let shown = operations.iter().filter(|operation| operation.method == "GET" && operation.path.ends_with("{id}"));
    let shown: Vec<_> = shown.map(|operation| operation.send(owner, ids, None)).collect();
    shown
        .iter()
        .map(|answer| {
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.json()
        })
        .collect()
}

/// All that the tenant has, as its owner sees it: settings, objects, and lists in each of their forms.
fn everything_of(operations: &[Operation], owner: &Caller, ids: &BTreeMap<String, String>) -> Vec<Value> {
    let mut all = objects(operations, owner, ids);
    for path in operations.iter().filter(|operation| operation.method == "GET" && !operation.has_id()).map(|o| &o.path)
    {
        for query in ["", "?include_totals=true", "?take=100"] {
            let answer = owner.get(&format!("{path}{query}"));
            assert_eq!(answer.status, 200, "{path}{query}: {answer:?}");
            all.push(answer.json());
        }
    }
    all
}

/// Checks that a tenant without objects sees none in any list, however it asks; another tenant has `client`, and the
/// other objects of the examples.
fn check_nothing_is_listed(operations: &[Operation], caller: &Caller, host: (&str, &str), client: &str) {
    let lists = operations
        .iter()
        .filter(|operation| operation.method == "GET" && !operation.has_id() && operation.path != SETTINGS);
    let queries = [
        String::new(),
        "include_totals=true".to_owned(),
        "take=100".to_owned(),
        "from=0&take=100&include_totals=true".to_owned(),
        format!("client_id={client}&include_totals=true"),
        "audience=https://api.example.com/&include_totals=true".to_owned(),
        "identifiers=https://api.example.com/&include_totals=true".to_owned(),
        "name=users&strategy=auth0&include_totals=true".to_owned(),
        "q=type:sapi&include_totals=true".to_owned(),
        format!("q=client_id:{client}&include_totals=true"),
    ];
    for list in lists {
        for query in &queries {
            let path = format!("{}?{query}", list.path);
            let answer = caller.call("GET", &path, &[host], None);
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            let listed = answer.json();
            let name = list.path.rsplit('/').next().unwrap().replace('-', "_");
            let entries = if listed.is_array() { &listed } else { &listed[name] };
            assert_eq!(*entries, json!([]), "{path}: {answer:?}");
            assert!(listed.get("total").is_none_or(|total| *total == 0) && listed.get("next").is_none(), "{answer:?}");
        }
    }
}

/// Checks for each operation who may call it. `anyone` has no token; `token` makes one for a tenant, `default` or
/// `other`. A header tells where a request goes: `host_of_default` to the host of `default`, `host_of_other` likewise.
fn check_access(
    anyone: &Caller,
    token: &dyn Fn(&str, &str) -> String,
    host_of_default: Option<(&str, &str)>,
    host_of_other: (&str, &str),
) {
    let operations = operations(&anyone.get(DOCUMENT).json());
    let everything = MANAGEMENT_SCOPES.join(" ");
    let with = |tenant: &str, scopes: &str| anyone.clone().with_token(token(tenant, scopes));
    let (owner, other) = (with("default", &everything), with("other", &everything));
    let (bad, powerless) = (anyone.clone().with_token("x"), with("default", "read:nothing"));
    let ids = make_objects(&operations, &owner);
    let before = everything_of(&operations, &owner, &ids);
    // A change that has no event, so that its log stays empty.
    let own = json!({"dcr_edge": {"client_quota": 17}});
    let json_to_other = [host_of_other, ("content-type", "application/json")];
    let set_own = || other.call("PATCH", SETTINGS, &json_to_other, Some(&own.to_string()));
    assert_eq!(set_own().json()["dcr_edge"]["client_quota"], 17);
    let settings_of_other = other.call("GET", SETTINGS, &[host_of_other], None).json();
    assert_eq!(settings_of_other["flags"]["enable_dynamic_client_registration"], false);
    assert_eq!(settings_of_other["dcr_edge"]["client_quota"], 17);
    let settings = owner.get(SETTINGS).json();
    assert_eq!(settings["flags"]["enable_dynamic_client_registration"], true);
    assert_eq!(settings["dcr_edge"].get("client_quota"), None);
    check_nothing_is_listed(&operations, &other, host_of_other, &ids["/api/v2/clients"]);
    // Bodies that name what is another tenant's: its API, then its client.
    let grant = |body: &Value| {
        let answer = other.call("POST", "/api/v2/client-grants", &json_to_other, Some(&body.to_string()));
        (answer.status, answer.json()["errorCode"].as_str().unwrap_or_default().to_owned())
    };
    let client = &ids["/api/v2/clients"];
    let api = operations.iter().find(|o| o.method == "POST" && o.path.ends_with("/resource-servers")).unwrap();
    let mut body = json!({"client_id": client, "audience": api.body.as_ref().unwrap()["identifier"]});
    assert_eq!(grant(&body), (404, "inexistent_resource_server".to_owned()));
    assert_eq!(api.send(&other, &ids, Some(host_of_other)).status, 201);
    assert_eq!(grant(&body), (404, "inexistent_client".to_owned()));
    body["client_id"] = json!("tpc_nobodys");
    assert_eq!(grant(&body), (404, "inexistent_client".to_owned()));
    for operation in &operations {
        let name = format!("{} {}", operation.method, operation.path);
        let refused = |caller: &Caller, header, status: u16| {
            let answer = operation.send(caller, &ids, header);
            assert_eq!(answer.status, status, "{name}: {answer:?}");
            answer.json()
        };
        for stranger in [anyone, &bad] {
            refused(stranger, None, 401);
        }
        let others: Vec<_> =
            MANAGEMENT_SCOPES.iter().copied().filter(|scope| !operation.scopes.iter().any(|s| s == scope)).collect();
        for caller in [&powerless, &with("default", &others.join(" "))] {
            let body = refused(caller, None, 403);
            assert_eq!(body["errorCode"], "insufficient_scope", "{name}");
            assert!(body["message"].as_str().unwrap().ends_with(&operation.scopes[0]), "{name}: {body}");
        }
        // The token of another tenant: nothing on this tenant's host, and on its own nothing of this tenant's.
        refused(&other, host_of_default, 401);
        let answer = operation.send(&other, &ids, Some(host_of_other));
        let expected: &[u16] = match operation.method.as_str() {
            "DELETE" => &[204],
            _ if operation.has_id() => &[404],
            // Its API is there already.
            "POST" => &[201, 409],
            _ => &[200],
        };
        assert!(expected.contains(&answer.status), "{name}: {answer:?}");
        let reached = ids.values().find(|id| answer.text.contains(&format!("\"{id}\"")));
        assert_eq!(reached, None, "{name}: {answer:?}");
    }
    assert_eq!(set_own().status, 200);
    assert_eq!(everything_of(&operations, &owner, &ids), before);
    // Any one of the scopes is enough.
    for operation in &operations {
        for scope in &operation.scopes {
            let answer = operation.send(&with("default", scope), &ids, host_of_default);
            let conflicts = operation.method == "POST" && answer.status == 409;
            let name = format!("{} {} {scope}", operation.method, operation.path);
            assert!((200..300).contains(&answer.status) || conflicts, "{name}: {answer:?}");
        }
    }
}

#[test]
fn each_operation_asks_for_a_token_of_its_tenant_with_its_scope() {
    let folder = Folder::empty();
    for tenant in ["default", "other"] {
        folder.succeed(&["tenant", "create", tenant, "--domain", &format!("{tenant}.example")]);
    }
    let store = folder.serve();
    let token = |tenant: &str, scopes: &str| mint(&folder, tenant, scopes);
    check_access(&store.anyone(), &token, Some(("x-dcr-tenant", "default")), ("x-dcr-tenant", "other"));
}

fn mint(folder: &Folder, tenant: &str, scopes: &str) -> String {
    folder.succeed(&["token", "--tenant", tenant, "--scope", scopes]).trim().to_owned()
}

#[test]
fn each_operation_asks_for_the_same_through_a_gateway() {
    let gateway = Gateway::start(Options::default());
    gateway.store_command(&["tenant", "create", "other", "--domain", "other.example"]);
    gateway.wait_for_settings();
    let token = |tenant: &str, scopes: &str| {
        gateway.store_command(&["token", "--tenant", tenant, "--scope", scopes]).trim().to_owned()
    };
    check_access(&Caller::new(gateway.http_address()), &token, None, ("host", "other.example"));
}

#[test]
fn each_operation_is_described_with_the_scopes_that_the_hosted_api_asks_for() {
    let folder = Folder::with_default_tenant();
    let document = folder.serve().anyone().get(DOCUMENT).json();
    let described = operations(&document);
    let described: BTreeSet<_> = described
        .iter()
        .map(|operation| {
            let scopes: Vec<_> = operation.scopes.iter().map(String::as_str).collect();
            (operation.method.as_str(), operation.path.as_str(), scopes)
        })
        .collect();
    assert_eq!(described, OPERATIONS.iter().map(|(method, path, scopes)| (*method, *path, scopes.to_vec())).collect());
}

#[test]
fn an_answer_without_fields_has_all_members_that_an_object_has_and_no_other() {
    let folder = Folder::empty();
    folder.succeed(&["tenant", "create", "default", "--domain", "default.example"]);
    let store = folder.serve();
    let owner = store.owner("default");
    let document = store.anyone().get(DOCUMENT).json();
    let operations = operations(&document);
    let ids = make_objects(&operations, &owner);
    let schema = |path: &str, method: &str| {
        let content = &document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"];
        document.pointer(content["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap()
    };
    // An answer to a change always has the whole object.
    for whole in operations.iter().filter(|operation| operation.method == "PATCH") {
        let path = ids.get(whole.list()).map_or(whole.path.clone(), |id| whole.path.replace("{id}", id));
        let shown = owner.get(&path).json();
        let members: BTreeSet<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
        let required = schema(&whole.path, "patch")["required"].as_array().unwrap();
        let missing: Vec<_> = required.iter().filter(|name| !members.contains(name.as_str().unwrap())).collect();
        assert!(!required.is_empty() && missing.is_empty(), "{path}: {missing:?} of {shown}");
        let described = schema(&whole.path, "get")["properties"].as_object().unwrap();
        let unknown: Vec<_> = members.iter().filter(|name| !described.contains_key(**name)).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?} of {shown}");
    }
    let client = owner.get(&format!("/api/v2/clients/{}", ids["/api/v2/clients"])).json();
    assert_eq!(client["effective_permissions"][0]["audience"], "https://api.example.com/");
    let chosen = owner.get(&format!("{SETTINGS}?fields=flags&include_fields=true")).json();
    assert_eq!(chosen, json!({"flags": {"enable_dynamic_client_registration": true}}));
}

#[test]
fn the_description_is_open_to_everybody_and_says_what_is_what() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let answer = store.anyone().get(DOCUMENT);
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    let patch = &document["paths"]["/api/v2/tenants/settings"]["patch"];
    assert_eq!(patch["security"], json!([{"management_token": ["update:tenant_settings"]}]));
    assert_eq!(patch["responses"]["200"]["headers"]["warning"]["schema"]["type"], "string");
    let error = patch["responses"]["403"]["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
    let error = document.pointer(error.trim_start_matches('#')).unwrap();
    assert_eq!(error["required"], json!(["statusCode", "error", "message", "errorCode"]));
    let list = document["paths"]["/api/v2/client-grants"]["get"]["parameters"].as_array().unwrap();
    let names: Vec<_> = list.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
    for name in ["page", "per_page", "include_totals", "from", "take", "fields", "include_fields", "audience"] {
        assert!(names.contains(&name), "{names:?}");
    }
    // Nothing that only the code's own readers understand.
    assert!(!answer.text.contains("[`"));
}

/// Where `schemathesis` is: `$DCR_TEST_SCHEMATHESIS`, which `make test` sets. `None` where there is no Python for it.
fn schemathesis() -> Option<PathBuf> {
    let path = std::env::var_os("DCR_TEST_SCHEMATHESIS").filter(|path| !path.is_empty());
    if path.is_none() {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: schemathesis is missing");
        eprintln!("skipped: DCR_TEST_SCHEMATHESIS is not set");
    }
    path.map(PathBuf::from)
}

#[test]
fn schemathesis_finds_no_answer_that_the_description_does_not_have() {
    let Some(schemathesis) = schemathesis() else { return };
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let operations = operations(&store.anyone().get(DOCUMENT).json());
    // As many of each that deletions leave some.
    for number in 0..10 {
        store.edge().put_client("default", &client_id(number), &confidential());
        let name = format!("n{number}");
        for (path, object) in [
            ("resource-servers", json!({"identifier": name, "scopes": [{"value": "read"}]})),
            ("connections", json!({"name": name, "strategy": "auth0"})),
            ("client-grants", json!({"client_id": client_id(number), "audience": name, "scope": ["read"]})),
            (
                "network-acls",
                json!({"description": name, "active": false,
                    "rule": {"action": {"block": true}, "match_all": true, "scope": "tenant"}}),
            ),
        ] {
            let answer = owner.send("POST", &format!("/api/v2/{path}"), &object);
            assert_eq!(answer.status, 201, "{answer:?}");
        }
    }
    // What the example of a grant is for.
    let api = operations.iter().find(|o| o.method == "POST" && o.path.ends_with("/resource-servers")).unwrap();
    assert_eq!(owner.send("POST", &api.path, api.body.as_ref().unwrap()).status, 201);
    let mut ids = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.has_id()) {
        let listed = owner.get(&format!("{}?per_page=10", operation.list())).json();
        let all: Vec<_> = listed.as_array().unwrap().iter().map(id_of).collect();
        ids.insert(operation.path.as_str(), all);
    }
    let report = tempfile::tempdir().unwrap();
    let har = report.path().join("report.har");
    let token = folder.succeed(&["token", "--tenant", "default"]);
    let mut command = Command::new(schemathesis);
    command
        .arg("run")
        .arg(format!("http://{}{DOCUMENT}", store.address()))
        .args(["--header", &format!("Authorization: Bearer {}", token.trim())])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "40", "--generation-deterministic"])
        // One worker: with more, CPython 3.11 fails in the parser that hypothesis uses.
        .args(["--workers", "1", "--no-shrink", "--continue-on-failure", "--no-color", "--warnings", "off"])
        .args(["--report", "har", "--report-har-path"])
        .arg(&har)
        .args(["--checks", CHECKS])
        .env("PYTHONPATH", root().join("tests/support"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .env("DCR_TEST_IDS", json!(ids).to_string())
        .current_dir(report.path());
    let output = process::output_within(&mut command, process::PATIENCE * 20);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));

    let report: Value = serde_json::from_slice(&std::fs::read(&har).unwrap()).unwrap();
    let cases = report["log"]["entries"].as_array().unwrap();
    assert!(cases.len() >= 2_000, "{} cases", cases.len());
    for operation in &operations {
        let succeeded = cases.iter().filter(|case| {
            let status = case["response"]["status"].as_u64().unwrap();
            (200..300).contains(&status) && operation.is_of(&case["request"])
        });
        assert!(succeeded.count() > 0, "{} {} never succeeded\n{said}", operation.method, operation.path);
    }
}

/// What is checked of each answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,described_data_rejection,\
                      described_data_acceptance";

impl Operation {
    /// Whether a request of the report is one of it.
    fn is_of(&self, request: &Value) -> bool {
        let url = request["url"].as_str().unwrap();
        let path = url.find("/api/v2/").map_or("", |start| url[start..].split('?').next().unwrap());
        let (wanted, parts): (Vec<_>, Vec<_>) = (self.path.split('/').collect(), path.split('/').collect());
        request["method"] == self.method.as_str()
            && wanted.len() == parts.len()
            && wanted.iter().zip(parts).all(|(wanted, part)| *wanted == "{id}" || *wanted == part)
    }
}
