//! `register_durable`: what a registration costs at the gateway, at the store alone, and elsewhere; how many at once, and
//! how long each takes. CPU is that of all server processes of a subject.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::load::Expected;
use crate::measure::{self, CONNECTIONS, Subject, Times, sorted};
use crate::support::gateway::{Gateway, Options, listening};
use crate::support::process::Process;
use crate::support::{hot, http1, root};

/// The store alone, at the rate of the gateway.
const PACED: &str = "dcr-store, paced";

/// How many register at once.
const AT_ONCE: [usize; 3] = [1, 8, CONNECTIONS];

/// Syncs to disk that are measured before and after everything else.
const SYNCS: usize = 300;

/// Runs it and prints its table; gives the rows.
pub fn run(results: &Path, times: Times) -> Vec<Value> {
    let mut syncs = syncs(results);
    // Beside the build and not in /tmp, which may be in memory: durable is meant to cost what it costs.
    // Settings are looked for as often as shipped; the tests' 20 ms would be measured too.
    let gateway = Gateway::start(Options {
        concurrency: 1,
        parent: results.to_owned(),
        filter_configuration: json!({"store": {"cluster": "dcr_store"}}),
        ..Options::default()
    });
    gateway.patch_settings(&json!({
        "flags": {"enable_dynamic_client_registration": true},
        "dcr_edge": {"rate_limit": {"burst": 1_000_000, "per_second": 1_000_000}},
    }));
    let bare = Gateway::start(Options {
        concurrency: 1,
        store: Some(gateway.store_address()),
        edit: Box::new(without_filter),
        ..Options::default()
    });
    let peers = peers(&results.join("peers"));

    let (store, token) = (gateway.store_id(), gateway.edge_token());
    let cores = std::thread::available_parallelism().unwrap().get();
    let subject = |name, workers, address, connections, processes, request, pace| Subject {
        scenario: "register_durable",
        name,
        workers,
        address,
        connections,
        processes,
        request,
        expected: Expected::only(201),
        pace,
        rounds: Vec::new(),
    };
    let mut subjects = Vec::new();
    for connections in AT_ONCE {
        let through = vec![gateway.envoy_id(), store];
        let request = measure::always(registration("/oidc/register"));
        subjects.push(subject("dcr-edge", 1, gateway.http_address(), connections, through, request, None));
        for (name, target, process, address) in &peers {
            let request = measure::always(registration(target));
            subjects.push(subject(name, 1, *address, connections, vec![process.id()], request, None));
        }
    }
    let through = vec![bare.envoy_id(), store];
    subjects.push(subject("envoy-bare", 1, bare.http_address(), CONNECTIONS, through, puts(token, "envoy"), None));
    let at = gateway.store_address();
    subjects.push(subject("dcr-store", cores, at, CONNECTIONS, vec![store], puts(token, "store"), None));
    // A store that is asked less often writes fewer clients with each sync. So that the difference to the gateway is
    // the edge and not that, it is also measured at the gateway's rate.
    let pace = Some("dcr-edge");
    subjects.push(subject(PACED, cores, at, CONNECTIONS, vec![store], puts(token, "paced"), pace));

    measure::take_turns(&mut subjects, times);
    syncs.extend(self::syncs(results));
    report(&subjects, &sorted(syncs.into_iter()), times)
}

/// How long it takes to append a page to a file and to have it on disk, in microseconds, so many times.
fn syncs(results: &Path) -> Vec<f64> {
    let path = results.join("sync");
    let mut file = File::create(&path).unwrap();
    let times = (0..SYNCS).map(|_| {
        let begun = Instant::now();
        file.write_all(&[1; 4096]).unwrap();
        file.sync_data().unwrap();
        begun.elapsed().as_secs_f64() * 1e6
    });
    let times = times.collect();
    std::fs::remove_file(path).unwrap();
    times
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
    http1::request("POST", target, &[("content-type", b"application/json")], hot::registration().to_string().as_bytes())
}

/// What the edge would send to the store for [`registration`].
/// Whoever sends it is in the client's id, so that no two put the same client.
pub fn puts(edge_token: &str, by: &'static str) -> measure::Request {
    let authorization = format!("Bearer {edge_token}");
    std::rc::Rc::new(move |round, number| {
        let path = format!("/edge/v1/tenants/default/clients/tpc_{by}{round:011}{number:016}");
        let headers: [(&str, &[u8]); 2] =
            [("authorization", authorization.as_bytes()), ("content-type", b"application/json")];
        http1::request("PUT", &path, &headers, json!({"metadata": hot::registration()}).to_string().as_bytes())
    })
}

/// A server that registers clients too: its name, its path, its process and where it listens.
type Peer = (&'static str, &'static str, Process, SocketAddr);

/// The peers on Node.js, if they can be had. Both keep their clients in memory.
fn peers(dir: &Path) -> Vec<Peer> {
    let installed = Command::new(root().join("tests/bench/peers.sh")).arg(dir).status().unwrap();
    if !installed.success() {
        return Vec::new();
    }
    let start = |(name, target): (&'static str, &'static str)| {
        let mut command = Command::new("node");
        command.arg(dir.join(format!("{name}.mjs"))).env("NODE_ENV", "production");
        let (process, address) = listening(name, dir, &mut command);
        (name, target, process, address)
    };
    [("oidc-provider", "/reg"), ("mcp-sdk", "/register")].map(start).into()
}

/// Prints the table; gives the rows.
fn report(subjects: &[Subject], syncs: &[f64], times: Times) -> Vec<Value> {
    let mut rows: Vec<Value> = subjects.iter().map(measure::row).collect();
    for row in &mut rows {
        let cpu = row["cpu_us_per_request_median"].as_f64().unwrap();
        row["registrations_per_cpu_second"] = (1e6 / cpu).round().into();
    }
    println!("\nregister_durable: {times} for each subject, taking turns; CPU of all server processes of the subject.");
    println!(
        "dcr-store is the store called directly, as the edge calls it, and paced the same at the rate of dcr-edge;"
    );
    println!("envoy-bare is the same calls through an Envoy without the filter. oidc-provider and mcp-sdk register in");
    println!("memory, the others on disk.");
    measure::explain();
    measure::print_table(&rows);
    let cpu = |name: &str| {
        let row = rows.iter().rfind(|row| row["subject"] == name).unwrap();
        row["cpu_us_per_request_median"].as_f64().unwrap()
    };
    let (edge, bare, store, paced) = (cpu("dcr-edge"), cpu("envoy-bare"), cpu("dcr-store"), cpu(PACED));
    println!();
    println!("the edge adds {:.0} µs of CPU to a registration at the same rate,", edge - paced);
    println!(
        "{:.0} µs if the store alone is driven as fast as it can be; an Envoy without the filter adds {:.0} µs",
        edge - store,
        bare - store
    );
    let (p50, p99) = (syncs[syncs.len() / 2].round(), syncs[syncs.len() * 99 / 100].round());
    for row in rows.iter().filter(|row| row["subject"] == "dcr-edge") {
        println!("{} connections: CPU µs of each process {}", row["connections"], row["cpu_us_per_request_median_of"]);
    }
    println!("a page and a sync on this disk: p50 {p50} µs, p99 {p99} µs, of {} in all", syncs.len());
    rows.push(json!({"scenario": "sync", "subject": "disk", "p50_us": p50, "p99_us": p99}));
    for row in rows.iter().filter(|row| row["connections"] == CONNECTIONS) {
        println!("{}: {} registrations per CPU-second", row["subject"], row["registrations_per_cpu_second"]);
    }
    rows
}
