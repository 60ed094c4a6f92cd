//! A load generator: so many connections, each of which sends its next request when it has its answer, or later to
//! keep a pace.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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

/// Keeps `connections` to `address` busy for `time`, with at most `pace` requests in a second. `request` makes the bytes
/// of the nth request.
pub fn run(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    pace: Option<f64>,
    expected: Expected,
    request: impl Fn(usize) -> Vec<u8> + 'static,
) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async move {
        let request = Rc::new(request);
        let next = Rc::new(std::cell::Cell::new(0));
        let start = Instant::now();
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                let (request, next) = (Rc::clone(&request), Rc::clone(&next));
                tokio::task::spawn_local(async move {
                    let mut connection = TcpStream::connect(address).await.unwrap();
                    connection.set_nodelay(true).unwrap();
                    let (mut micros, mut admitted) = (Vec::new(), 0);
                    let mut received = Vec::new();
                    while start.elapsed() < time && next.get() < MOST_REQUESTS {
                        let number = next.replace(next.get() + 1);
                        if let Some(pace) = pace {
                            let due = start + Duration::from_secs_f64(number as f64 / pace);
                            tokio::time::sleep_until(due.into()).await;
                        }
                        let bytes = request(number);
                        let sent = Instant::now();
                        connection.write_all(&bytes).await.unwrap();
                        let status = receive(&mut connection, &mut received).await;
                        if status == expected.status {
                            micros.push(u32::try_from(sent.elapsed().as_micros()).unwrap());
                        } else {
                            assert_eq!(Some(status), expected.admitted, "{}", received.escape_ascii());
                            admitted += 1;
                        }
                    }
                    (micros, admitted)
                })
            })
            .collect();
        let (mut micros, mut admitted) = (Vec::new(), 0);
        for client in clients {
            let (of_client, admitted_of_client): (Vec<u32>, usize) = client.await.unwrap();
            micros.extend(of_client);
            admitted += admitted_of_client;
        }
        Run { micros, admitted, elapsed: start.elapsed() }
    })
}

/// Reads one answer with a `content-length`; gives its status.
async fn receive(connection: &mut TcpStream, received: &mut Vec<u8>) -> u16 {
    received.clear();
    loop {
        assert_ne!(connection.read_buf(received).await.unwrap(), 0, "the server closed the connection");
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head_length) = head.parse(received).unwrap() else { continue };
        let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length")).unwrap();
        let length: usize = std::str::from_utf8(length.value).unwrap().parse().unwrap();
        if received.len() == head_length + length {
            return head.code.unwrap();
        }
    }
}
