//! `tenants_10000`: the memory of an Envoy with many tenants, and with many workers; and what a change of one costs.

use serde_json::{Value, json};

use crate::measure::{cpu_micros, round_to_tenth};
use crate::support::gateway::Gateway;
use crate::support::http1::{self, Connection};
use crate::support::process::rss_mib;
use crate::{peers, stand_in};

const TENANTS: usize = 10_000;
const RULES: usize = 10;
const RANGES: usize = 4;

/// Requests of each Envoy, whatever its tenants, so that these are the only difference.
const REQUESTS: usize = TENANTS;

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
    let rows: Vec<_> = subjects.into_iter().map(|(name, workers, tenants)| measure(name, workers, tenants)).collect();
    let rss: Vec<_> = rows.iter().map(|row| row["rss_mib"].as_f64().unwrap()).collect();
    let (bare, bare_4, edge, edge_4, many) = (rss[0], rss[1], rss[2], rss[3], rss[4]);
    println!("\nthe filter takes {:.1} MiB with one worker and one tenant,", edge - bare);
    println!(
        "each more worker {:.1} MiB (an Envoy without it {:.1} MiB),",
        (edge_4 - edge) / 3.0,
        (bare_4 - bare) / 3.0
    );
    let kib = (many - edge) * 1024.0 / (TENANTS - 1) as f64;
    println!("and {TENANTS} tenants {:.1} MiB: {kib:.1} KiB for each;", many - edge);
    let cpu = |row: usize| rows[row]["cpu_ms_from_start"].as_f64().unwrap();
    println!("to publish one and to read it costs a worker {:.2} ms", (cpu(4) - cpu(2)) / (TENANTS - 1) as f64);
    rows
}

fn measure(name: &str, workers: u32, tenants: usize) -> Value {
    let store = stand_in::start((0..tenants).map(tenant));
    let gateway = if name == "dcr-edge" {
        let gateway = Gateway::start(peers::options(store, workers, json!({}), peers::answered_by_envoy));
        gateway.wait_for_settings();
        gateway
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
