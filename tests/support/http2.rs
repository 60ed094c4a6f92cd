//! An HTTP/2 client that sends a body in the pieces and with the ending that it is given.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::process::PATIENCE;
use super::response::Response;
use super::tls;

/// How a request ends.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Ending {
    /// With the last piece of the body, or the headers if there is none.
    #[default]
    Body,
    /// With an empty DATA frame after the last piece.
    EmptyData,
    /// With trailers.
    Trailers,
    /// Not at all: the stream is reset after the last piece (RFC 9113 §6.4), and there is no response.
    Reset,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The `:authority`.
    pub authority: &'a str,
    /// The `:path`.
    pub path: &'a str,
    /// Headers, in this order; a name may come more than once.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The body; each piece is a DATA frame.
    pub body: &'a [&'a [u8]],
    /// How it ends.
    pub ending: Ending,
}

impl Default for Request<'_> {
    fn default() -> Self {
        Self { method: "GET", authority: "localhost", path: "/", headers: &[], body: &[], ending: Ending::Body }
    }
}

/// Sends a request in clear text, with prior knowledge (RFC 9113 §3.3), on a connection of its own. The error is the
/// stream's or the connection's.
pub fn exchange(address: SocketAddr, request: &Request<'_>) -> Result<Response, String> {
    run(async { send(TcpStream::connect(address).await.unwrap(), "http", request).await })
}

/// Like [`exchange`], over TLS, trusting the authority in the PEM file `ca`.
pub fn exchange_tls(address: SocketAddr, ca: &Path, request: &Request<'_>) -> Result<Response, String> {
    run(async {
        let connector = TlsConnector::from(tls::client_config(ca, &["h2"]));
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = connector.connect(tls::server_name(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        send(stream, "https", request).await
    })
}

fn run(exchange: impl Future<Output = Result<Response, h2::Error>>) -> Result<Response, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await });
    answer.expect("an answer in time").map_err(|error| error.to_string())
}

async fn send<S>(stream: S, scheme: &str, request: &Request<'_>) -> Result<Response, h2::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut client, connection) = h2::client::handshake(stream).await?;
    let connection = tokio::spawn(connection);

    let uri = format!("{scheme}://{}{}", request.authority, request.path);
    let mut head = http::Request::builder().method(request.method).uri(uri).body(()).unwrap();
    for (name, value) in request.headers {
        head.headers_mut()
            .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap());
    }
    let ends_with_head = request.body.is_empty() && request.ending == Ending::Body;
    let (response, mut body) = client.send_request(head, ends_with_head)?;
    for (index, piece) in request.body.iter().enumerate() {
        let is_end = request.ending == Ending::Body && index + 1 == request.body.len();
        // A server that has answered already may have closed the stream; its answer is still to be had.
        if body.send_data(Bytes::copy_from_slice(piece), is_end).is_err() {
            break;
        }
    }
    match request.ending {
        Ending::Body => {}
        Ending::EmptyData => body.send_data(Bytes::new(), true)?,
        Ending::Trailers => {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-trailer", HeaderValue::from_static("end"));
            body.send_trailers(trailers)?;
        }
        Ending::Reset => body.send_reset(h2::Reason::CANCEL),
    }

    let (head, mut body) = response.await?.into_parts();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let mut response = Response { status: head.status.as_u16(), headers, body: Vec::new() };
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        response.body.extend_from_slice(&piece);
    }
    connection.abort();
    Ok(response)
}
