//! The SQLite file: who may read it, and what is left alone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use dcr_edge::store::admission::{NewClient, Refusal};
use serde_json::value::to_raw_value;
use sqlx::SqlitePool;

use crate::support::store::{Folder, client_id, confidential};

/// Every file of the folder, byte for byte.
fn contents(folder: &Folder) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let files = fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
    files.map(|file| (file.file_name(), fs::read(file.path()).unwrap())).collect()
}

async fn execute(folder: &Folder, statement: &'static str) {
    let pool = SqlitePool::connect(&folder.url()).await.unwrap();
    sqlx::query(statement).execute(&pool).await.unwrap();
    pool.close().await;
}

fn refused_and_untouched(folder: &Folder, text: &str) {
    let before = contents(folder);
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["tenant", "list"], &["token", "--kind", "edge"]] {
        let error = folder.fail(command);
        assert!(error.contains(text), "{error}");
        assert!(contents(folder) == before, "{command:?} touched the folder");
    }
}

#[test]
fn only_its_owner_may_read_the_database() {
    let folder = Folder::with_default_tenant();
    let _store = folder.serve();
    let mut files = 0;
    for file in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        files += 1;
    }
    assert_eq!(files, 3, "the database, its WAL and the WAL's index");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_version_is_left_alone() {
    let folder = tokio::task::spawn_blocking(Folder::with_default_tenant).await.unwrap();
    execute(
        &folder,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', TRUE, x'00', 0)",
    )
    .await;
    tokio::task::spawn_blocking(move || refused_and_untouched(&folder, "newer version of dcr-store")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_program_is_left_alone() {
    let folder = Folder::empty();
    fs::write(folder.database(), "").unwrap();
    execute(&folder, "CREATE TABLE theirs (x)").await;
    tokio::task::spawn_blocking(move || refused_and_untouched(&folder, "another program")).await.unwrap();
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let folder = Folder::empty();
    fs::write(folder.database(), "a letter to a friend, longer than a header. ".repeat(100)).unwrap();
    refused_and_untouched(&folder, "not a SQLite database");
}

#[test]
fn a_damaged_database_is_left_alone() {
    let folder = Folder::with_default_tenant();
    let mut bytes = fs::read(folder.database()).unwrap();
    bytes[100..4096].fill(0xff);
    fs::write(folder.database(), bytes).unwrap();
    refused_and_untouched(&folder, "damaged");
}

#[tokio::test]
async fn a_client_that_a_server_asked_for_never_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("dcr.db").display());
    let database = dcr_edge::store::open(&url).await.unwrap();
    let tenant = serde_json::from_value(serde_json::json!({
        "name": "a",
        "domains": ["a.example"],
        "settings": {"flags": {"enable_dynamic_client_registration": true}, "dcr_edge": {"client_quota": 1}}
    }));
    database.create_tenant(&tenant.unwrap()).await.unwrap();
    let client = |number| NewClient {
        tenant: "a".parse().unwrap(),
        client_id: client_id(number),
        client_secret_sha256: Some([1; 32]),
        metadata: to_raw_value(&confidential()["metadata"]).unwrap(),
    };
    assert!(database.register(&[client(1)], 1_000).await.unwrap()[0].is_ok());
    let pool = SqlitePool::connect(&url).await.unwrap();
    sqlx::query("UPDATE clients SET last_used_at = 1001").execute(&pool).await.unwrap();
    let refused = database.register(&[client(2)], 1_000_000).await.unwrap().remove(0);
    assert_eq!(refused, Err(Refusal::QuotaUsedUp));
    database.close().await;
}
