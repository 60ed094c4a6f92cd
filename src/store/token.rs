//! Bearer tokens: JWTs (RFC 7519) that this store signs with its own Ed25519 key and that it alone reads.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::db;
use crate::tenant::Domain;

/// Who issues the tokens: their `iss`.
const ISSUER: &str = "dcr-store";

/// Audience of the edge's tokens.
const EDGE_AUDIENCE: &str = "dcr-store/edge";

/// Every scope of the Management API.
pub const MANAGEMENT_SCOPES: &[&str] = &[
    "read:tenant_settings",
    "update:tenant_settings",
    "read:network_acls",
    "create:network_acls",
    "update:network_acls",
    "delete:network_acls",
    "read:resource_servers",
    "create:resource_servers",
    "update:resource_servers",
    "delete:resource_servers",
    "read:connections",
    "create:connections",
    "update:connections",
    "delete:connections",
    "read:client_grants",
    "create:client_grants",
    "update:client_grants",
    "delete:client_grants",
    "read:logs",
];

/// How many checked tokens are remembered.
const REMEMBERED: usize = 64;

/// What a token opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The Management API of one tenant.
    Management,
    /// The edge's interface.
    Edge,
}

/// What a token says (RFC 7519 §4.1, RFC 9068 §2.2.3).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer.
    pub iss: String,
    /// Whom it is for.
    pub aud: String,
    /// What it opens.
    pub kind: Kind,
    /// The slot of the tenant whose Management API it opens. A slot is never used again, so a token does not follow
    /// a domain to another tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// What it allows, separated by spaces.
    pub scope: String,
    /// When it was issued, in UNIX seconds.
    pub iat: u64,
    /// When it ends, in UNIX seconds.
    pub exp: u64,
}

impl Claims {
    /// A token for the edge's interface, valid from `now` for `ttl` seconds.
    pub fn edge(now: u64, ttl: u64) -> Self {
        Self::new(Kind::Edge, EDGE_AUDIENCE.to_owned(), None, String::new(), now, ttl)
    }

    /// A token for the Management API of the tenant in `slot`, which answers for `domain`, valid from `now` for `ttl`
    /// seconds.
    pub fn management(slot: u32, domain: &Domain, scope: String, now: u64, ttl: u64) -> Self {
        Self::new(Kind::Management, format!("https://{domain}/api/v2/"), Some(slot), scope, now, ttl)
    }

    fn new(kind: Kind, aud: String, slot: Option<u32>, scope: String, now: u64, ttl: u64) -> Self {
        Self { iss: ISSUER.to_owned(), aud, kind, slot, scope, iat: now, exp: now.saturating_add(ttl) }
    }

    /// Whether the token allows `scope`.
    pub fn allows(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|allowed| allowed == scope)
    }

    /// The domain of the tenant whose Management API the token is for.
    pub fn management_domain(&self) -> Option<Domain> {
        self.aud.strip_prefix("https://")?.strip_suffix("/api/v2/")?.parse().ok()
    }
}

/// Whether `text` is a list of scopes (RFC 6749 §3.3).
pub fn is_scope(text: &str) -> bool {
    text.split(' ')
        .all(|token| !token.is_empty() && token.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)))
}

/// Those of a list of scopes that the Management API does not know.
pub fn unknown_scopes(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|scope| !MANAGEMENT_SCOPES.contains(scope))
}

/// Why there is no token, or why one is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not signed by this store, or is no JWT with the claims of [`Claims`].
    #[error("the token was not issued by this store")]
    Invalid,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// It opens something else.
    #[error("the token is of another kind or for another audience")]
    WrongAudience,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// The signing key in the database is none.
    #[error("the signing key in the database is damaged; restore the database from a backup")]
    DamagedKey,
    /// The system gave no random bytes.
    #[error("the system's random source gave nothing for a signing key")]
    NoRandomness,
}

/// The key pair that signs and checks tokens.
pub struct Keys {
    signing: EncodingKey,
    checking: DecodingKey,
    rules: Validation,
    // An edge sends the same token with every registration, and checking its signature would cost more than all else
    // that is done to register a client.
    remembered: Mutex<HashMap<String, Claims>>,
}

impl Keys {
    /// The key pair of an Ed25519 seed (RFC 8032 §5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, Error> {
        let key = SigningKey::from_bytes(seed);
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_issuer(&[ISSUER]);
        rules.set_required_spec_claims(&["exp", "aud", "iss"]);
        // Time and audience are checked on each use, the signature once.
        rules.validate_exp = false;
        rules.validate_aud = false;
        Ok(Self {
            signing: EncodingKey::from_ed_der(key.to_pkcs8_der().map_err(|_| Error::DamagedKey)?.as_bytes()),
            checking: DecodingKey::from_ed_der(key.verifying_key().as_bytes()),
            rules,
            remembered: Mutex::default(),
        })
    }

    /// Signs a token.
    pub fn mint(&self, claims: &Claims) -> Result<String, Error> {
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &self.signing).map_err(|_| Error::DamagedKey)
    }

    /// Checks a token of the wanted kind at the time `now`, in UNIX seconds.
    pub fn check(&self, token: &str, kind: Kind, now: u64) -> Result<Claims, Error> {
        let claims = self.signed_claims(token)?;
        let audience_fits = match claims.kind {
            Kind::Edge => claims.aud == EDGE_AUDIENCE,
            Kind::Management => claims.management_domain().is_some(),
        };
        if claims.kind != kind || !audience_fits {
            Err(Error::WrongAudience)
        } else if claims.exp <= now {
            Err(Error::Expired)
        } else {
            Ok(claims)
        }
    }

    fn signed_claims(&self, token: &str) -> Result<Claims, Error> {
        let remembered = || self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claims) = remembered().get(token) {
            return Ok(claims.clone());
        }
        let claims =
            jsonwebtoken::decode::<Claims>(token, &self.checking, &self.rules).map_err(|_| Error::Invalid)?.claims;
        let mut remembered = remembered();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(token.to_owned(), claims.clone());
        Ok(claims)
    }
}
