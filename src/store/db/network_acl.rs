//! Access rules as the database has them.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Database, Error};
use crate::acl::NetworkAcl;
use crate::registration::prefixed_id;
use crate::store::clock::rfc3339;

/// What an access rule's id begins with.
const ID_PREFIX: &str = "acl_";

/// Random characters of an access rule's id, each of 62: 130 bits.
const ID_LENGTH: usize = 22;

/// A new access rule's id: `acl_` and 22 characters of `[0-9A-Za-z]`; `None` if the system has no randomness.
pub fn acl_id() -> Option<String> {
    prefixed_id(ID_PREFIX, ID_LENGTH, &mut |buffer: &mut [u8]| getrandom::fill(buffer)).ok()
}

/// Whether `text` has the form of an access rule's id.
pub fn is_acl_id(text: &str) -> bool {
    text.strip_prefix(ID_PREFIX)
        .is_some_and(|rest| rest.len() == ID_LENGTH && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// An access rule as the database has it. Times are UNIX milliseconds.
#[derive(Clone, Debug)]
pub struct StoredAcl {
    /// Its id.
    pub id: String,
    /// The number of its last change.
    pub version: u64,
    /// What it is for.
    pub description: String,
    /// Whether it is evaluated.
    pub active: bool,
    /// Its place in the order of evaluation.
    pub priority: u32,
    /// The [`crate::acl::Rule`] as JSON.
    pub rule: Box<RawValue>,
    /// When it was created.
    pub created_at: u64,
    /// When it was changed last.
    pub updated_at: u64,
}

impl StoredAcl {
    /// Whether it says what `acl` says; one without a priority says nothing about that.
    fn says(&self, acl: &NetworkAcl) -> bool {
        self.description == acl.description
            && self.active == acl.active
            && acl.priority.is_none_or(|priority| priority == self.priority)
            && serde_json::to_string(&acl.rule).is_ok_and(|rule| rule == self.rule.get())
    }
}

/// Some of a tenant's access rules.
#[derive(Clone, Debug)]
pub struct AclPage {
    /// The rules, in the order of evaluation.
    pub acls: Vec<StoredAcl>,
    /// How many the tenant has.
    pub total: u64,
}

/// Changes an access rule by `change`, whoever else changes it meanwhile; `Ok(None)` if the tenant in this slot has no
/// such rule. Without a priority it keeps the one that it has. Nothing is written if `change` refuses or changes
/// nothing.
pub async fn update_network_acl<E: From<Error>>(
    database: &dyn Database,
    tenant: u32,
    id: &str,
    now: u64,
    change: impl Fn(&StoredAcl) -> Result<NetworkAcl, E>,
) -> Result<Option<StoredAcl>, E> {
    while let Some(stored) = database.network_acl(tenant, id).await? {
        let acl = change(&stored)?;
        if stored.says(&acl) {
            return Ok(Some(stored));
        }
        if let Some(changed) = database.replace_network_acl(tenant, &stored, &acl, now).await? {
            return Ok(Some(changed));
        }
    }
    Ok(None)
}

/// What an access rule did.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct AclTotal {
    /// The tenant's slot.
    pub slot: u32,
    /// The rule.
    pub acl_id: String,
    /// Requests that it was evaluated for.
    pub evaluated: u64,
    /// Requests that it matched.
    pub matched: u64,
}

/// Type of the event in the tenant's log that sums up what an access rule did.
pub const ACLS_SUMMARY: &str = "acls_summary";

/// That event's data.
#[derive(Serialize)]
pub(super) struct AclsSummary<'a> {
    acl_id: &'a str,
    description: &'a str,
    priority: i64,
    action: &'a RawValue,
    #[serde(rename = "match")]
    matched: Success,
    total_request_count: Successes,
    start_time: String,
    end_time: String,
}

#[derive(Serialize)]
struct Success {
    success: u64,
}

#[derive(Serialize)]
struct Successes {
    successes: u64,
}

impl<'a> AclsSummary<'a> {
    /// Sums up what the rule did between two times in UNIX milliseconds.
    pub(super) fn new(
        total: &'a AclTotal,
        description: &'a str,
        priority: i64,
        action: &'a RawValue,
        (start, end): (u64, u64),
    ) -> Self {
        Self {
            acl_id: &total.acl_id,
            description,
            priority,
            action,
            matched: Success { success: total.matched },
            total_request_count: Successes { successes: total.evaluated },
            start_time: rfc3339(start),
            end_time: rfc3339(end),
        }
    }
}
