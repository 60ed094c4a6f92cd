//! `tenants_10000`: the memory of an Envoy with many tenants, and with many workers; and what a change of one costs among
//! them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::measure::{cpu_micros, round_to_tenth, sorted};
use crate::stand_in::StandIn;
use crate::support::gateway::Gateway;
use crate::support::http1::{self, Connection};
use crate::support::process::rss_mib;
use crate::{peers, stand_in};

const TENANTS: usize = 10_000;
const RULES: usize = 10;
const RANGES: usize = 4;

/// Requests of each Envoy, whatever its tenants, so that these are the only difference.
const REQUESTS: usize = TENANTS;

/// Changes of one tenant.
const CHANGES: usize = 20;

/// How often it is looked whether a change is in force.
const LOOK: Duration = Duration::from_millis(20);

/// After that the filter has reported what the rules of all tenants did with the first requests: it does every ten seconds.
const REPORTED: Duration = Duration::from_secs(21);

/// So many that each of four workers gets some.
const CONNECTIONS: usize = 16;

/// Measures, prints and gives the rows.
pub fn run() -> Vec<Value> {
    println!(
        "\ntenants_10000: Envoy's memory after {REQUESTS} GETs, one for each tenant if there are many; each tenant"
    );
    println!("has {RULES} access rules with {RANGES} ranges each. CPU is that of Envoy from its start.\n");
    println!("{:<12} {:>8} {:>8} {:>9} {:>9}", "subject", "workers", "tenants", "RSS MiB", "CPU ms");
    let subjects =
        [("envoy-bare", 1, 1), ("envoy-bare", 4, 1), ("dcr-edge", 1, 1), ("dcr-edge", 4, 1), ("dcr-edge", 1, TENANTS)];
    let mut rows: Vec<_> =
        subjects.into_iter().map(|(name, workers, tenants)| measure(name, workers, tenants)).collect();
    let rss: Vec<_> = rows.iter().map(|row| row["rss_mib"].as_f64().unwrap()).collect();
    let (bare, bare_4, edge, edge_4, many) = (rss[0], rss[1], rss[2], rss[3], rss[4]);
    let (once, worker) = (edge - bare, (edge_4 - edge - bare_4 + bare) / 3.0);
    println!(
        "\nthe filter takes {once:.1} MiB with one worker and one tenant, and {worker:.1} MiB for each more worker"
    );
    let kib = (many - edge) * 1024.0 / (TENANTS - 1) as f64;
    println!("and {TENANTS} tenants {:.1} MiB: {kib:.1} KiB for each;", many - edge);
    let cpu = |row: usize| rows[row]["cpu_ms_from_start"].as_f64().unwrap();
    println!("to publish one and to read it costs a worker {:.2} ms", (cpu(4) - cpu(2)) / (TENANTS - 1) as f64);
    rows.push(json!({
        "scenario": "memory",
        "subject": "dcr-edge",
        "mib_with_one_worker": round_to_tenth(once),
        "mib_for_each_more_worker": round_to_tenth(worker),
        "kib_for_each_more_tenant": round_to_tenth(kib),
    }));
    rows.extend(change_among());
    rows
}

/// What a change of one tenant costs an Envoy that has one tenant, and one that has many.
fn change_among() -> Vec<Value> {
    println!("\n{CHANGES} changes of one tenant, one after the other, each of which is seen before the next is made\n");
    println!("{:<12} {:>8} {:>26} {:>16}", "subject", "tenants", "until it is in force, ms", "CPU ms of each");
    let measure = |tenants: usize| {
        let store = StandIn::new((0..tenants).map(tenant));
        let options = peers::options(store.address, 1, json!({}), peers::answered_by_envoy);
        let gateway = peers::with_settings(options);
        let mut connection = Connection::open(gateway.http_address());
        let mut status = |number: usize| {
            connection.send(&http1::request("GET", "/", &[("host", domain(number).as_bytes())], b""));
            connection.receive().status
        };
        (0..tenants).for_each(|number| assert_eq!(status(number), 200));
        std::thread::sleep(REPORTED);
        // What it does without any change in the same time is not theirs.
        let cpu = || cpu_micros(&[gateway.envoy_id()]) / 1_000.0;
        let (before, begun) = (cpu(), Instant::now());
        let mut millis = Vec::new();
        for change in 0..CHANGES {
            let mut changed = tenant(0);
            let expected = if change % 2 == 0 { 403 } else { 200 };
            if expected == 403 {
                changed["network_acls"][0]["rule"]["match"] = json!({"ipv4_cidrs": ["127.0.0.0/8"]});
            }
            let told = Instant::now();
            store.tell(1, &changed);
            while status(0) != expected {
                std::thread::sleep(LOOK);
                assert!(told.elapsed() < Duration::from_secs(5), "the change is not seen");
            }
            millis.push(told.elapsed().as_secs_f64() * 1_000.0);
        }
        let (with, time) = (cpu() - before, begun.elapsed());
        let before = cpu();
        let (begun, mut looks) = (Instant::now(), 0);
        while begun.elapsed() < time {
            status(0);
            looks += 1;
            std::thread::sleep(LOOK);
        }
        assert!(looks > CHANGES);
        let each = ((with - (cpu() - before)) / CHANGES as f64).max(0.0);
        let median = sorted(millis.into_iter())[CHANGES / 2];
        println!("{:<12} {tenants:>8} {median:>26.0} {each:>16.2}", "dcr-edge");
        json!({
            "scenario": "settings_change",
            "subject": "dcr-edge",
            "tenants": tenants,
            "ms_until_in_force_median": median.round(),
            "cpu_ms_for_each": (each * 100.0).round() / 100.0,
        })
    };
    [1, TENANTS].map(measure).into()
}

fn measure(name: &str, workers: u32, tenants: usize) -> Value {
    let store = stand_in::start((0..tenants).map(tenant));
    let gateway = if name == "dcr-edge" {
        peers::with_settings(peers::options(store, workers, json!({}), peers::answered_by_envoy))
    } else {
        Gateway::start(peers::options(store, workers, json!({}), peers::bare))
    };
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| Connection::open(gateway.http_address())).collect();
    for number in 0..REQUESTS {
        let connection = &mut connections[number % CONNECTIONS];
        let host = domain(number % tenants);
        connection.send(&http1::request("GET", "/", &[("host", host.as_bytes())], b""));
        let response = connection.receive();
        assert_eq!(response.status, 200, "{host}: {response:?}");
    }
    let (rss, cpu) = (rss_mib(gateway.envoy_id()), cpu_micros(&[gateway.envoy_id()]) / 1_000.0);
    println!("{name:<12} {workers:>8} {tenants:>8} {rss:>9.1} {cpu:>9.0}");
    json!({
        "scenario": "tenants_10000",
        "subject": name,
        "workers": workers,
        "tenants": tenants,
        "rss_mib": round_to_tenth(rss),
        "cpu_ms_from_start": cpu.round(),
    })
}

fn domain(number: usize) -> String {
    format!("tenant-{number}.example")
}

/// A tenant that blocks other networks, none of which is the client's.
fn tenant(number: usize) -> Value {
    let rule = |rule: usize| {
        let range = |range: usize| format!("10.{}.{}.0/24", rule * RANGES + range, number % 256);
        let ranges: Vec<_> = (0..RANGES).map(range).collect();
        let id = format!("acl_{number:0>16}{rule:0>6}");
        let condition = json!({"ipv4_cidrs": ranges});
        json!({"id": id, "rule": {"action": {"block": true}, "match": condition, "scope": "tenant"}})
    };
    json!({
        "name": format!("tenant-{number}"),
        "domains": [domain(number)],
        "settings": {},
        "network_acls": (0..RULES).map(rule).collect::<Vec<_>>(),
    })
}
