//! `cold_start`: how long an Envoy takes from its start until it answers, with the filter and without.

use std::time::Instant;

use serde_json::{Value, json};

use crate::measure::{Times, cpu_micros, round_to_tenth, sorted};
use crate::support::gateway::Gateway;
use crate::support::http1;
use crate::{peers, stand_in};

/// Measures, prints and gives the rows.
pub fn run(times: Times) -> Vec<Value> {
    println!("\ncold_start: from the start of Envoy until its first answer, {} times in turn\n", times.rounds());
    println!("{:<12} {:>7} {:>8} {:>10} {:>12}", "subject", "workers", "ms, min", "median", "CPU ms, min");
    let store = stand_in::start([stand_in::tenant(json!({}))]);
    let workers = 1;
    let edge = with_envoy(Gateway::start(peers::options(store, workers, json!({}), peers::answered_by_envoy)));
    let bare = with_envoy(Gateway::start(peers::options(store, workers, json!({}), peers::bare)));
    let mut starts = [("dcr-edge", edge, Vec::new(), Vec::new()), ("envoy-bare", bare, Vec::new(), Vec::new())];
    for _ in 0..times.rounds() {
        for (_, gateway, millis, cpu) in &mut starts {
            let begun = Instant::now();
            gateway.start_envoy();
            // With a filter that is there, even if it is one that has no settings yet.
            http1::get(gateway.http_address(), "/");
            millis.push(begun.elapsed().as_secs_f64() * 1_000.0);
            cpu.push(cpu_micros(&[gateway.envoy_id()]) / 1_000.0);
            gateway.kill_envoy();
        }
    }
    let rows = starts.map(|(name, _, millis, cpu)| {
        let (millis, cpu) = (sorted(millis.into_iter()), sorted(cpu.into_iter()));
        let (least, median) = (millis[0], millis[millis.len() / 2]);
        println!("{name:<12} {workers:>7} {least:>8.0} {median:>10.0} {:>12.0}", cpu[0]);
        json!({
            "scenario": "cold_start",
            "subject": name,
            "workers": workers,
            "ms_min": round_to_tenth(least),
            "ms_median": round_to_tenth(median),
            "cpu_ms_min": round_to_tenth(cpu[0]),
        })
    });
    let least = |row: usize| rows[row]["ms_min"].as_f64().unwrap();
    println!("\nthe filter's virtual machines take {:.0} ms of that", least(0) - least(1));
    rows.into()
}

/// One whose Envoy is not running yet.
fn with_envoy(mut gateway: Gateway) -> Gateway {
    gateway.kill_envoy();
    gateway
}
