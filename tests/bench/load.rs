//! A load generator, which either keeps its connections busy, to see what a server can do, or sends at a constant rate
//! whatever the answers do, to see how long they take. The latter is what wrk2 does: the time of a request begins when it
//! was due, so that a server that stalls is charged with all requests that had to wait for it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Requests of one run at most, whatever its time.
const MOST_REQUESTS: usize = 500_000;

/// Which answers are right; any other ends the benchmark.
#[derive(Clone, Copy)]
pub struct Expected {
    /// The status that is measured.
    pub status: u16,
    /// The status of requests that a limit lets through: these are counted, and their time is not.
    pub admitted: Option<u16>,
}

impl Expected {
    /// This status and no other.
    pub fn only(status: u16) -> Self {
        Self { status, admitted: None }
    }
}

/// How requests follow each other.
#[derive(Clone, Copy)]
pub enum Rate {
    /// Each connection sends its next one when it has its answer.
    Most,
    /// So many in a second, on whichever connection is free.
    PerSecond(f64),
}

/// What a run measured.
pub struct Run {
    /// The time of each request, in microseconds.
    pub micros: Vec<u32>,
    /// Requests that a limit let through, which are not among those.
    pub admitted: usize,
    /// How long the run took.
    pub elapsed: Duration,
}

impl Run {
    /// All requests.
    pub fn requests(&self) -> usize {
        self.micros.len() + self.admitted
    }

    /// Requests in a second.
    pub fn rate(&self) -> f64 {
        self.requests() as f64 / self.elapsed.as_secs_f64()
    }
}

/// What the connections of a run share.
struct Plan<R> {
    start: Instant,
    time: Duration,
    rate: Rate,
    /// The number of the next request.
    next: Cell<usize>,
    /// Requests that are due and that nobody has sent.
    due: Arc<Semaphore>,
    expected: Expected,
    request: R,
}

/// Sends requests to `address` for `time`, over so many connections. `request` makes the bytes of the nth request.
pub fn run(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    rate: Rate,
    expected: Expected,
    request: impl Fn(usize) -> Vec<u8> + 'static,
) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async move {
        let mut streams = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            streams.push(stream);
        }
        let (start, next, due) = (Instant::now(), Cell::new(0), Arc::new(Semaphore::new(0)));
        let plan = Rc::new(Plan { start, time, rate, next, due: Arc::clone(&due), expected, request });
        let clients: Vec<_> =
            streams.into_iter().map(|stream| tokio::task::spawn_local(Rc::clone(&plan).keep_busy(stream))).collect();
        if let Rate::PerSecond(rate) = rate {
            std::thread::spawn(move || keep_pace(&due, start, time, rate));
        }
        let (mut micros, mut admitted) = (Vec::new(), 0);
        for client in clients {
            let (of_client, admitted_of_client) = client.await.unwrap().unwrap_or_else(|answer| panic!("{answer}"));
            micros.extend(of_client);
            admitted += admitted_of_client;
        }
        Run { micros, admitted, elapsed: start.elapsed() }
    })
}

/// Lets one request go whenever one is due: in a thread of its own, whose sleep ends within a tenth of a millisecond. One
/// that stayed awake would take a core from the servers.
fn keep_pace(going: &Semaphore, start: Instant, time: Duration, rate: f64) {
    for number in 0..MOST_REQUESTS {
        let due = due_at(start, number, rate);
        if due >= start + time {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        going.add_permits(1);
    }
    // Those that wait for one that never comes.
    going.close();
}

fn due_at(start: Instant, number: usize, rate: f64) -> Instant {
    start + Duration::from_secs_f64(number as f64 / rate)
}

impl<R: Fn(usize) -> Vec<u8>> Plan<R> {
    /// Sends on one connection; gives the times in microseconds, and how many were admitted. The error is an answer that
    /// was not expected.
    async fn keep_busy(self: Rc<Self>, mut stream: TcpStream) -> Result<(Vec<u32>, usize), String> {
        let (mut micros, mut admitted, mut received) = (Vec::new(), 0, Vec::new());
        loop {
            let begun = match self.rate {
                Rate::Most => {
                    if self.start.elapsed() >= self.time || self.next.get() >= MOST_REQUESTS {
                        break;
                    }
                    None
                }
                Rate::PerSecond(rate) => {
                    let Ok(permit) = self.due.acquire().await else { break };
                    permit.forget();
                    Some(due_at(self.start, self.next.get(), rate))
                }
            };
            let number = self.next.replace(self.next.get() + 1);
            let bytes = (self.request)(number);
            let begun = begun.unwrap_or_else(Instant::now);
            stream.write_all(&bytes).await.unwrap();
            let status = receive(&mut stream, &mut received).await;
            if status == self.expected.status {
                micros.push(u32::try_from(begun.elapsed().as_micros()).unwrap());
            } else if Some(status) == self.expected.admitted {
                admitted += 1;
            } else {
                return Err(format!("expected {}: {}", self.expected.status, received.escape_ascii()));
            }
        }
        Ok((micros, admitted))
    }
}

/// Reads one answer with a `content-length`; gives its status.
async fn receive(connection: &mut TcpStream, received: &mut Vec<u8>) -> u16 {
    received.clear();
    loop {
        assert_ne!(connection.read_buf(received).await.unwrap(), 0, "the server closed the connection");
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head_length) = head.parse(received).unwrap() else { continue };
        let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length")).unwrap();
        let length: usize = std::str::from_utf8(length.value).unwrap().parse().unwrap();
        if received.len() == head_length + length {
            return head.code.unwrap();
        }
    }
}
