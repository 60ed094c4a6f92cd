//! An issuer's public keys: where they are read, and which of them are of use.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;
use ureq::tls::{RootCerts, TlsConfig};

use super::key_set::{PublicKey, name_of};

/// How long reading them may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest set of keys, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// Bytes of an RSA modulus: 2,048 bits at least (RFC 7518 §3.3), and no more than can be checked in a short time.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// Where an issuer's JWK set (RFC 7517 §5) is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// An `https` URL.
    Url(String),
}

impl FromStr for Source {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err("expected an https URL or the path of a file");
        }
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let uri: Uri = text.parse().map_err(|_| "the URL is not well-formed")?;
        if uri.scheme_str() != Some("https") {
            // Whoever could change them on their way could sign tokens.
            return Err("keys are read from an https URL or a file only");
        }
        if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err("the URL needs a host, and no user information");
        }
        Ok(Self::Url(text.to_owned()))
    }
}

impl Source {
    /// Reads the keys; an error in words.
    pub async fn read(&self) -> Result<Vec<u8>, String> {
        let source = self.clone();
        let (sender, received) = oneshot::channel();
        // A thread of its own: for one of the runtime's the end of the process would wait.
        std::thread::Builder::new()
            .name("jwks".to_owned())
            .spawn(move || _ = sender.send(source.read_blocking()))
            .map_err(|error| error.to_string())?;
        received.await.unwrap_or_else(|_| Err("the reading was cut off".to_owned()))
    }

    fn read_blocking(&self) -> Result<Vec<u8>, String> {
        let bytes = match self {
            Self::File(path) => {
                let mut bytes = Vec::new();
                File::open(path)
                    .and_then(|file| file.take(MAX_BYTES.saturating_add(1)).read_to_end(&mut bytes))
                    .map_err(|error| error.to_string())?;
                bytes
            }
            Self::Url(url) => fetch(url)?,
        };
        if bytes.len() as u64 > MAX_BYTES { Err(format!("it is longer than {MAX_BYTES} bytes")) } else { Ok(bytes) }
    }
}

fn fetch(url: &str) -> Result<Vec<u8>, String> {
    // The machine's authorities, so that an operator's own may be among them.
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .https_only(true)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(TIMEOUT))
        .tls_config(tls)
        .build()
        .into();
    let mut response = agent.get(url).call().map_err(|error| error.to_string())?;
    if response.status() != 200 {
        return Err(format!("the answer is {}; expected 200", response.status()));
    }
    response.body_mut().with_config().limit(MAX_BYTES).read_to_vec().map_err(|error| error.to_string())
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// What is looked at of a key.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    public_key_use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// The keys of a set that can check signatures. Others are left out, as RFC 7517 §5 wants.
pub fn parse(json: &[u8]) -> Result<Vec<PublicKey>, String> {
    let Set { keys } = serde_json::from_slice(json).map_err(|_| "it is no JWK set".to_owned())?;
    let mut usable: Vec<PublicKey> = Vec::new();
    for key in keys {
        let Some(key) = serde_json::from_value(key).ok().and_then(public_key) else { continue };
        let is_known = |known: &PublicKey| (&known.kid, known.algorithm) == (&key.kid, key.algorithm);
        if key.kid.is_none() || !usable.iter().any(is_known) {
            usable.push(key);
        }
    }
    Ok(usable)
}

fn public_key(jwk: Jwk) -> Option<PublicKey> {
    let checks_signatures = jwk.public_key_use.as_deref().is_none_or(|it| it == "sig")
        && jwk.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|it| it == "verify"));
    // The key's type decides, never the token: a public key must not become a shared secret.
    let (algorithm, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => {
            let (n, e) = (bytes(jwk.n?)?, bytes(jwk.e?)?);
            if !RSA_MODULUS_BYTES.contains(&n.len()) {
                return None;
            }
            (Algorithm::RS256, DecodingKey::from_rsa_raw_components(&n, &e))
        }
        ("EC", Some("P-256")) => {
            let (x, y) = (jwk.x?, jwk.y?);
            _ = (exactly_32(&x)?, exactly_32(&y)?);
            (Algorithm::ES256, DecodingKey::from_ec_components(&x, &y).ok()?)
        }
        ("OKP", Some("Ed25519")) => {
            let x = exactly_32(&jwk.x?)?;
            (Algorithm::EdDSA, DecodingKey::from_ed_der(&x))
        }
        _ => return None,
    };
    let is_for_it = jwk.alg.is_none_or(|alg| alg == name_of(algorithm));
    (checks_signatures && is_for_it).then_some(PublicKey { kid: jwk.kid, algorithm, key })
}

fn bytes(base64url: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(base64url).ok()
}

fn exactly_32(base64url: &str) -> Option<[u8; 32]> {
    bytes(base64url)?.try_into().ok()
}
