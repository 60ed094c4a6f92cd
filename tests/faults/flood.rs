//! More requests than anybody wants, and somebody in the middle of them who registers at a pace that is allowed.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{BLOCKED, LIMITED, assert_no_vm_failed, from_environment, gateway, owner};
use crate::support::gateway::{Gateway, Options};
use crate::support::http1::{self, Connection};
use crate::support::process::rss_mib;

/// Requests in a second, as far as the machine goes.
const RATE: usize = 10_000;

/// Threads that bring them, and the connections of each: few threads, since they share the CPUs with what they load.
const THREADS: usize = 4;
const CONNECTIONS: usize = 16;

/// The time between two requests after each of which Envoy closes the connection, as it does in HTTP/1.1 where it has
/// answered before it read the body, and after each 400.
const CLOSED: Duration = Duration::from_millis(5);

/// How long memory may still grow: pools and caches fill.
const WARM_UP: Duration = Duration::from_secs(4);

/// The memory by which a process may be larger afterwards, in MiB.
const GROWTH: f64 = 24.0;

/// The time between two registrations of the one who keeps every limit.
const PACE: Duration = Duration::from_millis(250);

/// A source that is in nobody's way, and one that is.
const CALM: &str = "198.51.100.7";
const LOUD: &str = "203.0.113.9";

/// A registration, or something like it.
fn request(method: &str, target: &str, host: &str, source: &str, body: &[u8]) -> Vec<u8> {
    let headers =
        [("host", host.as_bytes()), ("x-forwarded-for", source.as_bytes()), ("content-type", b"application/json")];
    http1::request(method, target, &headers, body)
}

/// How often each status came.
type Statuses = BTreeMap<u16, usize>;

/// Those who send the same requests again and again, until they are stopped or dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Statuses>>,
}

impl Flood {
    /// Sends `kept` at [`RATE`] on connections that are kept, and each of `closed` on one of its own.
    fn start(address: SocketAddr, kept: &[Vec<u8>], closed: &[Vec<u8>]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (stop, requests) = (Arc::clone(&stop), kept.to_vec());
                thread::spawn(move || send_on_kept_connections(address, &requests, &stop))
            })
            .collect();
        let (stopped, closed) = (Arc::clone(&stop), closed.to_vec());
        threads.push(thread::spawn(move || send_on_new_connections(address, &closed, &stopped)));
        Self { stop, threads }
    }

    fn stop(mut self) -> Statuses {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for (status, count) in self.threads.drain(..).flat_map(|thread| thread.join().unwrap()) {
            *all.entry(status).or_default() += count;
        }
        all
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Keeps its part of [`RATE`] on some connections, as long as Envoy keeps them: one request on each, then all answers.
fn send_on_kept_connections(address: SocketAddr, requests: &[Vec<u8>], stop: &AtomicBool) -> Statuses {
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| Connection::open(address)).collect();
    let (mut requests, mut statuses) = (requests.iter().cycle(), BTreeMap::new());
    let gap = Duration::from_secs_f64((THREADS * CONNECTIONS) as f64 / RATE as f64);
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // What a busy machine could not send in time is not sent later, in a greater flood.
        due = Instant::now().max(due + gap);
        for (connection, request) in connections.iter_mut().zip(&mut requests) {
            connection.send(request);
        }
        for connection in &mut connections {
            if !count_answer(connection, &mut statuses) {
                *connection = Connection::open(address);
            }
        }
    }
    statuses
}

/// Sends each request on a connection of its own, which it closes at the answer.
fn send_on_new_connections(address: SocketAddr, requests: &[Vec<u8>], stop: &AtomicBool) -> Statuses {
    let mut statuses = BTreeMap::new();
    for request in requests.iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
        let mut connection = Connection::open(address);
        connection.send(request);
        assert!(!count_answer(&mut connection, &mut statuses), "kept after {}", request.escape_ascii());
        thread::sleep(CLOSED);
    }
    statuses
}

/// Whether Envoy keeps the connection after its next answer.
fn count_answer(connection: &mut Connection<TcpStream>, statuses: &mut Statuses) -> bool {
    let response = connection.receive();
    *statuses.entry(response.status).or_default() += 1;
    response.header("connection") != Some("close")
}

/// The flood beside somebody who registers at `host` from [`CALM`], for as long as the environment says.
fn beside(gateway: &Gateway, what: &str, host: &str, kept: &[Vec<u8>], closed: &[Vec<u8>]) {
    let seconds = Duration::from_secs(from_environment("DCR_TEST_FLOOD_SECONDS", 10));
    let memory = || [gateway.envoy_id(), gateway.store_id()].map(rss_mib);
    let flood = Flood::start(gateway.http_address(), kept, closed);
    let (began, mut asked, mut slowest, mut warm) = (Instant::now(), 0, Duration::ZERO, None);
    while began.elapsed() < WARM_UP + seconds {
        let body = format!(r#"{{"redirect_uris":["https://app.example/cb"],"client_name":"calm {asked}"}}"#);
        let sent = Instant::now();
        let request = request("POST", "/oidc/register", host, CALM, body.as_bytes());
        let response = http1::exchange(gateway.http_address(), &request);
        assert_eq!(response.status, 201, "registration {asked} beside the flood: {response:?}");
        slowest = slowest.max(sent.elapsed());
        asked += 1;
        if warm.is_none() && began.elapsed() >= WARM_UP {
            warm = Some(memory());
        }
        thread::sleep(PACE.saturating_sub(sent.elapsed()));
    }
    let (warm, end) = (warm.unwrap(), memory());
    let elapsed = began.elapsed();
    let statuses = flood.stop();
    let rate = statuses.values().sum::<usize>() as f64 / elapsed.as_secs_f64();
    println!(
        "{what}: {rate:.0} requests/s for {elapsed:.0?}, {statuses:?}; all {asked} registrations beside it succeeded, \
         the slowest in {slowest:.0?}; memory of Envoy and store {warm:.1?} MiB, at the end {end:.1?} MiB"
    );
    for (warm, end) in warm.into_iter().zip(end) {
        assert!(end - warm < GROWTH, "the memory grew from {warm:.1} to {end:.1} MiB");
    }
    assert_no_vm_failed(gateway);
}

/// The access log goes where it fills no disk: it costs the same.
fn without_a_log(configuration: String) -> String {
    let stdout = "- name: envoy.access_loggers.stdout\n";
    let kind = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog\n";
    assert!(configuration.contains(stdout) && configuration.contains(kind));
    let file = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog\n";
    let indented = format!("{file}              path: /dev/null\n");
    configuration.replace(stdout, "- name: envoy.access_loggers.file\n").replace(kind, &indented)
}

#[test]
fn a_flood_at_others_is_in_no_well_behaved_tenants_way() {
    let gateway = gateway(Options { edit: Box::new(without_a_log), ..Options::default() });
    // With the limits that a tenant has by default.
    gateway.store_command(&["tenant", "create", "calm", "--domain", "calm.example"]);
    let on = json!({"flags": {"enable_dynamic_client_registration": true}});
    assert_eq!(owner(&gateway, "calm").patch_settings(&on).status, 200);
    gateway.wait_for_settings();
    let limited = format!("{LIMITED}.example");
    beside(
        &gateway,
        "flood at others",
        "calm.example",
        &[
            request("POST", "/oidc/register", "localhost", BLOCKED, b""),
            request("POST", "/oidc/register", &limited, LOUD, b""),
            request("POST", "/oidc/register", "nobody.example", LOUD, b""),
            request("POST", "/oidc/register;x", "localhost", LOUD, b""),
            request("DELETE", "/oidc/register", "localhost", LOUD, b""),
        ],
        &[
            request("POST", "/oidc/register", "localhost", LOUD, b""),
            request("POST", "/oidc/register", "localhost", BLOCKED, b"{}"),
            request("POST", "/oidc/register", &limited, LOUD, b"{}"),
            request("POST", "/oidc/register", "localhost", LOUD, b"\0{not JSON"),
            b"\x16\x03\x01 not HTTP\r\n\r\n".to_vec(),
        ],
    );
}

#[test]
fn a_flood_of_some_sources_is_in_no_other_sources_way() {
    let gateway = gateway(Options { edit: Box::new(without_a_log), ..Options::default() });
    let source = json!({"burst": 8, "per_second": 8});
    let settings = json!({"dcr_edge": {"per_source": source, "rate_limit": {"burst": 100, "per_second": 100}}});
    assert_eq!(owner(&gateway, "default").patch_settings(&settings).status, 200);
    gateway.wait_for_settings();
    let from = |source: &str, body| request("POST", "/oidc/register", "localhost", source, body);
    let ask = |source: &str| http1::exchange(gateway.http_address(), &from(source, b"")).status;
    // Two sources may have one place in the filter's table, and then one limit: these have another than the calm one.
    let mut sources: Vec<_> = (1..=16).map(|number| format!("203.0.113.{number}")).collect();
    sources.retain(|loud| {
        while ask(loud) != 429 {}
        ask(CALM) != 429
    });
    sources.truncate(8);
    assert_eq!(sources.len(), 8, "{sources:?}");
    // The calm one's own limit is full again.
    thread::sleep(Duration::from_secs(2));
    let kept: Vec<_> = sources.iter().map(|source| from(source, b"")).collect();
    let closed: Vec<_> = sources.iter().map(|source| from(source, b"{}")).collect();
    beside(&gateway, "flood inside a tenant", "localhost", &kept, &closed);
}
