//! Links that sign a person in to the console of one tenant, as the database keeps them.

use async_trait::async_trait;

use super::Error;
use crate::tenant::Domain;

/// A link that has not been used yet. What is secret in it is not here, only its hash.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignInLink {
    /// SHA-256 of the secret.
    pub code_sha256: [u8; 32],
    /// The slot of the tenant whose console it opens.
    pub tenant: u32,
    /// What may be done there: scopes of the Management API, separated by spaces.
    pub scope: String,
    /// How long that lasts, in seconds.
    pub session_ttl: u64,
    /// When the link ends, in UNIX seconds.
    pub expires_at: u64,
}

/// What a link was good for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedIn {
    /// The tenant's slot.
    pub tenant: u32,
    /// The tenant's canonical domain.
    pub domain: Domain,
    /// What may be done: scopes of the Management API, separated by spaces.
    pub scope: String,
    /// How long that lasts, in seconds.
    pub session_ttl: u64,
}

/// Links that sign a person in.
#[async_trait]
pub trait SignInLinks {
    /// Keeps a link at `now`, in UNIX seconds, and forgets those that have ended. `false` if the tenant was deleted.
    async fn create_sign_in_link(&self, link: &SignInLink, now: u64) -> Result<bool, Error>;

    /// Takes the link with this hash at `now`, in UNIX seconds, so that nobody takes it again; `None` if there is none,
    /// if it has ended, or if its tenant answers for no host.
    async fn take_sign_in_link(&self, code_sha256: &[u8; 32], now: u64) -> Result<Option<SignedIn>, Error>;
}
