//! Access rules.

use serde_json::value::RawValue;
use sqlx::sqlite::{SqliteConnection, SqlitePool};

use super::{column, count, next_change, to_json, unreadable};
use crate::acl::rule::MAX_PRIORITY;
use crate::acl::{Effect, NetworkAcl, Rule, Size};
use crate::store::db::{AclPage, Error, StoredAcl};
use crate::tenant::Domain;

#[derive(sqlx::FromRow)]
struct AclRow {
    id: String,
    version: i64,
    description: String,
    active: bool,
    priority: u32,
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
            priority,
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
            "SELECT id, version, description, active, priority, rule, created_at, updated_at FROM network_acls ",
            $rest
        )
    };
}

/// Some of a tenant's rules, of one moment.
pub(super) async fn page(
    connection: &mut SqliteConnection,
    tenant: u32,
    offset: u64,
    limit: u32,
) -> Result<AclPage, Error> {
    let total: i64 = sqlx::query_scalar("SELECT count(*) FROM network_acls WHERE tenant = ?")
        .bind(tenant)
        .fetch_one(&mut *connection)
        .await?;
    let rows: Vec<AclRow> = sqlx::query_as(select_acls!("WHERE tenant = ? ORDER BY priority, number LIMIT ? OFFSET ?"))
        .bind(tenant)
        .bind(limit)
        .bind(column(offset))
        .fetch_all(connection)
        .await?;
    let acls = rows.into_iter().map(AclRow::stored).collect::<Result<_, _>>()?;
    Ok(AclPage { acls, total: count(total)? })
}

/// What the active rules of a tenant do.
pub(super) async fn active_rules(readers: &SqlitePool, tenant: u32) -> Result<Vec<Rule>, Error> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT id, rule FROM network_acls WHERE tenant = ? AND active = 1 ORDER BY priority, number")
            .bind(tenant)
            .fetch_all(readers)
            .await?;
    let parse = |(id, rule): (String, String)| {
        serde_json::from_str(&rule).map_err(|_| unreadable(&format!("the access rule {id}")))
    };
    rows.into_iter().map(parse).collect()
}

/// The rule with this id.
pub(super) async fn find(readers: &SqlitePool, tenant: u32, id: &str) -> Result<Option<StoredAcl>, Error> {
    let row: Option<AclRow> = sqlx::query_as(select_acls!("WHERE tenant = ? AND id = ?"))
        .bind(tenant)
        .bind(id)
        .fetch_optional(readers)
        .await?;
    row.map(AclRow::stored).transpose()
}

/// Adds a rule; `None`, and a transaction that must not be kept, if the tenant is gone.
pub(super) async fn create(
    connection: &mut SqliteConnection,
    tenant: u32,
    id: &str,
    acl: &NetworkAcl,
    now: u64,
) -> Result<Option<StoredAcl>, Error> {
    let version = next_change(connection).await?;
    let Size { cidrs, user_agents, others, .. } = acl.rule.size();
    let row: AclRow = sqlx::query_as(
        "INSERT INTO network_acls (id, tenant, description, active, priority, cidrs, user_agents, others, \
         redirect_host, created_at, updated_at, version, rule) \
         SELECT ?1, ?2, ?3, ?4, \
         coalesce(?5, (SELECT min(max(priority) + 1, ?6) FROM network_acls WHERE tenant = ?2), 0), \
         ?7, ?8, ?9, ?10, ?11, ?11, ?12, ?13 \
         RETURNING id, version, description, active, priority, rule, created_at, updated_at",
    )
    .bind(id)
    .bind(tenant)
    .bind(&acl.description)
    .bind(acl.active)
    .bind(acl.priority)
    .bind(MAX_PRIORITY)
    .bind(column(cidrs as u64))
    .bind(column(user_agents as u64))
    .bind(column(others as u64))
    .bind(redirect_host(acl))
    .bind(column(now))
    .bind(version)
    .bind(to_json(&acl.rule)?)
    .fetch_one(&mut *connection)
    .await?;
    written(connection, tenant, version, row).await
}

/// Replaces a rule; `None`, and a transaction that must not be kept, if it is another one by now.
pub(super) async fn replace(
    connection: &mut SqliteConnection,
    tenant: u32,
    stored: &StoredAcl,
    acl: &NetworkAcl,
    now: u64,
) -> Result<Option<StoredAcl>, Error> {
    let version = next_change(connection).await?;
    let Size { cidrs, user_agents, others, .. } = acl.rule.size();
    let row: Option<AclRow> = sqlx::query_as(
        "UPDATE network_acls SET description = ?, active = ?, priority = coalesce(?, priority), cidrs = ?, \
         user_agents = ?, others = ?, redirect_host = ?, updated_at = ?, version = ?, rule = ? \
         WHERE tenant = ? AND id = ? AND version = ? \
         RETURNING id, version, description, active, priority, rule, created_at, updated_at",
    )
    .bind(&acl.description)
    .bind(acl.active)
    .bind(acl.priority)
    .bind(column(cidrs as u64))
    .bind(column(user_agents as u64))
    .bind(column(others as u64))
    .bind(redirect_host(acl))
    .bind(column(now))
    .bind(version)
    .bind(to_json(&acl.rule)?)
    .bind(tenant)
    .bind(&stored.id)
    .bind(column(stored.version))
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    written(connection, tenant, version, row).await
}

/// What became of a rule that was written; `None`, and a transaction that must not be kept, if the tenant is gone.
async fn written(
    connection: &mut SqliteConnection,
    tenant: u32,
    version: i64,
    row: AclRow,
) -> Result<Option<StoredAcl>, Error> {
    if !has_changed(connection, tenant, version).await? {
        return Ok(None);
    }
    check(connection, tenant).await?;
    row.stored().map(Some)
}

/// Deletes a rule; `false`, and a transaction that must not be kept, if there is none.
pub(super) async fn delete(connection: &mut SqliteConnection, tenant: u32, id: &str) -> Result<bool, Error> {
    let version = next_change(connection).await?;
    let deleted = sqlx::query("DELETE FROM network_acls WHERE tenant = ? AND id = ?")
        .bind(tenant)
        .bind(id)
        .execute(&mut *connection)
        .await?;
    Ok(deleted.rows_affected() > 0 && has_changed(connection, tenant, version).await?)
}

/// Numbers the tenant's change, so that the feed tells it anew; `false` if the tenant is gone.
async fn has_changed(connection: &mut SqliteConnection, tenant: u32, version: i64) -> Result<bool, Error> {
    let updated = sqlx::query(
        "UPDATE tenants SET version = ?, network_acl_bytes = \
         (SELECT coalesce(sum(octet_length(rule) + octet_length(id)), 0) FROM network_acls \
          WHERE tenant = slot AND active = 1) \
         WHERE slot = ? AND deleted = 0",
    )
    .bind(version)
    .bind(tenant)
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() > 0)
}

/// Whether the tenant's rules, as they are now, are what a tenant may have.
async fn check(connection: &mut SqliteConnection, tenant: u32) -> Result<(), Error> {
    let (rules, cidrs, user_agents, others): (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(cidrs), 0), coalesce(sum(user_agents), 0), coalesce(sum(others), 0) \
         FROM network_acls WHERE tenant = ?",
    )
    .bind(tenant)
    .fetch_one(&mut *connection)
    .await?;
    let number = |number: i64| usize::try_from(number).map_err(|_| unreadable("a number"));
    let size = Size {
        rules: number(rules)?,
        cidrs: number(cidrs)?,
        user_agents: number(user_agents)?,
        others: number(others)?,
    };
    size.check().map_err(Error::TooManyAcls)?;
    match redirect_to_itself(connection, tenant).await? {
        Some((host, _)) => Err(Error::RedirectsToItself(host)),
        None => Ok(()),
    }
}

/// Fails if one of the tenant's rules redirects to one of its domains, as they are now.
pub(super) async fn refuse_redirects_to_itself(connection: &mut SqliteConnection, tenant: u32) -> Result<(), Error> {
    let Some((host, acl)) = redirect_to_itself(connection, tenant).await? else { return Ok(()) };
    let host = Domain::try_from(host).map_err(|_| unreadable("a host"))?;
    Err(Error::HostRedirectedTo { host, acl })
}

/// A host of the tenant to which one of its rules redirects, and that rule's id.
async fn redirect_to_itself(connection: &mut SqliteConnection, tenant: u32) -> Result<Option<(String, String)>, Error> {
    let found = sqlx::query_as(
        "SELECT host, id FROM network_acls JOIN tenant_domains \
         ON host = redirect_host AND tenant_domains.tenant = network_acls.tenant \
         WHERE network_acls.tenant = ? ORDER BY priority, number LIMIT 1",
    )
    .bind(tenant)
    .fetch_optional(connection)
    .await?;
    Ok(found)
}

/// The host to which the rule redirects.
fn redirect_host(acl: &NetworkAcl) -> Option<&str> {
    match &acl.rule.action.effect {
        Some(Effect::Redirect(to)) => Some(to.host()),
        _ => None,
    }
}
