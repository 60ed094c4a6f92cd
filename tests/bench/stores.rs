//! `stores`: what a store costs that has many clients, on SQLite and on PostgreSQL; and what a second store on PostgreSQL
//! adds.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::load::{self, Expected, Rate};
use crate::measure::{CONNECTIONS, Times, cpu_micros, round_to_tenth, sorted};
use crate::register::puts;
use crate::support::http1::{self, Connection as Http};
use crate::support::postgres::Server;
use crate::support::process::rss_mib;
use crate::support::store::{Folder, Store, runtime};

const FEW: u32 = 1_000;
const MANY: u32 = 1_000_000;

/// Look-ups of each store, each of another client; the median counts.
const LOOK_UPS: usize = 2_001;

/// Measures, prints and gives the rows.
pub fn run(results: &Path, times: Times) -> Vec<Value> {
    let server = Server::start(&[]);
    if server.is_none() {
        println!("\nstores: without PostgreSQL");
    }
    let mut rows = look_ups(results, server.as_ref());
    if let Some(server) = &server {
        rows.extend(one_and_two(server, times));
    }
    rows
}

/// Look-ups by id among few and among many.
fn look_ups(results: &Path, server: Option<&Server>) -> Vec<Value> {
    println!("\nstores: GET /api/v2/clients/ID of clients anywhere, median of {LOOK_UPS}, taking turns\n");
    println!(
        "{:<12} {:>14} {:>18} {:>8} {:>26}",
        "database", "of 1,000, ms", "of 1,000,000, ms", "ratio", "store with them, MiB"
    );
    let mut rows = Vec::new();
    for database in ["SQLite", "PostgreSQL"] {
        let empty = || match (database, server) {
            // Beside the build and not in /tmp, which may be in memory.
            ("SQLite", _) => Some(Folder::empty_in(results)),
            (_, server) => server.map(|server| Folder::on(server.create_database())),
        };
        let (Some(few), Some(many)) = (empty(), empty()) else { continue };
        let folders = [(few, FEW), (many, MANY)].map(|(folder, clients)| {
            folder.create_enabled_tenant("default", json!({}));
            folder.fill_with_clients(clients);
            folder
        });
        let stores = folders.each_ref().map(Folder::serve);
        let requests = folders.each_ref().map(requests);
        let mut connections = stores.each_ref().map(|store| Http::open(store.address()));
        let mut millis = [Vec::new(), Vec::new()];
        for number in 0..LOOK_UPS {
            for index in [0, 1] {
                let request = &requests[index][number % requests[index].len()];
                let sent = Instant::now();
                connections[index].send(request);
                let response = connections[index].receive();
                millis[index].push(sent.elapsed().as_secs_f64() * 1_000.0);
                assert_eq!(response.status, 200, "{response:?}");
            }
        }
        let [few, many] = millis.map(|millis| sorted(millis.into_iter())[LOOK_UPS / 2]);
        // A store that has been at work.
        register(&stores[1..], std::time::Duration::from_secs(5), 0);
        let mib = rss_mib(stores[1].process.id());
        println!("{database:<12} {few:>14.2} {many:>18.2} {:>8.2} {mib:>26.0}", many / few);
        rows.push(json!({
            "scenario": "stores",
            "database": database,
            "ms_of_1000": few,
            "ms_of_1000000": many,
            "ratio": many / few,
            "mib_with_1000000": round_to_tenth(mib),
        }));
    }
    println!("\n(a ratio of 1.5 and 128 MiB at most wanted)");
    rows
}

/// A request for each of some clients.
fn requests(folder: &Folder) -> Vec<Vec<u8>> {
    let token = folder.succeed(&["token", "--tenant", "default"]);
    let authorization = format!("Bearer {}", token.trim());
    let select = "SELECT client_id FROM clients ORDER BY random() LIMIT 2001";
    let ids: Vec<String> = if folder.url().starts_with("postgres") {
        runtime().block_on(async {
            let mut connection = PgConnection::connect(&folder.url()).await.unwrap();
            sqlx::query_scalar(select).fetch_all(&mut connection).await.unwrap()
        })
    } else {
        folder.with_tables(async |pool| sqlx::query_scalar(select).fetch_all(pool).await.unwrap())
    };
    let request = |id: &String| {
        let headers = [("authorization", authorization.as_bytes())];
        http1::request("GET", &format!("/api/v2/clients/{id}"), &headers, b"")
    };
    ids.iter().map(request).collect()
}

/// Registers at all of these stores at the same time; gives registrations in a second, and the CPU time of each in
/// microseconds, of the stores alone.
fn register(stores: &[Store], time: std::time::Duration, round: usize) -> (f64, f64) {
    let processes: Vec<u32> = stores.iter().map(|store| store.process.id()).collect();
    let before = cpu_micros(&processes);
    let runs: Vec<load::Run> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..stores.len())
            .map(|index| {
                let store = &stores[index];
                scope.spawn(move || {
                    let put = puts(&store.edge_token(), if index == 0 { "first" } else { "other" });
                    load::run(store.address(), CONNECTIONS, time, Rate::Most, Expected::only(201), move |number| {
                        put(round, number)
                    })
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let rate = runs.iter().map(load::Run::rate).sum();
    let requests: usize = runs.iter().map(load::Run::requests).sum();
    (rate, (cpu_micros(&processes) - before) / requests as f64)
}

/// What a registration costs a store that is alone on a PostgreSQL, and two of them. Each has as many connections to serve.
fn one_and_two(server: &Server, times: Times) -> Vec<Value> {
    let folder = Folder::on(server.create_database());
    folder.create_enabled_tenant("default", json!({}));
    let stores = [folder.serve(), folder.serve()];
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for round in 0..=times.rounds() {
        let measured =
            [register(&stores[..1], times.round(), 2 * round), register(&stores, times.round(), 2 * round + 1)];
        if round > 0 {
            one.push(measured[0]);
            two.push(measured[1]);
        }
    }
    let median =
        |rounds: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| sorted(rounds.iter().map(pick))[rounds.len() / 2];
    println!(
        "\nstores: registrations at the stores on one PostgreSQL, {times}, taking turns, {CONNECTIONS} connections"
    );
    println!("to each; CPU of the stores alone\n");
    println!("{:<8} {:>14} {:>10}", "stores", "requests/s", "CPU µs");
    let mut rows = Vec::new();
    for (stores, rounds) in [(1, &one), (2, &two)] {
        let (rate, cpu) = (median(rounds, |round| round.0), median(rounds, |round| round.1));
        println!("{stores:<8} {rate:>14.0} {cpu:>10.1}");
        rows.push(json!({
            "scenario": "stores",
            "stores": stores,
            "requests_per_second": round_to_tenth(rate),
            "cpu_us_per_request_median": round_to_tenth(cpu),
        }));
    }
    let gain = 2.0 * median(&one, |round| round.1) / median(&two, |round| round.1);
    println!("\nwith the same CPU time each, two stores register {gain:.2} times as much as one (1.6 at least wanted)");
    rows.push(json!({"scenario": "stores", "gain_per_cpu_budget": gain}));
    rows
}
