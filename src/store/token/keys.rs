//! The store's own keys: the newest signs tokens, and the one before still checks them.

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::key_set::{KeySet, PublicKey};
use super::{Claims, Error, ISSUER, Kind};

/// The store's keys. Other keys may take their place while requests are answered.
pub struct Keys {
    in_use: RwLock<Arc<InUse>>,
}

struct InUse {
    signing: EncodingKey,
    header: Header,
    checking: KeySet<Claims>,
    published: Vec<Jwk>,
}

/// Public keys, as anyone may read them (RFC 7517 §5).
#[derive(Clone, Debug, Serialize)]
pub struct JwkSet {
    /// The keys.
    pub keys: Vec<Jwk>,
}

/// A public key (RFC 8037 §2).
#[derive(Clone, Debug, Serialize)]
pub struct Jwk {
    kty: &'static str,
    crv: &'static str,
    x: String,
    kid: String,
    alg: &'static str,
    #[serde(rename = "use")]
    public_key_use: &'static str,
}

impl Jwk {
    fn of(key: &SigningKey) -> Self {
        let x = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
        // The members and their order are those of RFC 7638 §3.
        let thumbprint = Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
        let kid = URL_SAFE_NO_PAD.encode(thumbprint);
        Self { kty: "OKP", crv: "Ed25519", x, kid, alg: "EdDSA", public_key_use: "sig" }
    }
}

/// The name of the key with this seed: its thumbprint (RFC 7638).
pub fn kid(seed: &[u8; 32]) -> String {
    Jwk::of(&SigningKey::from_bytes(seed)).kid
}

impl InUse {
    fn from_seeds(seeds: &[[u8; 32]]) -> Result<Self, Error> {
        let keys: Vec<SigningKey> = seeds.iter().map(SigningKey::from_bytes).collect();
        let published: Vec<Jwk> = keys.iter().map(Jwk::of).collect();
        let (Some(first), Some(Jwk { kid, .. })) = (keys.first(), published.first()) else {
            return Err(Error::DamagedKey);
        };
        let checking = keys.iter().zip(&published).map(|(key, jwk)| PublicKey {
            kid: Some(jwk.kid.clone()),
            algorithm: Algorithm::EdDSA,
            key: DecodingKey::from_ed_der(key.verifying_key().as_bytes()),
        });
        Ok(Self {
            signing: EncodingKey::from_ed_der(first.to_pkcs8_der().map_err(|_| Error::DamagedKey)?.as_bytes()),
            header: Header { kid: Some(kid.clone()), ..Header::new(Algorithm::EdDSA) },
            checking: KeySet::new(checking.collect()),
            published,
        })
    }
}

impl Keys {
    /// The keys of these Ed25519 seeds (RFC 8032 §5.1.5), the one that signs first.
    pub fn from_seeds(seeds: &[[u8; 32]]) -> Result<Self, Error> {
        Ok(Self { in_use: RwLock::new(Arc::new(InUse::from_seeds(seeds)?)) })
    }

    /// Puts the keys of these seeds into the place of those before, unless they are the same.
    pub fn replace(&self, seeds: &[[u8; 32]]) -> Result<(), Error> {
        let new = InUse::from_seeds(seeds)?;
        if !new.checking.kids().eq(self.in_use().checking.kids()) {
            *self.in_use.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        }
        Ok(())
    }

    fn in_use(&self) -> Arc<InUse> {
        Arc::clone(&self.in_use.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The public keys.
    pub fn published(&self) -> JwkSet {
        JwkSet { keys: self.in_use().published.clone() }
    }

    /// Signs a token.
    pub fn mint(&self, claims: &Claims) -> Result<String, Error> {
        let keys = self.in_use();
        jsonwebtoken::encode(&keys.header, claims, &keys.signing).map_err(|_| Error::DamagedKey)
    }

    /// Checks a token of the wanted kind at the time `now`, in UNIX seconds.
    pub fn check(&self, token: &str, kind: Kind, now: u64) -> Result<Claims, Error> {
        let claims = self.in_use().checking.claims(token)?;
        if claims.iss != ISSUER {
            return Err(Error::UnknownIssuer);
        }
        claims.check(kind, now)?;
        Ok(claims)
    }
}
