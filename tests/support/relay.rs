//! Something between an edge and its store: it passes on what they say, or misbehaves in the store's place.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What it does with each connection.
#[derive(Clone)]
pub enum Conduct {
    /// Lets the store have it.
    PassOn,
    /// Answers each request with this.
    Answer(Answer),
}

/// An answer of any shape: a beginning, then one piece again and again, then the connection's end.
#[derive(Clone)]
pub struct Answer {
    /// What comes first.
    pub beginning: Vec<u8>,
    /// What comes then.
    pub piece: Vec<u8>,
    /// How often.
    pub times: usize,
    /// The time before each piece.
    pub pause: Duration,
}

impl Answer {
    /// These bytes, and the end.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self { beginning: bytes.into(), piece: Vec::new(), times: 0, pause: Duration::ZERO }
    }

    /// The same, and then this piece so many times.
    pub fn then(mut self, piece: impl Into<Vec<u8>>, times: usize) -> Self {
        (self.piece, self.times) = (piece.into(), times);
        self
    }

    /// The same with a pause before each piece.
    pub fn every(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    fn write(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&self.beginning)?;
        for _ in 0..self.times {
            thread::sleep(self.pause);
            stream.write_all(&self.piece)?;
        }
        Ok(())
    }
}

/// A conduct, and the connections that keep to it.
type Shared = Arc<Mutex<(Conduct, Vec<TcpStream>)>>;

/// The relay. Its threads end with its connections, and the last with the test's process.
pub struct Relay {
    address: SocketAddr,
    shared: Shared,
}

impl Relay {
    /// Listens on a free port, and passes everything on to a store.
    pub fn start(store: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared::new(Mutex::new((Conduct::PassOn, Vec::new())));
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let conduct = {
                    let mut shared = accepting.lock().unwrap();
                    shared.1.push(stream.try_clone().unwrap());
                    shared.0.clone()
                };
                // An error means that one side has gone.
                thread::spawn(move || match conduct {
                    Conduct::PassOn => pass_on(stream, store).unwrap_or_default(),
                    Conduct::Answer(answer) => misbehave(stream, &answer).unwrap_or_default(),
                });
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does from now on. Connections that know another conduct end.
    pub fn set(&self, conduct: Conduct) {
        let mut shared = self.shared.lock().unwrap();
        shared.0 = conduct;
        for stream in shared.1.drain(..) {
            // An error means that it has ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass_on(mut edge: TcpStream, store: SocketAddr) -> io::Result<()> {
    let mut store = TcpStream::connect(store)?;
    let (mut from_store, mut to_edge) = (store.try_clone()?, edge.try_clone()?);
    for stream in [&store, &edge] {
        stream.set_nodelay(true)?;
    }
    let back = thread::spawn(move || {
        let copied = io::copy(&mut from_store, &mut to_edge);
        to_edge.shutdown(Shutdown::Both).and(copied.map(drop))
    });
    let copied = io::copy(&mut edge, &mut store);
    // An error means that it has ended.
    let _ = store.shutdown(Shutdown::Both);
    back.join().unwrap().and(copied.map(drop))
}

fn misbehave(mut stream: TcpStream, answer: &Answer) -> io::Result<()> {
    // What is asked is of no interest, if only something is.
    if stream.read(&mut [0; 16 * 1024])? > 0 {
        answer.write(&mut stream)?;
    }
    stream.shutdown(Shutdown::Write)?;
    // Until the other side ends it: an early end would be a reset, which takes away what was written.
    io::copy(&mut stream, &mut io::sink()).map(drop)
}
