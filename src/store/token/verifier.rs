//! Who checks a request's token: the store's own keys, which may have been rotated meanwhile, or an external issuer's.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::keys::JwkSet;
use super::{Claims, Error, ExternalIssuer, ISSUER, Keys, Kind, unchecked_issuer};
use crate::store::db::Database;
use crate::store::upkeep::pause;

/// Time between two looks for rotated keys that nobody asks for: after it, a retired key checks nothing any more.
const REGULAR_PAUSE: Duration = Duration::from_secs(2);

/// Time between two looks for a key that a token asks for.
const ASKED_PAUSE: Duration = Duration::from_millis(100);

/// Checks tokens.
pub struct Verifier {
    keys: Keys,
    database: Arc<dyn Database>,
    external: Option<Arc<ExternalIssuer>>,
    asked: Mutex<Option<Instant>>,
}

impl Verifier {
    /// One that trusts `keys`, those that take their place in the `database`, and an external issuer if there is one.
    pub fn new(keys: Keys, database: Arc<dyn Database>, external: Option<Arc<ExternalIssuer>>) -> Self {
        Self { keys, database, external, asked: Mutex::default() }
    }

    /// The store's own public keys.
    pub fn published(&self) -> JwkSet {
        self.keys.published()
    }

    /// Signs a token of this store's own.
    pub fn mint(&self, claims: &Claims) -> Result<String, Error> {
        self.keys.mint(claims)
    }

    /// Checks a token of the wanted kind at the time `now`, in UNIX seconds.
    pub async fn check(&self, token: &str, kind: Kind, now: u64) -> Result<Claims, Error> {
        if let Some(external) = self.external.as_ref().filter(|external| external.claims_to_issue(token)) {
            return external.check(token, kind, now).await;
        }
        match self.keys.check(token, kind, now) {
            Err(Error::UnknownKey) if unchecked_issuer(token).is_none_or(|issuer| issuer != ISSUER) => {
                Err(Error::UnknownIssuer)
            }
            Err(Error::UnknownKey) => {
                self.look().await?;
                self.keys.check(token, kind, now)
            }
            verdict => verdict,
        }
    }

    /// Looks for rotated keys, unless somebody did a moment ago: whoever asks has not shown yet who he is.
    async fn look(&self) -> Result<(), Error> {
        let mut asked = self.asked.lock().await;
        if asked.is_none_or(|at| at.elapsed() >= ASKED_PAUSE) {
            *asked = Some(Instant::now());
            self.load().await?;
        }
        Ok(())
    }

    async fn load(&self) -> Result<(), Error> {
        let seeds: Vec<[u8; 32]> = self.database.signing_keys().await?.iter().map(|key| key.seed).collect();
        self.keys.replace(&seeds)
    }

    /// Follows rotations until `stopping`.
    pub async fn follow(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let mut failed = false;
        while pause(REGULAR_PAUSE, &mut stopping).await {
            // One at a time: a read that began earlier must not put back what a later one replaced.
            let result = {
                let _asked = self.asked.lock().await;
                self.load().await
            };
            match &result {
                Err(error) if !failed => tracing::warn!(%error, "the signing keys could not be read again"),
                _ => {}
            }
            failed = result.is_err();
        }
    }
}
