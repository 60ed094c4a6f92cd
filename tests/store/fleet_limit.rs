//! All edges and stores together register no more clients of a tenant than its limit says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::store::{Folder, client_id, confidential};

fn limited(burst: u32, per_second: u32) -> Folder {
    let folder = Folder::empty();
    let rate_limit = json!({"burst": burst, "per_second": per_second});
    folder.create_enabled_tenant("default", json!({"rate_limit": rate_limit}));
    folder
}

#[test]
fn two_stores_on_one_database_create_no_more_than_burst_and_one_and_refill() {
    const LENGTH: Duration = Duration::from_secs(3);
    let folder = limited(20, 100);
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
    assert_eq!(folder.client_ids().len(), created);
    for store in &stores {
        assert!(store.metric("dcr_store_registrations_total{outcome=\"rate_limited\"}") > 0.0);
    }
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
