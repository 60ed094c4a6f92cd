//! The tenants' logs over HTTP, and how long they are kept.

use std::num::NonZeroU32;

use dcr_edge::store::db::{LogLimits, LogOrder, LogQuery};
use dcr_edge::store::log_upkeep;
use dcr_edge::store::unix_now;
use dcr_edge::tenant::LogRetention;
use serde_json::{Value, json};

use crate::support::store::{Caller, Folder, client_id, confidential, public};

const LOGS: &str = "/api/v2/logs";

/// A registration that the edge tells where it came from.
fn registration(name: &str) -> Value {
    let mut registration = public();
    registration["metadata"]["client_name"] = name.into();
    registration["metadata"]["redirect_uris"] =
        json!(["https://b.example/cb", "https://A.example/cb", "https://a.example:8443/x", "com.example.app:/cb"]);
    registration["origin"] = json!({
        "ip": "198.51.100.7", "user_agent": "agent/1", "newer": 1, "hostname": "default.example",
        "asn": 64500, "country": "CH", "subdivision": "ZH", "ja4": "t13d1516h2_8daaf6152771_02713d6af862"
    });
    registration
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|event| event["client_name"].as_str().unwrap()).collect()
}

fn search(owner: &Caller, search: &str) -> Vec<String> {
    let encoded: String = search.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let [q, search] = ["q", "search"].map(|name| owner.get(&format!("{LOGS}?{name}={encoded}")).json());
    assert_eq!(q, search);
    names(&q).into_iter().map(str::to_owned).collect()
}

#[test]
fn each_registration_is_one_event_with_who_it_was_and_where_its_users_may_be_sent() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let (edge, owner) = (store.edge(), store.owner("default"));
    for request_id in ["id-1", "id-2"] {
        let path = format!("/edge/v1/tenants/default/clients/{}", client_id(1));
        let body = registration("One").to_string();
        edge.call("PUT", &path, &[("x-request-id", request_id)], Some(&body));
    }
    assert_eq!(edge.put_client("default", &client_id(2), &json!({"metadata": {}})).status, 400);
    let list = owner.get(LOGS).json();
    let [event] = list.as_array().unwrap().as_slice() else { panic!("{list}") };
    let id = event["log_id"].as_str().unwrap();
    assert_eq!(event["_id"], *id);
    let mut rest = event.clone();
    for generated in ["_id", "log_id", "date"] {
        rest.as_object_mut().unwrap().remove(generated);
    }
    assert_eq!(
        rest,
        json!({
            "type": "sapi",
            "description": "Dynamic client registration",
            "client_id": client_id(1),
            "client_name": "One",
            "ip": "198.51.100.7",
            "user_agent": "agent/1",
            "hostname": "default.example",
            "details": {
                "redirect_hosts": ["a.example", "b.example", "com.example.app:"],
                "asn": 64500, "country": "CH", "subdivision": "ZH",
                "ja4": "t13d1516h2_8daaf6152771_02713d6af862",
                "request_id": "id-1",
                "warning": "no default client grant: the client can reach no API"
            }
        })
    );
    assert!(event["date"].as_str().unwrap().ends_with('Z'));
    assert_eq!(owner.get(&format!("{LOGS}/{id}")).json(), *event);
    for unknown in ["0", "999999", "x", "-1"] {
        assert_eq!(owner.get(&format!("{LOGS}/{unknown}")).status, 404, "{unknown}");
    }
}

#[test]
fn a_log_never_has_a_secret_or_its_hash() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let registration = confidential();
    assert_eq!(store.edge().put_client("default", &client_id(1), &registration).status, 201);
    let text = store.owner("default").get(LOGS).text;
    assert!(text.contains("sapi") && !text.contains(registration["client_secret_sha256"].as_str().unwrap()), "{text}");
}

#[test]
fn events_come_in_pages_newest_first_and_by_checkpoints_oldest_first() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let (edge, owner) = (store.edge(), store.owner("default"));
    for (number, name) in (1..).zip(["a", "b", "c", "d", "e"]) {
        edge.put_client("default", &client_id(number), &registration(name));
    }
    assert_eq!(names(&owner.get(LOGS).json()), ["e", "d", "c", "b", "a"]);
    assert_eq!(names(&owner.get(&format!("{LOGS}?sort=date:1&per_page=2")).json()), ["a", "b"]);
    let page = owner.get(&format!("{LOGS}?page=1&per_page=2&include_totals=true")).json();
    let numbers = ["start", "limit", "length", "total"].map(|name| page[name].as_u64().unwrap());
    assert_eq!((numbers, names(&page["logs"])), ([2, 2, 2, 5], vec!["c", "b"]));
    assert_eq!(owner.get(&format!("{LOGS}?page=9")).json(), json!([]));
    assert_eq!(owner.get(&format!("{LOGS}?sort=ip:1")).status, 400);

    let (mut all, mut from) = (Vec::new(), "0".to_owned());
    loop {
        let part = owner.get(&format!("{LOGS}?from={from}&take=2")).json();
        all.extend(names(&part).into_iter().map(str::to_owned));
        let Some(last) = part.as_array().unwrap().last() else { break };
        from = last["log_id"].as_str().unwrap().to_owned();
    }
    assert_eq!(all, ["a", "b", "c", "d", "e"]);
    let fields = owner.get(&format!("{LOGS}?per_page=1&fields=type,client_name")).json();
    assert_eq!(fields, json!([{"type": "sapi", "client_name": "e"}]));
}

#[test]
fn a_search_finds_what_it_says() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let (edge, owner) = (store.edge(), store.owner("default"));
    for (number, name) in (1..).zip(["My App", "Other", "100%_sure"]) {
        edge.put_client("default", &client_id(number), &registration(name));
    }
    let all = ["100%_sure", "Other", "My App"];
    for (asked, expected) in [
        ("type:sapi AND description:\"Dynamic client registration\"", &all[..]),
        ("type:sapi", &all),
        ("type:fapi", &[]),
        ("type:(sapi OR fapi)", &all),
        ("client_name:\"my app\"", &["My App"]),
        ("client_name:my*", &["My App"]),
        ("client_name:app", &["My App"]),
        ("client_name:%", &["100%_sure"]),
        ("NOT client_name:app", &["100%_sure", "Other"]),
        ("client_name:other OR client_name:app", &["Other", "My App"]),
        ("ip:\"198.51.100.7\" AND NOT client_name:other", &["100%_sure", "My App"]),
        ("details.country:ch AND details.asn:64500", &all),
        ("details.country:DE", &[]),
        ("NOT details.nothing:x", &all),
        ("details.ja3:*", &[]),
        ("details.ja4:*", &all),
        ("agent", &all),
        ("hostname", &[]),
        ("details.redirect_hosts:A.example", &all),
        ("details.redirect_hosts:example", &[]),
        ("client_name:app -client_name:other", &["My App"]),
        ("client_name:app NOT type:fapi", &["My App"]),
        ("date:[2026-01-01 TO *]", &all),
        ("date:[* TO 2026-01-01]", &[]),
        ("client_name:\"x' OR '1'='1\"", &[]),
        (&format!("client_id:{}", client_id(2)), &["Other"]),
    ] {
        assert_eq!(search(&owner, asked), expected, "{asked}");
    }
    let both = owner.get(&format!("{LOGS}?q=type:sapi&search=client_name:other&include_totals=true")).json();
    assert_eq!((names(&both["logs"]), &both["total"]), (vec!["Other"], &json!(1)));
    for bad in ["date:yesterday", "x:[1%20TO%202]", "details..x:1"] {
        let refused = owner.get(&format!("{LOGS}?q={bad}"));
        assert_eq!((refused.status, &refused.json()["errorCode"]), (400, &json!("invalid_query_string")), "{bad}");
        assert!(refused.json()["message"].as_str().unwrap().starts_with("q: "), "{bad}");
    }
}

#[test]
fn an_event_is_bounded_whatever_a_client_sends() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let mut registration = registration("Big");
    registration["origin"]["user_agent"] = "ü".repeat(400).into();
    registration["metadata"]["redirect_uris"] = (0..30).map(|n| format!("https://h{n:02}.example/")).collect();
    assert_eq!(store.edge().put_client("default", &client_id(1), &registration).status, 201);
    let event = &store.owner("default").get(LOGS).json()[0];
    assert_eq!(event["user_agent"].as_str().unwrap().len(), 512);
    let details = &event["details"];
    assert_eq!(
        (details["redirect_hosts"].as_array().unwrap().len(), &details["more_redirect_hosts"]),
        (20, &json!(10))
    );
}

#[test]
fn a_search_that_takes_too_long_ends_and_keeps_nobody_waiting() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    folder.with_tables(async |pool| {
        sqlx::query(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 300000) \
             INSERT INTO tenant_log (tenant, date, type, data) \
             SELECT slot, 0, 'sapi', json_object('description', hex(zeroblob(400)), 'n', n) FROM n, tenants",
        )
        .execute(pool)
        .await
        .unwrap();
    });
    let owner = store.owner("default");
    let terms: Vec<_> = (0..20).map(|n| format!("z{n}:x")).collect();
    let path = format!("{LOGS}?q={}", terms.join("%20"));
    std::thread::scope(|scope| {
        let searches: Vec<_> = (0..2).map(|_| scope.spawn(|| owner.get(&path))).collect();
        std::thread::sleep(std::time::Duration::from_millis(300));
        let started = std::time::Instant::now();
        assert_eq!(owner.get("/api/v2/tenants/settings").status, 200);
        assert!(started.elapsed() < std::time::Duration::from_secs(1), "{:?}", started.elapsed());
        for search in searches {
            let answer = search.join().unwrap();
            assert_eq!(answer.status, 400, "{}", answer.text);
            assert!(answer.text.contains("the search takes too long"), "{}", answer.text);
        }
    });
    assert_eq!(owner.get(&format!("{LOGS}?per_page=1")).status, 200);
}

#[test]
fn a_log_keeps_what_its_tenant_wants_by_age_and_by_number_and_others_lose_nothing() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    for (number, tenant) in (1..).zip(["default", "other", "default", "default", "other"]) {
        store.edge().put_client(tenant, &client_id(number), &registration(&number.to_string()));
    }
    let (now, day) = (unix_now() * 1_000, 86_400_000);
    folder.with_database(async |database| {
        let numbers = async |slot| -> usize {
            let query = LogQuery { filter: None, order: LogOrder::NewestFirst(0), limit: 100 };
            database.log_events(slot, &query).await.unwrap().len()
        };
        let default = database.tenant(&"default".parse().unwrap()).await.unwrap().unwrap().slot;
        let other = database.tenant(&"other".parse().unwrap()).await.unwrap().unwrap().slot;
        let limits = |max_age, max_events| LogLimits { max_age, max_events };
        assert_eq!(database.prune_log(default, limits(day, 3), now).await.unwrap(), 0);
        assert_eq!(database.prune_log(default, limits(day, 2), now).await.unwrap(), 1);
        assert_eq!((numbers(default).await, numbers(other).await), (2, 2));
        assert_eq!(database.prune_log(default, limits(day, 2), now + 2 * day).await.unwrap(), 2);
        assert_eq!((numbers(default).await, numbers(other).await), (0, 2));
    });
    let one = NonZeroU32::new(1).unwrap();
    let limits = LogLimits::from(LogRetention { days: one, events: one });
    assert_eq!(limits, LogLimits { max_age: day, max_events: 1 });
    let retention = json!({"dcr_edge": {"log_retention": {"days": 1, "events": 1}}});
    assert_eq!(store.owner("other").patch_settings(&retention).status, 200);
    folder.with_database(async |database| assert_eq!(log_upkeep::prune(database).await.unwrap(), 1));
    assert_eq!(names(&store.owner("other").get(LOGS).json()), ["5"]);
}
