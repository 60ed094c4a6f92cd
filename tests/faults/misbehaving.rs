//! The store misbehaves, in each of its answers: nobody gets a client of it, nobody waits for long, and memory stays
//! bounded.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use dcr_edge::edge_api::{PROTOCOL_HEADER, PROTOCOL_VERSION};
use serde_json::json;

use super::assert_no_vm_failed;
use crate::support::gateway::{Gateway, Options};
use crate::support::http1;
use crate::support::process::{eventually, rss_mib};
use crate::support::relay::{Answer, Conduct, Relay};
use crate::support::response::Response;
use crate::support::store::Folder;

/// How long the edge waits for the store, and how much longer a client may.
const TIMEOUT: Duration = Duration::from_millis(600);
const SLACK: Duration = Duration::from_secs(2);

/// Clients that ask at once, and how often each does.
const CLIENTS: usize = 2;
const TURNS: usize = 3;

/// The memory by which Envoy may be larger in the meantime, in MiB: 16 for each call under way, and one asks for settings.
const GROWTH: f64 = 64.0;

fn register(edge: SocketAddr) -> Response {
    let headers: [(&str, &[u8]); 2] = [("host", b"default.example"), ("content-type", b"application/json")];
    let body = br#"{"redirect_uris":["https://app.example/cb"]}"#;
    http1::exchange(edge, &http1::request("POST", "/oidc/register", &headers, body))
}

/// An answer of a store, with such a body.
fn of_a_store(status: u16, length: usize, more: &str) -> Answer {
    Answer::bytes(format!(
        "HTTP/1.1 {status} X\r\n{PROTOCOL_HEADER}: {PROTOCOL_VERSION}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{more}\r\n"
    ))
}

/// A whole one.
fn saying(status: u16, more: &str, body: &str) -> Answer {
    of_a_store(status, body.len(), more).then(body, 1)
}

#[test]
fn a_store_that_misbehaves_registers_nobody_and_keeps_nobody_waiting() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let relay = Relay::start(store.address());
    let gateway = Gateway::start(Options {
        store: Some(relay.address()),
        edge_token: folder.succeed(&["token", "--kind", "edge"]).trim().to_owned(),
        filter_configuration: json!({
            "store": {"cluster": "dcr_store", "poll_interval_ms": 20, "timeout_ms": TIMEOUT.as_millis() as u64}
        }),
        ..Options::default()
    });
    gateway.wait_for_settings();
    let edge = gateway.http_address();
    let mut registered = 0;
    let mut works = || {
        eventually("registrations work", || {
            let response = register(edge);
            let answers = matches!(response.status, 201 | 503);
            assert!(answers, "{response:?}");
            registered += usize::from(response.status == 201);
            (response.status == 201).then_some(())
        });
    };
    works();
    let before = rss_mib(gateway.envoy_id());
    let (megabyte, drop_by_drop) = (vec![b' '; 1 << 20], Duration::from_millis(50));
    let client = r#"{"client_id":"tpc_00000000000000000000000000000001","client_id_issued_at":1}"#;
    for (what, answer) in [
        ("slow headers", Answer::bytes("HTTP/1.1 201 Created\r\nx-slow: ").then("z", 2_000).every(drop_by_drop)),
        ("a slow body", of_a_store(201, 2_000, "").then(" ", 2_000).every(drop_by_drop)),
        ("garbage", Answer::bytes("\0\u{1}\u{7f} no HTTP \r\n\r\n").then("\0\u{ff}", 1_000)),
        ("half a body", of_a_store(201, client.len() * 2, "").then(client, 1)),
        ("no word", Answer::bytes("")),
        ("200 with nonsense", saying(200, "", r#"{"tenants":7,"client_id":[]}"#)),
        ("201 with nonsense", saying(201, "", "}{")),
        ("201 with no client's id", saying(201, "", r#"{"client_id":"","client_id_issued_at":-1}"#)),
        ("a redirect", saying(302, "location: http://127.0.0.1:1/edge/v1/elsewhere\r\n", client)),
        ("100 MB", of_a_store(201, 100 << 20, "").then(megabyte, 100)),
        ("endless headers", Answer::bytes("HTTP/1.1 201 Created\r\n").then("x-more: and more\r\n".repeat(64), 1 << 20)),
    ] {
        relay.set(Conduct::Answer(answer));
        let (longest, most) = thread::scope(|scope| {
            let asking: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    scope.spawn(|| {
                        let ask = |_| {
                            let asked = Instant::now();
                            let response = register(edge);
                            assert_eq!(response.status, 503, "{what}: {response:?}");
                            assert_eq!(response.json()["error"], "temporarily_unavailable", "{what}");
                            asked.elapsed()
                        };
                        (0..TURNS).map(ask).max().unwrap()
                    })
                })
                .collect();
            let mut most = before;
            while !asking.iter().all(|client| client.is_finished()) {
                most = most.max(rss_mib(gateway.envoy_id()));
                thread::sleep(Duration::from_millis(5));
            }
            (asking.into_iter().map(|client| client.join().unwrap()).max().unwrap(), most)
        });
        println!("{what}: 503 within {longest:.0?}, memory of Envoy at most {most:.0} MiB, {before:.0} MiB before");
        assert!(longest < TIMEOUT + SLACK, "{what}: a client waited {longest:?}");
        assert!(most < before + GROWTH, "{what}: the memory grew from {before:.0} to {most:.0} MiB");
        relay.set(Conduct::PassOn);
        works();
    }
    assert_no_vm_failed(&gateway);
    assert_eq!(folder.client_ids().len(), registered, "clients in the store, of which somebody was told");
}
