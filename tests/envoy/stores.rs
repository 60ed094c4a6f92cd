//! Several stores on one database: whatever becomes of one of them, no registration fails, and none is made twice.

use std::collections::HashSet;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::CLIENT;
use super::stand_in::{self, Behaviour, StandIn, answer};
use crate::support::gateway::{Gateway, Options};
use crate::support::http1;
use crate::support::process::eventually;
use crate::support::response::Response;
use crate::support::store::Folder;

/// Registers a client at the default tenant.
pub fn register(address: SocketAddr) -> Response {
    let headers: [(&str, &[u8]); 2] = [("host", b"default.example"), ("content-type", b"application/json")];
    http1::exchange(address, &http1::request("POST", "/oidc/register", &headers, CLIENT))
}

/// A gateway before these stores, of which the first has the database in `folder`.
fn before(folder: &Folder, stores: &[SocketAddr]) -> Gateway {
    let gateway = Gateway::start(Options {
        store: Some(stores[0]),
        more_stores: stores[1..].to_vec(),
        edge_token: folder.succeed(&["token", "--kind", "edge"]).trim().to_owned(),
        ..Options::default()
    });
    gateway.wait_for_settings();
    let healthy = || gateway.stats("cluster.dcr_store.membership_healthy").first().map(|(_, count)| *count);
    eventually("all stores are healthy", || (healthy() == Some(stores.len() as u64)).then_some(()));
    gateway
}

/// What a way to a store does with a registration.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// The store's answer arrives.
    Open,
    /// The store's answer is lost.
    LosesAnswers,
    /// Nothing arrives anywhere, and nothing is said of it.
    Hangs,
}

/// A way to a store.
struct WayToStore {
    address: SocketAddr,
    way: Arc<Mutex<Way>>,
    /// Registrations that came here.
    registrations: Arc<AtomicUsize>,
}

impl WayToStore {
    fn open(store: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (way, registrations) = (Arc::new(Mutex::new(Way::Open)), Arc::new(AtomicUsize::new(0)));
        let shared = (Arc::clone(&way), Arc::clone(&registrations));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (way, registrations) = shared.clone();
                std::thread::spawn(move || carry(stream, store, &way, &registrations));
            }
        });
        Self { address, way, registrations }
    }

    fn becomes(&self, way: Way) {
        *self.way.lock().unwrap() = way;
    }
}

/// Carries requests to the store and answers back, one at a time, until one of the two ends.
fn carry(mut stream: TcpStream, store: SocketAddr, way: &Mutex<Way>, registrations: &AtomicUsize) {
    let mut received = Vec::new();
    while let Some((head, length)) = stand_in::receive(&mut stream, &mut received) {
        let request: Vec<u8> = received.drain(..length).collect();
        let is_registration = head.starts_with("PUT ");
        registrations.fetch_add(is_registration.into(), Ordering::Relaxed);
        let way = if is_registration { *way.lock().unwrap() } else { Way::Open };
        if way == Way::Hangs {
            let _ = stand_in::receive(&mut stream, &mut received);
            return;
        }
        let mut connection = http1::Connection::open(store);
        connection.send(&request);
        let Response { status, headers, body } = connection.receive();
        if way == Way::LosesAnswers {
            return;
        }
        let mut bytes = format!("HTTP/1.1 {status} X\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend([name.as_bytes(), b": ", &value, b"\r\n"].concat());
        }
        bytes.extend([b"\r\n", &*body].concat());
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// Registers from several sides until `work` is done, which is told how many have a client; gives the ids of all.
fn register_during(gateway: &Gateway, work: impl FnOnce(&dyn Fn(usize))) -> Vec<String> {
    let address = gateway.http_address();
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed = Mutex::new(None);
    let ids = std::thread::scope(|scope| {
        let register = || {
            let mut ids = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let response = register(address);
                if response.status != 201 {
                    *failed.lock().unwrap() = Some(response);
                    break;
                }
                ids.push(response.json()["client_id"].as_str().unwrap().to_owned());
                count.fetch_add(1, Ordering::Relaxed);
            }
            ids
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(register)).collect();
        let wait_for = |more: usize| {
            let enough = count.load(Ordering::Relaxed) + more;
            let is_enough = || count.load(Ordering::Relaxed) >= enough || failed.lock().unwrap().is_some();
            eventually("more have registered", || is_enough().then_some(()));
        };
        work(&wait_for);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    if let Some(response) = failed.into_inner().unwrap() {
        panic!("{response:?}\n{}", gateway.failures());
    }
    ids
}

/// Everybody has one client, and there is no other.
fn assert_registered_once(folder: &Folder, ids: &[String]) {
    let distinct: HashSet<_> = ids.iter().cloned().collect();
    assert_eq!(distinct.len(), ids.len());
    assert_eq!(folder.client_ids(), distinct);
}

#[test]
fn no_registration_fails_where_one_of_two_stores_is_killed() {
    let folder = Folder::with_default_tenant();
    let (one, other) = (folder.serve(), folder.serve());
    let gateway = before(&folder, &[one.address(), other.address()]);
    let ids = register_during(&gateway, |wait_for| {
        wait_for(100);
        other.process.kill();
        wait_for(200);
    });
    assert_registered_once(&folder, &ids);
    assert!(gateway.store_repeats() > 0, "{:?}", gateway.stats("cluster.dcr_store."));
}

#[test]
fn no_registration_fails_and_none_is_made_twice_where_answers_of_a_store_are_lost() {
    let folder = Folder::with_default_tenant();
    let (one, other) = (folder.serve(), folder.serve());
    let way = WayToStore::open(other.address());
    let gateway = before(&folder, &[one.address(), way.address]);
    let ids = register_during(&gateway, |wait_for| {
        wait_for(50);
        way.becomes(Way::LosesAnswers);
        wait_for(200);
    });
    assert!(gateway.store_repeats() > 0);
    assert_registered_once(&folder, &ids);
    // Both did it, and one of them said that it was there already.
    let created = one.metric("dcr_store_registrations_total{outcome=\"created\"}")
        + other.metric("dcr_store_registrations_total{outcome=\"created\"}");
    assert_eq!(created, ids.len() as f64);
    assert!(one.metric("dcr_store_registrations_total{outcome=\"existing\"}") >= 1.0);
}

#[test]
fn a_registration_that_a_store_leaves_unanswered_is_made_by_another_in_time() {
    let folder = Folder::with_default_tenant();
    let (one, other) = (folder.serve(), folder.serve());
    let way = WayToStore::open(other.address());
    let gateway = before(&folder, &[one.address(), way.address]);
    way.becomes(Way::Hangs);
    let mut ids = Vec::new();
    while way.registrations.load(Ordering::Relaxed) == 0 {
        let start = Instant::now();
        let response = register(gateway.http_address());
        assert_eq!(response.status, 201, "{response:?}");
        assert!(start.elapsed() < Duration::from_secs(2));
        ids.push(response.json()["client_id"].as_str().unwrap().to_owned());
        assert!(ids.len() < 100, "every one went to the same store");
    }
    assert_registered_once(&folder, &ids);
    assert!(gateway.store_repeats() >= 1);
}

#[test]
fn a_single_store_is_asked_twice_at_most_and_never_again_after_a_definite_answer() {
    let stand_in = StandIn::start();
    let gateway = Gateway::start(Options { store: Some(stand_in.address()), ..Options::default() });
    gateway.wait_for_settings();
    let error = json!({"error": "invalid_client_metadata", "error_description": "d"}).to_string();
    for (behaviour, requests) in [
        (Behaviour::Close, 2),
        (answer(503, Some("1"), "{}"), 2),
        (answer(504, None, "of something on the way"), 2),
        (answer(500, Some("1"), "{}"), 1),
        (answer(401, Some("1"), "{}"), 1),
        (answer(400, Some("1"), &error), 1),
        (answer(201, Some("1"), "{}"), 1),
    ] {
        stand_in.set(behaviour.clone());
        let before = stand_in.registrations();
        super::register(gateway.http_address());
        assert_eq!(stand_in.registrations() - before, requests, "{behaviour:?}");
    }
}

#[test]
fn a_look_for_a_client_is_repeated_too() {
    let folder = Folder::with_default_tenant();
    let (one, other) = (folder.serve(), folder.serve());
    let gateway = before(&folder, &[one.address(), other.address()]);
    let id = register(gateway.http_address()).json()["client_id"].as_str().unwrap().to_owned();
    drop(other);
    // Two workers with two connections each may still believe in the one that is gone.
    for _ in 0..4 {
        let target = format!("/authorize?response_type=code&client_id={id}");
        let request = http1::request("GET", &target, &[("host", b"default.example")], b"");
        let response = http1::exchange(gateway.http_address(), &request);
        let error: Value = response.json();
        assert_eq!((response.status, &error["error"]), (400, &json!("invalid_request")), "{error}");
    }
}

#[test]
fn of_two_listed_tokens_both_open_the_store_until_one_is_taken_out() {
    let folder = Folder::with_default_tenant();
    let file = folder.path().join("edge-tokens");
    let [old, new] = ["old-", "new-"].map(|name| name.repeat(10));
    let list = |tokens: &str| {
        std::fs::write(file.with_extension("new"), tokens).unwrap();
        std::fs::rename(file.with_extension("new"), &file).unwrap();
    };
    list(&old);
    let store = folder.serve_with(&["--edge-tokens", file.to_str().unwrap()]);
    // Nor does a token that the store has signed.
    assert_eq!(store.edge().get("/edge/v1/changes").status, 401);
    let says = |what: &str| eventually(what, || store.process.log().contains(what).then_some(()));
    let mut gateway =
        Gateway::start(Options { store: Some(store.address()), edge_token: old.clone(), ..Options::default() });
    gateway.wait_for_settings();
    assert_eq!(register(gateway.http_address()).status, 201);
    list(&format!("{old}\n{new}\n"));
    says("tokens=2");
    assert_eq!(register(gateway.http_address()).status, 201);
    assert_eq!(store.anyone().with_token(new.clone()).get("/edge/v1/changes").status, 200);
    // What is no list changes nothing.
    list("short");
    says("edge-tokens, line 1: a token has 32 to 8,192 printable ASCII characters");
    assert_eq!(register(gateway.http_address()).status, 201);
    list(&new);
    says("tokens=1");
    assert_eq!(register(gateway.http_address()).status, 503);
    eventually("the filter says why", || {
        let log = gateway.envoy_log();
        let says = |what: &str| log.contains(&format!("{what}: the store does not accept the edge's token"));
        (says("failed: store_unauthorized") && says("stay in force: store_unauthorized")).then_some(())
    });
    gateway.restart_envoy_with(&new);
    gateway.wait_for_settings();
    assert_eq!(register(gateway.http_address()).status, 201);
    assert!(![old, new].iter().any(|token| store.process.log().contains(token.as_str())));
}
