//! `clients_10000`: the memory of an Envoy whose worker knows as many clients as it may.

use serde_json::{Value, json};

use crate::measure::round_to_tenth;
use crate::support::http1::Connection;
use crate::support::process::rss_mib;
use crate::{peers, stand_in};

const CLIENTS: usize = 10_000;

/// Measures, prints and gives the row.
pub fn run() -> Vec<Value> {
    println!(
        "\nclients_10000: Envoy's memory after an authorization request of each of {CLIENTS} clients, and after the same"
    );
    println!("number of requests of one\n");
    let [one, all] = [1, CLIENTS].map(measure);
    println!(
        "one client {one:.1} MiB, {CLIENTS} clients {all:.1} MiB: they take {:.1} MiB (at most 16 wanted)",
        all - one
    );
    vec![json!({
        "scenario": "clients_10000", "subject": "dcr-edge", "workers": 1, "clients": CLIENTS,
        "rss_mib": round_to_tenth(all), "cache_mib": round_to_tenth(all - one),
    })]
}

fn measure(clients: usize) -> f64 {
    let look_ups = json!({"client_lookups": {"burst": 100_000, "per_second": 100_000}});
    let store = stand_in::start([stand_in::tenant(look_ups)]);
    let gateway = peers::with_settings(peers::options(store, 1, json!({}), peers::answered_by_envoy));
    let mut connection = Connection::open(gateway.http_address());
    for number in 0..CLIENTS {
        connection.send(&stand_in::authorization_request(number % clients));
        let response = connection.receive();
        assert_eq!(response.status, 200, "{response:?}");
    }
    let name = "wasmcustom.dcr_edge.client_lookups.result=miss";
    let misses: u64 = gateway.stats(name).into_iter().map(|(_, count)| count).sum();
    assert_eq!(misses, clients as u64);
    rss_mib(gateway.envoy_id())
}
