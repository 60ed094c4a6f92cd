//! Whether a registration that an edge accepted is accepted here too, under the tenant's settings of this moment.
//!
//! Pure, and the same for every database: an edge may be older, or may not have heard of a change yet.

use serde_json::value::RawValue;

use super::client::AppType;
use crate::edge_api::{DISABLED, Origin, QUOTA_USED_UP, RegisteredBy};
use crate::registration::{self, ErrorCode, Rejection, client_id_mode};
use crate::tenant::{Name, Registrar, SecurityMode, Settings};

/// A registration as it arrives.
#[derive(Clone, Debug)]
pub struct NewClient {
    /// The tenant it is for.
    pub tenant: Name,
    /// Its id.
    pub client_id: String,
    /// Who made the id.
    pub registered_by: RegisteredBy,
    /// SHA-256 of its secret.
    pub client_secret_sha256: Option<[u8; 32]>,
    /// The metadata, not checked yet.
    pub metadata: Box<RawValue>,
    /// Where the request came from.
    pub origin: Origin,
    /// The request's id at the edge, for the tenant's log.
    pub request_id: Option<String>,
}

/// What is stored of a registration.
#[derive(Debug)]
pub struct Admitted {
    /// The checked metadata as JSON.
    pub metadata: String,
    /// What the client calls itself.
    pub client_name: Option<String>,
    /// The hosts of its redirect URIs, and the schemes of those without one; each once.
    pub redirect_hosts: Vec<String>,
    /// What kind of application it is.
    pub app_type: AppType,
    /// The mode that it was checked under, which it keeps.
    pub security_mode: SecurityMode,
    /// What equal public clients have in common; absent for a confidential one and for a server's, which are never folded.
    pub fingerprint: Option<[u8; 32]>,
}

/// Why a registration is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No such tenant.
    #[error("there is no such tenant")]
    UnknownTenant,
    /// The tenant's owner did not switch registration on.
    #[error("dynamic client registration is disabled for this tenant")]
    Disabled,
    /// Somebody else registers the tenant's clients.
    #[error(
        "this tenant's registrar is another now; the edge that sent this one has older settings, and hears of newer ones \
         within seconds"
    )]
    OtherRegistrar,
    /// The metadata breaks a rule.
    #[error("{}", .0.description)]
    Invalid(Rejection),
    /// The edge checked it in the permissive mode, and the tenant is strict.
    #[error(
        "this tenant registers no clients of the permissive mode now; the edge that sent this one has older settings, and \
         hears of newer ones within seconds"
    )]
    OtherMode,
    /// A confidential client without a secret's hash, or a public one with one.
    #[error("client_secret_sha256 must be present exactly if the client authenticates with a secret")]
    SecretMismatch,
    /// The tenant has as many clients as it may have.
    #[error("the tenant's client quota is used up; its owner can raise client_quota or delete clients")]
    QuotaUsedUp,
    /// All edges together have registered as many clients as the tenant's rate limit lets them.
    #[error("too many clients were registered for this tenant just now; try again later")]
    RateLimited {
        /// Nanoseconds until the next one may be; 0 if it may be by now.
        next_token_in: u64,
    },
    /// The id is taken by another client.
    #[error("another client has this client_id")]
    Conflict,
}

impl Refusal {
    /// The same so many nanoseconds later.
    #[must_use]
    pub fn after(self, nanos: u64) -> Self {
        match self {
            Self::RateLimited { next_token_in } => {
                Self::RateLimited { next_token_in: next_token_in.saturating_sub(nanos) }
            }
            other => other,
        }
    }

    /// In a word, for metrics and logs.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::UnknownTenant => "unknown_tenant",
            Self::Disabled => DISABLED,
            Self::Invalid(_) | Self::SecretMismatch => "invalid",
            Self::OtherMode => "other_mode",
            Self::OtherRegistrar => "other_registrar",
            Self::QuotaUsedUp => QUOTA_USED_UP,
            Self::RateLimited { .. } => "rate_limited",
            Self::Conflict => "conflict",
        }
    }
}

/// Where a client may have its users sent.
fn redirect_hosts(uris: &[String]) -> Vec<String> {
    let host = |uri: &String| {
        let uri = fluent_uri::Uri::parse(uri.as_str()).ok()?;
        let host = uri.authority().map(|authority| authority.host()).filter(|host| !host.is_empty());
        Some(host.map_or_else(|| format!("{}:", uri.scheme()), |host| host.to_ascii_lowercase()))
    };
    let mut hosts: Vec<String> = uris.iter().filter_map(host).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// Checks a registration against its tenant's settings.
pub fn admit(client: &NewClient, settings: &Settings) -> Result<Admitted, Refusal> {
    if !settings.flags.enable_dynamic_client_registration {
        return Err(Refusal::Disabled);
    }
    match (settings.dcr_edge.registrar, client.registered_by) {
        (Registrar::Store, RegisteredBy::Edge) | (Registrar::Forward, RegisteredBy::Server) => {}
        (Registrar::Off, _) => return Err(Refusal::Disabled),
        (Registrar::Store, RegisteredBy::Server) | (Registrar::Forward, RegisteredBy::Edge) => {
            return Err(Refusal::OtherRegistrar);
        }
    }
    // The edge's id is of the mode in which it checked the client. The strict one is admitted by either: it allows less.
    let tenants_mode = settings.dynamic_client_registration_security_mode;
    let mode = match (client.registered_by, client_id_mode(&client.client_id), tenants_mode) {
        (RegisteredBy::Server, ..) | (RegisteredBy::Edge, Some(SecurityMode::Strict), _) => SecurityMode::Strict,
        (_, Some(SecurityMode::Permissive), SecurityMode::Permissive) => SecurityMode::Permissive,
        (_, Some(SecurityMode::Permissive), SecurityMode::Strict) | (_, None, _) => return Err(Refusal::OtherMode),
    };
    let invalid = |description: &str| {
        let error = ErrorCode::InvalidClientMetadata;
        Refusal::Invalid(Rejection { error, description: description.to_owned() })
    };
    let body = client.metadata.get().as_bytes();
    let metadata = registration::check(body, mode, &settings.dcr_edge).map_err(Refusal::Invalid)?;
    if metadata.is_confidential() != client.client_secret_sha256.is_some() {
        return Err(Refusal::SecretMismatch);
    }
    let unwritable = |_| invalid("the metadata cannot be written as JSON");
    // A server knows each of its clients by the id that it gave it: none stands for another.
    let may_be_folded = !metadata.is_confidential() && client.registered_by == RegisteredBy::Edge;
    let fingerprint = may_be_folded.then(|| metadata.fingerprint()).transpose().map_err(unwritable)?;
    Ok(Admitted {
        app_type: AppType::registered(&metadata),
        client_name: metadata.client_name().map(str::to_owned),
        redirect_hosts: redirect_hosts(metadata.redirect_uris()),
        metadata: serde_json::to_string(&metadata).map_err(unwritable)?,
        security_mode: mode,
        fingerprint,
    })
}
