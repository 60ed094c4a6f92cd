//! A database of an older version is brought up to date with all that is in it.

use std::collections::HashSet;
use std::fs;

use serde_json::json;
use sqlx::SqlitePool;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::root;
use crate::support::store::{Folder, client_id, confidential};

#[tokio::test]
async fn a_database_of_the_first_version_keeps_its_tenants_clients_and_key() {
    let folder = Folder::empty();
    let first = tempfile::tempdir().unwrap();
    let name = "0001_tenants_and_clients.sql";
    fs::copy(root().join("src/store/db/migrations/sqlite").join(name), first.path().join(name)).unwrap();
    let options = SqliteConnectOptions::new().filename(folder.database()).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    Migrator::new(first.path()).await.unwrap().run(&pool).await.unwrap();
    let settings = json!({"flags": {"enable_dynamic_client_registration": true}}).to_string();
    let client = json!({
        "redirect_uris": ["cursor://a/cb"], "token_endpoint_auth_method": "none", "grant_types": ["authorization_code"],
        "response_types": ["code"], "application_type": "native"
    })
    .to_string();
    for statement in [
        "UPDATE store SET changes = 4",
        "INSERT INTO tenants (name, version, settings, deleted) VALUES ('gone', 3, '{}', 1), ('default', 4, ?, 0)",
        "INSERT INTO tenant_domains VALUES ('default.example', 2, 0)",
        "INSERT INTO clients VALUES ('tpc_9', 2, ?1, NULL, NULL, 7), ('tpc_1', 2, ?1, NULL, zeroblob(32), 6)",
        "INSERT INTO signing_key VALUES (1, zeroblob(32))",
    ] {
        let bound = if statement.contains("clients") { &client } else { &settings };
        sqlx::query(statement).bind(bound).execute(&pool).await.unwrap();
    }
    pool.close().await;

    tokio::task::spawn_blocking(move || {
        let store = folder.serve();
        let seed: Vec<u8> = folder.with_tables(async |pool| {
            sqlx::query_scalar("SELECT ed25519_seed FROM signing_keys").fetch_one(pool).await.unwrap()
        });
        assert_eq!(seed, [0; 32]);
        let told = store.edge().get("/edge/v1/changes").json();
        assert_eq!((&told["head"], &told["tenants"][0]["slot"]), (&json!(4), &json!(2)));
        assert_eq!(told["tenants"][0]["tenant"]["domains"], json!(["default.example"]));
        assert_eq!(store.edge().put_client("default", &client_id(2), &confidential()).status, 201);
        assert_eq!(folder.client_ids(), HashSet::from(["tpc_9".to_owned(), "tpc_1".to_owned(), client_id(2)]));
        let owner = store.owner("default");
        assert_eq!(owner.get("/api/v2/network-acls").json(), json!([]));
        // In the order in which they came.
        let page = owner.get("/api/v2/clients?include_totals=true&fields=client_id,app_type,created_at").json();
        let known = |id: &str, second: u8| {
            json!({"client_id": id, "app_type": "native", "created_at": format!("1970-01-01T00:00:0{second}.000Z")})
        };
        assert_eq!((&page["total"], &page["clients"][0]), (&json!(3), &known("tpc_9", 7)));
        assert_eq!((&page["clients"][1], &page["clients"][2]["app_type"]), (&known("tpc_1", 6), &json!("regular_web")));
    })
    .await
    .unwrap();
}
