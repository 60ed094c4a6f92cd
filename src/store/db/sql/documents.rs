//! APIs, connections and client grants: three tables of one shape.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;

use super::client_changes::Changed;
use super::{Backend, Connection, column, count, lock_tenants, query_as, query_scalar, text, to_json, unreadable};
use crate::store::db::permission::MOST_GRANTS;
use crate::store::db::{Document, DocumentKind, DocumentPage, DocumentQuery, Documents, Error};

/// The statements for one table. Parameters are numbered: `$1` is the tenant.
struct Statements {
    list: &'static str,
    count: &'static str,
    find: &'static str,
    insert: &'static str,
    update: &'static str,
    delete: &'static str,
    count_all: &'static str,
}

/// The columns of a [`DocumentRow`].
macro_rules! columns {
    () => {
        "number, id, version, data, created_at, updated_at"
    };
}

/// Whose rows are asked for, and that their members have the values in `$2`, an object of lists.
macro_rules! asked_for {
    ($whose:expr) => {
        concat!(
            $whose,
            " AND NOT EXISTS (SELECT 1 FROM ",
            sql!(sqlite: "json_each($2) AS asked", postgres: concat!("json_each(", json!("$2"), ") AS asked")),
            " WHERE coalesce(",
            json!("data"),
            " ->> asked.key, '') NOT IN (",
            sql!(
                sqlite: "SELECT value FROM json_each(asked.value)",
                postgres: "SELECT json_array_elements_text(asked.value)",
            ),
            "))"
        )
    };
}

macro_rules! statements {
    ($table:literal, $whose:expr, $named:literal) => {
        Statements {
            list: concat!(
                "SELECT ",
                columns!(),
                concat!(" FROM ", $table, " WHERE ", asked_for!($whose)),
                " AND number > $3 ORDER BY number LIMIT $4 OFFSET $5"
            ),
            count: concat!("SELECT count(*) FROM ", $table, " WHERE ", asked_for!($whose)),
            find: concat!("SELECT ", columns!(), " FROM ", $table, " WHERE tenant = $1 AND ", $named),
            insert: concat!(
                concat!("INSERT INTO ", $table, " (tenant, id, version, data, created_at, updated_at)"),
                " SELECT slot, $2, 1, $3, $4, $4 FROM tenants WHERE slot = $1 AND deleted = 0 RETURNING ",
                columns!()
            ),
            update: concat!(
                concat!("UPDATE ", $table, " SET data = $4, updated_at = $5, version = version + 1"),
                " WHERE tenant = $1 AND id = $2 AND version = $3 RETURNING ",
                columns!()
            ),
            delete: concat!("DELETE FROM ", $table, " WHERE tenant = $1 AND ", $named, " RETURNING data"),
            count_all: concat!("SELECT count(*) FROM ", $table, " WHERE tenant = $1"),
        }
    };
}

const RESOURCE_SERVERS: Statements = statements!("resource_servers", "tenant = $1", "(id = $2 OR identifier = $2)");
const CONNECTIONS: Statements = statements!("connections", "tenant = $1", "id = $2");
const CLIENT_GRANTS: Statements = statements!("client_grants", "tenant = $1", "id = $2");
/// The client that is asked for.
macro_rules! first_client {
    () => {
        sql!(
            sqlite: "($2 ->> '$.client_id[0]')",
            postgres: concat!("(", json!("$2"), " #>> '{client_id,0}')"),
        )
    };
}

/// Those of one client, of which a tenant may have very many.
const GRANTS_OF_CLIENT: Statements =
    statements!("client_grants", concat!("client_id = ", first_client!(), " AND tenant = $1"), "id = $2");

fn statements(kind: DocumentKind) -> &'static Statements {
    match kind {
        DocumentKind::ResourceServer => &RESOURCE_SERVERS,
        DocumentKind::Connection => &CONNECTIONS,
        DocumentKind::ClientGrant => &CLIENT_GRANTS,
    }
}

#[derive(sqlx::FromRow)]
struct DocumentRow {
    number: i64,
    id: String,
    version: i64,
    data: String,
    created_at: i64,
    updated_at: i64,
}

impl DocumentRow {
    fn stored(self) -> Result<Document, Error> {
        let Self { number, id, version, data, created_at, updated_at } = self;
        Ok(Document {
            number: count(number)?,
            id,
            version: count(version)?,
            data,
            created_at: count(created_at)?,
            updated_at: count(updated_at)?,
        })
    }
}

#[async_trait]
impl Documents for Backend {
    async fn documents(&self, tenant: u32, kind: DocumentKind, query: &DocumentQuery) -> Result<DocumentPage, Error> {
        let DocumentQuery { members, after, offset, limit, with_total } = query;
        let of_one_client = members.iter().any(|(name, values)| *name == "client_id" && values.len() == 1);
        let statements = if of_one_client { &GRANTS_OF_CLIENT } else { statements(kind) };
        let members = to_json(&members.iter().map(|(name, values)| (*name, values)).collect::<BTreeMap<_, _>>())?;
        let mut snapshot = self.snapshot().await?;
        let total: Option<i64> = if *with_total {
            let count = query_scalar(statements.count).bind(i64::from(tenant)).bind(&members);
            Some(count.fetch_one(&mut *snapshot).await?)
        } else {
            None
        };
        let rows: Vec<DocumentRow> = query_as(statements.list)
            .bind(i64::from(tenant))
            .bind(&members)
            .bind(column(*after))
            .bind(i64::from(*limit))
            .bind(column(*offset))
            .fetch_all(&mut *snapshot)
            .await?;
        let documents = rows.into_iter().map(DocumentRow::stored).collect::<Result<_, _>>()?;
        Ok(DocumentPage { documents, total: total.map(count).transpose()? })
    }

    async fn document(&self, tenant: u32, kind: DocumentKind, id: &str) -> Result<Option<Document>, Error> {
        let row: Option<DocumentRow> = query_as(statements(kind).find)
            .bind(i64::from(tenant))
            .bind(text(id))
            .fetch_optional(&mut *self.read().await?)
            .await?;
        row.map(DocumentRow::stored).transpose()
    }

    async fn create_document(
        &self,
        tenant: u32,
        kind: DocumentKind,
        id: &str,
        data: &str,
        now: u64,
    ) -> Result<Option<Document>, Error> {
        let tenant = i64::from(tenant);
        let mut transaction = self.write().await?;
        lock_tenants(&mut transaction, [tenant]).await?;
        if kind == DocumentKind::ClientGrant {
            check_references(&mut transaction, tenant, data).await?;
            check_scopes(&mut transaction, tenant, data).await?;
        }
        let created: Option<DocumentRow> = query_as(statements(kind).insert)
            .bind(tenant)
            .bind(id)
            .bind(data)
            .bind(column(now))
            .fetch_optional(&mut *transaction)
            .await
            .map_err(|error| match error.as_database_error() {
                Some(inner) if inner.is_unique_violation() => Error::Duplicate(kind),
                _ => error.into(),
            })?;
        let Some(created) = created else { return Ok(None) };
        let of_tenant: i64 = query_scalar(statements(kind).count_all).bind(tenant).fetch_one(&mut *transaction).await?;
        if of_tenant > kind.most().into() {
            return Err(Error::TooManyDocuments(kind, kind.most()));
        }
        if kind == DocumentKind::ClientGrant {
            check_number(&mut transaction, tenant, data).await?;
        }
        record(&mut transaction, tenant, kind, [None, Some(data)]).await?;
        transaction.commit().await?;
        created.stored().map(Some)
    }

    async fn replace_document(
        &self,
        tenant: u32,
        kind: DocumentKind,
        stored: &Document,
        data: &str,
        now: u64,
    ) -> Result<Option<Document>, Error> {
        let tenant = i64::from(tenant);
        let mut transaction = self.write().await?;
        lock_tenants(&mut transaction, [tenant]).await?;
        if kind == DocumentKind::ClientGrant {
            check_scopes(&mut transaction, tenant, data).await?;
        }
        let replaced: Option<DocumentRow> = query_as(statements(kind).update)
            .bind(tenant)
            .bind(&stored.id)
            .bind(column(stored.version))
            .bind(data)
            .bind(column(now))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(replaced) = replaced else { return Ok(None) };
        record(&mut transaction, tenant, kind, [Some(&stored.data), Some(data)]).await?;
        transaction.commit().await?;
        replaced.stored().map(Some)
    }

    async fn delete_document(&self, tenant: u32, kind: DocumentKind, id: &str) -> Result<(), Error> {
        let tenant = i64::from(tenant);
        let mut transaction = self.write().await?;
        lock_tenants(&mut transaction, [tenant]).await?;
        let deleted: Option<String> =
            query_scalar(statements(kind).delete).bind(tenant).bind(text(id)).fetch_optional(&mut *transaction).await?;
        if let Some(data) = deleted {
            record(&mut transaction, tenant, kind, [Some(&data), None]).await?;
            transaction.commit().await?;
        }
        Ok(())
    }
}

/// Records of which clients an object decides what they may do, where it is another than before.
async fn record(
    connection: &mut Connection,
    tenant: i64,
    kind: DocumentKind,
    before_and_after: [Option<&str>; 2],
) -> Result<(), Error> {
    let mut changed = Changed::default();
    note_change(&mut changed, tenant, kind, before_and_after)?;
    changed.write(connection).await
}

/// Notes the same.
pub(super) fn note_change(
    changed: &mut Changed,
    tenant: i64,
    kind: DocumentKind,
    before_and_after: [Option<&str>; 2],
) -> Result<(), Error> {
    let [before, after] = before_and_after.map(|data| data.map(Decisive::read).transpose());
    let (before, after) = (before?, after?);
    match kind {
        // Where there are no grants for it, it may still be open to the clients of the permissive mode.
        DocumentKind::ResourceServer => changed.all_of(tenant),
        // Nobody may use any other, and a name stays.
        DocumentKind::Connection => {
            let is_open = |data: &Option<Decisive>| data.as_ref().is_some_and(|data| data.is_domain_connection);
            if is_open(&before) != is_open(&after) {
                changed.all_of(tenant);
            }
        }
        // Whose it is stays.
        DocumentKind::ClientGrant => match after.or(before).and_then(|data| data.client_id) {
            Some(client_id) => changed.client(tenant, client_id),
            None => changed.all_of(tenant),
        },
    }
    Ok(())
}

/// What says of an object whose permissions it decides on.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Decisive {
    client_id: Option<String>,
    is_domain_connection: bool,
}

impl Decisive {
    fn read(data: &str) -> Result<Self, Error> {
        serde_json::from_str(data).map_err(|_| unreadable("an API, a connection or a client grant"))
    }
}

/// How many grants there are for those whom a grant is for: its client, or all third parties.
pub(in crate::store::db) const GRANTS_FOR: &str = concat!(
    "SELECT (SELECT count(*) FROM client_grants WHERE client_id = ",
    member!("$2", "client_id"),
    "), CASE WHEN ",
    member!("$2", "client_id"),
    " IS NULL THEN (SELECT count(*) FROM client_grants WHERE tenant = $1 AND client_id IS NULL) ELSE 0 END"
);

/// Fails if there are too many grants for those whom a grant, which is written, is for.
pub(super) async fn check_number(connection: &mut Connection, tenant: i64, grant: &str) -> Result<(), Error> {
    let (own, default): (i64, i64) = query_as(GRANTS_FOR).bind(tenant).bind(grant).fetch_one(connection).await?;
    if own > MOST_GRANTS.into() {
        Err(Error::TooManyGrantsOfClient(MOST_GRANTS))
    } else if default > MOST_GRANTS.into() {
        Err(Error::TooManyDefaultGrants(MOST_GRANTS))
    } else {
        Ok(())
    }
}

/// So many of a tenant's objects after the one with the number `after`, in the order of creation.
pub(super) async fn documents_after(
    connection: &mut Connection,
    tenant: i64,
    kind: DocumentKind,
    after: u64,
    limit: i64,
) -> Result<Vec<Document>, Error> {
    let rows: Vec<DocumentRow> = query_as(statements(kind).list)
        .bind(tenant)
        .bind("{}")
        .bind(column(after))
        .bind(limit)
        .bind(0_i64)
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(DocumentRow::stored).collect()
}

/// Fails if the API of a grant has not all of the scopes that it names.
async fn check_scopes(connection: &mut Connection, tenant: i64, grant: &str) -> Result<(), Error> {
    let missing: Option<String> = query_scalar(concat!(
        "SELECT value FROM (SELECT ",
        sql!(sqlite: "asked.value", postgres: "asked.value #>> '{}'"),
        " AS value FROM ",
        elements!("$2", "scope", "asked"),
        ") AS asked WHERE value NOT IN (SELECT scope.value ->> 'value' FROM resource_servers, ",
        elements!("data", "scopes", "scope"),
        " WHERE tenant = $1 AND identifier = ",
        member!("$2", "audience"),
        ") LIMIT 1",
    ))
    .bind(tenant)
    .bind(grant)
    .fetch_optional(connection)
    .await?;
    missing.map_or(Ok(()), |scope| Err(Error::NoSuchScope(scope)))
}

/// Fails if the API or the client of a grant is not the tenant's.
pub(super) async fn check_references(connection: &mut Connection, tenant: i64, grant: &str) -> Result<(), Error> {
    let (has_api, has_client): (bool, bool) = query_as(concat!(
        "SELECT EXISTS (SELECT 1 FROM resource_servers WHERE tenant = $1 AND identifier = ",
        member!("$2", "audience"),
        "), ",
        member!("$2", "client_id"),
        " IS NULL OR EXISTS (SELECT 1 FROM clients WHERE client_id = ",
        member!("$2", "client_id"),
        " AND tenant = $1)",
    ))
    .bind(tenant)
    .bind(grant)
    .fetch_one(connection)
    .await?;
    match (has_api, has_client) {
        (false, _) => Err(Error::NoSuchApi),
        (_, false) => Err(Error::NoSuchClient),
        (true, true) => Ok(()),
    }
}
