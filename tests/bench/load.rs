//! A load generator: so many connections, each of which sends its next request when it has its answer, or later to
//! keep a pace.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Requests of one run at most, whatever its time.
const MOST_REQUESTS: usize = 500_000;

/// What a run measured.
pub struct Run {
    /// The time of each request, in microseconds.
    pub micros: Vec<u32>,
    /// How long the run took.
    pub elapsed: Duration,
}

impl Run {
    /// Requests in a second.
    pub fn rate(&self) -> f64 {
        self.micros.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Keeps `connections` to `address` busy for `time`, with at most `pace` requests in a second. `request` makes the bytes
/// of the nth request; every answer has to be a 201.
pub fn run(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    pace: Option<f64>,
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
                    let mut micros = Vec::new();
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
                        receive_201(&mut connection, &mut received).await;
                        micros.push(u32::try_from(sent.elapsed().as_micros()).unwrap());
                    }
                    micros
                })
            })
            .collect();
        let mut micros = Vec::new();
        for client in clients {
            micros.extend(client.await.unwrap());
        }
        Run { micros, elapsed: start.elapsed() }
    })
}

/// Reads one answer with a `content-length`.
async fn receive_201(connection: &mut TcpStream, received: &mut Vec<u8>) {
    received.clear();
    loop {
        assert_ne!(connection.read_buf(received).await.unwrap(), 0, "the server closed the connection");
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head_length) = head.parse(received).unwrap() else { continue };
        let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length")).unwrap();
        let length: usize = std::str::from_utf8(length.value).unwrap().parse().unwrap();
        if received.len() == head_length + length {
            assert_eq!(head.code, Some(201), "{}", received.escape_ascii());
            return;
        }
    }
}
