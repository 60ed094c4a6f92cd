//! Access rules as the database has them.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Database, Error, is_id, random_id};
use crate::acl::{Effect, NetworkAcl, Rule, Size};
use crate::store::blocking;
use crate::store::clock::rfc3339;

/// What an access rule's id begins with.
const ID_PREFIX: &str = "acl_";

/// Random characters of an access rule's id, each of 62: 130 bits.
const ID_LENGTH: usize = 22;

/// A new access rule's id: `acl_` and 22 characters of `[0-9A-Za-z]`.
pub fn acl_id() -> Result<String, Error> {
    random_id(ID_PREFIX, ID_LENGTH)
}

/// Whether `text` has the form of an access rule's id.
pub fn is_acl_id(text: &str) -> bool {
    is_id(text, ID_PREFIX, ID_LENGTH)
}

/// An access rule as the database has it. Times are UNIX milliseconds.
#[derive(Clone, Debug)]
pub struct StoredAcl {
    /// Its id.
    pub id: String,
    /// How often it was written.
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
    pub(super) fn says(&self, acl: &NewAcl) -> bool {
        self.description == acl.description
            && self.active == acl.active
            && acl.priority.is_none_or(|priority| priority == self.priority)
            && self.rule.get() == acl.rule.get()
    }
}

/// An access rule that is to be written. What takes long is done when it is made.
#[derive(Clone, Debug)]
pub struct NewAcl {
    /// What it is for.
    pub description: String,
    /// Whether it is evaluated.
    pub active: bool,
    /// Its place in the order of evaluation.
    pub priority: Option<u32>,
    /// The [`Rule`] as JSON.
    pub rule: Box<RawValue>,
    /// How much there is in it.
    pub size: Size,
    /// The host to which it redirects.
    pub redirect_host: Option<String>,
}

impl NewAcl {
    /// Makes ready what `acl` says.
    pub fn new(acl: &NetworkAcl) -> Result<Self, Error> {
        let NetworkAcl { description, active, priority, rule } = acl;
        let redirect_host = match &rule.action.effect {
            Some(Effect::Redirect(to)) => Some(to.host().to_owned()),
            _ => None,
        };
        Ok(Self {
            description: description.clone(),
            active: *active,
            priority: *priority,
            rule: to_raw_value(rule)
                .map_err(|_| Error::Failed("an access rule cannot be written as JSON".to_owned()))?,
            size: [acl].into_iter().collect(),
            redirect_host,
        })
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

/// Tenants' access rules, and what they did.
#[async_trait]
pub trait NetworkAcls {
    /// So many access rules of the tenant in slot `tenant`, in the order of evaluation, after the first `offset`.
    async fn network_acls(&self, tenant: u32, offset: u64, limit: u32) -> Result<AclPage, Error>;

    /// What the tenant's active access rules do, in the order of evaluation: each a [`crate::acl::Rule`] as JSON.
    async fn active_rules(&self, tenant: u32) -> Result<Vec<String>, Error>;

    /// The tenant's access rule with this id.
    async fn network_acl(&self, tenant: u32, id: &str) -> Result<Option<StoredAcl>, Error>;

    /// Adds an access rule at `now`, in UNIX milliseconds; without a priority it comes last. `None` if the tenant was
    /// deleted. [`Error::TooManyAcls`] and [`Error::RedirectsToItself`] leave everything as it was. The change feed
    /// tells the tenant anew if this, or one of the next two calls, alters the list of its active rules.
    async fn create_network_acl(
        &self,
        tenant: u32,
        id: &str,
        acl: &NewAcl,
        now: u64,
    ) -> Result<Option<StoredAcl>, Error>;

    /// Writes `acl` in the place of `stored` if that still has the version at which the caller read it; `None` if it
    /// has not. Without a priority it keeps the one that it has. The errors are those of a new one.
    async fn replace_network_acl(
        &self,
        tenant: u32,
        stored: &StoredAcl,
        acl: &NewAcl,
        now: u64,
    ) -> Result<Option<StoredAcl>, Error>;

    /// Puts all access rules of the tenant at once into the order of these ids, at `now`, and says whether that alters the
    /// list of the active ones. They share the priorities that there are already, as far as those differ. `None`, and
    /// nothing is written, if the tenant has other rules than these.
    async fn reorder_network_acls(&self, tenant: u32, ids: &[String], now: u64) -> Result<Option<bool>, Error>;

    /// Deletes an access rule, if there is one, and says whether one was active.
    async fn delete_network_acl(&self, tenant: u32, id: &str) -> Result<bool, Error>;

    /// Writes into the tenants' logs what access rules did until `end`, in UNIX milliseconds, in one transaction. Rules
    /// that are gone are left out.
    async fn log_acl_totals(&self, totals: &[AclTotal], end: u64) -> Result<(), Error>;
}

/// An access rule before and after a change.
#[derive(Debug)]
pub struct ChangedAcl {
    /// Before.
    pub before: StoredAcl,
    /// After.
    pub after: StoredAcl,
    /// What it does after.
    pub rule: Rule,
}

impl ChangedAcl {
    /// Whether what it does, its place or whether it does anything changed.
    pub fn has_effect(&self) -> bool {
        let Self { before, after, .. } = self;
        before.active != after.active || before.priority != after.priority || before.rule.get() != after.rule.get()
    }
}

/// Changes an access rule by `change`, whoever else changes it meanwhile; `Ok(None)` if the tenant in this slot has no
/// such rule. Without a priority it keeps the one that it has. Nothing is written if `change` refuses or changes
/// nothing.
pub async fn update_network_acl<E: From<Error> + Send + 'static>(
    database: &dyn Database,
    tenant: u32,
    id: &str,
    now: u64,
    change: impl Fn(&StoredAcl) -> Result<NetworkAcl, E> + Send + Sync + 'static,
) -> Result<Option<ChangedAcl>, E> {
    let change = Arc::new(change);
    while let Some(before) = database.network_acl(tenant, id).await? {
        let change = Arc::clone(&change);
        let changed = move || {
            let acl = change(&before)?;
            Ok::<_, E>((before, NewAcl::new(&acl)?, acl.rule))
        };
        let (before, acl, rule) = blocking::run(changed).await??;
        let after = if before.says(&acl) {
            Some(before.clone())
        } else {
            database.replace_network_acl(tenant, &before, &acl, now).await?
        };
        if let Some(after) = after {
            return Ok(Some(ChangedAcl { before, after, rule }));
        }
    }
    Ok(None)
}

/// What an access rule did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AclTotal {
    /// The tenant's slot.
    pub slot: u32,
    /// The rule.
    pub acl_id: String,
    /// From when on, in UNIX milliseconds.
    pub since: u64,
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
    /// Sums up what the rule did until `end`, in UNIX milliseconds.
    pub(super) fn new(
        total: &'a AclTotal,
        description: &'a str,
        priority: i64,
        action: &'a RawValue,
        end: u64,
    ) -> Self {
        Self {
            acl_id: &total.acl_id,
            description,
            priority,
            action,
            matched: Success { success: total.matched },
            total_request_count: Successes { successes: total.evaluated },
            start_time: rfc3339(total.since),
            end_time: rfc3339(end),
        }
    }
}
