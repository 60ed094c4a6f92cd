//! An HTTP/1.1 client that sends the bytes that it is given.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use super::process::PATIENCE;
use super::response::Response;
use super::tls;

/// The bytes of a request with `host: localhost` and, unless `headers` name one or `transfer-encoding`, a
/// `content-length`.
pub fn request(method: &str, target: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Vec<u8> {
    let has = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let mut bytes = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    if !has("host") {
        bytes.extend_from_slice(b"host: localhost\r\n");
    }
    if !has("content-length") && !has("transfer-encoding") && (!body.is_empty() || method == "POST") {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// `pieces` in the chunked transfer coding (RFC 9112 §7.1), the last chunk included.
pub fn chunked(pieces: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Sends one request on a connection of its own.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Response {
    let mut connection = Connection::open(address);
    connection.send(request);
    let is_head = request.starts_with(b"HEAD ");
    if is_head { connection.receive_head() } else { connection.receive() }
}

/// `GET target` on a connection of its own.
pub fn get(address: SocketAddr, target: &str) -> Response {
    exchange(address, &request("GET", target, &[], b""))
}

/// `POST target` with a JSON body on a connection of its own.
pub fn post_json(address: SocketAddr, target: &str, body: &[u8]) -> Response {
    exchange(address, &request("POST", target, &[("content-type", b"application/json")], body))
}

/// A connection, kept alive as long as the server does.
pub struct Connection<S> {
    stream: S,
    received: Vec<u8>,
}

impl Connection<TcpStream> {
    /// Connects in clear text. Reads and writes give up after [`PATIENCE`].
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).unwrap()
    }

    /// The same with a server that may not be there.
    pub fn try_open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { stream: connect(address)?, received: Vec::new() })
    }
}

impl Connection<StreamOwned<ClientConnection, TcpStream>> {
    /// Connects with TLS, trusting the authority in the PEM file `ca`.
    pub fn open_tls(address: SocketAddr, ca: &Path) -> Self {
        let session = ClientConnection::new(tls::client_config(ca, &["http/1.1"]), tls::server_name()).unwrap();
        Self { stream: StreamOwned::new(session, connect(address).unwrap()), received: Vec::new() }
    }

    /// Connects with TLS and says `server_name` in the hello. With the gateway's own name its certificate is checked.
    pub fn open_tls_to(address: SocketAddr, ca: &Path, server_name: &str) -> Self {
        let name = ServerName::try_from(server_name.to_owned()).unwrap();
        if name == tls::server_name() {
            return Self::open_tls(address, ca);
        }
        let session = ClientConnection::new(tls::careless_config(), name).unwrap();
        Self { stream: StreamOwned::new(session, connect(address).unwrap()), received: Vec::new() }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn cut_off(place: &str) -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, format!("the connection was closed {place}"))
}

impl<S: Read + Write> Connection<S> {
    /// Sends bytes. A server that has answered already may have stopped reading; its answer is still to be had.
    pub fn send(&mut self, bytes: &[u8]) {
        let sent = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
        if let Err(error) = sent {
            assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
        }
    }

    /// Receives the final response to a request, whatever interim responses precede it.
    pub fn receive(&mut self) -> Response {
        self.try_receive().unwrap()
    }

    /// The same from a server that may go away.
    pub fn try_receive(&mut self) -> io::Result<Response> {
        let mut response = self.try_receive_head()?;
        let is_chunked =
            response.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        if is_chunked {
            loop {
                let line = self.take_line()?;
                let size = usize::from_str_radix(line.split(';').next().unwrap().trim(), 16).unwrap();
                if size == 0 {
                    while !self.take_line()?.is_empty() {}
                    break;
                }
                response.body.extend(self.take(size)?);
                assert_eq!(self.take_line()?, "");
            }
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().unwrap();
            response.body = self.take(length)?;
        } else if !matches!(response.status, 204 | 304) {
            while self.fill()? {}
            response.body = std::mem::take(&mut self.received);
        }
        Ok(response)
    }

    /// Receives a response that has no body whatever its headers say: one to HEAD.
    pub fn receive_head(&mut self) -> Response {
        self.try_receive_head().unwrap()
    }

    fn try_receive_head(&mut self) -> io::Result<Response> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 100];
            let mut head = httparse::Response::new(&mut headers);
            match head.parse(&self.received).unwrap() {
                httparse::Status::Complete(length) => {
                    let headers =
                        head.headers.iter().map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec()));
                    let response =
                        Response { status: head.code.unwrap(), headers: headers.collect(), body: Vec::new() };
                    self.received.drain(..length);
                    if response.status >= 200 {
                        return Ok(response);
                    }
                }
                httparse::Status::Partial if self.fill()? => {}
                httparse::Status::Partial => return Err(cut_off("without a response")),
            }
        }
    }

    /// Whether the server ends the connection without another word.
    pub fn has_ended(&mut self) -> bool {
        !self.fill().unwrap() && self.received.is_empty()
    }

    /// Whether it has sent what nobody asked for.
    pub fn has_more(&self) -> bool {
        !self.received.is_empty()
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < length {
            if !self.fill()? {
                return Err(cut_off("in the middle of a body"));
            }
        }
        Ok(self.received.drain(..length).collect())
    }

    fn take_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8(self.take(end)?).unwrap();
                self.take(2)?;
                return Ok(line);
            }
            if !self.fill()? {
                return Err(cut_off("in the middle of a line"));
            }
        }
    }

    /// Reads more; `false` at the end. A server that is too slow is an error.
    fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(size) => {
                self.received.extend_from_slice(&buffer[..size]);
                Ok(size > 0)
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
