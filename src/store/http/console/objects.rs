//! APIs, connections and grants, read from the database as what they are.

use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::session::Session;
use crate::store::db::{self, Document, DocumentKind, DocumentQuery};
use crate::store::http::App;

/// An object with its id.
pub struct Named<T> {
    /// Its id.
    pub id: String,
    /// What it says.
    pub object: T,
}

/// All objects of a kind that have one of these values in each of these members. There are 1,000 APIs and connections at
/// most, and fewer default grants.
pub async fn all<T: DeserializeOwned>(
    app: &App,
    session: &Session,
    kind: DocumentKind,
    members: Vec<(&'static str, Vec<String>)>,
) -> Result<Vec<Named<T>>, Failure> {
    let query = DocumentQuery { members, limit: DocumentKind::Connection.most(), ..DocumentQuery::default() };
    let found = app.database.documents(session.tenant.slot, kind, &query).await?;
    found.documents.iter().map(|document| read(kind, document)).collect()
}

/// The object with this id.
pub async fn one<T: DeserializeOwned>(
    app: &App,
    session: &Session,
    kind: DocumentKind,
    id: &str,
) -> Result<Named<T>, Failure> {
    let found = app.database.document(session.tenant.slot, kind, id).await?;
    let unknown = || Failure::not_found(format!("The tenant has no such {}, or no longer.", kind.noun()));
    read(kind, &found.ok_or_else(unknown)?)
}

fn read<T: DeserializeOwned>(kind: DocumentKind, document: &Document) -> Result<Named<T>, Failure> {
    let unreadable = |_| db::Error::Failed(format!("the {} {} cannot be read", kind.noun(), document.id));
    Ok(Named { id: document.id.clone(), object: serde_json::from_str(&document.data).map_err(unreadable)? })
}
