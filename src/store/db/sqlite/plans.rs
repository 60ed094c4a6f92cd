//! How SQLite finds what the statements ask for.

use super::LAST_NUMBER;
use super::Sqlite;
use super::sql::clients::*;
use super::sql::permissions::{DOMAIN_CONNECTIONS, GRANTS, PERMISSIVE_GRANTS};
use super::sql::transfer::document_statements;
use super::sql::{client_changes, documents, register, unused_clients};
use crate::store::client::AppType;
use crate::store::db::{Database, DocumentKind, IfMissing, IfOlder, Permissions};

impl Sqlite {
    /// How SQLite finds what a statement asks for, step by step.
    async fn plan_of(&self, statement: &str) -> Vec<String> {
        let explain = format!("EXPLAIN QUERY PLAN {statement}");
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(explain)).fetch_all(&self.readers).await.unwrap();
        plan.into_iter().map(|(.., step)| step).collect()
    }
}

#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index_and_nothing_is_sorted() {
    let folder = tempfile::tempdir().unwrap();
    let database = Sqlite::open(&folder.path().join("dcr.db"), IfMissing::Create, IfOlder::Refuse).await.unwrap();
    let by_id = "SEARCH clients USING INDEX sqlite_autoindex_clients_1 (client_id=?)";
    let unused = "SEARCH clients USING INDEX clients_unused (tenant=? AND <expr><?)";
    for (statement, expected) in [
        (FIND, by_id),
        (SECRET_SHA256, by_id),
        (REPLACE, by_id),
        (REPLACE_SECRET, by_id),
        (DELETE, by_id),
        (NOTE_USES, by_id),
        (HAS_USED, "SEARCH clients USING INDEX clients_used (tenant=?)"),
        (CREATE, "SEARCH tenants USING INTEGER PRIMARY KEY (rowid=?)"),
        (BLOCKS, "SEARCH client_blocks USING PRIMARY KEY (tenant=?)"),
        (ROWS, "SEARCH clients USING INTEGER PRIMARY KEY (rowid=?)"),
        (MOVED_ROWS, "SEARCH clients USING INTEGER PRIMARY KEY (rowid=?)"),
        (MOVED_BY_ID, by_id),
        (DROP_EMPTY, "SEARCH client_blocks USING PRIMARY KEY (tenant=? AND block=? AND app_type=?)"),
        (LAST_NUMBER, "SEARCH clients"),
        (unused_clients::OLDEST, unused),
        (unused_clients::DELETE, "SEARCH clients USING INTEGER PRIMARY KEY (rowid=?)"),
        (unused_clients::HAS, "SEARCH client_blocks USING PRIMARY KEY (tenant=?)"),
        (client_changes::AFTER, "SEARCH client_changes USING INTEGER PRIMARY KEY (rowid>?)"),
        (client_changes::OLDEST, "SEARCH client_changes USING INTEGER PRIMARY KEY (rowid<?)"),
        (register::BY_ID, by_id),
        (register::NOTE_ANSWERS, "SEARCH clients USING COVERING INDEX sqlite_autoindex_clients_1 (client_id=?)"),
        (register::BY_FOLD_KEY, "SEARCH clients USING INDEX clients_fingerprint (tenant=? AND fingerprint=?)"),
        (register::WITHOUT_GRANT, "SEARCH client_grants USING INDEX client_grants_default (tenant=?)"),
    ] {
        let steps = database.plan_of(statement).await;
        assert!(steps.iter().any(|step| step == expected), "{statement}: {steps:#?}");
        // Only the few that fold in a batch may be sorted.
        let sorts = statement == register::BY_FOLD_KEY;
        for step in &steps {
            assert!(!step.starts_with("SCAN client"), "{statement}: {steps:#?}");
            assert!(sorts || !step.contains("TEMP B-TREE"), "{statement}: {steps:#?}");
        }
    }
    for app_type in AppType::ALL {
        assert!(ROWS.contains(&format!("value = '{}'", app_type.as_str())));
    }
    let page_arms = database.plan_of(ROWS).await;
    let by_index =
        page_arms.iter().filter(|step| step.ends_with("clients_tenant (tenant=? AND app_type=? AND rowid>?)"));
    assert_eq!(by_index.count(), AppType::ALL.len(), "{page_arms:#?}");
    database.close().await;
}

#[tokio::test]
async fn no_grant_of_another_client_and_no_object_of_another_tenant_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let database = Sqlite::open(&folder.path().join("dcr.db"), IfMissing::Create, IfOlder::Refuse).await.unwrap();
    for (statement, indexes) in [
        (
            GRANTS,
            &[
                "client_grants_client (client_id=?)",
                "client_grants_default (tenant=?)",
                "(tenant=? AND identifier=?)",
                "(tenant=? AND identifier=?)",
            ][..],
        ),
        (
            PERMISSIVE_GRANTS,
            &["client_grants_client (client_id=?)", "(tenant=? AND identifier=?)", "resource_servers_order (tenant=?)"],
        ),
        (documents::GRANTS_FOR, &["client_grants_client (client_id=?)", "client_grants_default (tenant=?)"]),
        (DOMAIN_CONNECTIONS, &["connections_order (tenant=?)"]),
    ] {
        let plan = database.plan_of(statement).await;
        let looks: Vec<_> = plan.iter().filter(|step| step.contains("USING")).collect();
        let is_scan = |step: &str| {
            let of_no_table = ["SCAN scope VIRTUAL TABLE INDEX 3:", "SCAN CONSTANT ROW", "SCAN apis"];
            step.starts_with("SCAN") && !of_no_table.contains(&step)
        };
        assert!(!plan.iter().any(|step| is_scan(step)), "{plan:#?}");
        for index in indexes {
            assert!(looks.iter().any(|step| step.ends_with(index)), "{index}: {plan:#?}");
        }
    }
    database.close().await;
}

#[tokio::test]
async fn permissions_and_the_change_feed_never_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let database = Sqlite::open(&folder.path().join("dcr.db"), IfMissing::Create, IfOlder::Refuse).await.unwrap();
    let all = async |pool: &sqlx::SqlitePool| {
        let mut held = Vec::new();
        for _ in 0..pool.options().get_max_connections() {
            held.push(pool.acquire().await.unwrap());
        }
        held
    };
    let soon = std::time::Duration::from_secs(5);
    let held = all(&database.permission_readers).await;
    tokio::time::timeout(soon, database.changes(0, None)).await.unwrap().unwrap();
    drop(held);
    let held = [all(&database.readers).await, all(&database.searchers).await];
    assert!(tokio::time::timeout(soon, database.client_with_grants(1, "x")).await.unwrap().unwrap().is_none());
    assert!(tokio::time::timeout(soon, database.default_grants(1)).await.unwrap().unwrap().is_empty());
    assert!(tokio::time::timeout(soon, database.domain_connections(1)).await.unwrap().unwrap().is_empty());
    drop(held);
    database.close().await;
}

#[tokio::test]
async fn what_is_in_the_place_of_an_object_is_found_by_indexes() {
    let folder = tempfile::tempdir().unwrap();
    let database = Sqlite::open(&folder.path().join("dcr.db"), IfMissing::Create, IfOlder::Refuse).await.unwrap();
    for kind in [DocumentKind::ResourceServer, DocumentKind::Connection, DocumentKind::ClientGrant] {
        let [find, _] = document_statements(kind);
        let steps = database.plan_of(find).await;
        assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{steps:#?}");
        let most_exact = if kind == DocumentKind::ClientGrant { "(tenant=? AND audience=?" } else { "(tenant=? AND " };
        assert!(steps.iter().any(|step| step.contains(most_exact)), "{steps:#?}");
        assert!(steps.iter().any(|step| step.ends_with("(id=?)")), "{steps:#?}");
    }
    database.close().await;
}
