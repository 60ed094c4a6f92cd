//! The queue in front of the database.

use std::sync::Arc;

use dcr_edge::store::admission::NewClient;
use dcr_edge::store::http::metrics::Metrics;
use dcr_edge::store::writer::{NotRegistered, Writer};
use serde_json::value::to_raw_value;
use sqlx::SqlitePool;

use crate::support::store::{client_id, confidential};

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_what_was_taken_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("dcr.db").display());
    let database = dcr_edge::store::open(&url).await.unwrap();
    let tenant = serde_json::json!({
        "name": "a",
        "domains": ["a.example"],
        "settings": {"flags": {"enable_dynamic_client_registration": true}}
    });
    database.create_tenant(&serde_json::from_value(tenant).unwrap()).await.unwrap();
    let (writer, writing) = Writer::start(Arc::clone(&database), Arc::new(Metrics::default()));

    // As long as another process writes, nothing leaves the queue.
    let other = SqlitePool::connect(&url).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let waiting: Vec<_> = (0..6_000)
        .map(|number| {
            let writer = writer.clone();
            tokio::spawn(async move {
                let client = NewClient {
                    tenant: "a".parse().unwrap(),
                    client_id: client_id(number),
                    client_secret_sha256: Some([1; 32]),
                    metadata: to_raw_value(&confidential()["metadata"]).unwrap(),
                };
                writer.register(client).await
            })
        })
        .collect();
    while writer.waiting() < 4_096 {
        tokio::task::yield_now().await;
    }
    lock.rollback().await.unwrap();

    let (mut created, mut busy) = (0, 0);
    for answer in waiting {
        match answer.await.unwrap() {
            Ok(registered) => created += usize::from(registered.created),
            Err(NotRegistered::Busy) => busy += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(created >= 4_096 && busy > 0 && created + busy == 6_000, "{created} created, {busy} busy");
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM clients").fetch_one(&other).await.unwrap();
    assert_eq!(usize::try_from(stored).unwrap(), created);

    // The task ends with the last way to it.
    drop(writer);
    writing.await.unwrap();
    other.close().await;
    database.close().await;
}
