//! The words the edge and the store say to each other. One set of types for both ends.
//!
//! | call | meaning |
//! |---|---|
//! | `PUT /edge/v1/tenants/{tenant}/clients/{client_id}` | [`RegisterClient`] in, [`RegisteredClient`] out: 201, or 200 if that client is there already. Idempotent |
//! | `GET /edge/v1/tenants/{tenant}/clients/{client_id}` | [`ClientInformation`] out: what an authorization server needs to know of a client; 404 `unknown_client` if the tenant has none such |
//! | `POST /edge/v1/tenants/{tenant}/clients/{client_id}/authenticate` | [`AuthenticateClient`] in, 204 out; 401 `invalid_client` for a client that is unknown, public or has another secret |
//! | `GET /edge/v1/tenants/{tenant}/clients/{client_id}/controls` | [`ClientControls`] out: what the edge holds a client to; 404 `unknown_client` if the tenant has none such |
//! | `GET /edge/v1/changes?after=N&instance=ID&signals=a,b` | [`Changes`] of tenants since change `N`; `signals` are those that this edge has a source for, beyond the built-in ones ([`crate::acl::Signal`]) |
//! | `POST /edge/v1/acl-counts` | [`Report`] in, 204 out: what access rules did, and what was refused, since this worker's last report |
//! | `GET /edge/v1/ready` | 200 while the store can answer edges, for the proxy's health checks; needs no token |
//!
//! Edge and store need not be of one release. The edge says in [`EDGE_PROTOCOL_HEADER`] which version of these words it
//! speaks, and the store answers in the newest that both speak. Each release speaks its own and the one before:
//!
//! | version | what is new in it |
//! |---|---|
//! | 1 | an edge does not say what it speaks |
//! | 2 | an edge says it |
//!
//! An edge without a version in common gets a 400 `unsupported_protocol`, and takes no answer in a version that it does not
//! speak. What changes within a version, both have to be able to do without.
//!
//! `GET` of a client itself and `authenticate` need a bearer token of the kind `server`, of that tenant; all others need one of
//! the kind `edge`. Every answer of `/edge/` carries [`PROTOCOL_HEADER`]; an answer without it came from something else on
//! the way, such as Envoy's own 503.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::management::{Permission, RedirectionPolicy, SubjectType};
use crate::tenant::{self, SecurityMode};

/// Response header by which the edge knows the store, and the version of these words that it answers in.
pub const PROTOCOL_HEADER: &str = "x-dcr-store-protocol";

/// Request header in which an edge says the newest version of these words that it speaks. It speaks the one before, too.
pub const EDGE_PROTOCOL_HEADER: &str = "x-dcr-edge-protocol";

/// The newest version of these words. It changes when an edge or a store of the release before would misread them.
pub const PROTOCOL_VERSION: &str = "2";

/// The versions that this release speaks.
pub const SPOKEN_VERSIONS: [&str; 2] = ["1", PROTOCOL_VERSION];

/// The version that is answered to an edge that says this of itself; `None` if there is none in common.
pub fn answered_version(edge: Option<&[u8]>) -> Option<&'static str> {
    let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.parse::<u16>().ok());
    let newest = edge.map_or(Some(1), number)?;
    let is_common = |version: &&str| {
        number(version.as_bytes()).is_some_and(|number| number == newest || number.checked_add(1) == Some(newest))
    };
    SPOKEN_VERSIONS.into_iter().rev().find(is_common)
}

/// Error code of the answer to an edge with which the store has no version in common.
pub const UNSUPPORTED_PROTOCOL: &str = "unsupported_protocol";

/// Request header in which the edge names the tenant of a Management API request that it forwards to the store.
/// The edge overwrites what a client sends.
pub const TENANT_HEADER: &str = "x-dcr-tenant";

/// Request header with the id of the decision: the `decision_id` of the answer, and of the tenant's log.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// Response header with what became of a registration that the store did not make, where that says more than the
/// error's code.
pub const OUTCOME_HEADER: &str = "x-dcr-outcome";

/// Value of [`OUTCOME_HEADER`]: the tenant has registration switched off.
pub const DISABLED: &str = "disabled";

/// Value of [`OUTCOME_HEADER`]: the tenant has as many clients as it may have.
pub const QUOTA_USED_UP: &str = "quota";

/// Error code of the 404 for a client that the tenant does not have.
pub const UNKNOWN_CLIENT: &str = "unknown_client";

/// Whether an id in [`REQUEST_ID_HEADER`] harms no log.
pub fn is_harmless_id(id: &[u8]) -> bool {
    let is_harmless = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=128).contains(&id.len()) && id.iter().all(is_harmless)
}

/// Request header in which the edge names the client's address to the Management API. The edge overwrites what a client
/// sends.
pub const CLIENT_ADDRESS_HEADER: &str = "x-dcr-client-address";

/// Request header with the country of the client's address, which the proxy's geolocation filter sets.
pub const COUNTRY_HEADER: &str = "x-dcr-geo-country";

/// Request header with the subdivision of the client's address, without the country; from the same filter.
pub const REGION_HEADER: &str = "x-dcr-geo-region";

/// Request header with the number of the autonomous system of the client's address; from the same filter.
pub const ASN_HEADER: &str = "x-dcr-geo-asn";

/// Path at which the edge reads what it holds the client `client_id` of `tenant` to. An id of [`is_client_id`] needs no
/// escaping.
pub fn controls_path(tenant: &tenant::Name, client_id: &str) -> String {
    format!("/edge/v1/tenants/{tenant}/clients/{client_id}/controls")
}

/// Whether a text can be the id of a client that an authorization server made: it means itself in a path, a header and a
/// log (RFC 3986 §2.3), and is no dot segment.
pub fn is_client_id(text: &str) -> bool {
    let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    (1..=MAX_CLIENT_ID).contains(&text.len()) && text.bytes().all(is_unreserved) && !matches!(text, "." | "..")
}

/// Longest id of a client, in bytes.
pub const MAX_CLIENT_ID: usize = 128;

/// Path of reports. It has the name of what the first ones counted.
pub const REPORT_PATH: &str = "/edge/v1/acl-counts";

/// Most entries of one report.
pub const MAX_COUNTS: usize = 1_000;

/// Path at which the proxy sees whether the store can answer.
pub const READY_PATH: &str = "/edge/v1/ready";

/// Path of the change feed.
pub const CHANGES_PATH: &str = "/edge/v1/changes";

/// Path at which the client `client_id` of `tenant` is put. Neither needs escaping.
pub fn client_path(tenant: &tenant::Name, client_id: &str) -> String {
    format!("/edge/v1/tenants/{tenant}/clients/{client_id}")
}

/// A registration that the edge accepted. `M` is the checked metadata when it is sent, and raw JSON when it
/// arrives, since the store checks it again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterClient<M> {
    /// Lower-case hexadecimal SHA-256 of the client's secret; absent for a public client. The secret itself
    /// never travels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret_sha256: Option<String>,
    /// The RFC 7591 members as registered.
    pub metadata: M,
    /// Where the request came from, for the tenant's log.
    #[serde(default)]
    pub origin: Origin,
    /// Whose id it has.
    #[serde(default)]
    pub registered_by: RegisteredBy,
}

/// Who made the id of a client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegisteredBy {
    /// The edge.
    #[default]
    Edge,
    /// The authorization server, at its own registration endpoint ([`tenant::Registrar::Forward`]). The client is of the
    /// strict mode, whatever its id looks like.
    Server,
}

/// Where a request came from, as far as the edge knows. Members that the store does not know are left out, since a newer
/// edge may know more.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The `user-agent`, at most [`MAX_USER_AGENT`] bytes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The host that it was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The autonomous system of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// The country of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// The subdivision of the address, without the country.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subdivision: Option<String>,
    /// The JA3 fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ja3: Option<String>,
    /// The JA4 fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ja4: Option<String>,
}

/// Most bytes of a `user-agent` that are kept.
pub const MAX_USER_AGENT: usize = 512;

/// What is kept of a `user-agent`.
pub fn shortened_user_agent(mut agent: String) -> String {
    agent.truncate(agent.floor_char_boundary(MAX_USER_AGENT));
    agent
}

/// A client that is durably registered.
#[derive(Debug, Serialize, Deserialize)]
pub struct RegisteredClient {
    /// The id it has: the one of the request's path, or that of the same public client registered before, if the
    /// tenant folds those.
    pub client_id: String,
    /// When it was registered, in UNIX seconds (RFC 7591 §3.2.1).
    pub client_id_issued_at: u64,
}

/// What a client says to prove who it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthenticateClient {
    /// Its secret.
    pub client_secret: String,
}

impl AuthenticateClient {
    /// Reads it from a JSON object; a list of its values is none. There is no error: that could quote the secret.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let is_object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        serde_json::from_slice(body).ok().filter(|_| is_object)
    }
}

/// A client as an authorization server sees it: RFC 7591 §3.2.1 without the secret, and what it may do.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClientInformation {
    /// Its id.
    pub client_id: String,
    /// When it was registered, in UNIX seconds.
    pub client_id_issued_at: u64,
    /// The RFC 7591 members as registered, or as the tenant's owner changed them.
    #[serde(flatten)]
    pub metadata: Map<String, Value>,
    /// The mode that it was made under.
    pub third_party_security_mode: SecurityMode,
    /// The owner's texts by name.
    pub client_metadata: BTreeMap<String, String>,
    /// What the server has to hold it to. Of one of the permissive mode `connections`, `consent` and
    /// `refresh_token_rotation` mean nothing: it is no third party with controls.
    pub policy: ThirdPartyPolicy,
}

/// What an authorization server holds a third party's client to.
#[derive(Debug, Serialize, Deserialize)]
pub struct ThirdPartyPolicy {
    /// Whether an authorization request needs a `code_challenge` of the method `S256` (RFC 7636).
    pub require_pkce: bool,
    /// The APIs that it may have tokens for, each with the most scopes. There are no others.
    pub grants: Vec<EffectiveGrant>,
    /// The names of the connections that its users may log in with. There are no others.
    pub connections: Vec<String>,
    /// Whether users are asked.
    pub consent: Consent,
    /// Whether a refresh token is good for one use (RFC 9700 §4.14).
    pub refresh_token_rotation: bool,
    /// Whether a loopback redirect URI stands for all ports (RFC 8252 §7.3).
    pub loopback_any_port: bool,
    /// Where errors of authorization requests go.
    pub redirection_policy: RedirectionPolicy,
}

/// What the edge holds a client to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ClientControls {
    /// The client.
    pub client: ClientRecord,
    /// What it may ask for. Many clients of a tenant have the same.
    pub permissions: Permissions,
}

/// A client as the edge sees it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// Its id.
    pub client_id: Box<str>,
    /// The mode that it was made under: the controls are for the strict ones.
    pub security_mode: SecurityMode,
    /// Whether it registered itself, and was not made by the tenant's owner.
    pub self_registered: bool,
    /// Where users may be sent back to, byte for byte as registered.
    pub redirect_uris: Box<[Box<str>]>,
    /// The grants that it registered (RFC 7591 §2).
    pub grant_types: Box<[Box<str>]>,
    /// How it authenticates at the token endpoint (RFC 7591 §2).
    pub token_endpoint_auth_method: Box<str>,
    /// Lower-case hexadecimal SHA-256 of its secret; absent for a public client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_sha256: Option<Box<str>>,
    /// Where errors of authorization requests go.
    pub redirection_policy: RedirectionPolicy,
}

/// What a client may ask for.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct Permissions {
    /// The APIs that it may have tokens for. There are no others.
    pub grants: Box<[EffectiveGrant]>,
    /// The names of the connections that its users may log in with: those at domain level. There are no others.
    pub connections: Box<[Box<str>]>,
}

/// What a client may ask of an API at this moment.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct EffectiveGrant {
    /// The identifier of the API.
    pub audience: String,
    /// The most scopes that a token may have.
    pub scope: Vec<String>,
    /// Whose behalf the tokens are on.
    pub subject_type: SubjectType,
    /// Whether there may be a refresh token: the API allows it, and the client registered `refresh_token`.
    pub allow_offline_access: bool,
}

impl From<Permission> for EffectiveGrant {
    fn from(permission: Permission) -> Self {
        let Permission { audience, scope, subject_type, allow_offline_access, .. } = permission;
        Self { audience, scope, subject_type, allow_offline_access }
    }
}

/// Whether users are asked for their consent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// Always: a server may remember what a user consented to, and never skips the question for a client.
    Always,
}

/// What changed since a change number, or everything.
///
/// A feed is told in pages. The reader asks with the `instance` and the `head` of the last page; only after one
/// with `more: false` has it seen everything up to `head`. A tenant that changes between two pages moves to the end
/// of the feed, so it is never missed. Changes of tenants and of clients are numbered together.
#[derive(Debug, Serialize, Deserialize)]
pub struct Changes {
    /// Names the database. Another one numbers its changes anew.
    pub instance: String,
    /// Whether this page begins a telling of everything, because the reader's `instance` is another or its `after`
    /// lies in the future. Only the first page says so; the pages up to `more: false` belong to it. A tenant that
    /// is not among them does not exist.
    pub full: bool,
    /// Number of the last change that this page tells: the next `after`.
    pub head: u64,
    /// Whether another page follows at once.
    pub more: bool,
    /// Tenants that changed, in the order of their versions. At most one entry for each.
    pub tenants: Vec<TenantChange>,
    /// Clients of which an edge may know something that is no longer true.
    #[serde(default)]
    pub clients: Vec<ClientChange>,
    /// Whether the store no longer knows which clients changed since `after`: any of them may have.
    #[serde(default)]
    pub all_clients: bool,
}

/// A client of which [`ClientControls`] are others than before.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ClientChange {
    /// The slot of its tenant.
    pub slot: u32,
    /// Its id; absent for every client of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

/// One tenant's newest state.
#[derive(Debug, Serialize, Deserialize)]
pub struct TenantChange {
    /// Its number in the store: small, dense and never used again for another tenant.
    pub slot: u32,
    /// The number of its last change.
    pub version: u64,
    /// The [`tenant::Snapshot`] as JSON; `null` if it was deleted. Raw, so that one tenant that this edge cannot
    /// read does not hide the others.
    pub tenant: Option<Box<RawValue>>,
}

/// What a worker counted. Counted at least once: a report that is sent again because its answer was lost counts again.
/// `C` is a [`Count`] when it is sent, and raw JSON when it arrives, so that an entry that the store cannot read does not
/// take the others with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report<C> {
    /// At most [`MAX_COUNTS`].
    pub counts: Vec<C>,
}

/// One entry of a report. `R` is a [`crate::filter::reason::Reason`] when it is sent, and its word when it arrives, since
/// a newer edge may know more of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Count<R> {
    /// What an access rule did that looked at a request.
    Acl(AclCount),
    /// Which registrations were refused.
    Refusals(RefusalCount<R>),
}

/// How many requests of one tenant's registration endpoint were refused in a minute for one reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalCount<R> {
    /// The tenant's slot.
    pub slot: u32,
    /// The minute: UNIX seconds divided by 60.
    pub minute: u64,
    /// The reason.
    pub reason: R,
    /// How many.
    pub count: u32,
}

/// What one access rule did.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclCount {
    /// The tenant's slot.
    pub slot: u32,
    /// The rule.
    pub acl_id: String,
    /// Requests that it was evaluated for.
    pub evaluated: u32,
    /// Requests that it matched, whether or not its action was carried out; no more than `evaluated`.
    pub matched: u32,
}

/// The store's 429: the fleet together has registered as many clients as the tenant may.
#[derive(Debug, Serialize, Deserialize)]
pub struct RateLimited {
    /// `too_many_requests`
    pub error: String,
    /// A sentence.
    pub error_description: String,
    /// Milliseconds until the next token arrives, rounded up.
    pub next_token_in_ms: u64,
}

/// An error answer of either end (RFC 7591 §3.2.2).
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The code.
    pub error: String,
    /// A sentence for the developer who reads it.
    pub error_description: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_answered_in_the_newest_version_that_it_and_the_store_speak() {
        for (edge, version) in [
            (None, Some("1")),
            (Some("1"), Some("1")),
            (Some("2"), Some("2")),
            (Some("3"), Some("2")),
            (Some("4"), None),
            (Some("0"), None),
            (Some("65536"), None),
            (Some(""), None),
            (Some("two"), None),
        ] {
            assert_eq!(answered_version(edge.map(str::as_bytes)), version, "{edge:?}");
        }
    }
}
