//! Something in the store's place that tells settings as a store does and then misbehaves on demand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dcr_edge::edge_api::{PROTOCOL_HEADER, PROTOCOL_VERSION};
use serde_json::json;

/// What it does with a registration.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Writes these bytes.
    Answer(Vec<u8>),
    /// Closes the connection.
    Close,
    /// Says nothing.
    Hang,
}

/// What it answers to some requests, by their heads.
type Script = Arc<dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync>;

/// Something in the store's place.
pub struct StandIn {
    address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    registrations: Arc<AtomicUsize>,
}

impl StandIn {
    /// Listens on a free port, and tells settings. Its threads end with the test's process.
    pub fn start() -> Self {
        Self::answering(Arc::new(|head| {
            let Behaviour::Answer(bytes) = answer(200, Some(PROTOCOL_VERSION), &changes(head)) else { return None };
            head.starts_with("GET /edge/v1/changes").then_some(bytes)
        }))
    }

    /// One that answers some requests as `script` says, and is asked for the others as [`Self::set`] says.
    pub fn answering(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let behaviour = Arc::new(Mutex::new(Behaviour::Close));
        let registrations = Arc::new(AtomicUsize::new(0));
        let shared = (script, Arc::clone(&behaviour), Arc::clone(&registrations));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, behaviour, registrations) = shared.clone();
                std::thread::spawn(move || serve(stream, &*script, &behaviour, &registrations));
            }
        });
        Self { address, behaviour, registrations }
    }

    /// How many registrations it was asked for.
    pub fn registrations(&self) -> usize {
        self.registrations.load(Ordering::Relaxed)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does with registrations from now on.
    pub fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }
}

/// An answer with a marker of the given version, or without one.
pub fn answer(status: u16, version: Option<&str>, body: &str) -> Behaviour {
    let marker = version.map(|version| format!("{PROTOCOL_HEADER}: {version}\r\n")).unwrap_or_default();
    let length = body.len();
    Behaviour::Answer(format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{marker}\r\n{body}").into_bytes())
}

fn serve(
    mut stream: TcpStream,
    script: &dyn Fn(&str) -> Option<Vec<u8>>,
    behaviour: &Mutex<Behaviour>,
    registrations: &AtomicUsize,
) {
    let mut received = Vec::new();
    while let Some((head, length)) = receive(&mut stream, &mut received) {
        let behaviour = if let Some(bytes) = script(&head) {
            Behaviour::Answer(bytes)
        } else if head.starts_with("GET /edge/v1/ready") {
            answer(200, Some(PROTOCOL_VERSION), "ready")
        } else {
            registrations.fetch_add(head.starts_with("PUT ").into(), Ordering::Relaxed);
            behaviour.lock().unwrap().clone()
        };
        received.drain(..length);
        match behaviour {
            Behaviour::Answer(bytes) => stream.write_all(&bytes).unwrap_or_default(),
            Behaviour::Close => return,
            // Until the other side closes.
            Behaviour::Hang => {
                let _ = stream.read(&mut [0; 1]);
                return;
            }
        }
    }
}

/// Reads one request; gives its head and its length. `None` at the end of the stream.
pub fn receive(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<(String, usize)> {
    loop {
        let text = String::from_utf8_lossy(received).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
            let whole = head.len() + 4 + length;
            if received.len() >= whole {
                return Some((head.to_owned(), whole));
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(size) => received.extend_from_slice(&piece[..size]),
        }
    }
}

fn changes(head: &str) -> String {
    let tenant = json!({
        "name": "default", "domains": ["localhost"],
        "settings": {
            "flags": {"enable_dynamic_client_registration": true},
            "dcr_edge": {"rate_limit": {"burst": 1000, "per_second": 1000}}
        }
    });
    let is_first = head.contains("after=0&");
    let tenants = if is_first { json!([{"slot": 1, "version": 1, "tenant": tenant}]) } else { json!([]) };
    json!({"instance": "ab", "full": is_first, "head": 1, "more": false, "tenants": tenants}).to_string()
}
