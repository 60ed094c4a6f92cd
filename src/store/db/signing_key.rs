//! Keys that sign tokens, as the database keeps them.

use async_trait::async_trait;

use super::Error;

/// How many keys check tokens at a time: the one that signs, and the one before.
pub const SIGNING_KEYS: usize = 2;

/// A key that signs or signed tokens. It is secret, so it has no `Debug`.
#[derive(Clone, Eq, PartialEq)]
pub struct StoredKey {
    /// The seed of an Ed25519 key (RFC 8032 §5.1.5).
    pub seed: [u8; 32],
    /// Since when it is there, in UNIX seconds, if that is known.
    pub created_at: Option<u64>,
}

/// The keys after a rotation.
pub struct Rotation {
    /// Those in use, the one that signs first.
    pub keys: Vec<StoredKey>,
    /// Those that were in use before and are gone.
    pub retired: Vec<StoredKey>,
}

/// The keys that sign tokens.
#[async_trait]
pub trait SigningKeys {
    /// The keys in use, [`SIGNING_KEYS`] at most: the one that signs, then the one before.
    async fn signing_keys(&self) -> Result<Vec<StoredKey>, Error>;

    /// Adds `candidate`, unless there is a key already, and gives the keys in use.
    async fn ensure_signing_key(&self, candidate: StoredKey) -> Result<Vec<StoredKey>, Error>;

    /// Adds the key that signs from now on. Of those before only the last stays.
    async fn rotate_signing_keys(&self, new: StoredKey) -> Result<Rotation, Error>;
}
