//! Somebody else who signs tokens, and publishes his keys in a file or over HTTPS.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{output_of, root};

/// Its name.
pub const ISSUER: &str = "https://issuer.example/";

/// A key pair.
pub struct KeyPair {
    /// The name of the key.
    pub kid: String,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// The private key.
    pub private: EncodingKey,
}

impl KeyPair {
    /// A new key for `algorithm`: RS256, ES256 or EdDSA.
    pub fn new(kid: &str, algorithm: Algorithm) -> Self {
        let options: &[&str] = match algorithm {
            Algorithm::RS256 => &["genrsa", "-traditional", "2048"],
            Algorithm::ES256 => &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Algorithm::EdDSA => &["genpkey", "-algorithm", "ED25519"],
            _ => panic!("{algorithm:?}"),
        };
        let pem = output_of(Command::new("openssl").args(options));
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let der = key.secret_der();
        let private = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_der(der),
            Algorithm::ES256 => EncodingKey::from_ec_der(der),
            _ => EncodingKey::from_ed_der(der),
        };
        Self { kid: kid.to_owned(), algorithm, private }
    }

    /// The public key as a JWK.
    pub fn public(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.private, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    /// A token that this key signed.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }
}

/// Public keys as a JWK set.
pub fn jwk_set(keys: &[&KeyPair]) -> Value {
    json!({"keys": keys.iter().map(|key| key.public()).collect::<Vec<_>>()})
}

/// Puts the public keys into a file at once, and gives its path.
pub fn publish(folder: &Path, keys: &[&KeyPair]) -> PathBuf {
    let (path, draft) = (folder.join("jwks.json"), folder.join("jwks.draft"));
    fs::write(&draft, jwk_set(keys).to_string()).unwrap();
    fs::rename(draft, &path).unwrap();
    path
}

/// A server of one document over HTTPS, as `localhost`.
pub struct JwksServer {
    /// The address.
    pub address: SocketAddr,
    /// The certificate of the authority that vouches for it.
    pub ca: PathBuf,
    /// The answer, status line, headers and body. None: it never answers.
    pub answer: Arc<Mutex<Option<String>>>,
    requests: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl JwksServer {
    /// Starts one that serves `keys`.
    pub fn start(keys: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        output_of(Command::new(root().join("envoy/certificates.sh")).arg(folder.path()));
        let chain = vec![CertificateDer::from_pem_file(folder.path().join("server.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(folder.path().join("server-key.pem")).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, requests) = (Arc::new(Mutex::new(Some(ok(keys)))), Arc::<AtomicUsize>::default());
        let (answers, counter) = (Arc::clone(&answer), Arc::clone(&requests));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answers, counter) = (acceptor.clone(), Arc::clone(&answers), Arc::clone(&counter));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = [0; 4096];
                    if stream.read(&mut request).await.is_err() {
                        return;
                    }
                    counter.fetch_add(1, Ordering::Relaxed);
                    let answer = answers.lock().unwrap().clone();
                    let Some(answer) = answer else { return std::future::pending().await };
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        let ca = folder.path().join("ca.pem");
        Self { address, ca, answer, requests, _runtime: runtime, _folder: folder }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/jwks.json", self.address.port())
    }

    /// From now on it answers this, or not at all.
    pub fn answer_with(&self, answer: Option<String>) {
        *self.answer.lock().unwrap() = answer;
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// The answer that has these keys.
pub fn ok(keys: &Value) -> String {
    let body = keys.to_string();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
