//! A tenant as both ends see it: its name, the hosts it answers for, and the settings its owner controls.
//!
//! Everything here is checked while it is parsed: a value of these types is a valid one, in the store, on the
//! way and at the edge. An unknown member is an error, because an edge that ignored a setting it does not know
//! would enforce less than the owner asked for.

mod domain;
mod server;
mod settings;

pub use domain::{Domain, authority_host};
pub use server::{ParameterName, ParameterNames, PathPattern, Paths, PlainPath, Registrar, UnknownClients};
pub use settings::{
    CorsOrigin, CustomSchemes, DcrEdge, Flags, HostPattern, InvalidRedirectUris, LogRetention, Origin, PerSource,
    RateLimit, Scheme, SecurityMode, Settings,
};

use serde::{Deserialize, Serialize};

use crate::acl::Rule;

/// Most domains one tenant may have.
pub const MAX_DOMAINS: usize = 100;

/// A tenant: who it is, where it answers, what its owner set.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its name, unique in the store.
    pub name: Name,
    /// The hosts it answers for. The first is canonical: the audience of its Management API is made of it.
    pub domains: Vec<Domain>,
    /// What its owner controls.
    pub settings: Settings,
    /// Whether the operator lets its owner choose the permissive mode. It is no part of what edges are told: they go by
    /// the mode alone.
    #[serde(default, skip_serializing)]
    pub permissive_eligible: bool,
}

/// A tenant as the edge is told it: all that it enforces.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Its name.
    pub name: Name,
    /// The hosts it answers for.
    pub domains: Vec<Domain>,
    /// What its owner controls.
    pub settings: Settings,
    /// Its active access rules, in the order of evaluation.
    #[serde(default)]
    pub network_acls: Vec<ActiveRule>,
}

/// An access rule that is to be evaluated.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActiveRule {
    /// Its id in the Management API.
    pub id: String,
    /// What it does to whom.
    pub rule: Rule,
}

/// The name of a tenant: 1 to 64 characters of `[a-z0-9-]`, beginning and ending with a letter or digit.
///
/// It stands in paths of the edge's interface, so it never needs escaping.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = text.as_bytes();
        let inner = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        if bytes.len() <= 64 && inner && edge(bytes.first()) && edge(bytes.last()) {
            Ok(Self(text))
        } else {
            Err("a tenant name is 1 to 64 characters of a-z, 0-9 and -, and begins and ends with a letter or digit"
                .to_owned())
        }
    }
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_names_are_safe_path_segments() {
        for good in ["default", "a", "0", "my-tenant-1", &"a".repeat(64)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a/b", "a b", "ä", "a.b", &"a".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
