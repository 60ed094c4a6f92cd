//! `untouched_instructions`: how many instructions a request costs an Envoy on a route on which the filter is disabled.
//! They are counted by Valgrind's callgrind, which repeats what no clock does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Options};
use crate::support::output_of;
use crate::support::process::Process;
use crate::support::{callgrind, http1};
use crate::{peers, stand_in};

/// Requests that are counted, and as many that go before them.
const REQUESTS: u32 = 2_000;

/// An Envoy in Valgrind takes minutes to compile a filter.
const PATIENCE: Duration = Duration::from_secs(400);

/// Measures, prints and gives the rows; none without Valgrind.
pub fn run(results: &Path) -> Vec<Value> {
    println!("\nuntouched_instructions: a GET on a route on which the filter is disabled, answered by Envoy itself,");
    println!(
        "counted by callgrind, {REQUESTS} of them, without what Envoy does in the same time without requests: in Valgrind"
    );
    println!("that time is long\n");
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("there is no valgrind (Debian: apt install valgrind)");
        return Vec::new();
    }
    let store = stand_in::start([stand_in::tenant(json!({}))]);
    let rows = ["dcr-edge", "envoy-bare"].map(|name| {
        let edit = if name == "dcr-edge" { peers::left_alone } else { peers::bare };
        let gateway = Gateway::start(peers::options(store, 1, json!({}), edit));
        let each = count(results, &gateway) / f64::from(REQUESTS);
        println!("{name:<12} {each:>9.0}");
        json!({
            "scenario": "untouched_instructions",
            "subject": name,
            "workers": 1,
            "instructions_per_request": each.round(),
        })
    });
    let each = |row: usize| rows[row]["instructions_per_request"].as_f64().unwrap();
    println!("\n{:.3} times as many", each(0) / each(1));
    rows.into()
}

/// The instructions that requests cost an Envoy.
fn count(results: &Path, gateway: &Gateway) -> f64 {
    let folder = tempfile::tempdir_in(results).unwrap();
    let (address_file, counts) = (folder.path().join("address"), folder.path().join("counts"));
    let mut command = Command::new("valgrind");
    // V8 writes code where code was.
    command.args(["--tool=callgrind", "--instr-atstart=no", "--smc-check=all-non-file"]);
    command.arg(format!("--callgrind-out-file={}", counts.display()));
    command.arg(crate::support::envoy::binary()).arg("-c").arg(gateway.folder().path().join("envoy.yaml"));
    command.args(["--disable-hot-restart", "--concurrency", "1", "--admin-address-path"]).arg(&address_file);
    command.env("DCR_EDGE_TOKEN", Options::default().edge_token);
    let process = Process::spawn("valgrind", folder.path(), &mut command);
    let begun = Instant::now();
    let admin = loop {
        let text = std::fs::read_to_string(&address_file).unwrap_or_default();
        if let Ok(address) = text.parse::<SocketAddr>() {
            break address;
        }
        assert!(begun.elapsed() < PATIENCE, "Envoy does not start in valgrind: {}", process.log());
        std::thread::sleep(Duration::from_millis(100));
    };
    // It answers once it has compiled the filter.
    let port = loop {
        let url = format!("http://{admin}/listeners?format=json");
        let listeners = ureq::get(url).call().unwrap().body_mut().read_json::<Value>().unwrap();
        if let port @ Value::Number(_) =
            &listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"]
        {
            break port.to_string();
        }
        assert!(begun.elapsed() < PATIENCE, "Envoy has no listener in valgrind: {}", process.log());
        std::thread::sleep(Duration::from_millis(100));
    };
    let mut connection = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    // The first one waits until the worker has its filter.
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = || {
        connection.write_all(&http1::request("GET", "/", &[], b"")).unwrap();
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\nok") {
            let mut piece = [0; 4096];
            let length = connection.read(&mut piece).unwrap();
            assert_ne!(length, 0, "{}", received.escape_ascii());
            received.extend_from_slice(&piece[..length]);
        }
        assert!(received.starts_with(b"HTTP/1.1 200 "), "{}", received.escape_ascii());
    };
    let control = |command: &str| {
        output_of(Command::new("callgrind_control").arg(command).arg(process.id().to_string()));
    };
    (0..REQUESTS).for_each(|_| request());
    control("--instr=on");
    let begun = Instant::now();
    (0..REQUESTS).for_each(|_| request());
    let time = begun.elapsed();
    control("--dump");
    std::thread::sleep(time);
    control("--dump");
    drop(connection);
    process.terminate();
    // Each of them begins at nothing.
    let total = |part: &str| callgrind::total(&counts.with_extension(part));
    total("1") - total("2")
}
