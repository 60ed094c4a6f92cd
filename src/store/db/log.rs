//! The tenants' logs.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

use super::Error;
use super::log_filter::LogFilter;
use crate::edge_api::Origin;
use crate::store::admission::{Admitted, NewClient};
use crate::store::clock::rfc3339;
use crate::tenant::SecurityMode;

/// How long a search in a log may take.
pub(super) const MAX_SEARCH: Duration = Duration::from_secs(3);

/// Type of the event of something that succeeded in the API: a registration.
pub const REGISTERED: &str = "sapi";

/// Type of the event of a change of the tenant's settings.
pub const SETTINGS_CHANGED: &str = "sapi";

/// A change of the tenant's settings as its log shows it: the event's data, an object as JSON.
pub fn settings_event(details: &Value) -> String {
    json!({"description": "Update tenant settings", "details": details}).to_string()
}

/// What a registration's event says that it is.
pub const REGISTRATION: &str = "Dynamic client registration";

/// A registration as the tenant's log shows it: the event's data.
#[derive(Debug, Serialize)]
pub struct RegistrationEvent<'a> {
    description: &'static str,
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    details: RegistrationDetails<'a>,
}

/// Most hosts that an event names.
const MAX_HOSTS: usize = 20;

/// The warning in the event of a registration in the strict mode while the tenant grants third parties nothing by default.
const NO_DEFAULT_GRANT: &str = "no default client grant: the client can reach no API";

#[derive(Debug, Serialize)]
struct RegistrationDetails<'a> {
    redirect_hosts: &'a [String],
    /// How many more there are.
    #[serde(skip_serializing_if = "is_none")]
    more_redirect_hosts: usize,
    /// Absent for a strict client.
    #[serde(skip_serializing_if = "Option::is_none")]
    third_party_security_mode: Option<SecurityMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asn: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subdivision: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ja3: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ja4: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

fn is_none(number: &usize) -> bool {
    *number == 0
}

impl<'a> RegistrationEvent<'a> {
    /// What is to be known of a registration: who registered in which request, what may get its users' codes, in
    /// which mode, and whether the tenant grants third parties anything by default, which a permissive client does not
    /// need.
    pub fn new(client: &'a NewClient, admitted: &'a Admitted, has_default_grant: bool) -> Self {
        let NewClient { client_id, origin, request_id, .. } = client;
        let Admitted { client_name, redirect_hosts, security_mode, .. } = admitted;
        let Origin { ip, user_agent, hostname, asn, country, subdivision, ja3, ja4 } = origin;
        let is_permissive = *security_mode == SecurityMode::Permissive;
        Self {
            description: REGISTRATION,
            client_id,
            client_name: client_name.as_deref(),
            ip: ip.map(|ip| ip.to_string()),
            user_agent: user_agent.as_deref(),
            hostname: hostname.as_deref(),
            details: RegistrationDetails {
                redirect_hosts: redirect_hosts.get(..MAX_HOSTS).unwrap_or(redirect_hosts),
                more_redirect_hosts: redirect_hosts.len().saturating_sub(MAX_HOSTS),
                third_party_security_mode: is_permissive.then_some(*security_mode),
                asn: *asn,
                country: country.as_deref(),
                subdivision: subdivision.as_deref(),
                ja3: ja3.as_deref(),
                ja4: ja4.as_deref(),
                request_id: request_id.as_deref(),
                warning: (!has_default_grant && !is_permissive).then_some(NO_DEFAULT_GRANT),
            },
        }
    }
}

/// Why unused clients were deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Unused {
    /// They were more than the tenant may have.
    #[serde(rename = "client_quota")]
    QuotaUsedUp,
    /// They were older than the tenant wants them.
    #[serde(rename = "unused_client_ttl")]
    TooOld,
}

/// Clients that were deleted because no authorization server ever asked for them, as the tenant's log shows it: the
/// event's data.
#[derive(Debug, Serialize)]
pub struct UnusedClientsEvent<'a> {
    description: &'static str,
    details: UnusedClientsDetails<'a>,
}

#[derive(Debug, Serialize)]
struct UnusedClientsDetails<'a> {
    reason: Unused,
    clients: u64,
    client_ids: Vec<&'a str>,
}

impl<'a> UnusedClientsEvent<'a> {
    /// Most clients that the event names.
    pub const MAX_IDS: usize = 20;

    /// How many were deleted and why, with the ids of the first.
    pub fn new(reason: Unused, clients: u64, client_ids: impl Iterator<Item = &'a String>) -> Self {
        let client_ids = client_ids.take(Self::MAX_IDS).map(String::as_str).collect();
        let details = UnusedClientsDetails { reason, clients, client_ids };
        Self { description: "Unused clients deleted", details }
    }
}

/// Type of the event of something that failed in the API: registrations that were refused.
pub const REFUSED: &str = "fapi";

/// Type of the event of registrations that a limit refused.
pub const TOO_MANY: &str = "api_limit";

/// Registrations of one tenant that edges refused in one minute: all that a limit refused, or all others. Times are
/// UNIX milliseconds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RefusalTotal {
    /// The tenant's slot.
    pub slot: u32,
    /// Whether a limit refused them.
    pub by_limiter: bool,
    /// When the minute began.
    pub since: u64,
    /// When it ended.
    pub until: u64,
    /// When the first of them was reported.
    pub heard_at: u64,
    /// How many for each reason: [`crate::filter::reason::Reason`]'s words.
    pub reasons: BTreeMap<&'static str, u64>,
}

impl RefusalTotal {
    /// How many they are.
    pub fn count(&self) -> u64 {
        self.reasons.values().copied().fold(0, u64::saturating_add)
    }
}

/// That total as the tenant's log shows it: the event's data.
#[derive(Debug, Serialize)]
pub(super) struct RefusalEvent<'a> {
    description: &'static str,
    details: RefusalDetails<'a>,
}

#[derive(Debug, Serialize)]
struct RefusalDetails<'a> {
    count: u64,
    reasons: &'a BTreeMap<&'static str, u64>,
    since: String,
    until: String,
}

impl<'a> RefusalEvent<'a> {
    /// What is to be known of them.
    pub(super) fn new(total: &'a RefusalTotal) -> Self {
        Self {
            description: if total.by_limiter {
                "Rate limit on dynamic client registration"
            } else {
                "Failed dynamic client registration"
            },
            details: RefusalDetails {
                count: total.count(),
                reasons: &total.reasons,
                since: rfc3339(total.since),
                until: rfc3339(total.until),
            },
        }
    }
}

/// An event of a tenant's log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogEvent {
    /// Its number, which grows with each event of the store.
    pub id: u64,
    /// When it was, in UNIX milliseconds.
    pub date: u64,
    /// What kind it is, in the hosted product's words, such as [`REGISTERED`].
    pub event_type: String,
    /// What else it says: an object as JSON.
    pub data: String,
}

/// What a tenant's log says of a slice of time: how many times a registration was made, or was refused for a reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Activity {
    /// Number of the slice, from 0.
    pub slice: u64,
    /// Why registrations were refused: [`crate::filter::reason::Reason`]'s words; `None` for those that were made.
    pub refused_for: Option<String>,
    /// How many.
    pub count: u64,
}

/// Which events are asked for.
#[derive(Clone, Debug)]
pub struct LogQuery {
    /// What has to hold of them.
    pub filter: Option<LogFilter>,
    /// In which order, and from where on.
    pub order: LogOrder,
    /// How many are wanted.
    pub limit: u32,
}

/// In which order events are wanted, and from where on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogOrder {
    /// The newest first, without so many of them.
    NewestFirst(u64),
    /// The oldest first, without so many of them.
    OldestFirst(u64),
    /// The oldest first, after the one with this id.
    After(u64),
}

/// How long a tenant's events are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogLimits {
    /// Milliseconds.
    pub max_age: u64,
    /// The newest so many.
    pub max_events: u32,
}

/// Tenants' logs. A tenant is named by its slot, and never sees another's.
#[async_trait]
pub trait Logs {
    /// Some events.
    async fn log_events(&self, tenant: u32, query: &LogQuery) -> Result<Vec<LogEvent>, Error>;

    /// How many events there are for which `filter` holds.
    async fn log_total(&self, tenant: u32, filter: Option<&LogFilter>) -> Result<u64, Error>;

    /// The event with this id.
    async fn log_event(&self, tenant: u32, id: u64) -> Result<Option<LogEvent>, Error>;

    /// What happened to registrations from `since` on, in UNIX milliseconds, in slices of so many milliseconds. Ends with
    /// [`Error::SearchTooLong`] where there is too much.
    async fn registration_activity(&self, tenant: u32, since: u64, slice: u64) -> Result<Vec<Activity>, Error>;

    /// Writes an event of this type at `now`, in UNIX milliseconds, with `data`, an object as JSON.
    async fn write_log_event(&self, tenant: u32, event_type: &str, data: &str, now: u64) -> Result<(), Error>;

    /// Writes into the tenants' logs what edges refused, at `now`, in UNIX milliseconds, in one transaction.
    async fn log_refusals(&self, totals: &[RefusalTotal], now: u64) -> Result<(), Error>;

    /// Deletes little by little what the tenant's log has beyond `limits` at `now`, in UNIX milliseconds.
    async fn prune_log(&self, tenant: u32, limits: LogLimits, now: u64) -> Result<u64, Error>;
}
