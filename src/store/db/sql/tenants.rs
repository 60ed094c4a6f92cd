//! Tenants, and what concerns the database as a whole.

use async_trait::async_trait;

use super::{
    Backend, Connection, DELETED_ROWS, DELETION_PAUSE, buckets, changes, column, lock_tenants, network_acls,
    next_change, query, query_as, query_scalar, shared_clock, small, to_json, unreadable,
};
use crate::edge_api::Changes;
use crate::store::admission::Refusal;
use crate::store::clock::Now;
use crate::store::db::{Arrival, Database, Error, Registered, StoredTenant};
use crate::tenant::{Domain, Name, Settings, Tenant};

#[derive(sqlx::FromRow)]
pub(super) struct TenantRow {
    pub(super) slot: i64,
    pub(super) version: i64,
    pub(super) name: String,
    /// A JSON array.
    pub(super) hosts: String,
    /// JSON.
    pub(super) settings: String,
    pub(super) deleted: bool,
    permissive_eligible: bool,
    pub(super) network_acl_bytes: i64,
}

/// The statement that reads [`TenantRow`]s, with its condition.
macro_rules! select_tenants {
    ($condition:literal) => {
        concat!(
            "SELECT slot, version, name, settings, deleted <> 0 AS deleted, \
             permissive_eligible <> 0 AS permissive_eligible, network_acl_bytes, (SELECT ",
            sql!(
                sqlite: "json_group_array(host) FROM \
                    (SELECT host FROM tenant_domains WHERE tenant = slot ORDER BY position)",
                postgres: "coalesce(json_agg(host ORDER BY position)::text, '[]') \
                    FROM tenant_domains WHERE tenant = slot",
            ),
            ") AS hosts FROM tenants WHERE ",
            $condition
        )
    };
}

pub(super) use select_tenants;

impl TenantRow {
    pub(super) fn stored(self) -> Result<StoredTenant, Error> {
        let parsed = || -> Option<StoredTenant> {
            let tenant = Tenant {
                name: self.name.clone().try_into().ok()?,
                domains: serde_json::from_str(&self.hosts).ok()?,
                settings: serde_json::from_str(&self.settings).ok()?,
                permissive_eligible: self.permissive_eligible,
            };
            Some(StoredTenant { slot: small(self.slot).ok()?, version: self.version.try_into().ok()?, tenant })
        };
        parsed().ok_or_else(|| unreadable(&format!("the tenant {}", self.name)))
    }
}

async fn write_domains(connection: &mut Connection, slot: i64, domains: &[Domain]) -> Result<(), Error> {
    query("DELETE FROM tenant_domains WHERE tenant = $1").bind(slot).execute(&mut *connection).await?;
    for (position, domain) in (0_i64..).zip(domains) {
        let owner: Option<String> =
            query_scalar("SELECT name FROM tenant_domains JOIN tenants ON slot = tenant WHERE host = $1")
                .bind(domain.as_str())
                .fetch_optional(&mut *connection)
                .await?;
        if let Some(tenant) = owner {
            return Err(Error::HostTaken { host: domain.clone(), tenant });
        }
        query("INSERT INTO tenant_domains (host, tenant, position) VALUES ($1, $2, $3)")
            .bind(domain.as_str())
            .bind(slot)
            .bind(position)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

#[async_trait]
impl Database for Backend {
    async fn ping(&self) -> Result<(), Error> {
        query("SELECT changes FROM store").fetch_one(&mut *self.read().await?).await?;
        Ok(())
    }

    async fn create_tenant(&self, tenant: &Tenant) -> Result<(), Error> {
        let mut transaction = self.write().await?;
        let version = next_change(&mut transaction).await?;
        let slot: Option<i64> = query_scalar(CREATE)
            .bind(tenant.name.as_str())
            .bind(version)
            .bind(to_json(&tenant.settings)?)
            .bind(i64::from(tenant.permissive_eligible))
            .fetch_optional(&mut *transaction)
            .await?;
        let slot = slot.ok_or_else(|| Error::TenantExists(tenant.name.clone()))?;
        write_domains(&mut transaction, slot, &tenant.domains).await?;
        Ok(transaction.commit().await?)
    }

    async fn tenants(&self) -> Result<Vec<StoredTenant>, Error> {
        live_tenants(&mut *self.read().await?).await?.into_iter().map(TenantRow::stored).collect()
    }

    async fn readable_tenants(&self) -> Result<Vec<StoredTenant>, Error> {
        let stored = live_tenants(&mut *self.read().await?).await?.into_iter().map(TenantRow::stored);
        Ok(stored.filter_map(|stored| stored.inspect_err(|error| tracing::error!(%error, "left out")).ok()).collect())
    }

    async fn tenant(&self, name: &Name) -> Result<Option<StoredTenant>, Error> {
        let row: Option<TenantRow> = query_as(select_tenants!("name = $1 AND deleted = 0"))
            .bind(name.as_str())
            .fetch_optional(&mut *self.read().await?)
            .await?;
        row.map(TenantRow::stored).transpose()
    }

    async fn tenant_of_host(&self, host: &Domain) -> Result<Option<StoredTenant>, Error> {
        let row: Option<TenantRow> =
            query_as(select_tenants!("slot = (SELECT tenant FROM tenant_domains WHERE host = $1)"))
                .bind(host.as_str())
                .fetch_optional(&mut *self.read().await?)
                .await?;
        row.map(TenantRow::stored).transpose()
    }

    async fn replace_tenant(&self, changed: &StoredTenant, now: Now) -> Result<bool, Error> {
        let slot = i64::from(changed.slot);
        let mut transaction = self.write().await?;
        lock_tenants(&mut transaction, [slot]).await?;
        let before: Option<String> =
            query_scalar("SELECT settings FROM tenants WHERE slot = $1 AND version = $2 AND deleted = 0")
                .bind(slot)
                .bind(column(changed.version))
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(before) = before else { return Ok(false) };
        let before: Settings =
            serde_json::from_str(&before).map_err(|_| unreadable(&format!("the tenant {}", changed.tenant.name)))?;
        let version = next_change(&mut transaction).await?;
        query("UPDATE tenants SET version = $1, settings = $2, permissive_eligible = $3 WHERE slot = $4")
            .bind(version)
            .bind(to_json(&changed.tenant.settings)?)
            .bind(i64::from(changed.tenant.permissive_eligible))
            .bind(slot)
            .execute(&mut *transaction)
            .await?;
        write_domains(&mut transaction, slot, &changed.tenant.domains).await?;
        network_acls::refuse_redirects_to_itself(&mut transaction, slot).await?;
        let limit = changed.tenant.settings.dcr_edge.rate_limit;
        if limit != before.dcr_edge.rate_limit {
            let clock = shared_clock(&mut transaction).await?;
            buckets::limit(&mut transaction, &clock, slot, now.steady, limit).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    async fn delete_tenant(&self, name: &Name) -> Result<Option<u64>, Error> {
        let mut transaction = self.write().await?;
        let slot: Option<i64> = query_scalar("SELECT slot FROM tenants WHERE name = $1 AND deleted = 0")
            .bind(name.as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(slot) = slot else { return Ok(None) };
        lock_tenants(&mut transaction, [slot]).await?;
        let version = next_change(&mut transaction).await?;
        let deleted = query(
            "UPDATE tenants SET version = $1, deleted = 1, settings = '{}', network_acl_bytes = 0 \
             WHERE slot = $2 AND deleted = 0",
        )
        .bind(version)
        .bind(slot)
        .execute(&mut *transaction)
        .await?;
        // Another one may have deleted it just now.
        if deleted.rows_affected() == 0 {
            return Ok(None);
        }
        write_domains(&mut transaction, slot, &[]).await?;
        for delete in [
            "DELETE FROM network_acls WHERE tenant = $1",
            "DELETE FROM buckets WHERE tenant = $1",
            // Grants go with the APIs.
            "DELETE FROM resource_servers WHERE tenant = $1",
            "DELETE FROM connections WHERE tenant = $1",
            "DELETE FROM client_blocks WHERE tenant = $1",
            "DELETE FROM sign_in_links WHERE tenant = $1",
        ] {
            query(delete).bind(slot).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        self.delete_rest(LOGS, slot).await?;
        Ok(Some(self.delete_rest(CLIENTS, slot).await?))
    }

    async fn changes(&self, after: u64, instance: Option<&str>) -> Result<Changes, Error> {
        changes::page(&mut *self.snapshot().await?, after, instance).await
    }

    async fn forget_client_changes(&self, most: u32, seen: u64) -> Result<u64, Error> {
        self.forget_changes(most, seen).await
    }

    async fn register(&self, batch: &[Arrival]) -> Result<Vec<Result<Registered, Refusal>>, Error> {
        self.register_batch(batch).await
    }

    async fn close(&self) {
        self.close_connections().await;
    }
}

/// The slots are given one after the other, and never again: the edges index by slot, so a deleted tenant's must never
/// name another. The rows of deleted tenants stay.
const CREATE: &str = "INSERT INTO tenants (slot, name, version, settings, permissive_eligible) \
     SELECT coalesce(max(slot), 0) + 1, $1, $2, $3, $4 FROM tenants WHERE true \
     ON CONFLICT (name) WHERE deleted = 0 DO NOTHING RETURNING slot";

async fn live_tenants(connection: &mut Connection) -> Result<Vec<TenantRow>, Error> {
    Ok(query_as(select_tenants!("deleted = 0 ORDER BY name")).fetch_all(connection).await?)
}

/// What a deleted tenant may have much of: how it is found, and how a part of it is deleted.
const CLIENTS: [&str; 2] = [
    "SELECT slot FROM tenants WHERE deleted = 1 AND EXISTS (SELECT 1 FROM clients WHERE tenant = slot)",
    "DELETE FROM clients WHERE number IN (SELECT number FROM clients WHERE tenant = $1 LIMIT $2)",
];
const LOGS: [&str; 2] = [
    "SELECT slot FROM tenants WHERE deleted = 1 AND EXISTS (SELECT 1 FROM tenant_log WHERE tenant = slot)",
    "DELETE FROM tenant_log WHERE id IN (SELECT id FROM tenant_log WHERE tenant = $1 LIMIT $2)",
];

impl Backend {
    /// Deletes little by little what is left of deleted tenants, and says how many rows `slot` had.
    async fn delete_rest(&self, [find, delete]: [&'static str; 2], slot: i64) -> Result<u64, Error> {
        let mut rows = 0;
        let dead: Vec<i64> = query_scalar(find).fetch_all(&mut *self.read().await?).await?;
        for tenant in dead {
            let deleted = self.delete_rows(delete, tenant).await?;
            if tenant == slot {
                rows = deleted;
            }
        }
        Ok(rows)
    }

    async fn delete_rows(&self, delete: &'static str, tenant: i64) -> Result<u64, Error> {
        let mut rows = 0_u64;
        loop {
            let mut transaction = self.write().await?;
            lock_tenants(&mut transaction, [tenant]).await?;
            let deleted =
                query(delete).bind(tenant).bind(DELETED_ROWS).execute(&mut *transaction).await?.rows_affected();
            transaction.commit().await?;
            rows = rows.saturating_add(deleted);
            if column(deleted) < DELETED_ROWS {
                return Ok(rows);
            }
            tokio::time::sleep(DELETION_PAUSE).await;
        }
    }
}
