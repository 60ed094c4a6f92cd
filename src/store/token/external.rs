//! An external issuer: another's tokens for the Management API. Its tokens name their tenant by the audience alone, and
//! never open the edge's interface.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};

use super::jwks::{self, Source};
use super::key_set::KeySet;
use super::{Claims, Error, ISSUER, Kind, unchecked_issuer};
use crate::management::management_domain;

/// Time between two looks for keys that a token asks for.
const ASKED_PAUSE: Duration = Duration::from_secs(60);

/// Time between two looks for keys that nobody asks for, so that those withdrawn come out of use.
const REGULAR_PAUSE: Duration = Duration::from_secs(600);

/// The same while no keys were read yet.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// Which issuer is trusted.
#[derive(Clone, Debug)]
pub struct IssuerConfig {
    /// Its name, the `iss` of its tokens.
    pub issuer: String,
    /// An audience that every token has to name beside that of its tenant.
    pub audience: Option<String>,
    /// Where its keys are.
    pub jwks: Source,
}

/// An issuer that is trusted, with its keys.
pub struct ExternalIssuer {
    config: IssuerConfig,
    /// None before they were read for the first time. Those read last stay while there are no newer ones.
    keys: RwLock<Option<Arc<Loaded>>>,
    /// When a token last made this look for keys. Held while somebody looks.
    asked: Arc<Mutex<Option<Instant>>>,
}

struct Loaded {
    json: Vec<u8>,
    set: KeySet<ExternalClaims>,
}

/// What a token of the issuer says (RFC 7519 §4.1, RFC 9068 §2.2.3).
#[derive(Clone, Deserialize)]
struct ExternalClaims {
    iss: String,
    aud: Audiences,
    #[serde(default)]
    scope: String,
    iat: Option<NumericDate>,
    nbf: Option<NumericDate>,
    exp: NumericDate,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Audiences {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(audience) => std::slice::from_ref(audience),
            Self::Many(audiences) => audiences,
        }
    }
}

/// UNIX seconds, which may have a fraction (RFC 7519 §2).
#[derive(Clone, Copy)]
struct NumericDate(u64);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        // Outside of its range a number becomes the nearest that there is.
        let seconds = number.as_u64().or_else(|| number.as_f64().map(|seconds| seconds as u64));
        seconds.map(Self).ok_or_else(|| serde::de::Error::custom("expected a number of seconds"))
    }
}

impl ExternalIssuer {
    /// The issuer of `config`. Keys in a file must be there; those at a URL come when they come.
    pub async fn open(config: IssuerConfig) -> Result<Arc<Self>, String> {
        if config.issuer == ISSUER {
            return Err(format!("{ISSUER} is the issuer of the store's own tokens; name another"));
        }
        let external = Self { config, keys: RwLock::default(), asked: Arc::default() };
        if let Source::File(path) = &external.config.jwks {
            external.load().await.map_err(|reason| format!("cannot use the keys in {}: {reason}", path.display()))?;
        }
        Ok(Arc::new(external))
    }

    /// Whether the token says that this issuer issued it. Nothing of that is checked.
    pub(super) fn claims_to_issue(&self, token: &str) -> bool {
        unchecked_issuer(token).as_deref() == Some(&self.config.issuer)
    }

    /// Checks a token of the wanted kind at the time `now`, in UNIX seconds. If its key is not known, this looks for new
    /// keys first, and other requests go on meanwhile.
    pub(super) async fn check(self: &Arc<Self>, token: &str, kind: Kind, now: u64) -> Result<Claims, Error> {
        if kind != Kind::Management {
            return Err(Error::WrongKind);
        }
        let missing = |error: &Error| matches!(error, Error::UnknownKey | Error::NoIssuerKeys);
        let claims = match self.signed_claims(token) {
            Err(error) if missing(&error) => {
                self.look(|| self.signed_claims(token).is_err_and(|error| missing(&error))).await;
                self.signed_claims(token)?
            }
            verdict => verdict?,
        };
        self.accept(claims, now)
    }

    fn signed_claims(&self, token: &str) -> Result<ExternalClaims, Error> {
        let loaded = self.loaded().ok_or(Error::NoIssuerKeys)?;
        loaded.set.claims(token)
    }

    fn accept(&self, external: ExternalClaims, now: u64) -> Result<Claims, Error> {
        let ExternalClaims { iss, aud, scope, iat, nbf, exp } = external;
        if iss != self.config.issuer {
            return Err(Error::UnknownIssuer);
        }
        let audiences = aud.as_slice();
        if self.config.audience.as_ref().is_some_and(|expected| !audiences.contains(expected)) {
            return Err(Error::MissingAudience);
        }
        let mut of_tenants = audiences.iter().filter(|audience| management_domain(audience).is_some());
        let aud = of_tenants.next().ok_or(Error::WrongAudience(Kind::Management.audience()))?.clone();
        if of_tenants.next().is_some() {
            return Err(Error::ManyAudiences);
        }
        let [iat, nbf] = [iat, nbf].map(|date| date.map(|NumericDate(seconds)| seconds));
        let claims = Claims { iss, aud, kind: Kind::Management, slot: None, scope, iat, nbf, exp: exp.0 };
        claims.check(Kind::Management, now)?;
        Ok(claims)
    }

    fn loaded(&self) -> Option<Arc<Loaded>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks for new keys if `still_wanted` when it is this caller's turn, and nobody asked a short while ago.
    async fn look(self: &Arc<Self>, still_wanted: impl Fn() -> bool) {
        let mut asked = Arc::clone(&self.asked).lock_owned().await;
        if !still_wanted() || asked.is_some_and(|at| at.elapsed() < ASKED_PAUSE) {
            return;
        }
        *asked = Some(Instant::now());
        // A task of its own, because a caller that goes away must not take the look of this minute with him.
        let this = Arc::clone(self);
        let looking = tokio::spawn(async move {
            this.load_or_warn().await;
            drop(asked);
        });
        _ = looking.await;
    }

    async fn load(&self) -> Result<(), String> {
        let json = self.config.jwks.read().await?;
        if self.loaded().is_some_and(|loaded| loaded.json == json) {
            return Ok(());
        }
        let keys = jwks::parse(&json)?;
        if keys.is_empty() {
            const NONE: &str = "it has no key that checks signatures: RSA of 2048 to 4096 bits, EC P-256 or Ed25519";
            if self.loaded().is_none() {
                return Err(NONE.to_owned());
            }
            // Whoever withdraws his last key means it.
            tracing::warn!(
                issuer = self.config.issuer,
                "the external issuer's key set: {NONE}; its tokens are refused"
            );
        }
        let set = KeySet::new(keys);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Loaded { json, set }));
        Ok(())
    }

    async fn load_or_warn(&self) {
        if let Err(reason) = self.load().await {
            let left = if self.loaded().is_some() { "those read last stay in use" } else { "its tokens are refused" };
            let issuer = &self.config.issuer;
            tracing::warn!(issuer, reason, "the keys of the external issuer could not be read: {left}");
        }
    }

    /// Reads the keys again and again until `stopping`.
    pub async fn follow(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let reading = async {
            if self.loaded().is_none() {
                self.read_in_turn().await;
            }
            loop {
                sleep(if self.loaded().is_some() { REGULAR_PAUSE } else { FIRST_PAUSE }).await;
                self.read_in_turn().await;
            }
        };
        tokio::select! {
            () = reading => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    /// Reads the keys while nobody else does, so that a token that needs them waits for them.
    async fn read_in_turn(&self) {
        let _asked = self.asked.lock().await;
        self.load_or_warn().await;
    }
}
