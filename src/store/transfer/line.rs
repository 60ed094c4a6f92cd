//! The lines of an export, each one JSON object. Times are UNIX milliseconds, save for `issued_at` and `last_used_at`,
//! which are UNIX seconds, as clients are shown.

use serde::{Deserialize, Serialize};

use crate::store::client::{AppType, OwnerData};
use crate::tenant::{Domain, Name, SecurityMode, Settings};

/// The version of the format that this program writes, and the only one that it reads.
pub const FORMAT: u64 = 1;

/// What a line is about: its member `type`. In this order they come, tenant by tenant.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The first line.
    Header,
    /// A tenant; what it has follows.
    Tenant,
    /// An access rule.
    NetworkAcl,
    /// An API.
    ResourceServer,
    /// A connection.
    Connection,
    /// A client.
    Client,
    /// A client grant.
    ClientGrant,
    /// The last line, which a file that was cut off has not.
    End,
}

impl Kind {
    /// Its name, as serde has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Tenant => "tenant",
            Self::NetworkAcl => "network_acl",
            Self::ResourceServer => "resource_server",
            Self::Connection => "connection",
            Self::Client => "client",
            Self::ClientGrant => "client_grant",
            Self::End => "end",
        }
    }
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderLine {
    #[serde(rename = "type")]
    pub kind: Kind,
    pub format: u64,
}

/// What of any line is read first. The rest may be of another format.
#[derive(Deserialize)]
pub struct Start {
    #[serde(rename = "type")]
    pub kind: Kind,
    pub format: Option<u64>,
}

/// A tenant.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantLine {
    #[serde(rename = "type")]
    pub kind: Kind,
    pub name: Name,
    pub domains: Vec<Domain>,
    pub settings: Settings,
    pub permissive_eligible: bool,
}

/// An access rule, an API, a connection or a client grant: what the Management API takes of it is `data`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectLine<T> {
    #[serde(rename = "type")]
    pub kind: Kind,
    pub id: String,
    pub created_at: u64,
    pub updated_at: u64,
    pub data: T,
}

/// A client. Its metadata are the members of RFC 7591.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientLine<T> {
    #[serde(rename = "type")]
    pub kind: Kind,
    pub client_id: String,
    pub metadata: T,
    /// 64 hexadecimal digits; null for a public client.
    pub client_secret_sha256: Option<String>,
    pub issued_at: u64,
    pub updated_at: u64,
    pub last_used_at: Option<u64>,
    pub answered_at: Option<u64>,
    pub is_dynamic: bool,
    pub app_type: AppType,
    pub owner: OwnerData,
    pub third_party_security_mode: SecurityMode,
    /// Whether equal registrations may be folded into it.
    pub has_fingerprint: bool,
}

/// The last line: how many lines there are of each kind.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndLine {
    #[serde(rename = "type")]
    pub kind: Kind,
    pub counts: Counts,
}

/// How many of each kind there are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    pub tenants: u64,
    pub network_acls: u64,
    pub resource_servers: u64,
    pub connections: u64,
    pub clients: u64,
    pub client_grants: u64,
}

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, kind: Kind) {
        let count = match kind {
            Kind::Header | Kind::End => return,
            Kind::Tenant => &mut self.tenants,
            Kind::NetworkAcl => &mut self.network_acls,
            Kind::ResourceServer => &mut self.resource_servers,
            Kind::Connection => &mut self.connections,
            Kind::Client => &mut self.clients,
            Kind::ClientGrant => &mut self.client_grants,
        };
        *count = count.saturating_add(1);
    }
}
