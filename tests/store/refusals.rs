//! What edges refused, from their reports into the tenants' logs.

use std::sync::Arc;

use dcr_edge::edge_api::RefusalCount;
use dcr_edge::store::db::{Database, IfMissing};
use dcr_edge::store::http::metrics::Metrics;
use dcr_edge::store::refusals::Refusals;
use dcr_edge::store::unix_now;
use serde_json::{Value, json};
use sqlx::SqlitePool;

use crate::support::store::{Folder, Store};

const PATH: &str = "/edge/v1/acl-counts";

fn count(slot: u32, minute: u64, reason: &str, count: u32) -> Value {
    json!({"slot": slot, "minute": minute, "reason": reason, "count": count})
}

fn report(store: &Store, counts: &[Value]) -> u16 {
    store.edge().send("POST", PATH, &json!({"counts": counts})).status
}

/// The refusals in all logs: slot, type, and the data without what says when.
async fn events(pool: &SqlitePool) -> Vec<(u32, String, Value)> {
    let rows: Vec<(u32, String, String)> =
        sqlx::query_as("SELECT tenant, type, data FROM tenant_log ORDER BY tenant, data ->> '$.details.since', type")
            .fetch_all(pool)
            .await
            .unwrap();
    rows.into_iter().map(|(slot, kind, data)| (slot, kind, serde_json::from_str(&data).unwrap())).collect()
}

/// A database with one tenant.
async fn database(folder: &Folder) -> (Arc<dyn Database>, SqlitePool, Refusals) {
    let database = dcr_edge::store::open(&folder.url(), IfMissing::Create).await.unwrap();
    let tenant = json!({"name": "a", "domains": ["a.example"], "settings": {}});
    database.create_tenant(&serde_json::from_value(tenant).unwrap()).await.unwrap();
    let tables = SqlitePool::connect(&folder.url()).await.unwrap();
    (database, tables, Refusals::new(Arc::new(Metrics::default())))
}

fn of(minute: u64, reason: &str, count: u32) -> Vec<RefusalCount<String>> {
    vec![RefusalCount { slot: 1, minute, reason: reason.to_owned(), count }]
}

#[test]
fn refusals_are_one_event_for_each_tenant_and_minute_and_another_for_those_of_limits() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    let minute = unix_now() / 60;
    let flood = [count(1, minute, "rate_limited", u32::MAX), count(1, minute, "acl_blocked", 2)];
    assert_eq!([report(&store, &flood), report(&store, &flood)], [204, 204]);
    let others = [
        count(1, minute, "source_limited", 1),
        count(1, minute, "store_timeout", 1),
        count(1, minute - 1, "method", 4),
        count(2, minute, "registration_disabled", 5),
        count(99, minute, "method", 6),
        count(1, minute, "registered", 7),
        count(1, minute, "tomorrows", 8),
    ];
    assert_eq!(report(&store, &others), 204);
    assert_eq!(store.metric("dcr_store_refusals_total"), 8_589_934_590.0 + 21.0);
    assert_eq!(store.metric("dcr_store_refusal_counts_dropped_total"), 2.0);
    assert_eq!(store.process.terminate().code(), Some(0));

    let events = folder.with_tables(events);
    let expected = [
        (1, "fapi", json!({"method": 4}), 4_u64),
        (1, "api_limit", json!({"rate_limited": 8_589_934_590_u64, "source_limited": 1}), 8_589_934_591),
        (1, "fapi", json!({"acl_blocked": 4, "store_timeout": 1}), 5),
        (2, "fapi", json!({"registration_disabled": 5}), 5),
    ];
    let shown: Vec<_> = events
        .iter()
        .map(|(slot, kind, data)| {
            let details = &data["details"];
            (*slot, kind.as_str(), details["reasons"].clone(), details["count"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(shown, expected);
    let details = &events[0].2["details"];
    assert_eq!(details["until"], events[1].2["details"]["since"]);
    assert!(details["since"].as_str().unwrap().ends_with(":00.000Z"), "{details}");

    let store = folder.serve();
    let owner = store.owner("default");
    let found = |search: &str| {
        let list = owner.get(&format!("/api/v2/logs?q={search}")).json();
        list.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("type:api_limit"), ["api_limit"]);
    assert_eq!(found("type:fapi"), ["fapi", "fapi"]);
    assert_eq!(found("description:%22Failed%20dynamic%20client%20registration%22"), ["fapi", "fapi"]);
    assert_eq!(found("details.reasons.acl_blocked:4"), ["fapi"]);
}

#[test]
fn an_older_edges_report_is_taken_and_one_that_is_none_is_refused() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let of_a_rule = json!({"slot": 1, "acl_id": format!("acl_{:0>22}", 1), "evaluated": 1, "matched": 1});
    assert_eq!(report(&store, std::slice::from_ref(&of_a_rule)), 204);
    assert_eq!(report(&store, &[of_a_rule, count(1, 1, "method", 1)]), 204);
    assert_eq!(report(&store, &vec![count(1, 1, "method", 1); 1_001]), 400);
}

#[test]
fn an_entry_that_cannot_be_read_is_dropped_and_counted_and_takes_no_other_with_it() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let of_a_rule = |evaluated, matched| json!({"slot": 1, "acl_id": format!("acl_{:0>22}", 1), "evaluated": evaluated, "matched": matched});
    let entries = [
        json!({"slot": 1, "minute": 1, "reason": "method"}),
        json!({"slot": 1, "minute": -1, "reason": "method", "count": 1}),
        json!({"slot": 1, "minute": 1, "reason": "method", "count": 1, "x": 1}),
        json!("x"),
        of_a_rule(1, 2),
        count(1, 1, "method", 3),
        of_a_rule(7, 2),
    ];
    assert_eq!(report(&store, &entries), 204);
    assert_eq!(store.metric("dcr_store_report_entries_dropped_total"), 5.0);
    assert_eq!(store.metric("dcr_store_refusals_total"), 3.0);
    assert_eq!(store.metric("dcr_store_acl_evaluations_total"), 7.0);
}

#[tokio::test]
async fn a_minute_is_written_once_others_have_had_time_to_report_it() {
    let folder = Folder::empty();
    let (database, tables, refusals) = database(&folder).await;
    let now = unix_now();
    let minute = now / 60;
    refusals.add(of(minute, "method", 1));
    // A clock that is fast, and one that is slow or was cut off.
    refusals.add(of(minute + 1_000, "method", 2));
    refusals.add(of(minute - 10, "method", 4));
    refusals.write_complete(&*database, (now + 25) * 1_000).await;
    assert_eq!(events(&tables).await.len(), 0);
    refusals.write_complete(&*database, (now + 35) * 1_000).await;
    refusals.write_complete(&*database, (minute * 60 + 95) * 1_000).await;
    refusals.write_complete(&*database, (minute * 60 + 160) * 1_000).await;
    let events = events(&tables).await;
    let counts: Vec<_> = events.iter().map(|(.., data)| data["details"]["count"].as_u64().unwrap()).collect();
    // Between the two reports the next minute may have begun.
    assert!(counts == [4, 3] || counts == [4, 1, 2], "{events:?}");
    tables.close().await;
    database.close().await;
}

#[tokio::test]
async fn what_cannot_be_written_is_added_to_what_comes_meanwhile() {
    let folder = Folder::empty();
    let (database, tables, refusals) = database(&folder).await;
    let trigger = "CREATE TRIGGER full BEFORE INSERT ON tenant_log WHEN NEW.type = 'api_limit' BEGIN SELECT RAISE(ABORT, 'full'); END";
    sqlx::query(trigger).execute(&tables).await.unwrap();
    let minute = unix_now() / 60 - 1;
    for reason in ["method", "rate_limited"] {
        refusals.add(of(minute, reason, 1));
    }
    refusals.write_complete(&*database, u64::MAX).await;
    // Both or neither: the transaction of the two failed as a whole.
    assert_eq!(events(&tables).await.len(), 0);
    for reason in ["method", "content_type", "rate_limited"] {
        refusals.add(of(minute, reason, 2));
    }
    sqlx::query("DROP TRIGGER full").execute(&tables).await.unwrap();
    refusals.write_complete(&*database, u64::MAX).await;
    refusals.write_complete(&*database, u64::MAX).await;
    let reasons: Vec<_> =
        events(&tables).await.into_iter().map(|(.., data)| data["details"]["reasons"].clone()).collect();
    assert_eq!(reasons, [json!({"rate_limited": 3}), json!({"method": 3, "content_type": 2})]);
    tables.close().await;
    database.close().await;
}

#[test]
fn counts_of_more_tenants_and_minutes_than_are_kept_are_dropped_and_counted() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let minute = unix_now() / 60 - 1;
    for part in 0..101 {
        let counts: Vec<_> = (0..1_000).map(|slot| count(part * 1_000 + slot, minute, "method", 1)).collect();
        assert_eq!(report(&store, &counts), 204);
    }
    assert_eq!(report(&store, &[count(1, minute, "content_type", 1)]), 204);
    assert_eq!(store.metric("dcr_store_refusal_counts_dropped_total"), 1_000.0);
    assert_eq!(store.metric("dcr_store_refusals_total"), 100_001.0);
}
