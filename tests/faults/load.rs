//! Many clients that register at once, on connections that they keep, and know what they were told.

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::http1::{self, Connection};
use crate::support::response::Response;

/// Those who may register. A blocked one and one of the limited tenant come beside them.
const CLIENTS: usize = 16;

/// How long one waits after anything but a 201.
const PAUSE: Duration = Duration::from_millis(5);

/// Who asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Who {
    /// One who may register.
    Anybody,
    /// One whose address is blocked.
    Blocked,
    /// One of the tenant with a limit, who asks oftener than that.
    Limited,
}

impl Who {
    /// A registration with a name that no other has, and that name.
    pub fn request(self) -> (String, Vec<u8>) {
        let limited = format!("{}.example", super::LIMITED);
        self.request_at(if self == Self::Limited { &limited } else { "localhost" })
    }

    /// The same at another host.
    pub fn request_at(self, host: &str) -> (String, Vec<u8>) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("client {}", NEXT.fetch_add(1, Ordering::Relaxed));
        let source = if self == Self::Blocked { super::BLOCKED } else { "198.51.100.7" };
        let headers =
            [("host", host.as_bytes()), ("content-type", b"application/json"), ("x-forwarded-for", source.as_bytes())];
        let body = format!(r#"{{"redirect_uris":["https://app.example/cb"],"client_name":"{name}"}}"#);
        (name, http1::request("POST", "/oidc/register", &headers, body.as_bytes()))
    }

    /// Whether this one may ever be answered so, whatever breaks.
    pub fn may_get(self, status: u16) -> bool {
        match self {
            Self::Anybody => matches!(status, 201 | 503),
            Self::Blocked => matches!(status, 403 | 503),
            Self::Limited => matches!(status, 201 | 429 | 503),
        }
    }
}

/// What clients got.
#[derive(Default)]
pub struct Outcome {
    /// The ids of the clients that were acknowledged, by the names that were asked for: those of the tenant `default`.
    pub acknowledged: HashMap<String, String>,
    /// Those of the limited tenant.
    pub limited: HashMap<String, String>,
    /// How often each status came.
    pub statuses: BTreeMap<u16, usize>,
    /// Connections that ended without an answer, or were none.
    pub unanswered: usize,
    /// The longest time until an answer, or until there would be none.
    pub slowest: Duration,
}

impl Outcome {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.limited.extend(other.limited);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.unanswered += other.unanswered;
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// What those who may register got so far.
#[derive(Default)]
struct Counts {
    acknowledged: AtomicUsize,
    unavailable: AtomicUsize,
}

/// Load on an address, until it is stopped or dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    clients: Vec<JoinHandle<Outcome>>,
}

impl Load {
    /// Starts it.
    pub fn start(address: SocketAddr) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let everybody = [Who::Anybody; CLIENTS].into_iter().chain([Who::Blocked, Who::Limited]);
        let start = |who| {
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
            thread::spawn(move || ask(address, who, &stop, &counts))
        };
        let clients = everybody.map(start).collect();
        Self { stop, counts, clients }
    }

    /// How many of those who may register are acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.counts.acknowledged.load(Ordering::Relaxed)
    }

    /// How many of them were answered 503.
    pub fn unavailable(&self) -> usize {
        self.counts.unavailable.load(Ordering::Relaxed)
    }

    /// Ends it when every request under way has its answer.
    pub fn stop(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for client in self.clients.drain(..) {
            all.add(client.join().expect("an answer that may come"));
        }
        all
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask(address: SocketAddr, who: Who, stop: &AtomicBool, counts: &Counts) -> Outcome {
    let (mut outcome, mut connection) = (Outcome::default(), None);
    while !stop.load(Ordering::Relaxed) {
        let (name, request) = who.request();
        let asked = Instant::now();
        let response = exchange(&mut connection, address, &request);
        outcome.slowest = outcome.slowest.max(asked.elapsed());
        match response {
            None => {
                connection = None;
                outcome.unanswered += 1;
            }
            Some(response) => {
                let status = response.status;
                assert!(who.may_get(status), "{who:?}: {response:?}");
                *outcome.statuses.entry(status).or_default() += 1;
                if status == 201 {
                    let body = response.json();
                    assert_eq!(body["client_name"], name.as_str(), "the answer to another request");
                    let id = body["client_id"].as_str().unwrap().to_owned();
                    if who == Who::Anybody {
                        outcome.acknowledged.insert(name, id);
                        counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    outcome.limited.insert(name, id);
                } else if who == Who::Anybody && status == 503 {
                    counts.unavailable.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        thread::sleep(PAUSE);
    }
    outcome
}

/// The one answer to a request; `None` if the connection ends without a whole one.
fn exchange(connection: &mut Option<Connection<TcpStream>>, address: SocketAddr, request: &[u8]) -> Option<Response> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::try_open(address).ok()?,
    };
    open.send(request);
    let response = open.try_receive().ok()?;
    assert!(!open.has_more(), "two answers to one request: {response:?}");
    // Envoy closes it after a refusal that came before the body.
    *connection = Some(open).filter(|_| response.header("connection") != Some("close"));
    Some(response)
}
