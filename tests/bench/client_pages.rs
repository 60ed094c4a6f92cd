//! `client_pages`: a page of clients among many and among few, at the store; and what many clients take on disk.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::measure::{round_to_tenth, sorted};
use crate::support::http1::{self, Connection};
use crate::support::store::Folder;

const FEW: u32 = 1_000;
const MANY: u32 = 1_000_000;
const PER_PAGE: u32 = 100;

/// Requests of each page; the median counts.
const REQUESTS: usize = 301;

/// Measures, prints and gives the rows.
pub fn run(results: &Path) -> Vec<Value> {
    // Beside the build and not in /tmp, which may be in memory.
    let folders = [FEW, MANY].map(|clients| {
        let folder = Folder::empty_in(results);
        folder.create_enabled_tenant("default", json!({}));
        folder.fill_with_clients(clients);
        folder
    });
    let mib = fs::metadata(folders[1].database()).unwrap().len() as f64 / 1_048_576.0;
    let stores = folders.each_ref().map(Folder::serve);
    let tokens = folders.each_ref().map(|folder| folder.succeed(&["token", "--tenant", "default"]));
    let mut connections = stores.each_ref().map(|store| Connection::open(store.address()));

    println!(
        "\nclient_pages: a page of {PER_PAGE} clients with include_totals, through HTTP, median of {REQUESTS}, taking turns\n"
    );
    println!("{:<8} {:>16} {:>18} {:>8}", "page", "of 1,000, ms", "of 1,000,000, ms", "ratio");
    let mut rows = Vec::new();
    for (name, place) in [("first", 0.0), ("middle", 0.5), ("last", 1.0)] {
        let requests = [0, 1].map(|index| {
            let pages = [FEW, MANY][index] / PER_PAGE;
            let page = (f64::from(pages - 1) * place).ceil();
            let target = format!("/api/v2/clients?page={page}&per_page={PER_PAGE}&include_totals=true");
            let authorization = format!("Bearer {}", tokens[index].trim());
            http1::request("GET", &target, &[("authorization", authorization.as_bytes())], b"")
        });
        let mut millis = [Vec::new(), Vec::new()];
        for _ in 0..REQUESTS {
            for index in [0, 1] {
                let sent = Instant::now();
                connections[index].send(&requests[index]);
                let response = connections[index].receive();
                millis[index].push(sent.elapsed().as_secs_f64() * 1_000.0);
                assert_eq!(response.status, 200, "{response:?}");
            }
        }
        let [few, many] = millis.map(|millis| sorted(millis.into_iter())[REQUESTS / 2]);
        println!("{name:<8} {few:>16.2} {many:>18.2} {:>8.2}", many / few);
        rows.push(json!({
            "scenario": "client_pages",
            "page": name,
            "ms_of_1000": few,
            "ms_of_1000000": many,
            "ratio": many / few,
        }));
    }
    println!("\n(a ratio of 2 at most wanted); the file with 1,000,000 clients has {mib:.0} MiB (at most 1024 wanted)");
    rows.push(json!({"scenario": "client_pages", "clients": MANY, "file_mib": round_to_tenth(mib)}));
    rows
}
