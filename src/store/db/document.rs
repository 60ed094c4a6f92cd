//! Objects of the Management API that are kept as they are written: APIs, connections, client grants.

use async_trait::async_trait;

use super::{Database, Error, is_id, random_id};

/// What kind of object it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DocumentKind {
    /// A [`crate::management::ResourceServer`].
    ResourceServer,
    /// A [`crate::management::Connection`].
    Connection,
    /// A [`crate::management::ClientGrant`].
    ClientGrant,
}

impl DocumentKind {
    /// What an object of this kind is called.
    pub fn noun(self) -> &'static str {
        match self {
            Self::ResourceServer => "API",
            Self::Connection => "connection",
            Self::ClientGrant => "client grant",
        }
    }

    /// What an id begins with, and how many random characters follow.
    fn id_form(self) -> (&'static str, usize) {
        match self {
            Self::ResourceServer => ("rs_", 22),
            // As long as the hosted product's.
            Self::Connection => ("con_", 16),
            Self::ClientGrant => ("cgr_", 16),
        }
    }

    /// A new object's id.
    pub fn new_id(self) -> Result<String, Error> {
        let (prefix, length) = self.id_form();
        random_id(prefix, length)
    }

    /// Whether `text` has the form of an object's id.
    pub fn is_id(self, text: &str) -> bool {
        let (prefix, length) = self.id_form();
        is_id(text, prefix, length)
    }

    /// Most of them that a tenant may have.
    pub fn most(self) -> u32 {
        match self {
            Self::ResourceServer | Self::Connection => 1_000,
            Self::ClientGrant => 100_000,
        }
    }
}

/// An object as the database has it. Times are UNIX milliseconds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Document {
    /// Its place in the order of creation, over all tenants.
    pub number: u64,
    /// Its id.
    pub id: String,
    /// How often it was written.
    pub version: u64,
    /// What it says, as JSON.
    pub data: String,
    /// When it was created.
    pub created_at: u64,
    /// When it was changed last.
    pub updated_at: u64,
}

/// Which objects are asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DocumentQuery {
    /// Members that are texts, with the values of which they have to have one.
    pub members: Vec<(&'static str, Vec<String>)>,
    /// Only those that were created after the one with this number.
    pub after: u64,
    /// How many of the rest are left out.
    pub offset: u64,
    /// How many are wanted.
    pub limit: u32,
    /// Whether it is wanted how many there are: all of them are looked at for that.
    pub with_total: bool,
}

/// Some objects.
#[derive(Clone, Debug)]
pub struct DocumentPage {
    /// In the order of creation.
    pub documents: Vec<Document>,
    /// How many there are of which `members` holds, wherever they stand; if that is wanted.
    pub total: Option<u64>,
}

/// Tenants' APIs, connections and client grants. A tenant is named by its slot, and never sees another's.
#[async_trait]
pub trait Documents {
    /// The objects that `query` asks for.
    async fn documents(&self, tenant: u32, kind: DocumentKind, query: &DocumentQuery) -> Result<DocumentPage, Error>;

    /// The object with this id; an API also by its identifier.
    async fn document(&self, tenant: u32, kind: DocumentKind, id: &str) -> Result<Option<Document>, Error>;

    /// Adds an object at `now`; `None` if the tenant was deleted. [`Error::Duplicate`], [`Error::NoSuchApi`],
    /// [`Error::NoSuchClient`], [`Error::NoSuchScope`], [`Error::TooManyDocuments`],
    /// [`Error::TooManyGrantsOfClient`] and [`Error::TooManyDefaultGrants`] leave everything as it was.
    async fn create_document(
        &self,
        tenant: u32,
        kind: DocumentKind,
        id: &str,
        data: &str,
        now: u64,
    ) -> Result<Option<Document>, Error>;

    /// Writes what `stored` is to say from `now` on, if it still has the version at which the caller read it; `None` if
    /// it has not. What it is found by stays. [`Error::NoSuchScope`] leaves everything as it was.
    async fn replace_document(
        &self,
        tenant: u32,
        kind: DocumentKind,
        stored: &Document,
        data: &str,
        now: u64,
    ) -> Result<Option<Document>, Error>;

    /// Deletes an object, if there is one; an API also by its identifier. An API's grants go with it.
    async fn delete_document(&self, tenant: u32, kind: DocumentKind, id: &str) -> Result<(), Error>;
}

/// Changes an object by `change`, whoever else changes it meanwhile; `Ok(None)` if the tenant has no such object. Nothing
/// is written if `change` refuses or changes nothing.
pub async fn update_document<E: From<Error>>(
    database: &dyn Database,
    tenant: u32,
    kind: DocumentKind,
    id: &str,
    now: u64,
    change: impl Fn(&Document) -> Result<String, E>,
) -> Result<Option<Document>, E> {
    while let Some(before) = database.document(tenant, kind, id).await? {
        let data = change(&before)?;
        if data == before.data {
            return Ok(Some(before));
        }
        if let Some(after) = database.replace_document(tenant, kind, &before, &data, now).await? {
            return Ok(Some(after));
        }
    }
    Ok(None)
}
