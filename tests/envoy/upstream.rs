//! An authorization server that answers what a test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::support::gateway::Options;

/// An authorization server that answers what a test wants.
pub struct Upstream {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<Vec<u8>>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    /// Listens on a free port. Its threads end with the test's process.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Self { address, answer: Arc::default(), requests: Arc::default() };
        let (answer, requests) = (Arc::clone(&upstream.answer), Arc::clone(&upstream.requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                std::thread::spawn(move || serve(stream, &answer, &requests));
            }
        });
        upstream
    }

    /// Options of a gateway that stands in front of it.
    pub fn behind(&self, options: Options) -> Options {
        let port = self.address.port();
        let edit = move |configuration: String| {
            let (before, after) = configuration.rsplit_once("- name: authorization_server\n").unwrap();
            let (until, rest) = after.split_once("port_value: ").unwrap();
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            let edited = format!("{before}- name: authorization_server\n{until}port_value: {port}{rest}");
            (options.edit)(edited)
        };
        Options { edit: Box::new(edit), ..options }
    }

    /// The bytes of its answers from now on, in pieces that are sent one after the other.
    pub fn answers(&self, pieces: &[&[u8]]) {
        *self.answer.lock().unwrap() = pieces.iter().map(|piece| piece.to_vec()).collect();
    }

    /// Answers with this status, these header lines and this body.
    pub fn says(&self, status: u16, headers: &str, body: &[u8]) {
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        self.answers(&[&[head.as_bytes(), body].concat()]);
    }

    /// The head of the last request, in lower case.
    pub fn last_request(&self) -> String {
        self.requests.lock().unwrap().last().cloned().expect("a request")
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// Answers every request of a connection; bodies of requests are not looked for.
fn serve(mut stream: TcpStream, answer: &Mutex<Vec<Vec<u8>>>, requests: &Mutex<Vec<String>>) {
    stream.set_nodelay(true).unwrap();
    let mut received = Vec::new();
    loop {
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = received.drain(..end + 4).collect();
            requests.lock().unwrap().push(String::from_utf8_lossy(&head).to_ascii_lowercase());
            let pieces = answer.lock().unwrap().clone();
            for (number, piece) in pieces.iter().enumerate() {
                if number > 0 {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                if stream.write_all(piece).is_err() {
                    return;
                }
            }
        } else {
            let mut piece = [0; 4096];
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => return,
                Ok(size) => received.extend_from_slice(&piece[..size]),
            }
        }
    }
}
