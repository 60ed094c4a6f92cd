//! The queue in front of the database, and what a store answers that is full or stops.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dcr_edge::store::acl_counts::AclCounts;
use dcr_edge::store::admission::NewClient;
use dcr_edge::store::client_uses::ClientUses;
use dcr_edge::store::clock::Clock;
use dcr_edge::store::db::{Database, IfMissing};
use dcr_edge::store::http::metrics::Metrics;
use dcr_edge::store::http::{App, PERMISSION_ANSWERS, router};
use dcr_edge::store::refusals::Refusals;
use dcr_edge::store::token::{Claims, Keys, Verifier};
use dcr_edge::store::unix_now;
use dcr_edge::store::writer::{NotRegistered, Writer};
use serde_json::value::to_raw_value;
use sqlx::SqlitePool;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::support::process::PATIENCE;
use crate::support::store::{Answer, Caller, Folder, client_id, confidential};

/// Serves `app` while one caller asks one thing.
async fn ask(app: App, ask: impl FnOnce(Caller) -> Answer + Send + 'static) -> Answer {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = Caller::new(listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, router(app)).await });
    let answer = tokio::task::spawn_blocking(move || ask(caller)).await.unwrap();
    serving.abort();
    answer
}

fn app(database: &Arc<dyn Database>, writer: &Writer, metrics: &Arc<Metrics>, stopping: bool) -> App {
    App {
        edge_tokens: None,
        database: Arc::clone(database),
        writer: writer.clone(),
        clock: Clock::of_this_machine().unwrap(),
        client_uses: ClientUses::start(Arc::clone(database)).0,
        verifier: Arc::new(Verifier::new(Keys::from_seeds(&[[7; 32]]).unwrap(), Arc::clone(database), None)),
        permission_answers: Arc::new(Semaphore::new(PERMISSION_ANSWERS)),
        metrics: Arc::clone(metrics),
        acl_counts: Arc::new(AclCounts::new(Arc::clone(metrics))),
        refusals: Arc::new(Refusals::new(Arc::clone(metrics))),
        edge_signals: Arc::default(),
        other_versions: Arc::default(),
        stopping: watch::channel(stopping).1,
        in_force: Arc::new(AtomicBool::new(true)),
    }
}

#[tokio::test]
async fn a_store_that_stops_is_not_ready() {
    let folder = Folder::empty();
    let database = dcr_edge::store::open(&folder.url(), IfMissing::Create).await.unwrap();
    let metrics = Arc::new(Metrics::default());
    let (writer, _) = Writer::start(Arc::clone(&database), Arc::clone(&metrics), Clock::of_this_machine().unwrap());
    for (stopping, status) in [(false, 200), (true, 503)] {
        let answer = ask(app(&database, &writer, &metrics, stopping), |caller| caller.get("/readyz")).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.text.contains("shutting down"), stopping);
    }
    database.close().await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_what_was_taken_is_written() {
    let folder = Folder::empty();
    let database = dcr_edge::store::open(&folder.url(), IfMissing::Create).await.unwrap();
    let tenant = serde_json::json!({
        "name": "a",
        "domains": ["a.example"],
        "settings": {
            "flags": {"enable_dynamic_client_registration": true},
            "dcr_edge": {"rate_limit": {"burst": 10_000, "per_second": 1}}
        }
    });
    database.create_tenant(&serde_json::from_value(tenant).unwrap()).await.unwrap();
    let metrics = Arc::new(Metrics::default());
    let (writer, writing) =
        Writer::start(Arc::clone(&database), Arc::clone(&metrics), Clock::of_this_machine().unwrap());

    // As long as another process writes, nothing leaves the queue.
    let other = SqlitePool::connect(&folder.url()).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let register = |number| {
        let writer = writer.clone();
        tokio::spawn(async move {
            let client = NewClient {
                registered_by: dcr_edge::edge_api::RegisteredBy::Edge,
                tenant: "a".parse().unwrap(),
                client_id: client_id(number),
                client_secret_sha256: Some([1; 32]),
                metadata: to_raw_value(&confidential()["metadata"]).unwrap(),
                origin: Default::default(),
                request_id: None,
            };
            writer.register(client).await
        })
    };
    let wait_for = async |what: &str, waiting| {
        let reached = async {
            while writer.waiting() != waiting {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("in vain: {what}"));
    };
    let mut waiting = vec![register(0)];
    // Only then it takes no more from the queue.
    tokio::task::yield_now().await;
    wait_for("the writer holds the first", 0).await;
    waiting.extend((1..6_000).map(register));
    wait_for("the queue is full", 4_096).await;
    let app = app(&database, &writer, &metrics, false);
    let token = Keys::from_seeds(&[[7; 32]]).unwrap().mint(&Claims::edge(unix_now(), 60)).unwrap();
    let answer = ask(app, |caller| caller.with_token(token).put_client("a", &client_id(6_000), &confidential())).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert_eq!(answer.json()["error"], "temporarily_unavailable");
    lock.rollback().await.unwrap();

    let (mut created, mut busy) = (0, 0);
    for answer in waiting {
        match timeout(PATIENCE, answer).await.unwrap().unwrap() {
            Ok(registered) => created += usize::from(registered.created),
            Err(NotRegistered::Busy) => busy += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((created, busy), (4_097, 1_903));
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM clients").fetch_one(&other).await.unwrap();
    assert_eq!(usize::try_from(stored).unwrap(), created);

    // The task ends with the last way to it.
    drop(writer);
    timeout(PATIENCE, writing).await.unwrap().unwrap();
    other.close().await;
    database.close().await;
}

#[tokio::test]
async fn answers_with_permissions_are_made_few_at_a_time_and_keep_no_edge_waiting() {
    let folder = Folder::empty();
    folder.succeed(&["tenant", "create", "a", "--domain", "a.example"]);
    let database = dcr_edge::store::open(&folder.url(), IfMissing::Create).await.unwrap();
    let metrics = Arc::new(Metrics::default());
    let (writer, _) = Writer::start(Arc::clone(&database), Arc::clone(&metrics), Clock::of_this_machine().unwrap());
    let app = app(&database, &writer, &metrics, false);
    let all = u32::try_from(PERMISSION_ANSWERS).unwrap();
    let turns = Arc::clone(&app.permission_answers).acquire_many_owned(all).await.unwrap();
    let mint = |claims: &Claims| Keys::from_seeds(&[[7; 32]]).unwrap().mint(claims).unwrap();
    let (server, edge) = (mint(&Claims::server(1, unix_now(), 60)), mint(&Claims::edge(unix_now(), 60)));
    let owner = mint(&Claims::management(1, &"a.example".parse().unwrap(), "read:clients".to_owned(), unix_now(), 60));
    let path = format!("/edge/v1/tenants/a/clients/{}", client_id(1));
    let asking = [
        tokio::spawn(ask(app.clone(), move |caller| caller.with_token(server).get(&path))),
        tokio::spawn(ask(app.clone(), move |caller| caller.with_token(owner).get("/api/v2/clients/x"))),
    ];
    sleep(Duration::from_millis(200)).await;
    let changes = ask(app, |caller| caller.with_token(edge).get("/edge/v1/changes")).await;
    assert_eq!(changes.status, 200, "{changes:?}");
    assert!(asking.iter().all(|asking| !asking.is_finished()));
    drop(turns);
    for asking in asking {
        assert_eq!(timeout(PATIENCE, asking).await.unwrap().unwrap().status, 404);
    }
    database.close().await;
}
