//! All edges and stores together register no more clients of a tenant than its limit says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use dcr_edge::store::clock::Clock;
use serde_json::json;

use crate::support::postgres::Server;
use crate::support::store::{Answer, Folder, Store, client_id, confidential};

fn limited(burst: u32, per_second: u32) -> Folder {
    with_limit(Folder::empty(), burst, per_second)
}

fn with_limit(folder: Folder, burst: u32, per_second: u32) -> Folder {
    let rate_limit = json!({"burst": burst, "per_second": per_second});
    folder.create_enabled_tenant("default", json!({"rate_limit": rate_limit}));
    folder
}

#[test]
fn two_stores_on_one_file_create_no_more_than_burst_and_one_and_refill() {
    let folder = limited(20, 100);
    let created = two_stores_create_no_more_than_burst_and_one_and_refill(&folder);
    assert_eq!(folder.client_ids().len(), created);
}

#[test]
fn two_stores_on_one_postgresql_create_no_more_than_burst_and_one_and_refill() {
    let Some(server) = Server::shared() else { return };
    let folder = with_limit(Folder::on(server.create_database()), 20, 100);
    two_stores_create_no_more_than_burst_and_one_and_refill(&folder);
}

/// The limit is 20 at once and 100 per second. Gives the number of clients.
fn two_stores_create_no_more_than_burst_and_one_and_refill(folder: &Folder) -> usize {
    const LENGTH: Duration = Duration::from_secs(3);
    let stores = [folder.serve(), folder.serve()];
    let (next, created) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 0..16 {
            let edge = stores[number % 2].edge();
            let (next, created) = (&next, &created);
            scope.spawn(move || {
                while start.elapsed() < LENGTH {
                    let id = client_id(next.fetch_add(1, Ordering::Relaxed));
                    let answer = edge.put_client("default", &id, &confidential());
                    assert!(matches!(answer.status, 201 | 429), "{answer:?}");
                    created.fetch_add(usize::from(answer.status == 201), Ordering::Relaxed);
                }
            });
        }
    });
    let elapsed = start.elapsed().as_secs_f64();
    let (created, most) = (created.into_inner(), 21 + (elapsed * 100.0) as usize);
    assert!(created <= most, "{created} in {elapsed} s, and {most} are the most");
    // Nearly all of them, too: no token is lost between the two.
    assert!(created * 10 >= most * 9, "{created} in {elapsed} s of {most}");
    for store in &stores {
        assert!(store.metric("dcr_store_registrations_total{outcome=\"rate_limited\"}") > 0.0);
    }
    created
}

#[test]
fn a_refusal_says_when_the_next_token_arrives() {
    let folder = limited(1, 1);
    let store = folder.serve();
    let edge = store.edge();
    let put = |number| edge.put_client("default", &client_id(number), &confidential());
    assert_eq!([put(1).status, put(2).status], [201, 201]);
    let refused = put(3);
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    assert_eq!(refused.header("x-dcr-store-protocol"), "1");
    let body = refused.json();
    assert_eq!(body["error"], "too_many_requests");
    assert!(body["error_description"].is_string());
    assert!((1..=1_000).contains(&body["next_token_in_ms"].as_u64().unwrap()), "{body}");
    // Those that are there may come again, and another with their id is what it is.
    assert_eq!(put(1).status, 200);
    let mut other = confidential();
    other["client_secret_sha256"] = json!("cd".repeat(32));
    assert_eq!(edge.put_client("default", &client_id(1), &other).status, 409);
    thread::sleep(Duration::from_millis(body["next_token_in_ms"].as_u64().unwrap()));
    assert_eq!(put(3).status, 201);
}

#[test]
fn a_restart_gives_no_fresh_burst() {
    let folder = limited(2, 1);
    // A token a second: what the restarts take of time comes back, and no more.
    let (start, mut created, mut number) = (Instant::now(), 0, 0);
    for end in ["TERM", "KILL", "TERM"] {
        let store = folder.serve();
        let edge = store.edge();
        for _ in 0..4 {
            number += 1;
            created += usize::from(edge.put_client("default", &client_id(number), &confidential()).status == 201);
        }
        store.process.signal(end);
        store.process.wait();
    }
    let most = 3 + start.elapsed().as_secs() as usize;
    assert!((3..=most).contains(&created), "{created} of {most}");
}

#[test]
fn a_bucket_counts_in_the_time_of_the_machine_and_not_of_a_process() {
    let folder = limited(1, 1);
    let steady = || Clock::of_this_machine().unwrap().now().steady;
    for number in 1..=2 {
        let store = folder.serve();
        let before = steady();
        assert_eq!(store.edge().put_client("default", &client_id(number), &confidential()).status, 201);
        let after = steady();
        let (boot, changed_at): (Vec<u8>, i64) = folder.with_tables(async |pool| {
            sqlx::query_as("SELECT boot, changed_at FROM buckets").fetch_one(pool).await.unwrap()
        });
        assert_eq!(boot, before.boot.0);
        assert!((before.nanos..=after.nanos).contains(&changed_at.try_into().unwrap()), "{before:?} {changed_at}");
    }
}

/// Lets `work` run, beginning with its start, while another process holds the database's write lock for `length`.
fn while_locked<T>(folder: &Folder, length: Duration, work: impl FnOnce(Instant) -> T) -> T {
    let (locked, is_locked) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            folder.with_tables(async |pool| {
                let lock = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
                locked.send(Instant::now()).unwrap();
                tokio::time::sleep(length).await;
                lock.rollback().await.unwrap();
            });
        });
        work(is_locked.recv().unwrap())
    })
}

/// Registers the client with this number at `moment`, on a thread of its own.
fn put_at<'a>(
    scope: &'a Scope<'a, '_>,
    store: &'a Store,
    number: usize,
    moment: Instant,
) -> ScopedJoinHandle<'a, Answer> {
    scope.spawn(move || {
        let edge = store.edge();
        thread::sleep(moment.saturating_duration_since(Instant::now()));
        edge.put_client("default", &client_id(number), &confidential())
    })
}

#[test]
fn a_registration_that_waited_for_the_writer_is_judged_by_when_it_came() {
    let folder = limited(5, 2);
    let store = folder.serve();
    let answers: Vec<Answer> = while_locked(&folder, Duration::from_millis(1_600), |start| {
        thread::scope(|scope| {
            // What a single edge with 5 and 2 a second admits. The first is alone in its batch, the others wait.
            let moments = [20, 60, 60, 60, 60, 600, 1_100, 1_560].map(|after| start + Duration::from_millis(after));
            let puts: Vec<_> = (1..).zip(moments).map(|(number, at)| put_at(scope, &store, number, at)).collect();
            puts.into_iter().map(|put| put.join().unwrap()).collect()
        })
    });
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [201; 8]);
}

#[test]
fn a_refusal_that_waited_for_the_writer_counts_from_its_answer() {
    let folder = limited(1, 1);
    let store = folder.serve();
    let edge = store.edge();
    let put = |number| edge.put_client("default", &client_id(number), &confidential());
    assert_eq!([put(1).status, put(2).status], [201, 201]);
    let refused = while_locked(&folder, Duration::from_millis(500), |_| put(3));
    assert_eq!(refused.status, 429);
    let wait = refused.json()["next_token_in_ms"].as_u64().unwrap();
    assert!(wait <= 500, "{wait}");
    thread::sleep(Duration::from_millis(wait));
    assert_eq!(put(3).status, 201);
}

#[test]
fn a_change_of_domains_changes_no_bucket_and_one_of_the_limit_does() {
    let folder = limited(5, 1);
    let store = folder.serve();
    let edge = store.edge();
    assert_eq!(edge.put_client("default", &client_id(1), &confidential()).status, 201);
    let buckets = || -> Vec<(Vec<u8>, i64)> {
        folder.with_tables(async |pool| {
            sqlx::query_as("SELECT tokens, changed_at FROM buckets").fetch_all(pool).await.unwrap()
        })
    };
    let before = buckets();
    assert_eq!(before.len(), 1);
    folder.succeed(&["tenant", "update", "default", "--add-domain", "other.example"]);
    assert_eq!(buckets(), before);
    folder.succeed(&["tenant", "update", "default", "--burst", "4"]);
    assert_ne!(buckets(), before);
}
