//! `make bench`: what requests cost at the gateway, and elsewhere.
//!
//! Everything runs on this machine. Subjects of a scenario run all at once and take turns in rounds, so that what else
//! the machine does hits all of them; CPU is that of the server processes of a subject, user and system, from
//! `/proc/PID/stat`, so the load generator's own is not in it.
//!
//! | scenario | file |
//! |---|---|
//! | `register_durable` | [`register`] |
//! | `untouched`, `passed`, `authorize_cached`, `acl_deny_10` to `acl_deny_100k`, `limit_deny` | [`requests`] |
//! | `limit_fleet` | [`fleet`] |
//! | `cold_start` | [`cold`] |
//! | `untouched_instructions` | [`instructions`] |
//! | `growth` | [`growth`] |
//! | `tenants_10000`, with `memory` and `settings_change` | [`tenants`] |
//! | `clients_10000` | [`cached_clients`] |
//! | `client_pages` | [`client_pages`] |
//! | `stores` | [`stores`] |
//!
//! Each scenario is also a chart, `target/bench/SCENARIO.svg`; at the end [`targets`] says what is wanted and what was
//! measured.
//!
//! `cargo bench --profile release --bench edge -- passed acl_deny` runs only the scenarios that are called so or, where
//! none is, have that in their names; `summary.json` has only their rows then. `BENCH_ROUNDS` (5) and `BENCH_SECONDS` (2)
//! set how many rounds each subject has and how long one is; `BENCH_AGAINST` is another build of the filter that is measured
//! beside it.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod cached_clients;
mod charts;
mod client_pages;
mod cold;
mod fleet;
mod growth;
mod instructions;
mod load;
mod measure;
mod peers;
mod register;
mod requests;
mod stand_in;
mod stores;
mod targets;
mod tenants;
// The suite is what uses all of it.
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use measure::Times;
use support::{output_of, root};

/// Runs a scenario and prints what it measured; gives the rows.
type Scenario = fn(&Path, Times) -> Vec<Value>;

const SCENARIOS: [(&str, Scenario); 17] = [
    ("register_durable", register::run),
    ("untouched", |_, times| requests::untouched(times)),
    ("passed", |_, times| requests::passed(times)),
    ("authorize_cached", |_, times| requests::authorize_cached(times)),
    ("acl_deny_10", |_, times| requests::acl_deny("acl_deny_10", 10, times)),
    ("acl_deny_1k", |_, times| requests::acl_deny("acl_deny_1k", 1_000, times)),
    ("acl_deny_10k", |_, times| requests::acl_deny("acl_deny_10k", 10_000, times)),
    ("acl_deny_100k", |_, times| requests::acl_deny("acl_deny_100k", 100_000, times)),
    ("limit_deny", |_, times| requests::limit_deny(times)),
    ("limit_fleet", |_, times| fleet::run(times)),
    ("cold_start", |_, times| cold::run(times)),
    ("untouched_instructions", |results, _| instructions::run(results)),
    ("growth", |_, times| growth::run(times)),
    ("tenants_10000", |_, _| tenants::run()),
    ("clients_10000", |_, _| cached_clients::run()),
    ("client_pages", |results, _| client_pages::run(results)),
    ("stores", stores::run),
];

fn main() {
    // Cargo adds `--bench`.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_name = |part: &str| SCENARIOS.iter().any(|(name, _)| *name == part);
    let is_meant = |part: &str, name: &str| if is_name(part) { part == name } else { name.contains(part) };
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| is_meant(part, name));
    let scenarios: Vec<_> = SCENARIOS.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    assert!(!scenarios.is_empty(), "no scenario is called so; there are {:?}", SCENARIOS.map(|(name, _)| name));
    let results = root().join("target/bench");
    fs::create_dir_all(&results).unwrap();
    let times = Times::from_environment();
    let machine = machine();
    println!("{machine:#}");
    let mut rows: Vec<_> = scenarios.into_iter().flat_map(|(_, run)| run(&results, times)).collect();
    charts::write(&results, &rows);
    let wasm_bytes = fs::metadata(root().join("target/wasm32-wasip1/release/dcr_edge.wasm")).unwrap().len();
    rows.extend(targets::report(&rows, wasm_bytes));
    let summary = json!({"machine": machine, "wasm_bytes": wasm_bytes, "rows": rows});
    let path = results.join("summary.json");
    fs::write(&path, serde_json::to_string_pretty(&summary).unwrap()).unwrap();
    println!("\nwritten to {}", path.strip_prefix(root()).unwrap().display());
}

fn machine() -> Value {
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let envoy = output_of(Command::new(support::envoy::binary()).arg("--version"));
    json!({
        "cpu": model.map(|(_, name)| name),
        "cores": std::thread::available_parallelism().unwrap(),
        "system": output_of(Command::new("uname").arg("-sr")),
        "envoy": envoy.rsplit("version: ").next().map(str::trim),
        "node": Command::new("node").arg("--version").output().ok().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()),
    })
}
