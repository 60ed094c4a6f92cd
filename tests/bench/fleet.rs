//! `limit_fleet`: what three Envoys on one store register together, each of which is asked for as much as it can take.

use std::time::Instant;

use serde_json::{Value, json};

use crate::measure::Times;
use crate::support::gateway::{Gateway, Options};
use crate::support::http1;

const BURST: u32 = 20;
const PER_SECOND: u32 = 20;

/// Clients of each Envoy.
const CONNECTIONS: usize = 2;

/// Measures, prints and gives the row.
pub fn run(times: Times) -> Vec<Value> {
    println!("\nlimit_fleet: registrations at three Envoys on one store, with a limit of {PER_SECOND} in a second and");
    println!("{BURST} at once; the store lets one more through than an edge does\n");
    let gateway = Gateway::start(Options { concurrency: 1, ..Options::default() });
    gateway.patch_settings(&json!({
        "flags": {"enable_dynamic_client_registration": true},
        "dcr_edge": {"rate_limit": {"burst": BURST, "per_second": PER_SECOND}},
    }));
    let others = [gateway.another_envoy(), gateway.another_envoy()];
    let addresses = [gateway.http_address(), others[0].http_address(), others[1].http_address()];
    let body = json!({"redirect_uris": ["https://application.example.com/callback"]}).to_string();
    let request = http1::request("POST", "/oidc/register", &[("content-type", b"application/json")], body.as_bytes());
    let (begun, request) = (Instant::now(), &request);
    let flood = |address| {
        let mut admitted = 0_u32;
        while begun.elapsed() < times.round() {
            // Envoy closes the connection after a refusal that came before the body.
            match http1::exchange(address, request).status {
                201 => admitted += 1,
                429 => {}
                other => panic!("{other}"),
            }
        }
        admitted
    };
    let admitted: u32 = std::thread::scope(|scope| {
        let each = addresses.iter().flat_map(|address| std::iter::repeat_n(*address, CONNECTIONS));
        let threads: Vec<_> = each.map(|address| scope.spawn(move || flood(address))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let bound = (f64::from(BURST + 1) + f64::from(PER_SECOND) * begun.elapsed().as_secs_f64()).floor();
    println!("{admitted} registered in {:.1} s, bound {bound}", begun.elapsed().as_secs_f64());
    vec![json!({"scenario": "limit_fleet", "subject": "dcr-edge", "envoys": 3, "admitted": admitted, "bound": bound})]
}
