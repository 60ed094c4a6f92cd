//! Public keys that check signatures, each pinned to the algorithm of its own type.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::Error;

/// How many checked tokens are remembered.
const REMEMBERED: usize = 64;

/// How many keys a token without a `kid` is tried with: the one that signs, and the one before.
const TRIED: usize = 2;

/// A key that checks signatures of one algorithm.
pub struct PublicKey {
    /// Its name in the header of tokens.
    pub kid: Option<String>,
    /// The only algorithm that it is used with.
    pub algorithm: Algorithm,
    /// The key.
    pub key: DecodingKey,
}

/// Keys, and the tokens with claims `C` that they have checked. Other keys are another set, so nothing is remembered of
/// a key that is gone.
pub struct KeySet<C> {
    keys: Vec<PublicKey>,
    // An edge sends the same token with every registration, and checking its signature would cost more than all else
    // that is done to register a client.
    remembered: Mutex<HashMap<String, C>>,
}

/// What is looked at of a header (RFC 7515 §4.1) before the signature is checked.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
}

impl Header {
    fn of(token: &str) -> Result<Self, Error> {
        let mut parts = token.split('.');
        let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(Error::Malformed);
        };
        let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| Error::Malformed)?;
        let header: Self = serde_json::from_slice(&json).map_err(|_| Error::Malformed)?;
        let is_access_token = header.typ.as_deref().is_none_or(|typ| {
            let typ = typ.to_ascii_lowercase();
            matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
        });
        if header.alg.eq_ignore_ascii_case("none") {
            Err(Error::Unsigned)
        } else if header.crit.is_some() {
            Err(Error::CriticalHeader)
        } else if !is_access_token {
            Err(Error::WrongType)
        } else {
            Ok(header)
        }
    }
}

impl<C: DeserializeOwned + Clone> KeySet<C> {
    /// These keys, which have checked nothing yet.
    pub fn new(keys: Vec<PublicKey>) -> Self {
        Self { keys, remembered: Mutex::default() }
    }

    /// The keys' names.
    pub fn kids(&self) -> impl Iterator<Item = Option<&str>> {
        self.keys.iter().map(|key| key.kid.as_deref())
    }

    /// The claims of a token that one of the keys signed. What they say is the caller's to check.
    pub fn claims(&self, token: &str) -> Result<C, Error> {
        if let Some(claims) = self.remembered().get(token) {
            return Ok(claims.clone());
        }
        let claims = self.signed_claims(token)?;
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(token.to_owned(), claims.clone());
        Ok(claims)
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<String, C>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signed_claims(&self, token: &str) -> Result<C, Error> {
        let header = Header::of(token)?;
        let is_named = |key: &&PublicKey| header.kid.is_none() || header.kid == key.kid;
        let named: Vec<&PublicKey> = self.keys.iter().filter(is_named).collect();
        let fitting = named.iter().filter(|key| name_of(key.algorithm) == header.alg);
        let fitting: Vec<&PublicKey> = fitting.copied().collect();
        match (named.first(), fitting.len()) {
            (None, _) => return Err(Error::UnknownKey),
            (Some(key), 0) => return Err(Error::WrongAlgorithm(name_of(key.algorithm))),
            // Each try costs time, and whoever sends the token has not shown yet who he is.
            (_, tries) if tries > TRIED => return Err(Error::UnknownKey),
            _ => {}
        }
        let mut verdict = Err(Error::BadSignature);
        for key in fitting {
            verdict = verify(token, key);
            if !matches!(verdict, Err(Error::BadSignature)) {
                break;
            }
        }
        verdict
    }
}

fn verify<C: DeserializeOwned>(token: &str, key: &PublicKey) -> Result<C, Error> {
    let mut rules = Validation::new(key.algorithm);
    // The types of the claims say which must be there. Time, issuer and audience are checked on each use, the signature
    // once.
    rules.required_spec_claims.clear();
    rules.validate_exp = false;
    rules.validate_aud = false;
    jsonwebtoken::decode(token, &key.key, &rules).map(|decoded| decoded.claims).map_err(|error| match error.kind() {
        ErrorKind::Json(_) | ErrorKind::Utf8(_) => Error::InvalidClaims,
        ErrorKind::Base64(_) | ErrorKind::InvalidToken => Error::Malformed,
        _ => Error::BadSignature,
    })
}

/// An algorithm as `alg` names it (RFC 7518 §3.1, RFC 8037 §3.1). No others are used here.
pub fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RS256 => "RS256",
        Algorithm::ES256 => "ES256",
        _ => "EdDSA",
    }
}
