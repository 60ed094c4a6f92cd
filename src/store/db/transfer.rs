//! Tenants on their way from one database into another.

use std::ops::ControlFlow;

use async_trait::async_trait;

use super::{Document, DocumentKind, Error, NewAcl, StoredAcl, StoredClient};
use crate::tenant::{Name, Tenant};

/// A client with what only the database knows of it.
#[derive(Clone, Debug)]
pub struct MovedClient {
    /// The client. Its version is that of the database that it is in.
    pub client: StoredClient,
    /// SHA-256 of its secret.
    pub client_secret_sha256: Option<[u8; 32]>,
    /// When a registration was answered with it last, in UNIX seconds, as far as that was noted.
    pub answered_at: Option<u64>,
    /// What public clients that are folded into it have in common with it; absent if none are.
    pub fingerprint: Option<[u8; 32]>,
}

/// A part of what a database has.
#[derive(Debug)]
pub enum Exported {
    /// A tenant. What it has follows.
    Tenant(Box<Tenant>),
    /// An access rule.
    NetworkAcl(StoredAcl),
    /// An API, a connection or a client grant.
    Document(DocumentKind, Document),
    /// A client.
    Client(Box<MovedClient>),
}

/// Something that a tenant is to have, with the id that it has elsewhere. Times are UNIX milliseconds.
#[derive(Debug)]
pub enum Imported {
    /// An access rule.
    NetworkAcl {
        /// Its id.
        id: String,
        /// What it says, with its priority.
        acl: NewAcl,
        /// When it was created.
        created_at: u64,
        /// When it was changed last.
        updated_at: u64,
    },
    /// An API, a connection or a client grant.
    Document {
        /// What it is.
        kind: DocumentKind,
        /// Its id.
        id: String,
        /// What it says, as JSON.
        data: String,
        /// When it was created.
        created_at: u64,
        /// When it was changed last.
        updated_at: u64,
    },
    /// A client.
    Client(Box<MovedClient>),
}

/// Whether a database has an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presence {
    /// It has not.
    Absent,
    /// The tenant has it as it is. When it was created, changed and used does not count.
    Same,
    /// Something else is in its place; what that is.
    Conflict(&'static str),
}

/// Whole tenants, out of a database and into one. Their logs are no part of them.
#[async_trait]
pub trait Transfer {
    /// Hands `each` all tenants, or one of them, in the state of one moment: each tenant, then its access rules, APIs,
    /// connections, clients and client grants, in the order of creation. Ends early with [`ControlFlow::Break`]. No more
    /// than some hundred objects are in memory at a time.
    async fn export(
        &self,
        tenant: Option<&Name>,
        each: &mut (dyn FnMut(Exported) -> ControlFlow<()> + Send),
    ) -> Result<(), Error>;

    /// Which of these objects the tenant in this slot has; `None` is a tenant that is not there yet.
    async fn presence(&self, tenant: Option<u32>, objects: &[Imported]) -> Result<Vec<Presence>, Error>;

    /// Adds those of the objects that are absent, in one transaction, in their order, and says which those were; nothing
    /// if one of them is in conflict. `None` if the tenant was deleted. [`Error::TooManyAcls`],
    /// [`Error::RedirectsToItself`], [`Error::NoSuchApi`], [`Error::NoSuchClient`] and those of too many
    /// grants leave everything as it was.
    async fn import(&self, tenant: u32, objects: &[Imported]) -> Result<Option<Vec<Presence>>, Error>;
}
