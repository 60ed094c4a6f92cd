//! Something in the store's place: it tells tenants as a store does, writes no client to any disk, and refuses what
//! reaches it from others than the filter.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, RwLock};

use dcr_edge::edge_api::{PROTOCOL_HEADER, PROTOCOL_VERSION};
use serde_json::{Value, json};

use crate::support::{hot, http1};

/// A page ends behind this many bytes, as one of the store does.
const PAGE_BYTES: usize = 256 * 1024;

/// What it tells, one text for each change.
type Changes = Arc<RwLock<Vec<String>>>;

/// One that goes on telling.
pub struct StandIn {
    /// Where it listens.
    pub address: SocketAddr,
    changes: Changes,
}

impl StandIn {
    /// Starts one that tells `tenants`, each as the JSON of a `tenant::Snapshot`. Its threads end with the benchmark.
    pub fn new(tenants: impl IntoIterator<Item = Value>) -> Self {
        let changes: Vec<_> = (1..).zip(tenants).map(|(number, tenant)| change(number, number, &tenant)).collect();
        let changes = Arc::new(RwLock::new(changes));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::clone(&changes);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let changes = Arc::clone(&told);
                // An error means that the other side has gone.
                std::thread::spawn(move || serve(stream, &changes).unwrap_or_default());
            }
        });
        Self { address, changes }
    }

    /// Tells a new state of the tenant that was told as number `slot`, from 1 on.
    pub fn tell(&self, slot: usize, tenant: &Value) {
        let mut changes = self.changes.write().unwrap();
        let version = changes.len() + 1;
        changes.push(change(slot, version, tenant));
    }
}

fn change(slot: usize, version: usize, tenant: &Value) -> String {
    json!({"slot": slot, "version": version, "tenant": tenant}).to_string()
}

/// Starts one that tells `tenants` and no more.
pub fn start(tenants: impl IntoIterator<Item = Value>) -> SocketAddr {
    StandIn::new(tenants).address
}

/// The tenant of `localhost`, with registration enabled and these members of `dcr_edge`.
pub fn tenant(dcr_edge: Value) -> Value {
    json!({
        "name": "default",
        "domains": ["localhost"],
        "settings": {"flags": {"enable_dynamic_client_registration": true}, "dcr_edge": dcr_edge},
    })
}

fn serve(stream: TcpStream, changes: &Changes) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body)?;
        let target = head.split(' ').nth(1).unwrap();
        let (status, body) = match target.strip_prefix("/edge/v1/changes?after=") {
            Some(rest) => (200, page(&changes.read().unwrap(), rest.split('&').next().unwrap().parse().unwrap())),
            None if !target.starts_with("/edge/") => (403, "{}".to_owned()),
            None if target.ends_with("/controls") => (200, controls(target.rsplit('/').nth(1).unwrap())),
            None => {
                let client_id = target.rsplit('/').next();
                (201, json!({"client_id": client_id, "client_id_issued_at": 1}).to_string())
            }
        };
        let length = body.len();
        let marker = format!("{PROTOCOL_HEADER}: {PROTOCOL_VERSION}");
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{marker}\r\n\r\n{body}");
        reader.get_mut().write_all(answer.as_bytes())?;
    }
}

/// The changes after the one with this number.
fn page(changes: &[String], after: usize) -> String {
    let mut bytes = 0;
    let rest = &changes[after..];
    let is_in = |change: &&String| {
        let has_room = bytes < PAGE_BYTES;
        bytes += change.len();
        has_room
    };
    let page: Vec<_> = rest.iter().take_while(is_in).map(String::as_str).collect();
    let (full, head, more) = (after == 0, after + page.len(), page.len() < rest.len());
    let tenants = page.join(",");
    format!(r#"{{"instance": "ab", "full": {full}, "head": {head}, "more": {more}, "tenants": [{tenants}]}}"#)
}

/// A client of any id, with what it may do.
fn controls(client_id: &str) -> String {
    json!({"client": hot::client(client_id), "permissions": hot::permissions()}).to_string()
}

/// An authorization request of the client with this number, as short as it may be.
pub fn authorization_request(client: usize) -> Vec<u8> {
    let target = format!(
        "/authorize?client_id=tpc_{client:0>32}&response_type=code&redirect_uri=https%3A%2F%2Fapp.example%2Fcb\
         &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256"
    );
    http1::request("GET", &target, &[], b"")
}
