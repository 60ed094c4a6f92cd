//! What the store keeps, as one trait, so that every database runs the same tests and serves the same callers.
//!
//! The traits have the calls that the callers make and no more, one trait for each room of the database. Times come in
//! as arguments: a [`Now`], or UNIX milliseconds.

mod backup;
mod client;
mod document;
mod failure;
mod log;
mod log_filter;
mod migration;
mod network_acl;
mod permission;
mod postgres;
mod sign_in_link;
mod signing_key;
mod sqlite;
mod transfer;

pub use backup::Backup;
pub use client::{ClientPage, Clients, MadeClient, StoredClient, update_client};
pub use document::{Document, DocumentKind, DocumentPage, DocumentQuery, Documents, update_document};
pub use log::{
    Activity, LogEvent, LogLimits, LogOrder, LogQuery, Logs, REFUSED, REGISTERED, REGISTRATION, RefusalTotal,
    RegistrationEvent, SETTINGS_CHANGED, TOO_MANY, settings_event,
};
pub use log_filter::{LogField, LogFilter};
pub use network_acl::{
    ACLS_SUMMARY, AclPage, AclTotal, ChangedAcl, NetworkAcls, NewAcl, StoredAcl, acl_id, is_acl_id, update_network_acl,
};
pub use permission::{
    ControlledClient, MOST_GRANTS, Permissions, PermittedClient, default_permissions, permitted_client,
};
pub use postgres::Postgres;
pub use sign_in_link::{SignInLink, SignInLinks, SignedIn};
pub use signing_key::{Rotation, SIGNING_KEYS, SigningKeys, StoredKey};
pub use sqlite::Sqlite;
pub use transfer::{Exported, Imported, MovedClient, Presence, Transfer};

use async_trait::async_trait;

use self::failure::unreadable;
use super::admission::{NewClient, Refusal};
use super::clock::Now;
use crate::edge_api::Changes;
use crate::registration::prefixed_id;
use crate::tenant::{Domain, Name, Tenant};

/// What opening does where there is no database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IfMissing {
    /// It makes one.
    Create,
    /// It fails with [`Error::Missing`] and leaves nothing behind.
    Refuse,
}

/// What opening does with a database of an older version of this program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IfOlder {
    /// It brings the tables up to date; the older version cannot write to them any more.
    Migrate,
    /// It fails with [`Error::Older`] and changes nothing.
    Refuse,
    /// It leaves the tables as they are. Then it can be copied, and nothing else.
    Keep,
}

/// A tenant as the database has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredTenant {
    /// Its number, never used again for another.
    pub slot: u32,
    /// The number of its last change.
    pub version: u64,
    /// The tenant.
    pub tenant: Tenant,
}

/// A registration that waits for its turn.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The client.
    pub client: NewClient,
    /// When it came. The fleet's limit judges it by that, and it is the client's date.
    pub at: Now,
}

/// A client that is durably registered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registered {
    /// Its id, which is another than that asked for if the tenant folds equal public clients.
    pub client_id: String,
    /// When it was registered, in UNIX seconds.
    pub issued_at: u64,
    /// Whether this call registered it; otherwise it was there.
    pub created: bool,
}

/// Durable tenants, clients, and what the other traits keep.
#[async_trait]
pub trait Database:
    Backup + Clients + NetworkAcls + Documents + Logs + Permissions + SignInLinks + SigningKeys + Transfer + Send + Sync
{
    /// Whether the database answers.
    async fn ping(&self) -> Result<(), Error>;

    /// Adds a tenant. [`Error::TenantExists`] and [`Error::HostTaken`] leave everything as it was.
    async fn create_tenant(&self, tenant: &Tenant) -> Result<(), Error>;

    /// Every tenant, in the order of the names.
    async fn tenants(&self) -> Result<Vec<StoredTenant>, Error>;

    /// Those of [`Self::tenants`] that can be read; the process's log names the others.
    async fn readable_tenants(&self) -> Result<Vec<StoredTenant>, Error>;

    /// The tenant with this name.
    async fn tenant(&self, name: &Name) -> Result<Option<StoredTenant>, Error>;

    /// The tenant that answers for this host.
    async fn tenant_of_host(&self, host: &Domain) -> Result<Option<StoredTenant>, Error>;

    /// Writes the tenant if it still has the version at which the caller read it; `false` if it has not.
    /// The name stays, and a rate limit that changed is in force from `now` on. [`Error::HostTaken`] and
    /// [`Error::HostRedirectedTo`] leave everything as it was.
    async fn replace_tenant(&self, changed: &StoredTenant, now: Now) -> Result<bool, Error>;

    /// Deletes a tenant and all that it has, and says how many clients those were; `None` if there is no such tenant.
    /// The tenant is gone at once; its clients and its log go little by little, so that nobody waits long, and so do
    /// those that an earlier call left behind because it was cut off.
    async fn delete_tenant(&self, name: &Name) -> Result<Option<u64>, Error>;

    /// One page of what changed after the change `after` of the database `instance`; everything if that names
    /// another database or a change that never was.
    async fn changes(&self, after: u64, instance: Option<&str>) -> Result<Changes, Error>;

    /// Forgets little by little the changes of clients that are neither among the newest `most` nor later than the change
    /// `seen`, and says which change is the newest of all. A reader of the feed that did not hear of one is told that any
    /// client may have changed.
    async fn forget_client_changes(&self, most: u32, seen: u64) -> Result<u64, Error>;

    /// Registers clients in one transaction, and answers each by itself, in the order of `batch`. When this
    /// returns, what it says is durable. An error means that none was registered. Where a quota is used up, clients that
    /// registered themselves, that no authorization server ever asked for, that the owner never changed, and with which
    /// no registration was answered for 24 hours give way, the oldest first, which is an event in the tenant's log. They
    /// are 100 at most, of all tenants. A refusal by the fleet's limit counts from the arrival.
    async fn register(&self, batch: &[Arrival]) -> Result<Vec<Result<Registered, Refusal>>, Error>;

    /// Ends all work in an orderly way. No call may follow.
    async fn close(&self);
}

/// Why the database did not do what it was asked. The texts are fit for users: no statement, no value of a row.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tenant's name is taken.
    #[error("the tenant {0} exists already; choose another name")]
    TenantExists(Name),
    /// The host leads to another tenant.
    #[error("the host {host} belongs to the tenant {tenant}; a host can have one tenant only")]
    HostTaken {
        /// The host.
        host: Domain,
        /// The tenant that has it.
        tenant: String,
    },
    /// An access rule of the tenant redirects to the host.
    #[error("the access rule {acl} redirects to {host}; a tenant cannot redirect to itself: change that rule first")]
    HostRedirectedTo {
        /// The host.
        host: Domain,
        /// The rule's id.
        acl: String,
    },
    /// The access rule redirects to a host of its own tenant.
    #[error("{0} is a host of this tenant; redirect to another, or it would redirect without an end")]
    RedirectsToItself(String),
    /// The tenant's access rules would be more than it may have.
    #[error("the tenant would have {0}")]
    TooManyAcls(String),
    /// The tenant has one like it.
    #[error("there is such a {noun} already", noun = .0.noun())]
    Duplicate(DocumentKind),
    /// The tenant has no API of that identifier.
    #[error("there is no API with this identifier; create the API first")]
    NoSuchApi,
    /// The tenant has no such client.
    #[error("there is no client with this client_id")]
    NoSuchClient,
    /// The API has no such scope.
    #[error("the API has no scope {0}; add it to the API first")]
    NoSuchScope(String),
    /// A search in a log was ended.
    #[error("the search takes too long; ask for fewer events, such as date:[2026-01-01 TO 2026-01-31]")]
    SearchTooLong,
    /// The tenant has as many as it may have.
    #[error("{noun}s of a tenant are {1} at most", noun = .0.noun())]
    TooManyDocuments(DocumentKind, u32),
    /// A client has as many grants of its own as it may have.
    #[error("client grants of one client are {0} at most; delete one first")]
    TooManyGrantsOfClient(u32),
    /// The tenant has as many default grants as it may have.
    #[error("default client grants of a tenant are {0} at most; delete one first")]
    TooManyDefaultGrants(u32),
    /// There is no database, and the caller wants none made.
    #[error(
        "there is no database at {0}; look at --database-url and DATABASE_URL, or make one with `dcr-store tenant create`"
    )]
    Missing(String),
    /// The database is of an older version, and the caller must not change that.
    #[error(
        "the database {0} is of an older version of dcr-store: start this version's `dcr-store serve`, or run \
         `dcr-store migrate`, once no older store uses it"
    )]
    Older(String),
    /// A copy of the database was not made.
    #[error("cannot write the copy {place}: {reason}")]
    Copy {
        /// Its path.
        place: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The database cannot be opened, or is not fit to be.
    #[error("cannot open the database {place}: {reason}")]
    Open {
        /// Its path or URL, without credentials.
        place: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The database cannot be used at the moment; the same may do a moment later.
    #[error("the database cannot be used at the moment: {0}")]
    Unavailable(String),
    /// The database failed while it was in use.
    #[error("the database failed: {0}")]
    Failed(String),
}

impl Error {
    /// The system's random source gave nothing.
    pub fn no_randomness() -> Self {
        Self::Failed("the system has no randomness".to_owned())
    }
}

/// A new id: `prefix` and so many random characters.
fn random_id(prefix: &str, length: usize) -> Result<String, Error> {
    let mut random = |buffer: &mut [u8]| getrandom::fill(buffer);
    prefixed_id(prefix, length, &mut random).map_err(|_| Error::no_randomness())
}

/// Whether `text` has the form of an id that [`random_id`] makes.
fn is_id(text: &str, prefix: &str, length: usize) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == length && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Changes a tenant by `change`, whoever else changes it meanwhile; `Ok(None)` if there is no such tenant. Nothing is
/// written if `change` refuses or changes nothing.
pub async fn update_tenant<E: From<Error>>(
    database: &dyn Database,
    name: &Name,
    now: Now,
    change: impl Fn(Tenant) -> Result<Tenant, E>,
) -> Result<Option<Changed>, E> {
    update_tenant_if(database, name, now, |_| true, change).await
}

/// Like [`update_tenant`], unless the tenant was deleted since it was read as `known`. Another may have its name then.
pub async fn update_known_tenant<E: From<Error>>(
    database: &dyn Database,
    known: &StoredTenant,
    now: Now,
    change: impl Fn(Tenant) -> Result<Tenant, E>,
) -> Result<Option<Changed>, E> {
    update_tenant_if(database, &known.tenant.name, now, |found| found.slot == known.slot, change).await
}

async fn update_tenant_if<E: From<Error>>(
    database: &dyn Database,
    name: &Name,
    now: Now,
    is_meant: impl Fn(&StoredTenant) -> bool,
    change: impl Fn(Tenant) -> Result<Tenant, E>,
) -> Result<Option<Changed>, E> {
    while let Some(before) = database.tenant(name).await?.filter(&is_meant) {
        let tenant = change(before.tenant.clone())?;
        let after = StoredTenant { tenant, ..before };
        if after.tenant == before.tenant || database.replace_tenant(&after, now).await? {
            return Ok(Some(Changed { slot: after.slot, before: before.tenant, after: after.tenant }));
        }
    }
    Ok(None)
}

/// A tenant before and after a change.
#[derive(Debug)]
pub struct Changed {
    /// Its slot.
    pub slot: u32,
    /// Before.
    pub before: Tenant,
    /// After.
    pub after: Tenant,
}
