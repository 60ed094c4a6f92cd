//! Another process keeps the database locked.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::load::{Load, Who};
use super::{LIMITED, Stored, gateway, owner};
use crate::support::gateway::Options;
use crate::support::http1;
use crate::support::process::eventually;
use crate::support::store::{Caller, client_id, public};

#[test]
fn a_database_that_another_process_locks_refuses_registrations_until_it_is_free() {
    let gateway = gateway(Options::default());
    let (locked, is_locked) = mpsc::channel();
    let (release, may_go_on) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let folder = gateway.folder();
        scope.spawn(move || {
            folder.with_tables(async |pool| {
                let transaction = pool.begin_with("BEGIN EXCLUSIVE").await.unwrap();
                locked.send(()).unwrap();
                // An error means that the test has failed.
                _ = may_go_on.recv();
                transaction.rollback().await.unwrap();
            });
        });
        is_locked.recv().unwrap();
        let load = Load::start(gateway.http_address());
        // The store itself waits for five seconds, the edge for two.
        let edge = Caller::new(gateway.store_address()).with_token(gateway.edge_token());
        let asked = Instant::now();
        let answer = edge.put_client("default", &client_id(1), &public());
        assert_eq!(answer.status, 503, "{answer:?}");
        let waited = asked.elapsed();
        assert!((4..15).contains(&waited.as_secs()), "it waited {waited:?}");
        // Whoever only reads does not wait.
        assert_eq!(owner(&gateway, "default").get("/api/v2/clients?per_page=1").status, 200);
        assert!(load.unavailable() > 0, "nobody was told to come again");
        assert_eq!(load.acknowledged(), 0, "acknowledged while nothing can be written");
        drop(release);
        eventually("registrations work again", || (load.acknowledged() >= 100).then_some(()));
        let outcome = load.stop();
        assert!(outcome.slowest < Duration::from_secs(5), "a client waited {:?}", outcome.slowest);
        let stored = Stored::of(&gateway);
        stored.assert_has_all(&outcome);
        let there = stored.count("default") + stored.count(LIMITED);
        let told = outcome.acknowledged.len() + outcome.limited.len();
        println!("locked database: {told} acknowledged clients, {there} are there; {:?}", outcome.statuses);
    });
    let (_, request) = Who::Anybody.request();
    assert_eq!(http1::exchange(gateway.http_address(), &request).status, 201);
}
