//! The limits on registrations, counted from outside.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{CLIENT, open, register};
use crate::support::gateway::Options;
use crate::support::http1;

/// When admitted requests were answered: between the two instants each.
type Admitted = Vec<(Instant, Instant)>;

/// Registers as fast as it can at each address in turn, on so many connections for each, for so long.
fn flood(addresses: &[SocketAddr], connections: usize, span: Duration) -> Admitted {
    let until = Instant::now() + span;
    std::thread::scope(|scope| {
        let thread = |address: SocketAddr| {
            scope.spawn(move || {
                let mut admitted = Vec::new();
                while Instant::now() < until {
                    let before = Instant::now();
                    // Envoy closes the connection after a refusal that came before the body.
                    match register(address).status {
                        201 => admitted.push((before, Instant::now())),
                        429 => {}
                        other => panic!("{other}"),
                    }
                }
                admitted
            })
        };
        let threads: Vec<_> =
            addresses.iter().flat_map(|address| std::iter::repeat_n(*address, connections)).map(thread).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// In no window that holds requests as a whole are there more than `burst` and the refill of its length.
fn assert_bound(mut admitted: Admitted, burst: f64, per_second: f64) {
    admitted.sort_by_key(|(_, end)| *end);
    for (i, (start, _)) in admitted.iter().enumerate() {
        // Those that began no sooner, and ended by a given instant, fell within that window.
        let mut inside = 0.0;
        for (_, end) in admitted.iter().skip(i.saturating_sub(64)).filter(|(begin, _)| begin >= start) {
            inside += 1.0;
            let most = burst + per_second * (*end - *start).as_secs_f64();
            assert!(inside <= most + 1e-6, "{inside} in {:?}", *end - *start);
        }
    }
}

#[test]
fn over_four_workers_no_window_admits_more_than_burst_and_refill_and_nothing_less_is_given() {
    let limit = json!({"rate_limit": {"burst": 20, "per_second": 200}});
    let gateway = open(Options { concurrency: 4, ..Options::default() }, limit);
    let span = Duration::from_secs(3);
    let admitted = flood(&[gateway.http_address()], 16, span);
    let most = 20.0 + 200.0 * span.as_secs_f64();
    assert!(admitted.len() as f64 >= most * 0.7, "{} of {most}", admitted.len());
    assert_bound(admitted, 20.0, 200.0);
    assert_eq!(gateway.decisions("limiter_contended"), 0);
}

#[test]
fn over_three_gateways_the_fleet_registers_no_more_than_burst_and_one_and_refill() {
    let limit = json!({"rate_limit": {"burst": 5, "per_second": 20}});
    let gateway = open(Options { concurrency: 1, ..Options::default() }, limit);
    let others = [gateway.another_envoy(), gateway.another_envoy()];
    let addresses = [gateway.http_address(), others[0].http_address(), others[1].http_address()];
    let span = Duration::from_secs(3);
    let admitted = flood(&addresses, 2, span);
    assert!(admitted.len() as f64 >= 5.0 + 20.0 * span.as_secs_f64() * 0.7, "{}", admitted.len());
    assert_eq!(gateway.client_ids().len(), admitted.len());
    assert_bound(admitted, 6.0, 20.0);
    assert!(gateway.decisions("fleet_limited") > 0);
}

#[test]
fn the_fleets_limit_refuses_nothing_that_a_single_edge_admits() {
    // A stall of the disk longer than the burst takes to come back would be beyond what one more token can even out.
    let limit = json!({"rate_limit": {"burst": 20, "per_second": 10}});
    let gateway = open(Options { concurrency: 4, ..Options::default() }, limit);
    flood(&[gateway.http_address()], 8, Duration::from_secs(3));
    assert_eq!(gateway.decisions("fleet_limited"), 0);
}

#[test]
fn with_a_limit_for_each_source_one_flood_leaves_the_others_their_tokens() {
    let settings = json!({
        "rate_limit": {"burst": 5, "per_second": 5},
        "per_source": {"burst": 1, "per_second": 1, "exempt": ["203.0.113.0/24"]}
    });
    let gateway = open(Options { concurrency: 4, trusted_hops: 1, ..Options::default() }, settings);
    let register_from = |client: &str| {
        let headers = [("content-type", &b"application/json"[..]), ("x-forwarded-for", client.as_bytes())];
        http1::exchange(gateway.http_address(), &http1::request("POST", "/oidc/register", &headers, CLIENT))
    };
    let since = Instant::now();
    let flooded = (0..200).filter(|_| register_from("198.51.100.7").status == 201).count();
    assert!(flooded as f64 <= 1.0 + since.elapsed().as_secs_f64(), "{flooded} in {:?}", since.elapsed());
    assert_eq!(register_from("198.51.100.8").status, 201);
    // One network of 64 bits is one source.
    assert_eq!(register_from("2001:db8::1").status, 201);
    let refused = register_from("2001:db8::2");
    assert_eq!((refused.status, refused.header("x-ratelimit-limit")), (429, Some("1")));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((0..5).filter(|_| register_from("203.0.113.7").status == 201).count(), 5);
    assert!(gateway.decisions("source_limited") >= 190);
}

#[test]
fn one_tenants_flood_takes_nothing_from_another() {
    let gateway = open(Options::default(), json!({"rate_limit": {"burst": 1, "per_second": 1}}));
    gateway.store_command(&[
        "tenant",
        "create",
        "other",
        "--domain",
        "other.test",
        "--burst",
        "3",
        "--per-second",
        "1",
    ]);
    gateway.wait_for_settings();
    flood(&[gateway.http_address()], 4, Duration::from_millis(300));
    assert_eq!(register(gateway.http_address()).status, 429);
    let headers = [("host", &b"other.test"[..]), ("content-type", b"application/json")];
    let request = http1::request("POST", "/oidc/register", &headers, CLIENT);
    let answer = http1::exchange(gateway.http_address(), &request);
    // It has registration switched off, and its limiter was asked before.
    assert_eq!((answer.status, answer.header("x-ratelimit-remaining")), (403, Some("2")));
}
