//! `register_durable`: what a registration costs at the gateway, at the store alone, and elsewhere. CPU is that of all
//! server processes of a subject.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::load::Expected;
use crate::measure::{self, CONNECTIONS, Subject, Times};
use crate::support::gateway::{Gateway, Options, listening};
use crate::support::process::Process;
use crate::support::{http1, root};

const PACED: &str = "dcr-store, paced";

/// Runs it and prints its table; gives the rows.
pub fn run(results: &Path, times: Times) -> Vec<Value> {
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
    let peer = oidc_provider(&results.join("peers"));

    let bare = Gateway::start(Options {
        concurrency: 1,
        store: Some(gateway.store_address()),
        edit: Box::new(without_filter),
        ..Options::default()
    });
    let (store, token) = (gateway.store_id(), gateway.edge_token());
    let cores = std::thread::available_parallelism().unwrap().get();
    let mut subjects = vec![
        Subject {
            scenario: "register_durable",
            name: "dcr-edge",
            workers: 1,
            address: gateway.http_address(),
            processes: vec![gateway.envoy_id(), store],
            request: measure::always(registration("/oidc/register")),
            expected: Expected::only(201),
            pace: None,
            rounds: Vec::new(),
        },
        Subject {
            scenario: "register_durable",
            name: "envoy-bare",
            workers: 1,
            address: bare.http_address(),
            processes: vec![bare.envoy_id(), store],
            request: puts(token, "envoy"),
            expected: Expected::only(201),
            pace: None,
            rounds: Vec::new(),
        },
        Subject {
            scenario: "register_durable",
            name: "dcr-store",
            workers: cores,
            address: gateway.store_address(),
            processes: vec![store],
            request: puts(token, "store"),
            expected: Expected::only(201),
            pace: None,
            rounds: Vec::new(),
        },
    ];
    // A store that is asked less often writes fewer clients with each sync. So that the difference to the gateway is
    // the edge and not that, it is also measured at the gateway's rate.
    subjects.push(Subject {
        scenario: "register_durable",
        name: PACED,
        workers: cores,
        address: gateway.store_address(),
        processes: vec![store],
        request: puts(token, "paced"),
        expected: Expected::only(201),
        pace: Some("dcr-edge"),
        rounds: Vec::new(),
    });
    if let Some((process, address)) = &peer {
        subjects.push(Subject {
            scenario: "register_durable",
            name: "oidc-provider",
            workers: 1,
            address: *address,
            processes: vec![process.id()],
            request: measure::always(registration("/reg")),
            expected: Expected::only(201),
            pace: None,
            rounds: Vec::new(),
        });
    }

    measure::take_turns(&mut subjects, times);
    report(&subjects, times)
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
pub fn puts(edge_token: &str, by: &'static str) -> measure::Request {
    let authorization = format!("Bearer {edge_token}");
    std::rc::Rc::new(move |round, number| {
        let path = format!("/edge/v1/tenants/default/clients/tpc_{by}{round:011}{number:016}");
        let headers: [(&str, &[u8]); 2] =
            [("authorization", authorization.as_bytes()), ("content-type", b"application/json")];
        http1::request("PUT", &path, &headers, json!({"metadata": metadata()}).to_string().as_bytes())
    })
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

/// Prints the table; gives the rows.
fn report(subjects: &[Subject], times: Times) -> Vec<Value> {
    let rows: Vec<Value> = subjects.iter().map(measure::row).collect();
    println!("\nregister_durable: {times} for each subject, taking turns; {CONNECTIONS} connections");
    println!("with keep-alive, over HTTP/1.1; CPU of all server processes of the subject. dcr-store is the store");
    println!(
        "called directly, as the edge calls it; envoy-bare is the same calls through an Envoy without the filter;"
    );
    println!(
        "oidc-provider registers in memory, the others on disk. \"paced\" is the store alone at the rate of dcr-edge.\n"
    );
    measure::print_table(&rows);
    let cpu = |name: &str| {
        let row = rows.iter().find(|row| row["subject"] == name).unwrap();
        row["cpu_us_per_request_median"].as_f64().unwrap()
    };
    let (edge, bare, store, paced) = (cpu("dcr-edge"), cpu("envoy-bare"), cpu("dcr-store"), cpu(PACED));
    println!();
    println!("the edge adds {:.0} µs of CPU to a registration at the same rate (at most 150 wanted),", edge - paced);
    println!(
        "{:.0} µs if the store alone is driven as fast as it can be; an Envoy without the filter adds {:.0} µs",
        edge - store,
        bare - store
    );
    for subject in subjects {
        println!("{}: {:.0} registrations per CPU-second", subject.name, 1e6 / cpu(subject.name));
    }
    rows
}
