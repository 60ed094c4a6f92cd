//! Tenants out of one database and into another.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dcr_edge::store::clock::Now;
use dcr_edge::store::transfer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::process::{Process, eventually};
use crate::support::store::{Caller, Folder, Store, client_id, confidential, permissive_id, public};

const SECRET: &str = "a secret of 384 random bits";

fn send(caller: &Caller, method: &str, path: &str, body: &Value) -> Value {
    let answer = caller.send(method, &format!("/api/v2/{path}"), body);
    assert!((200..300).contains(&answer.status), "{path}: {}", answer.text);
    answer.json()
}

fn put(store: &Store, tenant: &str, id: &str, registration: &Value) {
    let answer = store.edge().put_client(tenant, id, registration);
    assert_eq!(answer.status, 201, "{}", answer.text);
}

fn authenticate(folder: &Folder, store: &Store, tenant: &str, id: &str) -> u16 {
    let token = folder.succeed(&["token", "--kind", "server", "--tenant", tenant]);
    let path = format!("/edge/v1/tenants/{tenant}/clients/{id}/authenticate");
    let body = json!({"client_secret": SECRET}).to_string();
    store.anyone().with_token(token.trim()).call("POST", &path, &[], Some(&body)).status
}

fn export(folder: &Folder) -> String {
    folder.succeed(&["export"])
}

/// A file beside no database.
fn written(folder: &Folder, text: &str) -> PathBuf {
    let path = folder.path().join("export.jsonl");
    fs::write(&path, text).unwrap();
    path
}

fn import(folder: &Folder, text: &str) -> String {
    let files = Folder::empty();
    folder.succeed(&["import", written(&files, text).to_str().unwrap()])
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A folder with two tenants that have everything that the Management API makes, and a store that serves them. The
/// client 1 of `default` has [`SECRET`].
fn with_everything() -> (Folder, Store) {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({"client_quota": 7}));
    folder.succeed(&["tenant", "update", "default", "--permissive-eligible", "--add-domain", "second.example"]);
    let store = folder.serve();
    let owner = store.owner("default");
    let settings = json!({"dcr_edge": {"deduplicate_public_clients": true, "cors_origins": ["https://a.example"]}});
    send(&owner, "PATCH", "tenants/settings", &settings);
    for (number, active) in [(1, true), (2, false), (3, true)] {
        let rule = json!({"scope": "dcr", "action": {"block": true}, "match": {"ipv4_cidrs": ["10.0.0.0/8"]}});
        let acl = json!({"description": format!("Rule {number}"), "active": active, "priority": 9, "rule": rule});
        send(&owner, "POST", "network-acls", &acl);
    }
    let to = json!({"scope": "tenant", "action": {"redirect": true, "redirect_uri": "https://elsewhere.example/"},
                    "not_match": {"hostnames": ["default.example"], "user_agents": ["*curl*"]}});
    let acl = json!({"description": "Elsewhere", "active": true, "priority": 1, "rule": to});
    send(&store.owner("other"), "POST", "network-acls", &acl);
    for (tenant, identifier) in [("default", "b"), ("default", "a"), ("other", "a")] {
        let api = json!({"identifier": identifier, "name": "Ü", "scopes": [{"value": "r"}, {"value": "w"}]});
        send(&store.owner(tenant), "POST", "resource-servers", &api);
        let connection = json!({"name": identifier, "strategy": "auth0", "options": {"z": [1, null], "a": "\u{7f}"}});
        send(&store.owner(tenant), "POST", "connections", &connection);
    }

    let mut with_secret = confidential();
    with_secret["client_secret_sha256"] = json!(hex::encode(Sha256::digest(SECRET)));
    with_secret["metadata"]["client_name#de"] = json!("Prüfung");
    put(&store, "default", &client_id(1), &with_secret);
    put(&store, "default", &client_id(2), &public());
    put(&store, "other", &client_id(3), &public());
    let mut native = public();
    native["metadata"]["redirect_uris"] = json!(["com.example.app:/cb"]);
    put(&store, "default", &client_id(4), &native);
    let mode = |mode: &str| json!({"dynamic_client_registration_security_mode": mode});
    send(&owner, "PATCH", "tenants/settings", &mode("permissive"));
    let device = "urn:ietf:params:oauth:grant-type:device_code";
    for (number, metadata) in [
        (
            5,
            json!({"redirect_uris": ["https://app.example/cb"], "grant_types": ["authorization_code", "implicit"],
                   "response_types": ["code token", "code"], "jwks": {"keys": []}, "default_max_age": 60}),
        ),
        (6, json!({"grant_types": [device, "client_credentials"], "redirect_uris": []})),
    ] {
        let mut registration = confidential();
        registration["metadata"] = metadata;
        put(&store, "default", &permissive_id(number), &registration);
    }
    put(&store, "default", &permissive_id(7), &public());
    send(&owner, "PATCH", "tenants/settings", &mode("strict"));
    let callbacks = json!(["https://app.example/cb"]);
    for made in [
        json!({"name": "Machine", "grant_types": ["client_credentials"], "logo_uri": "https://app.example/logo.png"}),
        json!({"name": "Both", "grant_types": ["authorization_code", "client_credentials"], "callbacks": callbacks,
               "app_type": "spa", "description": "What it is for", "client_metadata": {"contract": "7"}}),
        json!({"name": "Public", "token_endpoint_auth_method": "none", "callbacks": callbacks}),
    ] {
        send(&owner, "POST", "clients", &made);
    }
    let path = format!("clients/{}", client_id(4));
    send(&owner, "PATCH", &path, &json!({"name": "Known", "redirection_policy": "allow_always"}));
    let grant = |whose: Value, subject_type: &str, more: Value| {
        let mut grant = json!({"audience": "a", "subject_type": subject_type});
        for members in [whose, more] {
            grant.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        }
        grant
    };
    let (default, own) = (json!({"default_for": "third_party_clients"}), json!({"client_id": client_id(1)}));
    for (tenant, grant) in [
        ("default", grant(default.clone(), "user", json!({"scope": ["r", "w"]}))),
        ("default", grant(own.clone(), "user", json!({"allow_all_scopes": true}))),
        ("default", grant(own, "client", json!({"scope": []}))),
        ("other", grant(default, "user", json!({"scope": ["w"]}))),
    ] {
        send(&store.owner(tenant), "POST", "client-grants", &grant);
    }
    // A grant may name a scope that the API has lost.
    send(&owner, "PATCH", "resource-servers/a", &json!({"scopes": [{"value": "r", "description": "Read"}]}));
    assert_eq!(authenticate(&folder, &store, "default", &client_id(1)), 204);
    eventually("the use is noted", || export(&folder).contains("\"last_used_at\":1").then_some(()));
    folder.with_tables(async |pool| {
        let answered = "UPDATE clients SET answered_at = issued_at + 7 WHERE client_id = ?";
        sqlx::query(answered).bind(client_id(2)).execute(pool).await.unwrap();
    });
    (folder, store)
}

#[test]
fn what_is_imported_is_exported_again_as_it_was_and_works() {
    let (from, from_store) = with_everything();
    let exported = export(&from);
    let parsed = lines(&exported);
    let of_type = |kind: &str| parsed.iter().filter(|line| line["type"] == kind).count();
    assert_eq!((parsed[0].clone(), of_type("tenant")), (json!({"type": "header", "format": 1}), 2));
    let counts = json!({"tenants": 2, "network_acls": 4, "resource_servers": 3, "connections": 3, "clients": 10,
                        "client_grants": 4});
    assert_eq!(parsed.last().unwrap(), &json!({"type": "end", "counts": counts}));
    assert!(!exported.contains(SECRET));
    assert_eq!(exported.matches("\"answered_at\":1").count(), 1);

    let to = Folder::empty();
    let store = to.serve();
    let said = import(&to, &exported);
    let all = "imported tenant default (objects: 19, added: 19)\nimported tenant other (objects: 5, added: 5)\n";
    assert_eq!(said, all);
    assert_eq!(export(&to), exported);
    assert_eq!(import(&to, &exported), all.replace("added: 19", "added: 0").replace("added: 5", "added: 0"));
    assert_eq!(export(&to), exported);

    // The edges are told all of it.
    let told = |store: &Store| -> Vec<Value> {
        let tenants = store.edge().get("/edge/v1/changes").json()["tenants"].as_array().unwrap().clone();
        let mut tenants: Vec<Value> = tenants.into_iter().map(|change| change["tenant"].clone()).collect();
        tenants.sort_by_key(Value::to_string);
        tenants
    };
    assert_eq!(told(&store), told(&from_store));
    assert_eq!(authenticate(&to, &store, "default", &client_id(1)), 204);
    let effective = |store: &Store| {
        let shown = store.owner("default").get(&format!("/api/v2/clients/{}", client_id(1))).json();
        shown["effective_permissions"].clone()
    };
    assert_eq!(effective(&store), effective(&from_store));
    // Registrations go on, and an equal one is folded into the client that came along.
    let folded = store.edge().put_client("default", &client_id(8), &public());
    assert_eq!((folded.status, folded.json()["client_id"].clone()), (200, json!(client_id(2))));
    let mut another = public();
    another["metadata"]["client_name"] = json!("Another");
    put(&store, "default", &client_id(9), &another);
    let page = store.owner("default").get("/api/v2/clients?include_totals=true").json();
    assert_eq!((page["total"].clone(), page["clients"][9]["client_id"].clone()), (json!(10), json!(client_id(9))));
    let native = store.owner("default").get("/api/v2/clients?app_type=native&include_totals=true").json();
    assert_eq!(native["total"], 1);

    // One tenant alone, into a file for its owner only, and from standard input.
    let file = from.path().join("other.jsonl");
    let said = from.succeed(&["export", "--tenant", "other", "--output", file.to_str().unwrap()]);
    assert_eq!(said, format!("exported to {}\n", file.display()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(from.fail(&["export", "--output", file.to_str().unwrap()]).contains("there is such a file already"));
    let empty = Folder::empty();
    let said = empty.command(&["import"]).stdin(File::open(&file).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "imported tenant other (objects: 5, added: 5)\n");
    assert_eq!(export(&empty), fs::read_to_string(&file).unwrap());
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 1);
    let missing = from.path().join("missing.jsonl");
    assert!(from.fail(&["export", "--tenant", "x", "--output", missing.to_str().unwrap()]).contains("no tenant x"));
    assert!(!missing.exists());
}

#[test]
fn an_import_that_is_cut_off_answers_for_no_host_and_a_repeat_completes_it() {
    const CLIENTS: usize = 20_000;
    let from = Folder::with_default_tenant();
    from.fill_with_clients(CLIENTS as u32);
    let file = from.path().join("export.jsonl");
    from.succeed(&["export", "--output", file.to_str().unwrap()]);
    let to = Folder::empty();
    to.create_enabled_tenant("busy", json!({}));
    let store = to.serve();
    let arguments = ["import", file.to_str().unwrap()];
    let clients = || -> usize {
        let count = "SELECT count(*) FROM clients";
        let count: i64 = to.with_tables(async |pool| sqlx::query_scalar(count).fetch_one(pool).await.unwrap());
        count.try_into().unwrap()
    };
    let logs = Folder::empty();
    let begin = || Process::spawn("import", logs.path(), &mut to.command(&arguments));

    let mut cut_off = begin();
    cut_off.wait_until("clients are imported", |_| (clients() > 1_000).then_some(()));
    cut_off.kill();
    let part = clients();
    assert!(part < CLIENTS, "{part}");
    let tenants = store.edge().get("/edge/v1/changes").json()["tenants"].clone();
    assert_eq!(tenants[1]["tenant"]["domains"], json!([]));
    assert!(to.fail(&["export", "--tenant", "default"]).contains("the tenant default is not complete"));
    assert!(!export(&to).contains("\"name\":\"default\""));
    let error = to.fail(&["tenant", "update", "default", "--add-domain", "early.example"]);
    assert!(error.contains("is not complete: repeat its import"), "{error}");
    assert!(to.fail(&["token", "--tenant", "default"]).contains("the tenant has no domain"));

    // Registrations of another tenant go on while it is completed.
    let mut import = begin();
    import.wait_until("clients are imported again", |_| (clients() > part).then_some(()));
    let mut slowest = Duration::ZERO;
    for number in 0..100 {
        let started = Instant::now();
        put(&store, "busy", &client_id(1_000_000 + number), &confidential());
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < Duration::from_secs(4), "{slowest:?}");
    assert!(clients() < CLIENTS + 100, "the import was over before registrations were measured");
    assert!(import.wait().success());
    let again = to.succeed(&["export", "--tenant", "default"]);
    assert!(again == fs::read_to_string(&file).unwrap(), "the export differs");
    let page = store.owner("default").get("/api/v2/clients?include_totals=true&page=199&per_page=100").json();
    assert_eq!((page["total"].as_u64(), page["clients"].as_array().unwrap().len()), (Some(CLIENTS as u64), 100));
}

#[test]
fn a_damaged_file_is_told_with_line_and_member_and_nothing_is_written() {
    let (from, _store) = with_everything();
    let whole = export(&from);
    let parsed = lines(&whole);
    let place = |kind: &str, nth: usize| {
        let mut places = parsed.iter().enumerate().filter(|(_, line)| line["type"] == kind);
        places.nth(nth).unwrap().0
    };
    let to = Folder::empty();
    to.create_enabled_tenant("mine", json!({}));
    let before = export(&to);
    // Changes one member of a line.
    let with = |kind: &str, nth: usize, pointer: &str, value: Value| {
        let (mut changed, place) = (parsed.clone(), place(kind, nth));
        match pointer.rsplit_once('/') {
            Some((parent, member)) => {
                let object = changed[place].pointer_mut(parent).unwrap();
                object.as_object_mut().unwrap().insert(member.to_owned(), value);
            }
            None => changed[place] = value,
        }
        (text(&changed), format!("line {}: ", place + 1))
    };
    let strict = |number: usize| {
        let id = json!(client_id(number));
        parsed.iter().filter(|line| line["type"] == "client").position(|line| line["client_id"] == id).unwrap()
    };
    let (hashed, native, permissive) = (strict(1), strict(4), strict(1) + 3);
    let twice = |kind: &str, nth: usize, new_id: Option<&str>| {
        let (mut changed, place) = (parsed.clone(), place(kind, nth));
        let mut copy = changed[place].clone();
        if let Some(id) = new_id {
            copy["id"] = json!(id);
        }
        changed.insert(place + 1, copy);
        (text(&changed), format!("line {}: ", place + 2))
    };
    let half: String = whole.lines().take(9).map(|line| format!("{line}\n")).collect();
    let mut in_two = parsed.clone();
    in_two.insert(place("tenant", 1) + 4, parsed[place("client", 0)].clone());
    // One more grant for all third parties than there may be, each for an API of its own.
    let mut crowded = parsed[..2].to_vec();
    for (kind, prefix) in [("resource_server", "rs_000000"), ("client_grant", "cgr_")] {
        for number in 0..101 {
            let mut object = parsed[place(kind, 0)].clone();
            object["id"] = json!(format!("{prefix}{number:016}"));
            let member = if kind == "client_grant" { "audience" } else { "identifier" };
            object["data"][member] = json!(number.to_string());
            crowded.push(object);
        }
    }
    let long = "x".repeat(17 * 1024 * 1024);
    let mut cases: Vec<((String, String), &str)> = vec![
        ((String::new(), "line 1: ".into()), "the file ends without the line of the type end: it was cut off"),
        ((half, "line 10: ".into()), "the file ends without the line of the type end: it was cut off"),
        ((whole[..whole.len() / 2].to_owned(), "line ".into()), ": EOF while parsing"),
        ((whole.clone() + "\n", format!("line {}: ", parsed.len())), "end: something follows"),
        ((text(&parsed[1..]), "line 1: ".into()), "tenant: is not in its place; expected a line of the type header"),
        ((format!("{}\n[1]\n", parsed[0]), "line 2: ".into()), "is not a JSON object"),
        ((format!("{}\n{{\"a\":\"{long}\"}}\n", parsed[0]), "line 2: ".into()), "expected 16777216 bytes at most"),
        ((text(&in_two), format!("line {}: ", place("tenant", 1) + 5)), "client: client_id: tpc_"),
        (with("header", 0, "/format", json!(2)), "format: expected 1; use the version of dcr-store that wrote"),
        (with("header", 0, "/type", json!("users")), "type: unknown variant `users`"),
        (with("end", 0, "/counts/clients", json!(9)), "end: counts: are not those of the lines"),
        (with("tenant", 0, "/name", json!("Ä")), "tenant: name: a tenant name is"),
        (with("tenant", 1, "/name", json!("default")), "tenant: name: default is in the file twice"),
        (
            with("tenant", 1, "/domains", json!(["second.example"])),
            "tenant: domains: second.example is in the file twice",
        ),
        (with("tenant", 0, "/domains", json!([])), "tenant: domains: expected 1 to 100"),
        (with("tenant", 0, "/settings/flags/x", json!(true)), "tenant: settings.flags.x: unknown field `x`"),
        (with("tenant", 0, "/more", json!(1)), "tenant: more: unknown field `more`"),
        (
            with("tenant", 1, "/settings/dynamic_client_registration_security_mode", json!("permissive")),
            "tenant: settings.dynamic_client_registration_security_mode: permissive needs",
        ),
        (with("network_acl", 0, "/id", json!("acl_1")), "network_acl: id: has not the form"),
        (
            with("network_acl", 0, "/data/rule/scope", json!("all")),
            "network_acl: data.rule.scope: unknown variant `all`",
        ),
        (with("network_acl", 0, "/data/priority", Value::Null), "network_acl: data.priority"),
        (with("network_acl", 0, "/created_at", json!(253_402_300_800_000_u64)), "network_acl: created_at: expected"),
        (
            with("network_acl", 3, "/data/rule/action/redirect_uri", json!("https://other.example/")),
            "network_acl: data.rule.action.redirect_uri: other.example is a host of this tenant",
        ),
        (
            with("resource_server", 0, "/data/scopes/0/value", json!("a b")),
            "resource_server: data.scopes[0].value: expected",
        ),
        (
            with("resource_server", 0, "/data/identifier", json!("https://x.example/api/v2/")),
            "resource_server: data.identifier: a Management API is a system API",
        ),
        (with("resource_server", 0, "/data/is_system", json!(false)), "resource_server: data.is_system: unknown field"),
        (
            with("connection", 0, "/data/options", json!({"a": "x".repeat(20_000)})),
            "connection: data.options: expected",
        ),
        (
            with("client_grant", 0, "/data/audience", json!("c")),
            "client_grant: data.audience: the tenant has no such API",
        ),
        (
            with("client_grant", 1, "/data/client_id", json!(client_id(3))),
            "client_grant: data.client_id: the tenant has no such client",
        ),
        ((text(&crowded), format!("line {}: ", crowded.len())), "client_grant: those of one client, and those for all"),
        (twice("client", 0, None), "is in the file twice"),
        (twice("network_acl", 0, None), "is in the file twice"),
        (twice("resource_server", 0, Some("rs_0000000000000000000000")), "data.identifier: the tenant has such a one"),
        (twice("connection", 0, Some("con_0000000000000000")), "data.name: the tenant has such a one twice"),
        (twice("client_grant", 0, Some("cgr_0000000000000000")), "data.audience: the tenant has such a one twice"),
    ];
    for (nth, pointer, value, says) in [
        (hashed, "/client_id", json!("tpc_x"), "client_id: has not the form"),
        (hashed, "/client_secret_sha256", json!("ab"), "client_secret_sha256: expected 64 hexadecimal digits"),
        (hashed, "/client_secret_sha256", Value::Null, "client_secret_sha256: expected exactly if"),
        (hashed, "/has_fingerprint", json!(true), "has_fingerprint: expected false"),
        (hashed, "/third_party_security_mode", json!("permissive"), "client_id: has not the form of one of the mode"),
        (hashed, "/issued_at", json!(-1), "issued_at: invalid value"),
        (hashed, "/last_used_at", json!(u64::MAX), "last_used_at: expected a time before"),
        (hashed, "/app_type", json!("x"), "app_type: unknown variant `x`"),
        (hashed, "/owner/is_first_party", json!(true), "owner.is_first_party: unknown field"),
        (hashed, "/owner/description", json!("x".repeat(141)), "owner.description: expected 140"),
        (hashed, "/metadata/unknown", json!("x"), "metadata.unknown: is not in the form"),
        (hashed, "/metadata/client_name", json!("\u{202e}"), "metadata.client_name: control"),
        (hashed, "/metadata/redirect_uris", json!(["http://app.example/"]), "metadata.redirect_uris[0]: http is"),
        (hashed, "/metadata/grant_types", json!(["client_credentials"]), "metadata.grant_types: client_credentials"),
        (hashed, "/metadata/grant_types", json!(["password"]), "metadata.grant_types: unknown variant"),
        (hashed, "/metadata/grant_types", json!([]), "metadata.grant_types: must include"),
        (hashed, "/metadata/token_endpoint_auth_method", json!("none"), "client_secret_sha256: expected exactly if"),
        (native, "/metadata/redirect_uris", json!([]), "metadata.redirect_uris: 1 to 50"),
        (permissive, "/metadata/policy", json!({}), "metadata.policy: is not in the form"),
        (permissive, "/metadata/response_types", json!(["id_token token", "x"]), "metadata.response_types: is not"),
        (
            permissive,
            "/metadata/jwks",
            json!({"keys": [{"kty": "RSA", "n": "x".repeat(600_000)}]}),
            "metadata: expected 524288 bytes at most",
        ),
    ] {
        let (text, line) = with("client", nth, pointer, value);
        cases.push(((text, line + "client: "), says));
    }
    to.with_database(async |database| {
        for ((damaged, line), says) in cases {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(damaged.as_bytes()).unwrap();
            let error = transfer::import(database, &file, Now::default()).await.unwrap_err().to_string();
            assert!(error.starts_with(&format!("nothing was imported: {line}")), "{says}: {error}");
            assert!(error.contains(says) && error.len() < 500, "{says}: {error}");
        }
    });
    let files = Folder::empty();
    let error = to.fail(&["import", written(&files, &whole[1..]).to_str().unwrap()]);
    assert_eq!(error, "dcr-store: nothing was imported: line 1: is not a JSON object\n");
    assert_eq!(export(&to), before);
    let untouched = Folder::empty();
    assert!(untouched.fail(&["import", "/nowhere/export.jsonl"]).contains("cannot read the input"));
    assert_eq!(fs::read_dir(untouched.path()).unwrap().count(), 0);
}

#[test]
fn a_tenant_in_conflict_stays_as_it_is_and_all_others_are_imported() {
    let (from, _store) = with_everything();
    let whole = export(&from);
    let to = Folder::empty();
    let store = to.serve();
    import(&to, &whole);
    let owner = store.owner("default");
    // What was deleted comes back; what was changed is in conflict, and so is what has the place of another.
    let changed = format!("clients/{}", client_id(1));
    send(&owner, "PATCH", &changed, &json!({"description": "Changed"}));
    send(&owner, "PATCH", "resource-servers/b", &json!({"name": "Changed"}));
    let connection = send(&owner, "POST", "connections", &json!({"name": "c", "strategy": "auth0"}));
    assert_eq!(owner.call("DELETE", &format!("/api/v2/clients/{}", client_id(2)), &[], None).status, 204);
    assert_eq!(store.owner("other").call("DELETE", "/api/v2/resource-servers/a", &[], None).status, 204);
    let before = to.succeed(&["export", "--tenant", "default"]);
    let mut parsed = lines(&whole);
    let place = parsed.iter().position(|line| line["type"] == "connection").unwrap();
    parsed[place]["data"]["name"] = json!("c");
    parsed[place]["id"] = json!("con_0000000000000000");
    let files = Folder::empty();
    let output = to.run(&["import", written(&files, &text(&parsed)).to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    // The API and its grant.
    assert_eq!(said, "imported tenant other (objects: 5, added: 2)\n");
    let told = String::from_utf8(output.stderr).unwrap();
    let line_of =
        |id: &Value| parsed.iter().position(|line| line.get("client_id").or(line.get("id")) == Some(id)).unwrap() + 1;
    let api = parsed.iter().find(|line| line["type"] == "resource_server").unwrap()["id"].clone();
    for (id, kind, says) in [
        (api, "resource_server", "is here with other content"),
        (json!("con_0000000000000000"), "connection", "is here under another id"),
        (json!(client_id(1)), "client", "is here with other content"),
    ] {
        let line = format!("dcr-store: line {}: {kind} {}: {says}\n", line_of(&id), id.as_str().unwrap());
        assert!(told.contains(&line), "{line}{told}");
    }
    assert_eq!(told.lines().count(), 4, "{told}");
    assert!(told.ends_with("dcr-store: not imported, and left as they were: default\n"), "{told}");
    assert_eq!(to.succeed(&["export", "--tenant", "default"]), before);
    assert_eq!(to.succeed(&["export", "--tenant", "other"]).lines().count(), 8);

    // Put right, all that is missing comes.
    assert_eq!(
        owner.call("DELETE", &format!("/api/v2/connections/{}", connection["id"].as_str().unwrap()), &[], None).status,
        204
    );
    send(&owner, "PATCH", &changed, &json!({"description": null}));
    send(&owner, "PATCH", "resource-servers/b", &json!({"name": "Ü"}));
    assert_eq!(import(&to, &whole).lines().next(), Some("imported tenant default (objects: 19, added: 1)"));
}

#[test]
fn hosts_ids_and_settings_of_others_are_conflicts() {
    let (from, _store) = with_everything();
    let refused = |to: &Folder, whole: &str, says: &str| {
        let before = export(to);
        let files = Folder::empty();
        let output = to.run(&["import", written(&files, whole).to_str().unwrap()]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), told.contains(says)), (Some(1), true), "{says}: {told}");
        assert_eq!(export(to), before);
    };
    let one = from.succeed(&["export", "--tenant", "other"]);
    let to = Folder::empty();
    to.succeed(&["tenant", "create", "theirs", "--domain", "other.example"]);
    refused(&to, &one, "line 2: tenant other: other.example belongs to the tenant theirs here");
    let to = Folder::empty();
    to.succeed(&["tenant", "create", "other", "--domain", "other.example"]);
    refused(&to, &one, "line 2: tenant other: is here with other settings, domains or eligibility");

    // A client, an access rule and an API that another tenant has.
    let to = Folder::empty();
    import(&to, &one);
    let renamed = one.replacen("\"other\"", "\"another\"", 1).replacen("other.example", "another.example", 1);
    for says in ["line 3: network_acl acl_", "line 4: resource_server rs_", "line 6: client tpc_"] {
        refused(&to, &renamed, says);
    }
    refused(&to, &renamed, "is another tenant's here");

    // More than a tenant may have.
    let to = Folder::empty();
    import(&to, &one);
    to.with_tables(async |pool| {
        let fill = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000) \
             INSERT INTO connections (tenant, id, version, data, created_at, updated_at) \
             SELECT 1, printf('con_%016d', n), 1, json_object('name', 'x' || n, 'strategy', 'auth0', \
             'is_domain_connection', json('false')), 0, 0 FROM n";
        sqlx::query("DELETE FROM connections").execute(pool).await.unwrap();
        sqlx::query(fill).execute(pool).await.unwrap();
    });
    refused(&to, &one, "line 2: tenant other: connections of a tenant are 1000 at most");
    to.with_tables(async |pool| {
        let fill = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000) \
             INSERT INTO network_acls (tenant, id, description, active, priority, size, created_at, updated_at, version, rule) \
             SELECT 1, printf('acl_%022d', n), 'x', 0, 1, '[1,0,0,0,0,0,0,0,0,0,0]', 0, 0, 1, \
             '{\"action\":{\"block\":true},\"match_all\":true,\"scope\":\"tenant\"}' FROM n";
        sqlx::query("DELETE FROM network_acls").execute(pool).await.unwrap();
        sqlx::query(fill).execute(pool).await.unwrap();
    });
    refused(&to, &one, "line 2: tenant other: the tenant would have 1001 rules");
}
