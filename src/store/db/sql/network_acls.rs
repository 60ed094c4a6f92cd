//! Access rules.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use serde_json::value::RawValue;

use super::{
    Backend, Connection, column, count, lock_tenants, next_change, query, query_as, query_scalar, small, text, to_json,
    unreadable,
};
use crate::acl::Size;
use crate::acl::rule::MAX_PRIORITY;
use crate::store::db::{AclPage, AclTotal, Error, NetworkAcls, NewAcl, StoredAcl};
use crate::tenant::Domain;

#[async_trait]
impl NetworkAcls for Backend {
    async fn network_acls(&self, tenant: u32, offset: u64, limit: u32) -> Result<AclPage, Error> {
        let mut snapshot = self.snapshot().await?;
        page(&mut snapshot, tenant.into(), offset, limit).await
    }

    async fn active_rules(&self, tenant: u32) -> Result<Vec<String>, Error> {
        active_rules(&mut *self.read().await?, tenant.into()).await
    }

    async fn network_acl(&self, tenant: u32, id: &str) -> Result<Option<StoredAcl>, Error> {
        find(&mut *self.read().await?, tenant.into(), id).await
    }

    async fn create_network_acl(
        &self,
        tenant: u32,
        id: &str,
        acl: &NewAcl,
        now: u64,
    ) -> Result<Option<StoredAcl>, Error> {
        let tenant = i64::from(tenant);
        let mut transaction = self.write().await?;
        lock_tenants(&mut transaction, [tenant]).await?;
        let created = create(&mut transaction, tenant, id, acl, now).await?;
        if created.is_some() {
            transaction.commit().await?;
        }
        Ok(created)
    }

    async fn replace_network_acl(
        &self,
        tenant: u32,
        stored: &StoredAcl,
        acl: &NewAcl,
        now: u64,
    ) -> Result<Option<StoredAcl>, Error> {
        let tenant = i64::from(tenant);
        let mut transaction = self.write().await?;
        lock_tenants(&mut transaction, [tenant]).await?;
        let replaced = replace(&mut transaction, tenant, stored, acl, now).await?;
        if replaced.is_some() {
            transaction.commit().await?;
        }
        Ok(replaced)
    }

    async fn reorder_network_acls(&self, tenant: u32, ids: &[String], now: u64) -> Result<Option<bool>, Error> {
        let tenant = i64::from(tenant);
        let mut transaction = self.write().await?;
        lock_tenants(&mut transaction, [tenant]).await?;
        let altered = reorder(&mut transaction, tenant, ids, now).await?;
        if altered.is_some() {
            transaction.commit().await?;
        }
        Ok(altered)
    }

    async fn delete_network_acl(&self, tenant: u32, id: &str) -> Result<bool, Error> {
        let tenant = i64::from(tenant);
        let mut transaction = self.write().await?;
        lock_tenants(&mut transaction, [tenant]).await?;
        let was_active = delete(&mut transaction, tenant, id).await?;
        transaction.commit().await?;
        Ok(was_active)
    }

    async fn log_acl_totals(&self, totals: &[AclTotal], end: u64) -> Result<(), Error> {
        self.write_acl_totals(totals, end).await
    }
}

#[derive(sqlx::FromRow)]
struct AclRow {
    id: String,
    version: i64,
    description: String,
    active: bool,
    priority: i64,
    /// JSON.
    rule: String,
    created_at: i64,
    updated_at: i64,
}

impl AclRow {
    fn stored(self) -> Result<StoredAcl, Error> {
        let Self { id, version, description, active, priority, rule, created_at, updated_at } = self;
        Ok(StoredAcl {
            version: count(version)?,
            description,
            active,
            priority: small(priority)?,
            rule: RawValue::from_string(rule).map_err(|_| unreadable(&format!("the access rule {id}")))?,
            created_at: count(created_at)?,
            updated_at: count(updated_at)?,
            id,
        })
    }
}

/// The statement that reads [`AclRow`]s, with what follows.
macro_rules! select_acls {
    ($rest:literal) => {
        concat!(
            "SELECT id, version, description, active <> 0 AS active, priority, rule, created_at, updated_at \
             FROM network_acls ",
            $rest
        )
    };
}

/// Some of a tenant's rules, of one moment.
async fn page(connection: &mut Connection, tenant: i64, offset: u64, limit: u32) -> Result<AclPage, Error> {
    let total: i64 = query_scalar("SELECT count(*) FROM network_acls WHERE tenant = $1")
        .bind(tenant)
        .fetch_one(&mut *connection)
        .await?;
    let rows: Vec<AclRow> = query_as(select_acls!("WHERE tenant = $1 ORDER BY priority, number LIMIT $2 OFFSET $3"))
        .bind(tenant)
        .bind(i64::from(limit))
        .bind(column(offset))
        .fetch_all(connection)
        .await?;
    let acls = rows.into_iter().map(AclRow::stored).collect::<Result<_, _>>()?;
    Ok(AclPage { acls, total: count(total)? })
}

/// The numbers of a tenant's rules, in the order of their creation.
pub(super) async fn numbers(connection: &mut Connection, tenant: i64) -> Result<Vec<i64>, Error> {
    let numbers = query_scalar("SELECT number FROM network_acls WHERE tenant = $1 ORDER BY number")
        .bind(tenant)
        .fetch_all(connection)
        .await?;
    Ok(numbers)
}

/// The rule with this number, which there is.
pub(super) async fn numbered(connection: &mut Connection, number: i64) -> Result<StoredAcl, Error> {
    let row: AclRow = query_as(select_acls!("WHERE number = $1")).bind(number).fetch_one(connection).await?;
    row.stored()
}

/// What the active rules of a tenant do.
async fn active_rules(connection: &mut Connection, tenant: i64) -> Result<Vec<String>, Error> {
    let rules =
        query_scalar("SELECT rule FROM network_acls WHERE tenant = $1 AND active = 1 ORDER BY priority, number")
            .bind(tenant)
            .fetch_all(connection)
            .await?;
    Ok(rules)
}

/// The rule with this id.
async fn find(connection: &mut Connection, tenant: i64, id: &str) -> Result<Option<StoredAcl>, Error> {
    let row: Option<AclRow> = query_as(select_acls!("WHERE tenant = $1 AND id = $2"))
        .bind(tenant)
        .bind(text(id))
        .fetch_optional(connection)
        .await?;
    row.map(AclRow::stored).transpose()
}

/// Adds a rule; `None`, and a transaction that must not be kept, if the tenant is gone.
async fn create(
    connection: &mut Connection,
    tenant: i64,
    id: &str,
    acl: &NewAcl,
    now: u64,
) -> Result<Option<StoredAcl>, Error> {
    const INSERT: &str = concat!(
        "INSERT INTO network_acls \
         (tenant, id, description, active, priority, size, redirect_host, created_at, updated_at, version, rule) \
         SELECT $1, $2, $3, $4, coalesce($5, (SELECT CASE WHEN max(priority) IS NOT NULL THEN ",
        least!("max(priority) + 1", "$10"),
        " END FROM network_acls WHERE tenant = $1), 0), $6, $7, $8, $8, 1, $9 \
         RETURNING version, priority, created_at"
    );
    let Some(created) = write(connection, INSERT, (tenant, id), acl, now, MAX_PRIORITY.into()).await? else {
        return Ok(None);
    };
    Ok(is_kept(connection, tenant, acl.active).await?.then_some(created))
}

/// Replaces a rule; `None`, and a transaction that must not be kept, if it is another one by now.
async fn replace(
    connection: &mut Connection,
    tenant: i64,
    stored: &StoredAcl,
    acl: &NewAcl,
    now: u64,
) -> Result<Option<StoredAcl>, Error> {
    const UPDATE: &str = "UPDATE network_acls SET description = $3, active = $4, priority = coalesce($5, priority), \
         size = $6, redirect_host = $7, updated_at = $8, rule = $9, version = version + 1 \
         WHERE tenant = $1 AND id = $2 AND version = $10 \
         RETURNING version, priority, created_at";
    let before = place(connection, tenant, &stored.id).await?;
    let version = column(stored.version);
    let Some(replaced) = write(connection, UPDATE, (tenant, &stored.id), acl, now, version).await? else {
        return Ok(None);
    };
    let after = place(connection, tenant, &stored.id).await?;
    let alters_list = before != after || (acl.active && stored.rule.get() != acl.rule.get());
    Ok(is_kept(connection, tenant, alters_list).await?.then_some(replaced))
}

/// Gives the tenant's rules, which have these ids, priorities in this order; `None` if it has others. Says whether the
/// list of the active ones is another now.
async fn reorder(connection: &mut Connection, tenant: i64, ids: &[String], now: u64) -> Result<Option<bool>, Error> {
    let rows: Vec<(String, i64, bool)> =
        query_as("SELECT id, priority, active <> 0 FROM network_acls WHERE tenant = $1 ORDER BY priority, number")
            .bind(tenant)
            .fetch_all(&mut *connection)
            .await?;
    let before: HashMap<&str, (i64, bool)> =
        rows.iter().map(|(id, priority, active)| (id.as_str(), (*priority, *active))).collect();
    let wanted: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let are_the_same = ids.len() == rows.len() && wanted.len() == rows.len() && before.len() == rows.len();
    if !are_the_same || !wanted.iter().all(|id| before.contains_key(id)) {
        return Ok(None);
    }
    let priorities = distinct(rows.iter().map(|(_, priority, _)| *priority).collect());
    for (id, priority) in ids.iter().zip(&priorities) {
        if before.get(id.as_str()).is_none_or(|(before, _)| before != priority) {
            query(
                "UPDATE network_acls SET priority = $3, updated_at = $4, version = version + 1 \
                 WHERE tenant = $1 AND id = $2",
            )
            .bind(tenant)
            .bind(id)
            .bind(priority)
            .bind(column(now))
            .execute(&mut *connection)
            .await?;
        }
    }
    let was: Vec<&str> = rows.iter().filter(|(.., active)| *active).map(|(id, ..)| id.as_str()).collect();
    let is_active = |id: &&str| before.get(id).is_some_and(|(_, active)| *active);
    let is: Vec<&str> = ids.iter().map(String::as_str).filter(is_active).collect();
    let is_altered = was != is;
    Ok(is_kept(connection, tenant, is_altered).await?.then_some(is_altered))
}

/// These priorities, which are sorted, with each larger than the one before, as few of them changed as possible.
fn distinct(mut priorities: Vec<i64>) -> Vec<i64> {
    let mut least = 0_i64;
    for priority in &mut priorities {
        *priority = least.max(*priority);
        least = priority.saturating_add(1);
    }
    let mut most = i64::from(MAX_PRIORITY);
    for priority in priorities.iter_mut().rev() {
        *priority = most.min(*priority);
        most = priority.saturating_sub(1);
    }
    priorities
}

/// Runs a statement that writes a rule; `None` if it wrote none. Its parameters are numbered in the order in which they
/// are bound here; the `last` one is the statement's own.
async fn write(
    connection: &mut Connection,
    statement: &'static str,
    (tenant, id): (i64, &str),
    acl: &NewAcl,
    now: u64,
    last: i64,
) -> Result<Option<StoredAcl>, Error> {
    let NewAcl { description, active, priority, rule, size, redirect_host } = acl;
    let written: Option<(i64, i64, i64)> = query_as(statement)
        .bind(tenant)
        .bind(id)
        .bind(text(description))
        .bind(i64::from(*active))
        .bind(priority.map(i64::from))
        .bind(to_json(size)?)
        .bind(redirect_host.as_deref())
        .bind(column(now))
        .bind(rule.get())
        .bind(last)
        .fetch_optional(connection)
        .await?;
    let Some((version, priority, created_at)) = written else { return Ok(None) };
    Ok(Some(StoredAcl {
        id: id.to_owned(),
        version: count(version)?,
        description: description.clone(),
        active: *active,
        priority: small(priority)?,
        rule: rule.clone(),
        created_at: count(created_at)?,
        updated_at: now,
    }))
}

/// How many active rules of the tenant come before this one; `None` if it is not an active one.
async fn place(connection: &mut Connection, tenant: i64, id: &str) -> Result<Option<i64>, Error> {
    let place = query_scalar(
        "SELECT (SELECT count(*) FROM network_acls AS other WHERE other.tenant = own.tenant AND other.active = 1 \
         AND (other.priority, other.number) < (own.priority, own.number)) \
         FROM network_acls AS own WHERE tenant = $1 AND id = $2 AND active = 1",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(connection)
    .await?;
    Ok(place)
}

/// Fails if the tenant may not have its rules as they are now; `false` if the tenant is gone.
pub(super) async fn is_kept(connection: &mut Connection, tenant: i64, alters_list: bool) -> Result<bool, Error> {
    let lives = if alters_list {
        tell(connection, tenant).await?
    } else {
        query_scalar("SELECT EXISTS (SELECT 1 FROM tenants WHERE slot = $1 AND deleted = 0)")
            .bind(tenant)
            .fetch_one(&mut *connection)
            .await?
    };
    if lives {
        check(connection, tenant).await?;
    }
    Ok(lives)
}

/// Deletes a rule, if there is one, and says whether one was active.
async fn delete(connection: &mut Connection, tenant: i64, id: &str) -> Result<bool, Error> {
    let deleted: Option<bool> =
        query_scalar("DELETE FROM network_acls WHERE tenant = $1 AND id = $2 RETURNING active <> 0")
            .bind(tenant)
            .bind(text(id))
            .fetch_optional(&mut *connection)
            .await?;
    let was_active = deleted == Some(true);
    if was_active {
        tell(connection, tenant).await?;
    }
    Ok(was_active)
}

/// Numbers the tenant's change, so that the feed tells it anew; `false` if the tenant is gone.
async fn tell(connection: &mut Connection, tenant: i64) -> Result<bool, Error> {
    let version = next_change(connection).await?;
    let updated = query(
        "UPDATE tenants SET version = $1, network_acl_bytes = \
         (SELECT CAST(coalesce(sum(octet_length(rule) + octet_length(id)), 0) AS BIGINT) FROM network_acls \
          WHERE tenant = slot AND active = 1) \
         WHERE slot = $2 AND deleted = 0",
    )
    .bind(version)
    .bind(tenant)
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() > 0)
}

/// Whether the tenant's rules, as they are now, are what a tenant may have.
async fn check(connection: &mut Connection, tenant: i64) -> Result<(), Error> {
    let counts: Vec<i64> = query_scalar(concat!(
        "SELECT CAST(sum(CAST(value AS BIGINT)) AS BIGINT) FROM network_acls, ",
        sql!(
            sqlite: "json_each(size)",
            postgres: "json_array_elements_text(size::json) WITH ORDINALITY AS part (value, key)",
        ),
        " WHERE tenant = $1 GROUP BY key ORDER BY key",
    ))
    .bind(tenant)
    .fetch_all(&mut *connection)
    .await?;
    let counts = counts.into_iter().map(usize::try_from).collect::<Result<Size, _>>();
    let size = counts.map_err(|_| unreadable("a number"))?;
    size.check().map_err(Error::TooManyAcls)?;
    match redirect_to_itself(connection, tenant).await? {
        Some((host, _)) => Err(Error::RedirectsToItself(host)),
        None => Ok(()),
    }
}

/// Fails if one of the tenant's rules redirects to one of its domains, as they are now.
pub(super) async fn refuse_redirects_to_itself(connection: &mut Connection, tenant: i64) -> Result<(), Error> {
    let Some((host, acl)) = redirect_to_itself(connection, tenant).await? else { return Ok(()) };
    let host = Domain::try_from(host).map_err(|_| unreadable("a host"))?;
    Err(Error::HostRedirectedTo { host, acl })
}

/// A host of the tenant to which one of its rules redirects, and that rule's id.
async fn redirect_to_itself(connection: &mut Connection, tenant: i64) -> Result<Option<(String, String)>, Error> {
    let found = query_as(
        "SELECT host, id FROM network_acls JOIN tenant_domains \
         ON host = redirect_host AND tenant_domains.tenant = network_acls.tenant \
         WHERE network_acls.tenant = $1 ORDER BY priority, number LIMIT 1",
    )
    .bind(tenant)
    .fetch_optional(connection)
    .await?;
    Ok(found)
}
