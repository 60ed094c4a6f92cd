//! Bearer tokens: JWTs (RFC 7519) that this store signs with its own Ed25519 keys, or that an external issuer signs.
//!
//! | file | what is in it |
//! |---|---|
//! | [`keys`] | the store's own keys: they sign, and check |
//! | [`external`] | an external issuer, and its keys |
//! | [`jwks`] | where an issuer's keys are read, and which of them are of use |
//! | [`key_set`] | public keys, each with its algorithm, that check signatures |
//! | [`listed`] | edges' tokens that the operator lists in a file |
//! | [`verifier`] | who checks a request's token |

pub mod external;
pub mod jwks;
mod key_set;
pub mod keys;
pub mod listed;
pub mod verifier;

pub use self::external::{ExternalIssuer, IssuerConfig};
pub use self::keys::Keys;
pub use self::listed::ListedTokens;
pub use self::verifier::Verifier;

use serde::{Deserialize, Serialize};

use super::db;
use crate::management::{is_scope_token, management_domain};
use crate::tenant::Domain;

/// Who issues the store's own tokens: their `iss`.
pub const ISSUER: &str = "dcr-store";

/// Audience of the edge's tokens.
const EDGE_AUDIENCE: &str = "dcr-store/edge";

/// Audience of authorization servers' tokens.
const SERVER_AUDIENCE: &str = "dcr-store/server";

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
    "read:clients",
    "create:clients",
    "update:clients",
    "delete:clients",
    "read:client_keys",
    "update:client_keys",
];

/// How far the clocks of whoever signs and of this store may be apart, in seconds.
const CLOCK_SKEW: u64 = 60;

/// What a token opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The Management API of one tenant.
    Management,
    /// The edge's interface.
    Edge,
    /// The clients of one tenant, to read and to authenticate them.
    Server,
}

impl Kind {
    /// The audience of such tokens, for people.
    fn audience(self) -> &'static str {
        match self {
            Self::Management => "https://DOMAIN/api/v2/ of the tenant",
            Self::Edge => EDGE_AUDIENCE,
            Self::Server => SERVER_AUDIENCE,
        }
    }
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
    /// The slot of the tenant whose Management API or clients it opens. A slot is never used again, so a token does not
    /// follow a domain to another tenant. An external issuer knows none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// What it allows, separated by spaces.
    pub scope: String,
    /// When it was issued, in UNIX seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// When it begins, in UNIX seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
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

    /// A token for the authorization server of the tenant in `slot`, valid from `now` for `ttl` seconds.
    pub fn server(slot: u32, now: u64, ttl: u64) -> Self {
        Self::new(Kind::Server, SERVER_AUDIENCE.to_owned(), Some(slot), String::new(), now, ttl)
    }

    fn new(kind: Kind, aud: String, slot: Option<u32>, scope: String, now: u64, ttl: u64) -> Self {
        Self { iss: ISSUER.to_owned(), aud, kind, slot, scope, iat: Some(now), nbf: None, exp: now.saturating_add(ttl) }
    }

    /// Whether the token allows `scope`.
    pub fn allows(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|allowed| allowed == scope)
    }

    /// The domain of the tenant whose Management API the token is for.
    pub fn management_domain(&self) -> Option<Domain> {
        management_domain(&self.aud)
    }

    /// Whether a token for one tenant may open the tenant in `slot`: that which answers for the domain of its audience,
    /// or which the request names.
    pub fn opens(&self, slot: u32) -> bool {
        self.iss != ISSUER || self.slot == Some(slot)
    }

    /// Refuses a token of another kind, for another audience, or of another time than `now`, in UNIX seconds.
    fn check(&self, kind: Kind, now: u64) -> Result<(), Error> {
        let audience_fits = match kind {
            Kind::Edge => self.aud == EDGE_AUDIENCE,
            Kind::Server => self.aud == SERVER_AUDIENCE,
            Kind::Management => self.management_domain().is_some(),
        };
        if self.kind != kind {
            Err(Error::WrongKind)
        } else if !audience_fits {
            Err(Error::WrongAudience(kind.audience()))
        } else if self.exp.saturating_add(CLOCK_SKEW) <= now {
            Err(Error::Expired)
        } else if self.nbf.is_some_and(|begin| begin > now.saturating_add(CLOCK_SKEW)) {
            Err(Error::NotYetValid)
        } else {
            Ok(())
        }
    }
}

/// Who issued the token as it says itself. Nothing of that is checked: it decides who checks it, and what an error
/// says.
fn unchecked_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issued {
        iss: String,
    }
    jsonwebtoken::dangerous::insecure_decode_claims::<Issued>(token).ok().map(|issued| issued.iss)
}

/// Whether `text` is a list of scopes (RFC 6749 §3.3).
pub fn is_scope(text: &str) -> bool {
    text.split(' ').all(is_scope_token)
}

/// Those of a list of scopes that the Management API does not know.
pub fn unknown_scopes(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|scope| !MANAGEMENT_SCOPES.contains(scope))
}

/// Why there is no token, or why one is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no JWT.
    #[error("the token is not a JWT")]
    Malformed,
    /// Anyone could have written it.
    #[error("the token is not signed (alg none)")]
    Unsigned,
    /// Another algorithm than that of the keys, such as a symmetric one.
    #[error("the token's alg is not that of its key; expected {0}")]
    WrongAlgorithm(&'static str),
    /// A header that has to be understood (RFC 7515 §4.1.11).
    #[error("the token's header has crit members, which this store does not know")]
    CriticalHeader,
    /// A JWT that is no access token (RFC 8725 §3.11).
    #[error("the token's typ is not that of an access token; expected JWT or at+jwt")]
    WrongType,
    /// The issuer is none of those that this store trusts.
    #[error("the token's issuer (iss) is not one that this store trusts")]
    UnknownIssuer,
    /// No such key, or no longer.
    #[error("the token's key (kid) is not in use, or no longer; get a new token")]
    UnknownKey,
    /// The key did not sign this.
    #[error("the token's signature is not that of its key")]
    BadSignature,
    /// Claims are missing or of the wrong type.
    #[error("a claim of the token is missing or of the wrong type")]
    InvalidClaims,
    /// It opens something else.
    #[error("the token is of another kind and opens something else")]
    WrongKind,
    /// It is for somebody else.
    #[error("the token is for another audience (aud); expected {0}")]
    WrongAudience(&'static str),
    /// It is not for whom the operator's issuer makes tokens.
    #[error("the token does not name the audience that this store expects of its issuer")]
    MissingAudience,
    /// It is for several tenants.
    #[error("the token's audience (aud) names more than one Management API; get a token for one")]
    ManyAudiences,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet (nbf)")]
    NotYetValid,
    /// The issuer's keys were never read.
    #[error("the keys of the token's issuer could not be read yet; try again")]
    NoIssuerKeys,
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
