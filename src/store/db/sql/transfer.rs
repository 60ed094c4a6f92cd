//! Tenants on their way from one database into another.

use std::collections::HashMap;
use std::ops::ControlFlow;

use async_trait::async_trait;

use super::client_changes::Changed;
use super::clients::{insert_moved, moved_after, moved_by_id};
use super::documents::{check_number, check_references, documents_after, note_change};
use super::network_acls::{self, numbered};
use super::tenants::{TenantRow, select_tenants};
use super::{Backend, Connection, column, lock_tenants, query, query_as, query_scalar, text, to_json};
use crate::store::db::{
    DocumentKind, Error, Exported, Imported, MovedClient, NewAcl, Presence, StoredClient, StoredTenant, Transfer,
};
use crate::tenant::Name;

/// Clients that are read at once. One may have hundreds of kilobytes.
const CLIENTS_AT_ONCE: i64 = 200;

/// APIs, connections or grants that are read at once. One may have megabytes.
const DOCUMENTS_AT_ONCE: i64 = 20;

#[async_trait]
impl Transfer for Backend {
    async fn export(
        &self,
        tenant: Option<&Name>,
        each: &mut (dyn FnMut(Exported) -> ControlFlow<()> + Send),
    ) -> Result<(), Error> {
        let mut snapshot = self.snapshot().await?;
        let tenants: Vec<TenantRow> =
            query_as(select_tenants!("deleted = 0 AND ($1 IS NULL OR name = $1) ORDER BY name"))
                .bind(tenant.map(Name::as_str))
                .fetch_all(&mut *snapshot)
                .await?;
        for row in tenants {
            let StoredTenant { slot, tenant, .. } = row.stored()?;
            if each(Exported::Tenant(Box::new(tenant))).is_break()
                || export_objects(&mut snapshot, slot.into(), each).await?.is_break()
            {
                break;
            }
        }
        Ok(())
    }

    async fn presence(&self, tenant: Option<u32>, objects: &[Imported]) -> Result<Vec<Presence>, Error> {
        let mut snapshot = self.snapshot().await?;
        presence(&mut snapshot, tenant.map(i64::from), objects).await
    }

    async fn import(&self, tenant: u32, objects: &[Imported]) -> Result<Option<Vec<Presence>>, Error> {
        let tenant = i64::from(tenant);
        let mut transaction = self.write().await?;
        lock_tenants(&mut transaction, [tenant]).await?;
        let answers: Option<bool> = query_scalar(
            "SELECT EXISTS (SELECT 1 FROM tenant_domains WHERE tenant = slot) FROM tenants WHERE slot = $1 AND deleted = 0",
        )
        .bind(tenant)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(answers) = answers else { return Ok(None) };
        let found = presence(&mut transaction, Some(tenant), objects).await?;
        if !found.iter().any(|presence| matches!(presence, Presence::Conflict(_))) {
            let absent = objects.iter().zip(&found).filter(|(_, presence)| **presence == Presence::Absent);
            let changed = add(&mut transaction, tenant, absent.map(|(object, _)| object)).await?;
            // Nobody can have asked for a client of a tenant that answers for no host yet.
            if answers {
                changed.write(&mut transaction).await?;
            }
            transaction.commit().await?;
        }
        Ok(Some(found))
    }
}

async fn export_objects(
    snapshot: &mut Connection,
    slot: i64,
    each: &mut (dyn FnMut(Exported) -> ControlFlow<()> + Send),
) -> Result<ControlFlow<()>, Error> {
    const BREAK: ControlFlow<()> = ControlFlow::Break(());
    for number in network_acls::numbers(snapshot, slot).await? {
        if each(Exported::NetworkAcl(numbered(snapshot, number).await?)).is_break() {
            return Ok(BREAK);
        }
    }
    for kind in [DocumentKind::ResourceServer, DocumentKind::Connection] {
        if export_documents(snapshot, slot, kind, each).await?.is_break() {
            return Ok(BREAK);
        }
    }
    let mut last = 0;
    loop {
        let clients = moved_after(snapshot, slot, last, CLIENTS_AT_ONCE).await?;
        if clients.is_empty() {
            break;
        }
        for (number, client) in clients {
            last = number;
            if each(Exported::Client(Box::new(client))).is_break() {
                return Ok(BREAK);
            }
        }
    }
    export_documents(snapshot, slot, DocumentKind::ClientGrant, each).await
}

async fn export_documents(
    snapshot: &mut Connection,
    slot: i64,
    kind: DocumentKind,
    each: &mut (dyn FnMut(Exported) -> ControlFlow<()> + Send),
) -> Result<ControlFlow<()>, Error> {
    let mut last = 0;
    loop {
        let documents = documents_after(snapshot, slot, kind, last, DOCUMENTS_AT_ONCE).await?;
        if documents.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        for document in documents {
            last = document.number;
            if each(Exported::Document(kind, document)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
}

const OTHER_CONTENT: &str = "is here with other content";
const OF_ANOTHER_TENANT: &str = "is another tenant's here, or one's that was deleted";
const IN_ITS_PLACE: &str = "is here under another id";

async fn presence(
    connection: &mut Connection,
    tenant: Option<i64>,
    objects: &[Imported],
) -> Result<Vec<Presence>, Error> {
    let clients = objects.iter().filter_map(|object| match object {
        Imported::Client(moved) => Some(moved.client.client_id.as_str()),
        _ => None,
    });
    let clients: Vec<&str> = clients.collect();
    let stored = moved_by_id(connection, &clients).await?;
    let mut found = Vec::with_capacity(objects.len());
    for object in objects {
        found.push(match object {
            Imported::NetworkAcl { id, acl, .. } => acl_presence(connection, tenant, id, acl).await?,
            Imported::Document { kind, id, data, .. } => document_presence(connection, tenant, *kind, id, data).await?,
            Imported::Client(moved) => client_presence(&stored, tenant, moved),
        });
    }
    Ok(found)
}

fn client_presence(stored: &HashMap<String, (i64, MovedClient)>, tenant: Option<i64>, moved: &MovedClient) -> Presence {
    let content = |moved: &MovedClient| {
        let StoredClient { is_dynamic, security_mode, data, .. } = moved.client.clone();
        (is_dynamic, security_mode, data, moved.client_secret_sha256)
    };
    match stored.get(&moved.client.client_id) {
        None => Presence::Absent,
        Some((owner, _)) if Some(*owner) != tenant => Presence::Conflict(OF_ANOTHER_TENANT),
        Some((_, here)) if content(here) == content(moved) => Presence::Same,
        Some(_) => Presence::Conflict(OTHER_CONTENT),
    }
}

async fn acl_presence(
    connection: &mut Connection,
    tenant: Option<i64>,
    id: &str,
    acl: &NewAcl,
) -> Result<Presence, Error> {
    let found: Option<(i64, i64)> = query_as("SELECT number, tenant FROM network_acls WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut *connection)
        .await?;
    Ok(match found {
        None => Presence::Absent,
        Some((_, owner)) if Some(owner) != tenant => Presence::Conflict(OF_ANOTHER_TENANT),
        Some((number, _)) if numbered(connection, number).await?.says(acl) => Presence::Same,
        Some(_) => Presence::Conflict(OTHER_CONTENT),
    })
}

/// The statements about the documents of one table: which have the id `$1`, or are what the tenant in slot `$2` can have
/// once only and `$3` is one of; and how one is added.
macro_rules! document_statements {
    ($table:literal, $unique:expr) => {
        [
            concat!("SELECT id, tenant, data FROM ", $table, " WHERE id = $1 OR (tenant = $2 AND ", $unique, ")"),
            concat!(
                "INSERT INTO ",
                $table,
                " (tenant, id, version, data, created_at, updated_at) VALUES ($1, $2, 1, $3, $4, $5)"
            ),
        ]
    };
}

pub(in crate::store::db) fn document_statements(kind: DocumentKind) -> [&'static str; 2] {
    match kind {
        DocumentKind::ResourceServer => {
            document_statements!("resource_servers", concat!("identifier = ", member!("$3", "identifier")))
        }
        DocumentKind::Connection => document_statements!("connections", concat!("name = ", member!("$3", "name"))),
        DocumentKind::ClientGrant => document_statements!(
            "client_grants",
            concat!(
                "audience = ",
                member!("$3", "audience"),
                " AND subject_type = ",
                member!("$3", "subject_type"),
                " AND coalesce(client_id, '') = coalesce(",
                member!("$3", "client_id"),
                ", '')"
            )
        ),
    }
}

async fn document_presence(
    connection: &mut Connection,
    tenant: Option<i64>,
    kind: DocumentKind,
    id: &str,
    data: &str,
) -> Result<Presence, Error> {
    let [find, _] = document_statements(kind);
    let rows: Vec<(String, i64, String)> =
        query_as(find).bind(id).bind(tenant).bind(data).fetch_all(connection).await?;
    let mut presence = Presence::Absent;
    for (found, owner, found_data) in rows {
        presence = if found != id {
            return Ok(Presence::Conflict(IN_ITS_PLACE));
        } else if Some(owner) != tenant {
            return Ok(Presence::Conflict(OF_ANOTHER_TENANT));
        } else if found_data == data {
            Presence::Same
        } else {
            Presence::Conflict(OTHER_CONTENT)
        };
    }
    Ok(presence)
}

/// Adds objects that are absent, and says of which clients an edge may know something else then. Objects that others
/// refer to come first, as they do in the input.
async fn add<'a>(
    connection: &mut Connection,
    tenant: i64,
    objects: impl Iterator<Item = &'a Imported>,
) -> Result<Changed, Error> {
    let mut changed = Changed::default();
    let (mut clients, mut rest): (Vec<&MovedClient>, Vec<&Imported>) = (Vec::new(), Vec::new());
    let (mut has_acls, mut has_active_acls) = (false, false);
    for object in objects {
        match object {
            // Somebody may have asked for it before it was here.
            Imported::Client(moved) => changed.client(tenant, moved.client.client_id.as_str()),
            Imported::Document { kind, data, .. } => note_change(&mut changed, tenant, *kind, [None, Some(data)])?,
            Imported::NetworkAcl { .. } => {}
        }
        match object {
            Imported::NetworkAcl { id, acl, created_at, updated_at } => {
                add_acl(connection, tenant, id, acl, [*created_at, *updated_at]).await?;
                has_acls = true;
                has_active_acls |= acl.active;
            }
            Imported::Document { kind: DocumentKind::ClientGrant, .. } => rest.push(object),
            Imported::Document { .. } => add_document(connection, tenant, object).await?,
            Imported::Client(moved) => clients.push(moved),
        }
    }
    if has_acls {
        network_acls::is_kept(connection, tenant, has_active_acls).await?;
    }
    insert_moved(connection, tenant, &clients).await?;
    for grant in rest {
        add_document(connection, tenant, grant).await?;
    }
    Ok(changed)
}

async fn add_acl(
    connection: &mut Connection,
    tenant: i64,
    id: &str,
    acl: &NewAcl,
    [created_at, updated_at]: [u64; 2],
) -> Result<(), Error> {
    query(
        "INSERT INTO network_acls \
         (tenant, id, description, active, priority, size, redirect_host, created_at, updated_at, version, rule) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10)",
    )
    .bind(tenant)
    .bind(id)
    .bind(text(&acl.description))
    .bind(i64::from(acl.active))
    .bind(acl.priority.map(i64::from))
    .bind(to_json(&acl.size)?)
    .bind(acl.redirect_host.as_deref())
    .bind(column(created_at))
    .bind(column(updated_at))
    .bind(acl.rule.get())
    .execute(connection)
    .await?;
    Ok(())
}

async fn add_document(connection: &mut Connection, tenant: i64, object: &Imported) -> Result<(), Error> {
    let Imported::Document { kind, id, data, created_at, updated_at } = object else { return Ok(()) };
    if *kind == DocumentKind::ClientGrant {
        check_references(connection, tenant, data).await?;
    }
    let [_, insert] = document_statements(*kind);
    query(insert)
        .bind(tenant)
        .bind(id)
        .bind(data)
        .bind(column(*created_at))
        .bind(column(*updated_at))
        .execute(&mut *connection)
        .await?;
    if *kind == DocumentKind::ClientGrant {
        check_number(connection, tenant, data).await?;
    }
    Ok(())
}
