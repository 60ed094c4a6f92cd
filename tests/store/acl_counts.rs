//! What access rules did, from the edges' reports into the tenants' logs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dcr_edge::edge_api::AclCount;
use dcr_edge::store::acl_counts::AclCounts;
use dcr_edge::store::db::{Database, IfMissing, NewAcl, acl_id};
use dcr_edge::store::http::metrics::Metrics;
use serde_json::{Value, json};
use sqlx::SqlitePool;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::support::process::PATIENCE;
use crate::support::store::Folder;

const PATH: &str = "/edge/v1/acl-counts";

fn report(counts: &[(u32, &str, u32, u32)]) -> Value {
    let count = |(slot, id, evaluated, matched): &(u32, &str, u32, u32)| json!({"slot": slot, "acl_id": id, "evaluated": evaluated, "matched": matched});
    json!({"counts": counts.iter().map(count).collect::<Vec<_>>()})
}

async fn events(pool: &SqlitePool) -> Vec<(u32, String, Value)> {
    let rows: Vec<(u32, String, String)> =
        sqlx::query_as("SELECT tenant, type, data FROM tenant_log ORDER BY id").fetch_all(pool).await.unwrap();
    rows.into_iter().map(|(slot, kind, data)| (slot, kind, serde_json::from_str(&data).unwrap())).collect()
}

#[test]
fn a_stop_writes_what_the_rules_did_and_forgets_those_that_are_gone() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    let (edge, owner) = (store.edge(), store.owner("default"));
    let create = |description: &str| {
        let rule = json!({"action": {"block": true, "log": true}, "match_all": true, "scope": "tenant"});
        let acl = json!({"description": description, "active": true, "priority": 4, "rule": rule});
        owner.send("POST", "/api/v2/network-acls", &acl).json()["id"].as_str().unwrap().to_owned()
    };
    let (kept, gone, quiet) = (create("kept"), create("gone"), create("quiet"));
    owner.call("DELETE", &format!("/api/v2/network-acls/{gone}"), &[], None);
    let unknown = acl_id().unwrap();
    let counts = [(1, kept.as_str(), 3, 1), (1, &gone, 5, 5), (2, &kept, 7, 7), (1, &unknown, 1, 1), (1, "x", 1, 1)];
    assert_eq!(edge.send("POST", PATH, &report(&counts)).status, 204);
    assert_eq!(edge.send("POST", PATH, &report(&[(1, &kept, 4_294_967_295, 2)])).status, 204);
    assert_eq!(store.metric("dcr_store_acl_evaluations_total"), 4_294_967_311.0);
    assert_eq!(store.metric("dcr_store_acl_matches_total"), 16.0);
    assert_eq!(store.metric("dcr_store_acl_counts_dropped_total"), 1.0);
    assert_eq!(store.process.terminate().code(), Some(0));

    let events = folder.with_tables(events);
    let [(slot, kind, data)] = &events[..] else { panic!("{events:?}, {quiet}") };
    assert_eq!((*slot, kind.as_str()), (1, "acls_summary"));
    let expected = json!({
        "acl_id": kept, "description": "kept", "priority": 4, "action": {"block": true, "log": true},
        "match": {"success": 3}, "total_request_count": {"successes": 4_294_967_298_u64},
        "start_time": data["start_time"], "end_time": data["end_time"]
    });
    assert_eq!(data, &expected);
    assert!(data["start_time"].as_str().unwrap() < data["end_time"].as_str().unwrap());

    folder.succeed(&["tenant", "delete", "default"]);
    for table in ["tenant_log", "network_acls", "buckets"] {
        let rows: i64 = folder.with_tables(async |pool| {
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
                .fetch_one(pool)
                .await
                .unwrap()
        });
        assert_eq!(rows, 0, "{table}");
    }
}

#[test]
fn what_a_rule_did_is_written_as_it_was_before_it_is_changed_or_deleted() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let (edge, owner) = (store.edge(), store.owner("default"));
    let rule = json!({"action": {"block": true}, "match_all": true, "scope": "dcr"});
    let acl = json!({"description": "old", "active": true, "priority": 4, "rule": rule});
    let id = owner.send("POST", "/api/v2/network-acls", &acl).json()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v2/network-acls/{id}");
    let count = |evaluated| assert_eq!(edge.send("POST", PATH, &report(&[(1, &id, evaluated, 1)])).status, 204);
    count(3);
    let change = json!({"description": "new", "priority": 5, "rule": {"action": {"allow": true}}});
    assert_eq!(owner.send("PATCH", &path, &change).status, 200);
    count(4);
    assert_eq!(owner.call("DELETE", &path, &[], None).status, 204);
    assert_eq!(store.process.terminate().code(), Some(0));

    let events = folder.with_tables(events);
    let [(1, _, before), (1, _, after)] = &events[..] else { panic!("{events:?}") };
    let shown = |event: &Value| {
        let parts = [&event["description"], &event["priority"], &event["action"], &event["total_request_count"]];
        json!(parts)
    };
    assert_eq!(shown(before), json!(["old", 4, {"block": true}, {"successes": 3}]));
    assert_eq!(shown(after), json!(["new", 5, {"allow": true}, {"successes": 4}]));
    assert_eq!(before["end_time"], after["start_time"]);
}

#[test]
fn counts_of_more_rules_than_are_kept_are_dropped_and_counted() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let edge = store.edge();
    let ids: Vec<String> = (0..200_001).map(|number| format!("acl_{number:0>22}")).collect();
    for ids in ids.chunks(1_000) {
        let counts: Vec<_> = ids.iter().map(|id| (1, id.as_str(), 2, 1)).collect();
        assert_eq!(edge.send("POST", PATH, &report(&counts)).status, 204);
    }
    // One that is there goes on.
    assert_eq!(edge.send("POST", PATH, &report(&[(1, &ids[0], 2, 1)])).status, 204);
    assert_eq!(store.metric("dcr_store_acl_counts_dropped_total"), 1.0);
    assert_eq!(store.metric("dcr_store_acl_evaluations_total"), 400_002.0);
    assert_eq!(store.metric("dcr_store_acl_matches_total"), 200_001.0);
}

#[test]
fn a_report_that_is_none_is_refused() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let (edge, id) = (store.edge(), acl_id().unwrap());
    let many = vec![(1, id.as_str(), 1, 1); 1_001];
    assert_eq!(edge.send("POST", PATH, &report(&many[1..])).status, 204);
    for bad in [report(&many), json!({}), json!([]), json!({"counts": 1}), json!({"counts": [], "x": 1})] {
        let answer = edge.send("POST", PATH, &bad);
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_request")), "{answer:?}");
    }
    assert_eq!(store.owner("default").send("POST", PATH, &report(&[])).status, 401);
    assert_eq!(edge.get(PATH).status, 405);
}

#[tokio::test]
async fn what_cannot_be_written_is_written_the_next_time() {
    let folder = Folder::empty();
    let database = dcr_edge::store::open(&folder.url(), IfMissing::Create).await.unwrap();
    let tenant = json!({"name": "a", "domains": ["a.example"], "settings": {}});
    database.create_tenant(&serde_json::from_value(tenant).unwrap()).await.unwrap();
    let rule = json!({"action": {"block": true}, "match_all": true, "scope": "tenant"});
    let acl = serde_json::from_value(json!({"description": "d", "active": true, "rule": rule})).unwrap();
    let acl = NewAcl::new(&acl).unwrap();
    let id = acl_id().unwrap();
    database.create_network_acl(1, &id, &acl, 0).await.unwrap().unwrap();
    let tables = SqlitePool::connect(&folder.url()).await.unwrap();
    let rename = async |from: &str, to: &str| {
        let statement = sqlx::AssertSqlSafe(format!("ALTER TABLE {from} RENAME TO {to}"));
        sqlx::query(statement).execute(&tables).await.unwrap();
    };
    rename("tenant_log", "away").await;

    let counts = Arc::new(AclCounts::new(Arc::new(Metrics::default())));
    let count = |evaluated| AclCount { slot: 1, acl_id: id.clone(), evaluated, matched: 1 };
    counts.add(vec![count(1)]);
    counts.write_complete(&*database, u64::MAX).await;
    counts.add(vec![count(2)]);
    rename("away", "tenant_log").await;
    let (stop, stopping) = watch::channel(false);
    let shared: Arc<dyn Database> = Arc::clone(&database);
    let regularly = Arc::clone(&counts).write_regularly(shared, Duration::from_millis(10), stopping);
    let regularly = tokio::spawn(regularly);
    let written = async {
        while events(&tables).await.is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, written).await.unwrap();
    // Nothing happened since, so there is nothing to say.
    sleep(Duration::from_millis(50)).await;
    stop.send(true).unwrap();
    timeout(PATIENCE, regularly).await.unwrap().unwrap();
    let events = events(&tables).await;
    let [(1, _, data)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&data["match"]["success"], &data["total_request_count"]["successes"]), (&json!(2), &json!(3)));
    tables.close().await;
    database.close().await;
}

/// Makes 600 rules for each of two tenants; gives them with their slots.
async fn make_rules(database: &dyn Database) -> Vec<(u32, String)> {
    let rule = json!({"action": {"block": true}, "match_all": true, "scope": "tenant"});
    let acl = serde_json::from_value(json!({"description": "d", "active": true, "rule": rule})).unwrap();
    let acl = NewAcl::new(&acl).unwrap();
    let mut ids = Vec::new();
    for (slot, name) in [(1, "a"), (2, "b")] {
        let tenant = json!({"name": name, "domains": [format!("{name}.example")], "settings": {}});
        database.create_tenant(&serde_json::from_value(tenant).unwrap()).await.unwrap();
        for _ in 0..600 {
            let id = acl_id().unwrap();
            database.create_network_acl(slot, &id, &acl, 0).await.unwrap().unwrap();
            ids.push((slot, id));
        }
    }
    ids
}

#[tokio::test]
async fn what_was_written_before_a_failure_is_not_written_again() {
    let folder = Folder::empty();
    let database = dcr_edge::store::open(&folder.url(), IfMissing::Create).await.unwrap();
    let ids = make_rules(&*database).await;
    let tables = SqlitePool::connect(&folder.url()).await.unwrap();
    // One transaction writes a thousand, and the next one fails.
    let trigger = "CREATE TRIGGER full BEFORE INSERT ON tenant_log \
                   WHEN (SELECT count(*) FROM tenant_log) >= 1000 BEGIN SELECT RAISE(ABORT, 'full'); END";
    sqlx::query(trigger).execute(&tables).await.unwrap();
    let counts = AclCounts::new(Arc::new(Metrics::default()));
    let count = |(slot, id): &(u32, String)| AclCount { slot: *slot, acl_id: id.clone(), evaluated: 2, matched: 1 };
    counts.add(ids.iter().map(count).collect());
    counts.write_complete(&*database, u64::MAX).await;
    assert_eq!(events(&tables).await.len(), 1_000);
    sqlx::query("DROP TRIGGER full").execute(&tables).await.unwrap();
    counts.write_complete(&*database, u64::MAX).await;
    counts.write_complete(&*database, u64::MAX).await;
    let written = events(&tables).await;
    let rules: HashSet<_> = written.iter().map(|(slot, _, data)| (*slot, data["acl_id"].as_str().unwrap())).collect();
    assert_eq!((written.len(), rules.len()), (1_200, 1_200));
    assert!(written.iter().all(|(.., data)| data["total_request_count"]["successes"] == 2));
    let starts: HashSet<_> = written.iter().map(|(.., data)| data["start_time"].as_str().unwrap()).collect();
    assert_eq!(starts.len(), 1, "{starts:?}");
    tables.close().await;
    database.close().await;
}

#[tokio::test]
async fn each_transaction_has_a_date_of_its_own_and_what_cannot_be_written_at_the_end_is_counted_as_lost() {
    let folder = Folder::empty();
    let database = dcr_edge::store::open(&folder.url(), IfMissing::Create).await.unwrap();
    let ids = make_rules(&*database).await;
    let tables = SqlitePool::connect(&folder.url()).await.unwrap();
    let counts = Arc::new(AclCounts::new(Arc::new(Metrics::default())));
    let count = |(slot, id): &(u32, String)| AclCount { slot: *slot, acl_id: id.clone(), evaluated: 2, matched: 1 };
    counts.add(ids.iter().map(count).collect());
    let (stop, stopping) = watch::channel(false);
    let shared: Arc<dyn Database> = Arc::clone(&database);
    let regularly = tokio::spawn(Arc::clone(&counts).write_regularly(shared, Duration::from_millis(1), stopping));
    let written = async {
        while events(&tables).await.len() < 1_200 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, written).await.unwrap();
    stop.send(true).unwrap();
    timeout(PATIENCE, regularly).await.unwrap().unwrap();
    let dates: Vec<i64> =
        sqlx::query_scalar("SELECT date FROM tenant_log ORDER BY id").fetch_all(&tables).await.unwrap();
    // There is a pause between the two.
    assert!(dates.is_sorted() && dates[1_199] - dates[0] >= 100, "{} {}", dates[0], dates[1_199]);

    counts.add(ids.iter().take(1).map(count).collect());
    sqlx::query("ALTER TABLE tenant_log RENAME TO away").execute(&tables).await.unwrap();
    counts.finish(&*database).await;
    sqlx::query("ALTER TABLE away RENAME TO tenant_log").execute(&tables).await.unwrap();
    // It is not tried again.
    counts.finish(&*database).await;
    assert_eq!(events(&tables).await.len(), 1_200);
    tables.close().await;
    database.close().await;
}
