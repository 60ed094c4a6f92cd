//! TLS for edges on other machines: whoever has no certificate of the operator's authority does not get as far as HTTP.
//!
//! Certificates end, so the files are read again and again, and what has changed is in force for the next handshake.
//! A handshake of a slow peer ends in time, and gives way before that if there are many.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Most handshakes at a time. Another one ends the oldest: one that is not done after so many others is a slow peer's.
const MAX_HANDSHAKES: usize = 256;

/// Connections whose handshake is done and that wait to be served.
const MAX_WAITING: usize = 64;

/// PEM files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The store's certificate, with those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities whose certificates edges have.
    pub client_ca: PathBuf,
}

/// What the files say.
#[derive(Eq, PartialEq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

/// What handshakes are made with.
pub struct Tls {
    files: Files,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files; the error names the one that is wrong.
    pub fn open(files: Files) -> Result<(Arc<Self>, TlsFollower), String> {
        let contents = files.read()?;
        let config = RwLock::new(Arc::new(files.config(&contents)?));
        let tls = Arc::new(Self { files, config });
        Ok((Arc::clone(&tls), TlsFollower { tls, contents }))
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Puts what the files say anew in force.
pub struct TlsFollower {
    tls: Arc<Tls>,
    contents: Contents,
}

impl TlsFollower {
    /// Looks at the files until the process stops. What cannot be read or does not fit together, as in the middle of a
    /// change, is said once and looked at again; what was in force stays.
    pub async fn follow(mut self, mut stopping: watch::Receiver<bool>) {
        let mut said = String::new();
        while timeout(INTERVAL, stopping.wait_for(|stopping| *stopping)).await.is_err() {
            let files = self.tls.files.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || files.read()).await else { continue };
            let error = match read {
                Ok(contents) if contents == self.contents => continue,
                Ok(contents) => match self.tls.files.config(&contents) {
                    Ok(config) => {
                        *self.tls.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                        self.contents = contents;
                        said.clear();
                        tracing::info!("the certificates for TLS have changed and are in force");
                        continue;
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if error != said {
                tracing::error!(error, "the changed certificates for TLS are of no use; those before stay in force");
                said = error;
            }
        }
    }
}

impl Files {
    fn read(&self) -> Result<Contents, String> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
        Ok(Contents { certificate: read(&self.certificate)?, key: read(&self.key)?, client_ca: read(&self.client_ca)? })
    }

    fn config(&self, contents: &Contents) -> Result<ServerConfig, String> {
        let chain = certificates(&self.certificate, &contents.certificate)?;
        // The parser's error says nothing of the key.
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| format!("{} has no private key in PEM: {error}", self.key.display()))?;
        let authorities = self.client_ca.display();
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.client_ca, &contents.client_ca)? {
            roots.add(authority).map_err(|error| format!("{authorities} has no authority's certificate: {error}"))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| format!("{authorities}: {error}"))?;
        // TLS 1.3 and 1.2.
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder
            .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key))
            .map_err(|error| format!("{} and {}: {error}", self.certificate.display(), self.key.display()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Each connection shows a certificate that is good at that time. Edges keep theirs open, so it costs little.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("{} has no certificate in PEM", path.display())),
        Err(error) => Err(format!("{} has no certificate in PEM: {error}", path.display())),
    }
}

/// Gives connections whose handshake is done.
pub struct TlsListener {
    address: SocketAddr,
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    /// Accepts connections until this is dropped.
    pub fn start(listener: TcpListener, tls: Arc<Tls>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, accepted) = mpsc::channel(MAX_WAITING);
        tokio::spawn(accept(listener, tls, sender));
        Ok(Self { address, accepted })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            // The other side ends only after this one.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept(mut listener: TcpListener, tls: Arc<Tls>, sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    let mut handshakes: VecDeque<AbortHandle> = VecDeque::new();
    let last_said = Arc::new(RwLock::new(None));
    loop {
        let (stream, peer) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            () = sender.closed() => return,
        };
        if handshakes.len() >= MAX_HANDSHAKES {
            handshakes.retain(|handshake| !handshake.is_finished());
        }
        if handshakes.len() >= MAX_HANDSHAKES
            && let Some(oldest) = handshakes.pop_front()
        {
            oldest.abort();
        }
        _ = stream.set_nodelay(true);
        let (acceptor, sender, last_said) = (TlsAcceptor::from(tls.config()), sender.clone(), Arc::clone(&last_said));
        let handshake = tokio::spawn(async move {
            match timeout(PATIENCE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => _ = sender.send((stream, peer)).await,
                Ok(Err(error)) => say(&last_said, peer, &error.to_string()),
                Err(_) => say(&last_said, peer, "it took too long"),
            }
        });
        handshakes.push_back(handshake.abort_handle());
    }
}

/// Says that a handshake failed, once a second at most: strangers shall not fill the log.
fn say(last_said: &RwLock<Option<Instant>>, peer: SocketAddr, error: &str) {
    let mut last = last_said.write().unwrap_or_else(PoisonError::into_inner);
    if last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
        *last = Some(Instant::now());
        tracing::warn!(%peer, error, "a TLS handshake failed");
    }
}
