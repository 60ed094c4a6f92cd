//! `make bench`: what a registration costs at the gateway, at the store alone, and elsewhere.
//!
//! Everything runs on this machine. Subjects take turns in rounds, so that what else the machine does hits all of
//! them; CPU is that of all server processes of a subject, user and system, from `/proc/PID/stat`, so the load
//! generator's own is not in it.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod load;
// The suite is what uses all of it.
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use support::gateway::{Gateway, Options, listening};
use support::process::Process;
use support::{http1, output_of, root};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(500);
const CONNECTIONS: usize = 64;
const PACED: &str = "dcr-store, paced";

/// Something that registers clients.
struct Subject {
    name: &'static str,
    workers: usize,
    address: SocketAddr,
    processes: Vec<u32>,
    request: fn(&Context, usize) -> Vec<u8>,
    /// The name of an earlier subject whose rate it is held to.
    pace: Option<&'static str>,
    rounds: Vec<Round>,
}

/// What a request may need to know.
#[derive(Clone)]
struct Context {
    edge_token: String,
    round: usize,
}

struct Round {
    run: load::Run,
    cpu_us_per_request: f64,
}

fn main() {
    let results = root().join("target/bench");
    fs::create_dir_all(&results).unwrap();
    // Beside the build and not in /tmp, which may be in memory: durable is meant to cost what it costs.
    // Settings are looked for as often as shipped; the tests' 20 ms would be measured too.
    let gateway = Gateway::start(Options {
        concurrency: 1,
        parent: results.clone(),
        filter_configuration: json!({"store": {"cluster": "dcr_store"}}),
        ..Options::default()
    });
    gateway.patch_settings(&json!({
        "flags": {"enable_dynamic_client_registration": true},
        "dcr_edge": {"rate_limit": {"burst": 1_000_000, "per_second": 1_000_000}},
    }));
    let peer = oidc_provider(&results.join("peers"));

    let bare = Gateway::start(Options {
        concurrency: 1,
        store: Some(gateway.store_address()),
        edit: Box::new(without_filter),
        ..Options::default()
    });
    let store = gateway.store_id();
    let cores = std::thread::available_parallelism().unwrap().get();
    let mut subjects = vec![
        Subject {
            name: "dcr-edge",
            workers: 1,
            address: gateway.http_address(),
            processes: vec![gateway.envoy_id(), store],
            request: |_, _| registration("/oidc/register"),
            pace: None,
            rounds: Vec::new(),
        },
        Subject {
            name: "envoy-bare",
            workers: 1,
            address: bare.http_address(),
            processes: vec![bare.envoy_id(), store],
            request: |context, number| put_client(context, number, "envoy"),
            pace: None,
            rounds: Vec::new(),
        },
        Subject {
            name: "dcr-store",
            workers: cores,
            address: gateway.store_address(),
            processes: vec![store],
            request: |context, number| put_client(context, number, "store"),
            pace: None,
            rounds: Vec::new(),
        },
    ];
    // A store that is asked less often writes fewer clients with each sync. So that the difference to the gateway is
    // the edge and not that, it is also measured at the gateway's rate.
    subjects.push(Subject {
        name: PACED,
        workers: cores,
        address: gateway.store_address(),
        processes: vec![store],
        request: |context, number| put_client(context, number, "paced"),
        pace: Some("dcr-edge"),
        rounds: Vec::new(),
    });
    if let Some((process, address)) = &peer {
        subjects.push(Subject {
            name: "oidc-provider",
            workers: 1,
            address: *address,
            processes: vec![process.id()],
            request: |_, _| registration("/reg"),
            pace: None,
            rounds: Vec::new(),
        });
    }

    for round in 0..=ROUNDS {
        let context = Context { edge_token: gateway.edge_token().to_owned(), round };
        let mut rates = HashMap::new();
        for subject in &mut subjects {
            let (make, context) = (subject.request, context.clone());
            let pace = subject.pace.map(|name| rates[name]);
            let before = cpu_micros(&subject.processes);
            let time = if round == 0 { WARM_UP } else { ROUND };
            let run = load::run(subject.address, CONNECTIONS, time, pace, move |number| make(&context, number));
            rates.insert(subject.name, run.rate());
            let cpu_us_per_request = (cpu_micros(&subject.processes) - before) / run.micros.len() as f64;
            if round > 0 {
                subject.rounds.push(Round { run, cpu_us_per_request });
            }
        }
    }
    report(&results, &subjects);
}

/// The gateway's configuration with every path routed to the store and no filter: what a proxy costs by itself.
fn without_filter(configuration: String) -> String {
    let (before, rest) = configuration.split_once("          - name: dcr_edge\n").unwrap();
    let (_, after) = rest.split_once("          - name: envoy.filters.http.router\n").unwrap();
    let before = before.replace("cluster: authorization_server", "cluster: dcr_store");
    format!("{before}          - name: envoy.filters.http.router\n{after}")
}

/// The registration of the README.
fn registration(target: &str) -> Vec<u8> {
    http1::request("POST", target, &[("content-type", b"application/json")], metadata().to_string().as_bytes())
}

fn metadata() -> Value {
    json!({
        "client_name": "My Dynamic Application",
        "redirect_uris": ["https://application.example.com/callback"],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    })
}

/// What the edge would send to the store for [`registration`].
/// Whoever sends it is in the client's id, so that no two put the same client.
fn put_client(context: &Context, number: usize, by: &str) -> Vec<u8> {
    let path = format!("/edge/v1/tenants/default/clients/tpc_{by}{:011}{number:016}", context.round);
    let authorization = format!("Bearer {}", context.edge_token);
    let headers: [(&str, &[u8]); 2] =
        [("authorization", authorization.as_bytes()), ("content-type", b"application/json")];
    http1::request("PUT", &path, &headers, json!({"metadata": metadata()}).to_string().as_bytes())
}

/// The Node peer, if it can be had.
fn oidc_provider(dir: &Path) -> Option<(Process, SocketAddr)> {
    let installed = Command::new(root().join("tests/bench/peers.sh")).arg(dir).status().unwrap();
    installed.success().then(|| {
        let mut command = Command::new("node");
        command.arg(dir.join("oidc-provider.mjs")).env("NODE_ENV", "production");
        listening("oidc-provider", dir, &mut command)
    })
}

/// CPU time that processes have used, in microseconds: fields 14 and 15 of proc_pid_stat(5).
fn cpu_micros(processes: &[u32]) -> f64 {
    let ticks_per_second: f64 = output_of(Command::new("getconf").arg("CLK_TCK")).parse().unwrap();
    let ticks = processes.iter().map(|process| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        // The command's name may have blanks in it; it ends with the last parenthesis.
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
    });
    ticks.sum::<f64>() * 1_000_000.0 / ticks_per_second
}

/// Prints the table and writes `summary.json`.
fn report(results: &Path, subjects: &[Subject]) {
    let rows: Vec<Value> = subjects.iter().map(row).collect();
    println!(
        "\nregister_durable: {ROUNDS} rounds of {ROUND:?} for each subject, taking turns; {CONNECTIONS} connections"
    );
    println!("with keep-alive, over HTTP/1.1; CPU of all server processes of the subject. dcr-store is the store");
    println!(
        "called directly, as the edge calls it; envoy-bare is the same calls through an Envoy without the filter;"
    );
    println!(
        "oidc-provider registers in memory, the others on disk. \"paced\" is the store alone at the rate of dcr-edge.\n"
    );
    println!(
        "{:<17} {:>12} {:>12} {:>12} {:>10} {:>10}",
        "subject", "CPU µs, min", "median", "requests/s", "p50 µs", "p99 µs"
    );
    for row in &rows {
        let number = |name: &str| format!("{:.0}", row[name].as_f64().unwrap());
        println!(
            "{:<17} {:>12} {:>12} {:>12} {:>10} {:>10}",
            row["subject"].as_str().unwrap(),
            number("cpu_us_per_request_min"),
            number("cpu_us_per_request_median"),
            number("requests_per_second"),
            number("p50_us"),
            number("p99_us"),
        );
    }
    let cpu = |name: &str| {
        let row = rows.iter().find(|row| row["subject"] == name).unwrap();
        row["cpu_us_per_request_median"].as_f64().unwrap()
    };
    let wasm_bytes = fs::metadata(root().join("target/wasm32-wasip1/release/dcr_edge.wasm")).unwrap().len();
    println!("\ndcr_edge.wasm has {:.0} KiB (at most 400 wanted)", wasm_bytes as f64 / 1024.0);
    let (edge, bare, store, paced) = (cpu("dcr-edge"), cpu("envoy-bare"), cpu("dcr-store"), cpu(PACED));
    println!("the edge adds {:.0} µs of CPU to a registration at the same rate (at most 150 wanted),", edge - paced);
    println!(
        "{:.0} µs if the store alone is driven as fast as it can be; an Envoy without the filter adds {:.0} µs",
        edge - store,
        bare - store
    );
    for subject in subjects {
        println!("{}: {:.0} registrations per CPU-second", subject.name, 1e6 / cpu(subject.name));
    }
    let summary = json!({"machine": machine(), "wasm_bytes": wasm_bytes, "rows": rows});
    let path = results.join("summary.json");
    fs::write(&path, serde_json::to_string_pretty(&summary).unwrap()).unwrap();
    println!("\nwritten to {}", path.strip_prefix(root()).unwrap().display());
}

fn row(subject: &Subject) -> Value {
    let cpu = sorted(subject.rounds.iter().map(|round| round.cpu_us_per_request));
    let rates = sorted(subject.rounds.iter().map(|round| round.run.rate()));
    let micros = sorted(subject.rounds.iter().flat_map(|round| &round.run.micros).map(|micros| f64::from(*micros)));
    json!({
        "scenario": "register_durable",
        "subject": subject.name,
        "workers": subject.workers,
        "connections": CONNECTIONS,
        "cpu_us_per_request_min": round_to_tenth(cpu[0]),
        "cpu_us_per_request_median": round_to_tenth(cpu[cpu.len() / 2]),
        "requests_per_second": round_to_tenth(rates[rates.len() / 2]),
        "p50_us": micros[micros.len() / 2],
        "p99_us": micros[micros.len() * 99 / 100],
    })
}

fn sorted(numbers: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn round_to_tenth(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn machine() -> Value {
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "cpu": model.map(|(_, name)| name),
        "cores": std::thread::available_parallelism().unwrap(),
        "system": output_of(Command::new("uname").arg("-sr")),
        "envoy": output_of(Command::new(support::envoy::binary()).arg("--version")).trim(),
        "node": Command::new("node").arg("--version").output().ok().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()),
    })
}
