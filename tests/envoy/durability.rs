//! A client that got a 201 exists, whatever crashes next.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{open_gateway, register};
use crate::support::process::eventually;

#[test]
fn every_201_is_there_after_the_store_was_killed() {
    let mut gateway = open_gateway();
    let address = gateway.http_address();
    for _ in 0..3 {
        let stop = AtomicBool::new(false);
        let registered: Vec<String> = std::thread::scope(|scope| {
            let work = || {
                let mut ids = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let response = register(address);
                    match response.status {
                        201 => ids.push(response.json()["client_id"].as_str().unwrap().to_owned()),
                        503 => {}
                        status => panic!("{status}"),
                    }
                }
                ids
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
            let count = gateway.decisions("registered") + 50;
            eventually("many have registered", || (gateway.decisions("registered") > count).then_some(()));
            gateway.kill_store();
            stop.store(true, Ordering::Relaxed);
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        gateway.start_store();
        let stored = gateway.client_ids();
        assert!(registered.len() > 20, "{}", registered.len());
        assert!(registered.iter().all(|id| stored.contains(id)));
    }
}
