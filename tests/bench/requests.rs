//! What one request costs an Envoy: one that the filter does not see, one that it lets through, and those that it
//! refuses, each beside an Envoy that does the same without it. CPU is Envoy's.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::load::Expected;
use crate::measure::{self, CONNECTIONS, Request, Subject, Times, always, round_to_tenth, sorted};
use crate::peers::{self, Range};
use crate::stand_in;
use crate::support::gateway::{Gateway, Options};
use crate::support::http1;

/// What [`limit_deny`] lets through at once, and each second after: so little that what is refused makes the figures.
const BURST: u32 = 20;
const PER_SECOND: u32 = 20;

/// Most ranges for a peer that looks at one after the other.
const MOST_IN_A_ROW: usize = 10_000;

/// The filter is disabled on the route.
pub fn untouched(times: Times) -> Vec<Value> {
    println!("\nuntouched: a GET on a route on which the filter is disabled, answered by Envoy itself; {times}");
    let store = stand_in::start([stand_in::tenant(json!({}))]);
    let gateways = [
        ("dcr-edge", 1, with_settings(peers::options(store, 1, json!({}), peers::left_alone))),
        ("envoy-bare", 1, Gateway::start(peers::options(store, 1, json!({}), peers::bare))),
    ];
    compare("untouched", &gateways, always(get()), Expected::only(200), times)
}

/// The filter looks and lets through.
pub fn passed(times: Times) -> Vec<Value> {
    println!("\npassed: a GET that the filter lets through, answered by Envoy itself; {times}");
    let store = stand_in::start([stand_in::tenant(json!({}))]);
    let gateways = [
        ("dcr-edge", 1, with_settings(peers::options(store, 1, json!({}), peers::answered_by_envoy))),
        ("envoy-bare", 1, Gateway::start(peers::options(store, 1, json!({}), peers::bare))),
    ];
    compare("passed", &gateways, always(get()), Expected::only(200), times)
}

/// An authorization request of a client that the worker knows: held to it, and written anew.
pub fn authorize_cached(times: Times) -> Vec<Value> {
    println!(
        "\nauthorize_cached: an authorization request of a client that the worker knows, answered by Envoy itself; {times}"
    );
    // All connections ask for it at once before anybody knows it.
    let look_ups = json!({"client_lookups": {"burst": 1_000, "per_second": 1_000}});
    let store = stand_in::start([stand_in::tenant(look_ups)]);
    let target = "/authorize?client_id=tpc_0123456789abcdefghijklmnopqrstuv&response_type=code\
        &redirect_uri=http%3A%2F%2F127.0.0.1%3A49152%2Fcb&scope=read%20write%20offline_access\
        &state=af0ifjsldkj9zX3kQ&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM\
        &code_challenge_method=S256&resource=https%3A%2F%2Fapi.example%2F";
    let gateways = [
        ("dcr-edge", 1, with_settings(peers::options(store, 1, json!({}), peers::answered_by_envoy))),
        ("envoy-bare", 1, Gateway::start(peers::options(store, 1, json!({}), peers::bare))),
    ];
    compare("authorize_cached", &gateways, always(http1::request("GET", target, &[], b"")), Expected::only(200), times)
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
    let peer = |edit: fn(&str, &[Range]) -> String| {
        let ranges = ranges.clone();
        Gateway::start(peers::options(store, 1, json!({}), move |configuration| edit(configuration, &ranges)))
    };
    let mut gateways = vec![
        ("dcr-edge", 1, with_settings(peers::options(store, 1, acls, peers::answered_by_envoy))),
        ("envoy-rbac-trie", 1, peer(peers::rbac_trie)),
    ];
    if count <= MOST_IN_A_ROW {
        gateways.push(("envoy-rbac", 1, peer(peers::rbac)));
    }
    compare(scenario, &gateways, always(get()), Expected::only(403), times)
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
    let mut gateways = Vec::new();
    for workers in [1, 2, 4] {
        let peer = |configuration: &str| peers::local_ratelimit(configuration, BURST, PER_SECOND);
        let edge = with_settings(peers::options(store, workers, json!({}), peers::answered_by_envoy));
        gateways.push(("dcr-edge", workers, edge));
        gateways.push((
            "envoy-local-ratelimit",
            workers,
            Gateway::start(peers::options(store, workers, json!({}), peer)),
        ));
    }
    let expected = Expected { status: 429, admitted: Some(403) };
    let request = http1::request("POST", "/oidc/register", &[("content-type", b"application/json")], b"");
    compare("limit_deny", &gateways, always(request), expected, times)
}

/// Measures Envoys with so many workers, prints the table and gives the rows.
fn compare(
    scenario: &'static str,
    gateways: &[(&'static str, u32, Gateway)],
    request: Request,
    expected: Expected,
    times: Times,
) -> Vec<Value> {
    let subject = |(name, workers, gateway): &(&'static str, u32, Gateway)| Subject {
        scenario,
        name,
        workers: *workers as usize,
        address: gateway.http_address(),
        processes: vec![gateway.envoy_id()],
        request: Request::clone(&request),
        expected,
        pace: None,
        rounds: Vec::new(),
    };
    let mut subjects: Vec<_> = gateways.iter().map(subject).collect();
    measure::take_turns(&mut subjects, times);
    let mut rows: Vec<_> = subjects.iter().map(measure::row).collect();
    println!("{CONNECTIONS} connections with keep-alive, over HTTP/1.1, for each subject in its turn\n");
    measure::print_table(&rows);
    if expected.admitted.is_some() {
        for (row, subject) in rows.iter_mut().zip(&subjects) {
            add_admitted(row, subject);
        }
    }
    rows
}

/// Adds what the limit let through to a row, and prints it beside the most that it may let through.
fn add_admitted(row: &mut Value, subject: &Subject) {
    let seconds = |run: &crate::load::Run| run.elapsed.as_secs_f64();
    let runs = || subject.rounds.iter().map(|round| &round.run);
    let most = |run| f64::from(PER_SECOND) + f64::from(BURST) / seconds(run);
    let rates = sorted(runs().map(|run| run.admitted as f64 / seconds(run)));
    let (median, bound) = (rates[rates.len() / 2], sorted(runs().map(most))[rates.len() / 2]);
    let exceeded = runs().filter(|run| run.admitted as f64 / seconds(run) > most(run)).count();
    let verdict = if exceeded == 0 { "kept in each round".to_owned() } else { format!("BROKEN in {exceeded} rounds") };
    println!(
        "{}, workers {}: {median:.1} admitted in a second, bound {bound:.1}, {verdict}",
        subject.name, subject.workers
    );
    row["admitted_per_second"] = round_to_tenth(median).into();
    row["admitted_per_second_bound"] = round_to_tenth(bound).into();
}

/// Starts a gateway and waits until the stand-in's settings are in force.
fn with_settings(options: Options) -> Gateway {
    let gateway = Gateway::start(options);
    gateway.wait_for_settings();
    gateway
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
