//! `growth`: what a request costs among few and among many tenants, rules and clients: how it grows is what matters.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::load::Expected;
use crate::measure::{self, CONNECTIONS, Request, Subject, Times};
use crate::support::gateway::Gateway;
use crate::support::http1;
use crate::{peers, stand_in};

/// Measures, prints and gives the rows.
pub fn run(times: Times) -> Vec<Value> {
    println!("\ngrowth: a request that passes, of any of so many tenants; under so many rules of one tenant with four");
    println!("ranges each; and an authorization request of any of so many clients; {times}");
    let mut grown = Vec::new();
    for (scenario, count) in [("tenants_1", 1), ("tenants_100", 100), ("tenants_10k", 10_000)] {
        let tenant = |number: usize| json!({"name": format!("t{number}"), "domains": [format!("t{number}.example")], "settings": {}});
        let requests = (0..count)
            .map(|number| http1::request("GET", "/", &[("host", format!("t{number}.example").as_bytes())], b""));
        grown.push((scenario, count, gateway((0..count).map(tenant)), any_of(requests.collect())));
    }
    for (scenario, count) in [("rules_1", 1), ("rules_10", 10), ("rules_100", 100)] {
        let mut tenant = stand_in::tenant(json!({}));
        tenant["network_acls"] = (0..count).map(rule).collect();
        grown.push((scenario, count, gateway([tenant]), measure::always(http1::request("GET", "/", &[], b""))));
    }
    for (scenario, count) in [("clients_1", 1), ("clients_100", 100), ("clients_10k", 10_000)] {
        let look_ups = json!({"client_lookups": {"burst": 100_000, "per_second": 100_000}});
        let requests = (0..count).map(stand_in::authorization_request);
        grown.push((scenario, count, gateway([stand_in::tenant(look_ups)]), any_of(requests.collect())));
    }
    let mut subjects: Vec<_> = grown
        .iter()
        .map(|(scenario, _, gateway, request)| Subject {
            scenario,
            name: "dcr-edge",
            workers: 1,
            address: gateway.http_address(),
            connections: CONNECTIONS,
            processes: vec![gateway.envoy_id()],
            request: Request::clone(request),
            expected: Expected::only(200),
            pace: None,
            rounds: Vec::new(),
        })
        .collect();
    measure::take_turns(&mut subjects, times);
    println!("\n{:<14} {:>12} {:>10}", "among", "CPU µs, min", "median");
    let row = |(subject, (scenario, count, ..)): (&Subject, &(&str, usize, _, _))| {
        let mut row = measure::row(subject);
        println!("{scenario:<14} {:>12} {:>10}", row["cpu_us_per_request_min"], row["cpu_us_per_request_median"]);
        row["count"] = (*count).into();
        row
    };
    subjects.iter().zip(&grown).map(row).collect()
}

fn gateway(tenants: impl IntoIterator<Item = Value>) -> Gateway {
    peers::with_settings(peers::options(stand_in::start(tenants), 1, json!({}), peers::answered_by_envoy))
}

/// One after the other.
fn any_of(requests: Vec<Vec<u8>>) -> Request {
    Rc::new(move |_, number| requests[number % requests.len()].clone())
}

/// A rule for networks of which none is the client's.
fn rule(number: usize) -> Value {
    let ranges: Vec<_> = (0..4).map(|range| format!("10.{number}.{range}.0/24")).collect();
    let rule = json!({"action": {"block": true}, "match": {"ipv4_cidrs": ranges}, "scope": "tenant"});
    json!({"id": format!("acl_{number:0>22}"), "rule": rule})
}
