//! The Management API's access rules over HTTP.

use std::collections::HashSet;
use std::io::{Read, Write};

use dcr_edge::store::db::{NewAcl, acl_id};
use dcr_edge::store::token::Claims;
use dcr_edge::store::unix_now;
use serde_json::{Value, json};

use crate::support::process::PATIENCE;
use crate::support::store::{Answer, Caller, Folder, Store};

const PATH: &str = "/api/v2/network-acls";

fn of(id: &Value) -> String {
    format!("{PATH}/{}", id.as_str().unwrap())
}

fn acl(rule: Value) -> Value {
    json!({"description": "d", "active": true, "priority": 1, "rule": rule})
}

fn block(condition: Value) -> Value {
    let mut rule = condition;
    rule["action"] = json!({"block": true});
    rule["scope"] = json!("tenant");
    acl(rule)
}

fn create(owner: &Caller, acl: &Value) -> Value {
    let answer = owner.send("POST", PATH, acl);
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

fn assert_refused(answer: &Answer, code: &str, says: &str) {
    let body = answer.json();
    assert_eq!((answer.status, &body["statusCode"], &body["errorCode"]), (400, &json!(400), &json!(code)), "{body}");
    assert!(body["message"].as_str().unwrap().starts_with(says), "{says}: {body}");
}

#[test]
fn a_rule_is_created_shown_replaced_changed_and_deleted() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let rule = json!({
        "action": {"redirect": true, "redirect_uri": "https://x.example/blocked"},
        "match": {"geo_country_codes": ["CH"], "ipv4_cidrs": ["198.51.100.7/24", "203.0.113.9"]},
        "scope": "dcr"
    });
    let created = create(&owner, &json!({"description": "First", "active": false, "rule": rule}));
    let members: Vec<_> =
        created.as_object().unwrap().keys().map(String::as_str).collect::<HashSet<_>>().into_iter().collect();
    let mut members = members;
    members.sort_unstable();
    assert_eq!(members, ["active", "created_at", "description", "id", "priority", "rule", "updated_at"]);
    let id = created["id"].as_str().unwrap();
    assert!(id.len() == 26 && id.starts_with("acl_") && id[4..].bytes().all(|b| b.is_ascii_alphanumeric()), "{id}");
    let mut stored = rule;
    stored["match"]["ipv4_cidrs"][0] = json!("198.51.100.0/24");
    stored["scope"] = json!("dynamic_client_registration");
    assert_eq!(created["rule"], stored);
    assert_eq!((&created["priority"], &created["active"]), (&json!(0), &json!(false)));
    let time = created["created_at"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z') && time == created["updated_at"], "{time}");

    let path = of(&created["id"]);
    assert_eq!(owner.get(&path).json(), created);
    let replaced = owner.send(
        "PUT",
        &path,
        &json!({"description": "Second", "active": true, "rule": block(json!({"match": {"asns": [7]}}))["rule"]}),
    );
    assert_eq!((replaced.status, &replaced.json()["priority"]), (200, &json!(0)));
    assert_eq!(replaced.json()["rule"]["match"], json!({"asns": [7]}));
    assert_eq!(replaced.json()["created_at"], created["created_at"]);
    let changed = owner.send("PATCH", &path, &json!({"priority": 9, "rule": {"action": {"log": true}}})).json();
    assert_eq!((&changed["priority"], &changed["description"]), (&json!(9), &json!("Second")));
    assert_eq!(changed["rule"]["action"], json!({"block": true, "log": true}));
    assert_eq!(owner.send("PUT", &path, &block(json!({"match_all": true}))).json()["priority"], 1);

    for _ in 0..2 {
        let deleted = owner.call("DELETE", &path, &[], None);
        assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    }
    let body = json!({});
    for answer in [
        owner.get(&path),
        owner.send("PATCH", &path, &body),
        owner.send("PUT", &path, &block(json!({"match_all": true}))),
    ] {
        assert_eq!((answer.status, &answer.json()["errorCode"]), (404, &json!("inexistent_network_acl")));
    }
}

#[test]
fn another_tenants_rule_is_not_there() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    let (owner, other) = (store.owner("default"), store.owner("other"));
    let created = create(&owner, &block(json!({"match": {"asns": [1]}})));
    let path = of(&created["id"]);
    for answer in [
        other.get(&path),
        other.send("PATCH", &path, &json!({"active": false})),
        other.send("PUT", &path, &acl(json!({"action": {"allow": true}, "match_all": true, "scope": "tenant"}))),
    ] {
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    assert_eq!(other.call("DELETE", &path, &[], None).status, 204);
    assert_eq!(other.get(PATH).json(), json!([]));
    assert_eq!(owner.get(PATH).json(), json!([created]));
    for nobody in ["/x", "/acl_%ff", "/acl_0000000000000000000000"] {
        assert_eq!(owner.get(&format!("{PATH}{nobody}")).status, 404, "{nobody}");
    }
    assert_eq!(owner.call("DELETE", &format!("{PATH}/acl_%ff"), &[], None).status, 204);
}

#[test]
fn bad_input_is_refused_at_every_verb_and_the_member_named() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let created = create(&owner, &block(json!({"match": {"asns": [1]}})));
    let path = of(&created["id"]);
    let everybody = |action: Value| json!({"action": action, "match_all": true, "scope": "tenant"});
    let matching = |signals: Value| json!({"action": {"block": true}, "match": signals, "scope": "tenant"});
    for (rule, says) in [
        (
            matching(json!({"ipv4_cidrs": ["10.0.0.0/8", "10.0.0.0/33"]})),
            "rule.match.ipv4_cidrs[1]: expected an address",
        ),
        (matching(json!({"ipv4_cidrs": ["2001:db8::/32"]})), "rule.match.ipv4_cidrs: 2001:db8::/32 is IPv6"),
        (everybody(json!({})), "rule.action: expected an action"),
        (everybody(json!({"block": true, "allow": true})), "rule.action: expected one of"),
        (everybody(json!({"redirect": true})), "rule.action: redirect needs a redirect_uri"),
        (
            everybody(json!({"redirect": true, "redirect_uri": "/x"})),
            "rule.action: redirect_uri: expected an absolute https",
        ),
        (
            everybody(json!({"redirect": true, "redirect_uri": "http://x.example/"})),
            "rule.action: redirect_uri: expected",
        ),
        (
            everybody(json!({"redirect": true, "redirect_uri": "https://Default.example:8443/x"})),
            "rule.action.redirect_uri: default.example is a host of this tenant",
        ),
        (
            everybody(json!({"redirect": true, "redirect_uri": "https://default%2Eexample/x"})),
            "rule.action: redirect_uri: expected a host in its plain form",
        ),
        (json!({"action": {"block": true}, "match_all": true, "scope": "all"}), "rule.scope: unknown variant"),
        (matching(json!({"countries": ["CH"]})), "rule.match.countries: unknown field"),
        (matching(json!({"auth0_managed": ["x"]})), "rule.match.auth0_managed: this signal"),
        (
            json!({"action": {"block": true}, "match": {"asns": [1]}, "match_all": true, "scope": "tenant"}),
            "rule: match_all excludes",
        ),
        (json!({"action": {"block": true}, "match": null, "scope": "tenant"}), "rule: expected a condition"),
    ] {
        let body = acl(rule);
        for (method, path) in [("POST", PATH), ("PUT", &path), ("PATCH", &path)] {
            assert_refused(&owner.send(method, path, &body), "invalid_body", says);
        }
    }
    let good = block(json!({"match_all": true}));
    for (member, value, says) in [
        ("description", json!(""), "description: expected 1 to 255"),
        ("active", json!("yes"), "active: "),
        ("priority", json!(2_147_483_648_u64), "priority: expected a whole number from 0 to 2147483647"),
        ("rule", json!([]), "rule: "),
        ("id", json!("acl_x"), "id: unknown field"),
    ] {
        let mut body = good.clone();
        body[member] = value;
        for (method, path) in [("POST", PATH), ("PUT", &path), ("PATCH", &path)] {
            assert_refused(&owner.send(method, path, &body), "invalid_body", says);
        }
    }
    for missing in ["description", "active", "rule"] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(missing);
        for (method, path) in [("POST", PATH), ("PUT", &path)] {
            assert_refused(&owner.send(method, path, &body), "invalid_body", &format!("missing field `{missing}`"));
        }
    }
    for (method, path) in [("POST", PATH), ("PUT", &path), ("PATCH", &path)] {
        for body in ["", "[]", "null", "{"] {
            let answer = owner.call(method, path, &[("content-type", "application/json")], Some(body));
            assert_refused(&answer, "invalid_body", "The body is not a JSON object");
        }
        let answer = owner.call(method, path, &[("content-type", "text/plain")], Some(&good.to_string()));
        assert_eq!((answer.status, &answer.json()["errorCode"]), (415, &json!("unsupported_media_type")));
    }
    assert_eq!(owner.get(PATH).json(), json!([created]));
}

#[test]
fn a_list_comes_in_pages_in_the_order_of_evaluation() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    for number in (1..=3).rev() {
        let mut acl = block(json!({"match": {"asns": [number]}}));
        acl["priority"] = json!(number);
        create(&owner, &acl);
    }
    let priorities = |list: &Value| -> Vec<u64> {
        list.as_array().unwrap().iter().map(|acl| acl["priority"].as_u64().unwrap()).collect()
    };
    assert_eq!(priorities(&owner.get(PATH).json()), [1, 2, 3]);
    let page = owner.get(&format!("{PATH}?page=1&per_page=2&include_totals=true&from=x&sort=1")).json();
    assert_eq!((&page["start"], &page["limit"], &page["total"]), (&json!(2), &json!(2), &json!(3)));
    assert_eq!((priorities(&page["network_acls"]), page.as_object().unwrap().len()), (vec![3], 4));
    let beyond = owner.get(&format!("{PATH}?page=2&per_page=2&include_totals=true"));
    assert_eq!((beyond.status, &beyond.json()["network_acls"]), (200, &json!([])));
    let beyond = owner.get(&format!("{PATH}?page=4294967295&per_page=100&include_totals=false"));
    assert_eq!((beyond.status, beyond.json()), (200, json!([])));
    for (query, says) in [
        ("page=x", "page: "),
        ("per_page=101", "per_page: "),
        ("per_page=0", "per_page: "),
        ("include_totals=2", "include_totals: "),
    ] {
        assert_refused(&owner.get(&format!("{PATH}?{query}")), "invalid_query_string", says);
    }
}

#[test]
fn a_tenant_has_a_thousand_rules_and_a_hundred_thousand_ranges_and_no_more() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    let owner = store.owner("default");
    let ranges = |count: u32| -> Vec<String> {
        (0..count).map(|n| format!("2001:db8:1234:5678:9abc:def0:{:x}:{:x}/128", n >> 16, n & 0xffff)).collect()
    };
    let most = create(&owner, &block(json!({"match": {"ipv6_cidrs": ranges(100_000)}})));
    assert_eq!(owner.get(&of(&most["id"])).json(), most);
    let told = store.edge().get("/edge/v1/changes").json();
    let rules = &told["tenants"].as_array().unwrap().last().unwrap()["tenant"]["network_acls"];
    assert_eq!((&rules[0]["id"], &rules[0]["rule"]), (&most["id"], &most["rule"]));

    let one_more = block(json!({"match": {"ipv4_cidrs": ["10.0.0.1"]}}));
    let says = "rule: the tenant would have 100001 addresses and ranges, and 100000 are the most in all rules together";
    assert_refused(&owner.send("POST", PATH, &one_more), "invalid_body", says);
    let both = json!({"rule": {"match": {"ipv6_cidrs": ranges(100_000), "ipv4_cidrs": ["10.0.0.1"]}}});
    assert_refused(&owner.send("PATCH", &of(&most["id"]), &both), "invalid_body", says);
    assert_eq!(
        owner.send("PATCH", &of(&most["id"]), &json!({"rule": {"match": {"ipv6_cidrs": ranges(99_999)}}})).status,
        200
    );
    assert_eq!(owner.send("POST", PATH, &one_more).status, 201);
    // Another tenant's are none of it.
    create(&store.owner("other"), &one_more);

    let asn = |number: u32| {
        let acl = block(json!({"match": {"asns": [number]}}));
        NewAcl::new(&serde_json::from_value(acl).unwrap()).unwrap()
    };
    folder.with_database(async |database| {
        for number in 2..1_000 {
            database.create_network_acl(1, &acl_id().unwrap(), &asn(number), 0).await.unwrap().unwrap();
        }
    });
    let asn = block(json!({"match": {"asns": [1]}}));
    assert_refused(
        &owner.send("POST", PATH, &asn),
        "invalid_body",
        "rule: the tenant would have 1001 rules, and 1000 are the most",
    );
    assert_eq!(owner.get(&format!("{PATH}?include_totals=true&per_page=1")).json()["total"], 1_000);

    let large = "x".repeat(8 * 1024 * 1024);
    let answer = owner.send("POST", PATH, &json!({"description": large}));
    assert_eq!((answer.status, &answer.json()["errorCode"]), (413, &json!("invalid_body")));
}

#[test]
fn two_changes_at_the_same_time_are_both_kept() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let path = of(&create(&owner, &block(json!({"match": {"asns": [1]}})))["id"]);
    for round in 0..10 {
        let description = format!("round {round}");
        let patches = [
            json!({"description": description}),
            json!({"priority": round}),
            json!({"rule": {"match": {"asns": [round + 2]}}}),
        ];
        owner.patch_at_once(&path, &patches);
        let after = owner.get(&path).json();
        assert_eq!(
            (&after["description"], &after["priority"], &after["rule"]["match"]["asns"][0]),
            (&json!(description), &json!(round), &json!(round + 2))
        );
    }
}

#[test]
fn a_domain_to_which_a_rule_redirects_is_refused_and_the_rule_named() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let redirect = json!({"redirect": true, "redirect_uri": "https://x.example/"});
    let created = create(&store.owner("default"), &acl(json!({"action": redirect, "match_all": true, "scope": "dcr"})));
    let id = created["id"].as_str().unwrap();
    for option in ["--domain", "--add-domain"] {
        let error = folder.fail(&["tenant", "update", "default", option, "X.example"]);
        assert!(error.contains(&format!("the access rule {id} redirects to x.example")), "{error}");
    }
    folder.succeed(&["tenant", "update", "default", "--add-domain", "y.example"]);
    store.owner("default").call("DELETE", &of(&created["id"]), &[], None);
    folder.succeed(&["tenant", "update", "default", "--add-domain", "x.example"]);
}

fn warnings(answer: &Answer) -> Vec<&str> {
    assert!(matches!(answer.status, 200 | 201 | 204), "{answer:?}");
    let warnings = answer.all("warning");
    assert!(warnings.iter().all(|text| text.starts_with("299 - \"") && text.ends_with(".\"")), "{warnings:?}");
    warnings
}

#[test]
fn rules_that_lock_everybody_out_of_the_management_api_are_warned_of() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    assert!(warnings(&owner.send("POST", PATH, &block(json!({"match": {"asns": [1]}})))).is_empty());
    let answer = owner.send("POST", PATH, &block(json!({"match_all": true})));
    let [warning] = warnings(&answer)[..] else { panic!("{answer:?}") };
    assert!(warning.contains("refuse every request to the Management API") && warning.contains("own port stays open"));
    let path = of(&answer.json()["id"]);
    // What changes nothing for anybody is not warned of again.
    assert_eq!(warnings(&owner.send("PATCH", &path, &json!({"description": "x"}))).len(), 0);
    assert_eq!(warnings(&owner.send("PATCH", &path, &json!({"rule": {"action": {"log": true}}}))).len(), 0);
    assert_eq!(warnings(&owner.send("PATCH", &path, &json!({"rule": {"action": {"log": false}}}))).len(), 1);
    assert_eq!(warnings(&owner.send("PATCH", &path, &json!({"active": false}))).len(), 0);
    // As it was told, the store's own port stays open.
    assert_eq!(warnings(&owner.send("PUT", &path, &block(json!({"match_all": true})))).len(), 1);
    assert_eq!(owner.get(PATH).status, 200);
}

#[test]
fn a_deletion_that_locks_everybody_out_is_warned_of() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let allow = json!({"action": {"allow": true}, "match": {"ipv4_cidrs": ["198.51.100.0/24"]}, "scope": "management"});
    let allow = of(&create(&owner, &acl(allow))["id"]);
    let mut inactive = block(json!({"match": {"asns": [1]}}));
    inactive["active"] = json!(false);
    let inactive = of(&create(&owner, &inactive)["id"]);
    create(&owner, &block(json!({"match_all": true})));
    let gateway = [("x-dcr-client-address", "198.51.100.7")];
    assert!(warnings(&owner.call("DELETE", &inactive, &gateway, None)).is_empty());
    let deleted = owner.call("DELETE", &allow, &gateway, None);
    let [all, own] = warnings(&deleted)[..] else { panic!("{deleted:?}") };
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    assert!(all.contains("refuse every request to the Management API"), "{all}");
    assert!(own.contains("refuse your own requests to the Management API from 198.51.100.7"), "{own}");
    assert!(warnings(&owner.call("DELETE", &allow, &gateway, None)).is_empty(), "it is gone");
}

#[test]
fn what_is_known_of_every_request_counts_for_a_lock_out() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let warn = |condition: Value| {
        let answer = owner.send("POST", PATH, &block(condition));
        owner.call("DELETE", &of(&answer.json()["id"]), &[], None);
        warnings(&answer).iter().filter(|text| text.contains("refuse every request")).count()
    };
    assert_eq!(warn(json!({"match": {"hostnames": ["other.example"]}})), 0);
    assert_eq!(warn(json!({"match": {"hostnames": ["other.example", "default.example"]}})), 1);
    let ja4 = json!({"not_match": {"ja4_fingerprints": ["t13d1516h2_8daaf6152771_02713d6af862"]}});
    assert_eq!(warn(ja4.clone()), 0, "no edge polls");
    assert_eq!(store.edge().get("/edge/v1/changes").status, 200);
    assert_eq!(warn(ja4.clone()), 1);
    assert_eq!(store.edge().get("/edge/v1/changes?signals=ja4").status, 200);
    assert_eq!(warn(ja4), 0, "one edge has it");
}

#[test]
fn an_error_has_a_part_of_what_was_sent_at_most() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let created = create(&owner, &block(json!({"match": {"asns": [1]}})));
    let long = "x".repeat(7 * 1024 * 1024);
    let body = json!({"description": "d", "active": true, "rule": {long: 1}});
    for (method, path) in [("POST", PATH), ("PUT", &of(&created["id"])), ("PATCH", &of(&created["id"]))] {
        let answer = owner.send(method, path, &body);
        assert_refused(&answer, "invalid_body", "rule.xxx");
        assert!(answer.text.len() < 1_000, "{}", answer.text.len());
    }
}

#[test]
fn a_token_without_the_scope_is_refused_before_the_body_is_read() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let claims = Claims::management(1, &"default.example".parse().unwrap(), "x".to_owned(), unix_now(), 60);
    let token = folder.keys().mint(&claims).unwrap();
    for (method, path) in [
        ("POST", PATH),
        ("PUT", "/api/v2/network-acls/x"),
        ("PATCH", "/api/v2/network-acls/x"),
        ("PATCH", "/api/v2/tenants/settings"),
    ] {
        let mut connection = std::net::TcpStream::connect(store.address()).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: 100000\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).unwrap();
        let mut status = [0; 12];
        connection.read_exact(&mut status).unwrap();
        assert_eq!(status, *b"HTTP/1.1 403", "{method} {path}");
    }
}

#[test]
fn rules_that_refuse_the_client_that_sends_them_are_warned_of() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let owner = store.owner("default");
    let path = of(&create(&owner, &block(json!({"match": {"asns": [1]}})))["id"]);
    let gateway = [
        ("content-type", "application/json"),
        ("x-dcr-client-address", "198.51.100.7"),
        ("user-agent", "tool/1.0"),
        ("x-dcr-geo-country", "CH"),
        ("x-dcr-geo-region", "ZH"),
        ("x-dcr-geo-asn", "64500"),
    ];
    let patch = |headers: &[(&str, &str)], rule: &Value| {
        owner.call("PATCH", &path, headers, Some(&json!({"rule": rule}).to_string()))
    };
    for (condition, refuses) in [
        (json!({"match": {"ipv4_cidrs": ["198.51.100.0/24"]}}), true),
        (json!({"match": {"ipv4_cidrs": ["203.0.113.0/24"]}}), false),
        (json!({"not_match": {"ipv4_cidrs": ["203.0.113.0/24"]}}), true),
        (json!({"match": {"asns": [64500], "geo_country_codes": ["ch"], "geo_subdivision_codes": ["CH-ZH"]}}), true),
        (json!({"match": {"user_agents": ["tool/*"]}}), true),
        (json!({"match": {"user_agents": ["curl/*"]}}), false),
        // What the store does not see may be otherwise at the edge.
        (json!({"not_match": {"ja4_fingerprints": ["t13d1516h2_8daaf6152771_02713d6af862"]}}), false),
        (json!({"not_match": {"ja3_fingerprints": ["773906b0efdefa24a7f2b8eb6985bf37"]}}), false),
        (json!({"not_match": {"connecting_ipv4_cidrs": ["10.0.0.0/8"]}}), false),
        // The store does not see the name in the TLS hello.
        (json!({"not_match": {"hostnames": ["x.example"]}}), false),
    ] {
        let answer = patch(&gateway, &condition);
        let warnings = warnings(&answer);
        assert_eq!(warnings.len(), usize::from(refuses), "{condition}: {warnings:?}");
        assert!(warnings.iter().all(|text| text.contains("refuse your own requests") && text.contains("198.51.100.7")));
        assert!(self::warnings(&patch(&gateway[..1], &condition)).is_empty(), "not through a gateway");
    }
    // So it may also be a rule before that decides otherwise, unless that only monitors.
    let by_peer = json!({"match": {"connecting_ipv4_cidrs": ["10.0.0.0/8"]}, "scope": "tenant"});
    let before = |action: Value| {
        let mut rule = by_peer.clone();
        rule["action"] = action;
        json!({"description": "before", "active": true, "priority": 0, "rule": rule})
    };
    let before_it = of(&create(&owner, &before(json!({"allow": true})))["id"]);
    let mine = |address: &str| json!({"match": {"ipv4_cidrs": [address]}});
    assert!(warnings(&patch(&gateway, &mine("198.51.100.7"))).is_empty());
    owner.send("PUT", &before_it, &before(json!({"allow": true, "log": true})));
    assert_eq!(warnings(&patch(&gateway, &mine("198.51.100.0/25"))).len(), 1);
    owner.call("DELETE", &before_it, &[], None);

    let registrations = json!({"match_all": true, "scope": "dcr"});
    assert!(warnings(&patch(&gateway, &registrations)).is_empty());
    let redirect = json!({"redirect": true, "redirect_uri": "https://x.example/"});
    let all = json!({"match_all": true, "scope": "management", "action": redirect});
    assert_eq!(warnings(&patch(&gateway, &all)).len(), 2);
    assert_eq!(warnings(&patch(&gateway, &json!({"action": {"allow": true}}))).len(), 0);
}

#[test]
fn a_signal_without_a_source_at_an_edge_that_polls_is_warned_of() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let poll =
        |store: &Store, query: &str| assert_eq!(store.edge().get(&format!("/edge/v1/changes{query}")).status, 200);
    let warn = |signals: Value| {
        let answer = store.owner("default").send("POST", PATH, &block(json!({"match": signals})));
        warnings(&answer).iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()
    };
    let ja3 = json!({"ja3_fingerprints": ["773906b0efdefa24a7f2b8eb6985bf37"], "ipv4_cidrs": ["10.0.0.1"]});
    let asn = json!({"asns": [1]});
    assert!(warn(ja3.clone()).is_empty(), "no edge polls");
    poll(&store, "?signals=ja3,ja4,asn,country,tomorrows");
    assert!(warn(ja3.clone()).is_empty());
    assert_eq!(warn(json!({"geo_subdivision_codes": ["CH-ZH"], "connecting_ipv4_cidrs": ["10.0.0.1"]})).len(), 1);
    poll(&store, "?signals=asn");
    assert!(warn(asn.clone()).is_empty());
    let [warning] = &warn(ja3)[..] else { panic!("one warning") };
    assert!(warning.contains("no source for ja3: ") && warning.contains("never fires"), "{warning}");
    poll(&store, "");
    assert_eq!(warn(asn).len(), 1);
    assert!(warn(json!({"ipv4_cidrs": ["10.0.0.1"], "user_agents": ["x"], "hostnames": ["a.example"]})).is_empty());
}
