//! What one request costs an Envoy: one that the filter does not see, one that it lets through, and those that it
//! refuses, each beside an Envoy that does the same without it. CPU is Envoy's.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::load::Expected;
use crate::measure::{self, CONNECTIONS, Request, Subject, Times, always, round_to_tenth, sorted};
use crate::peers::{self, Range};
use crate::stand_in;
use crate::support::gateway::Gateway;
use crate::support::store::{Folder, Store};
use crate::support::{hot, http1};

/// What [`limit_deny`] lets through at once, and each second after: so little that what is refused makes the figures.
const BURST: u32 = 20;
const PER_SECOND: u32 = 20;

/// So many ranges at which the peers are measured to which their number is nothing.
const FEW: usize = 10;

/// Most ranges for a peer that looks at one after the other.
const MOST_IN_A_ROW: usize = 10_000;

/// A gateway in a scenario.
struct Peer {
    name: &'static str,
    workers: u32,
    gateway: Gateway,
    /// Processes that work for it besides its Envoy.
    helpers: Vec<u32>,
    /// The status of its refusals, if that is not the scenario's.
    status: Option<u16>,
}

impl Peer {
    /// An Envoy without the filter, changed like this.
    fn envoy(name: &'static str, workers: u32, store: SocketAddr, edit: impl Fn(&str) -> String + 'static) -> Self {
        let gateway = Gateway::start(peers::options(store, workers, json!({}), edit));
        Self { name, workers, gateway, helpers: Vec::new(), status: None }
    }

    /// One without anything in the filter's place.
    fn bare(store: SocketAddr) -> Self {
        Self::envoy("envoy-bare", 1, store, peers::bare)
    }

    /// One that asks the store about each request.
    fn ext_authz(store: &Store) -> Self {
        let peer = Self::envoy("envoy-ext-authz", 1, store.address(), peers::ext_authz);
        Self { helpers: vec![store.process.id()], status: Some(404), ..peer }
    }
}

/// The filter, and another build of it where `BENCH_AGAINST` has a path.
fn edges(workers: u32, store: SocketAddr, filter: &Value, edit: fn(&str) -> String) -> Vec<Peer> {
    let start = |name, options| Peer {
        name,
        workers,
        gateway: peers::with_settings(options),
        helpers: Vec::new(),
        status: None,
    };
    let mut edges = vec![start("dcr-edge", peers::options(store, workers, filter.clone(), edit))];
    if let Ok(wasm) = std::env::var("BENCH_AGAINST") {
        let edit = move |configuration: &str| peers::with_wasm(&edit(configuration), &wasm);
        edges.push(start("dcr-edge, other", peers::options(store, workers, filter.clone(), edit)));
    }
    edges
}

/// The filter is disabled on the route.
pub fn untouched(times: Times) -> Vec<Value> {
    println!("\nuntouched: a GET on a route on which the filter is disabled, answered by Envoy itself; {times}");
    let store = stand_in::start([stand_in::tenant(json!({}))]);
    let mut peers = edges(1, store, &json!({}), peers::left_alone);
    peers.push(Peer::bare(store));
    compare("untouched", &peers, always(get()), Expected::only(200), times)
}

/// The filter looks and lets through.
pub fn passed(times: Times) -> Vec<Value> {
    println!("\npassed: a GET that the filter lets through, answered by Envoy itself; {times}");
    let store = stand_in::start([stand_in::tenant(json!({}))]);
    let mut peers = edges(1, store, &json!({}), peers::answered_by_envoy);
    peers.push(Peer::bare(store));
    compare("passed", &peers, always(get()), Expected::only(200), times)
}

/// An authorization request of a client that the worker knows: held to it, and written anew.
pub fn authorize_cached(times: Times) -> Vec<Value> {
    println!(
        "\nauthorize_cached: an authorization request of a client that the worker knows, answered by Envoy itself; {times}"
    );
    // All connections ask for it at once before anybody knows it.
    let look_ups = json!({"client_lookups": {"burst": 1_000, "per_second": 1_000}});
    let store = stand_in::start([stand_in::tenant(look_ups)]);
    let target = format!("/authorize?{}", hot::AUTHORIZATION_REQUEST);
    let mut peers = edges(1, store, &json!({}), peers::answered_by_envoy);
    peers.push(Peer::bare(store));
    compare("authorize_cached", &peers, always(http1::request("GET", &target, &[], b"")), Expected::only(200), times)
}

/// The client's address is in one of `count` ranges, which stands in their middle: what is looked at one after the other
/// is found after half of them.
pub fn acl_deny(scenario: &'static str, count: usize, times: Times) -> Vec<Value> {
    println!("\n{scenario}: a GET refused because its address is in one of {count} ranges; {times}");
    let ranges = ranges(count);
    let store = stand_in::start([stand_in::tenant(json!({}))]);
    let cidrs: Vec<_> = ranges.iter().map(|(address, length)| format!("{address}/{length}")).collect();
    let rule = json!({"action": {"block": true}, "match": {"ipv4_cidrs": cidrs}, "scope": "tenant"});
    let acls = json!({"network_acls": [{"description": "bench", "active": true, "rule": rule}]});
    let peer = |name, edit: fn(&str, &[Range]) -> String| {
        let ranges = ranges.clone();
        Peer::envoy(name, 1, store, move |configuration| edit(configuration, &ranges))
    };
    let mut peers = edges(1, store, &acls, peers::answered_by_envoy);
    peers.push(peer("envoy-rbac-trie", peers::rbac_trie));
    if count <= MOST_IN_A_ROW {
        peers.push(peer("envoy-rbac", peers::rbac));
        peers.push(peer("envoy-lua", peers::lua_acl));
    }
    // What it asks knows no ranges, so it costs the same at any number.
    let asked = (count <= FEW).then(Folder::with_default_tenant).map(|folder| (folder.serve(), folder));
    peers.extend(asked.as_ref().map(|(store, _)| Peer::ext_authz(store)));
    compare(scenario, &peers, always(get()), Expected::only(403), times)
}

/// A registration over the limit. It has no body, because Envoy closes a connection on which it answers before it has
/// the body, and the connections would be measured too. For the same reason registration is off: those that the limit
/// lets through get a 403, after which a connection stays open, and not a 400.
pub fn limit_deny(times: Times) -> Vec<Value> {
    println!("\nlimit_deny: a registration over the limit of {PER_SECOND} in a second and {BURST} at once; {times}");
    let limit = json!({"rate_limit": {"burst": BURST, "per_second": PER_SECOND}});
    let mut tenant = stand_in::tenant(limit);
    tenant["settings"]["flags"]["enable_dynamic_client_registration"] = false.into();
    let store = stand_in::start([tenant]);
    let mut peers = Vec::new();
    for workers in [1, 2, 4] {
        peers.extend(edges(workers, store, &json!({}), peers::answered_by_envoy));
        peers.push(Peer::envoy("envoy-local-ratelimit", workers, store, |configuration| {
            peers::local_ratelimit(configuration, BURST, PER_SECOND)
        }));
        peers.push(Peer::envoy("envoy-lua", workers, store, |configuration| {
            peers::lua_limit(configuration, BURST, PER_SECOND)
        }));
    }
    let folder = Folder::with_default_tenant();
    let asked = folder.serve();
    peers.push(Peer::ext_authz(&asked));
    let expected = Expected { status: 429, admitted: None };
    let request = http1::request("POST", "/oidc/register", &[("content-type", b"application/json")], b"");
    compare("limit_deny", &peers, always(request), expected, times)
}

/// Measures the peers, prints the table and gives the rows.
fn compare(scenario: &'static str, peers: &[Peer], request: Request, expected: Expected, times: Times) -> Vec<Value> {
    let subject = |peer: &Peer| Subject {
        scenario,
        name: peer.name,
        workers: peer.workers as usize,
        address: peer.gateway.http_address(),
        connections: CONNECTIONS,
        processes: [&[peer.gateway.envoy_id()], &*peer.helpers].concat(),
        request: Request::clone(&request),
        expected: expected_of(peer, expected),
        pace: None,
        rounds: Vec::new(),
    };
    let mut subjects: Vec<_> = peers.iter().map(subject).collect();
    measure::take_turns(&mut subjects, times);
    let mut rows: Vec<_> = subjects.iter().map(measure::row).collect();
    for (row, subject) in rows.iter_mut().zip(&subjects).filter(|(_, subject)| subject.expected.status == 429) {
        add_admitted(row, subject);
    }
    measure::explain();
    measure::print_table(&rows);
    rows
}

/// What this one answers in the place of what the scenario expects.
fn expected_of(peer: &Peer, expected: Expected) -> Expected {
    // What a limit of the filter lets through finds registration off, and what another one lets through is answered.
    let admitted = (expected.status == 429).then_some(if peer.name.starts_with("dcr-edge") { 403 } else { 200 });
    peer.status.map_or(Expected { admitted, ..expected }, Expected::only)
}

/// Adds to a row what the limit let through, and the most that it may let through.
fn add_admitted(row: &mut Value, subject: &Subject) {
    let seconds = |run: &crate::load::Run| run.elapsed.as_secs_f64();
    let runs = || subject.rounds.iter().map(|round| &round.most);
    let most = |run| f64::from(PER_SECOND) + f64::from(BURST) / seconds(run);
    let rates = sorted(runs().map(|run| run.admitted as f64 / seconds(run)));
    let (median, bound) = (rates[rates.len() / 2], sorted(runs().map(most))[rates.len() / 2]);
    let exceeded = runs().filter(|run| run.admitted as f64 / seconds(run) > most(run)).count();
    row["admitted_per_second"] = round_to_tenth(median).into();
    row["admitted_per_second_bound"] = round_to_tenth(bound).into();
    row["rounds_over_bound"] = exceeded.into();
}

fn get() -> Vec<u8> {
    http1::request("GET", "/", &[], b"")
}

/// Ranges of 24 to 32 bits that look random and are the same in each run, and the client's own in their middle.
fn ranges(count: usize) -> Vec<Range> {
    let mut state = 0_u64;
    let mut random = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let (mut ranges, mut known) = (Vec::new(), HashSet::new());
    while ranges.len() < count - 1 {
        let number = random();
        let length = 24 + (number >> 32) % 9;
        let address = Ipv4Addr::from_bits(number as u32 & u32::MAX << (32 - length));
        let range = (address, length as u8);
        // Nothing else has the client in it.
        if !address.is_loopback() && known.insert(range) {
            ranges.push(range);
        }
    }
    ranges.insert(count / 2, (Ipv4Addr::LOCALHOST, 32));
    ranges
}
