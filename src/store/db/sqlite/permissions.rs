//! What clients may do: their grants, with the APIs, and the connections.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;

use super::{Sqlite, clients, unreadable};
use crate::management::{GrantOfApi, PermissionSource, SubjectType};
use crate::store::db::permission::{MOST_GRANTS, permitted};
use crate::store::db::{ControlledClient, Error, Permissions, StoredClient};
use crate::tenant::SecurityMode;

#[async_trait]
impl Permissions for Sqlite {
    async fn client_with_grants(
        &self,
        tenant: u32,
        client_id: &str,
    ) -> Result<Option<(StoredClient, Vec<GrantOfApi>)>, Error> {
        let mut snapshot = self.permission_readers.begin().await?;
        with_grants(&mut snapshot, tenant, client_id).await
    }

    async fn controlled_client(&self, tenant: u32, client_id: &str) -> Result<Option<ControlledClient>, Error> {
        let mut snapshot = self.permission_readers.begin().await?;
        let Some((client, grants)) = with_grants(&mut snapshot, tenant, client_id).await? else { return Ok(None) };
        let client_secret_sha256 = clients::secret_sha256(&mut snapshot, tenant, client_id).await?;
        let permitted = permitted(client, grants)?;
        // Nobody logs in with a client without users.
        let connections =
            if permitted.abilities.has_users { domain_connections(&mut snapshot, tenant).await? } else { Vec::new() };
        Ok(Some(ControlledClient { permitted, client_secret_sha256, connections }))
    }

    async fn default_grants(&self, tenant: u32) -> Result<Vec<GrantOfApi>, Error> {
        grants(&mut *self.permission_readers.acquire().await?, GRANTS, tenant, None).await
    }

    async fn domain_connections(&self, tenant: u32) -> Result<Vec<String>, Error> {
        domain_connections(&mut *self.permission_readers.acquire().await?, tenant).await
    }
}

async fn with_grants(
    connection: &mut SqliteConnection,
    tenant: u32,
    client_id: &str,
) -> Result<Option<(StoredClient, Vec<GrantOfApi>)>, Error> {
    let Some(client) = clients::find(&mut *connection, tenant, client_id).await? else { return Ok(None) };
    let statement = match client.security_mode {
        SecurityMode::Strict => GRANTS,
        SecurityMode::Permissive => PERMISSIVE_GRANTS,
    };
    let grants = grants(connection, statement, tenant, Some(client_id)).await?;
    Ok(Some((client, grants)))
}

async fn domain_connections(connection: &mut SqliteConnection, tenant: u32) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar(DOMAIN_CONNECTIONS).bind(tenant).fetch_all(connection).await?)
}

/// What `statement` finds of a tenant and a client.
async fn grants(
    connection: &mut SqliteConnection,
    statement: &'static str,
    tenant: u32,
    client_id: Option<&str>,
) -> Result<Vec<GrantOfApi>, Error> {
    let rows: Vec<GrantRow> =
        sqlx::query_as(statement).bind(tenant).bind(client_id).bind(MOST_GRANTS).fetch_all(connection).await?;
    let read = |row: GrantRow| row.grant().ok_or_else(|| unreadable("a client grant or its API"));
    rows.into_iter().map(read).collect()
}

#[derive(sqlx::FromRow)]
struct GrantRow {
    source: String,
    audience: String,
    subject_type: String,
    /// A JSON array.
    scope: String,
    allow_all_scopes: bool,
    /// JSON.
    subject_type_authorization: String,
    /// A JSON array.
    scopes_of_api: String,
    allow_offline_access: bool,
}

impl GrantRow {
    fn grant(self) -> Option<GrantOfApi> {
        let subject_types = [SubjectType::Client, SubjectType::User];
        Some(GrantOfApi {
            source: PermissionSource::named(&self.source)?,
            audience: self.audience,
            subject_type: subject_types.into_iter().find(|one| one.as_str() == self.subject_type)?,
            scope: serde_json::from_str(&self.scope).ok()?,
            allow_all_scopes: self.allow_all_scopes,
            subject_type_authorization: serde_json::from_str(&self.subject_type_authorization).ok()?,
            scopes_of_api: serde_json::from_str(&self.scopes_of_api).ok()?,
            allow_offline_access: self.allow_offline_access,
        })
    }
}

/// What matters of an API. It may have hundreds of kilobytes, most of them descriptions.
macro_rules! of_api {
    () => {
        "coalesce(a.data -> '$.subject_type_authorization', '{}') AS subject_type_authorization, \
         (SELECT json_group_array(scope.value ->> '$.value') FROM json_each(a.data, '$.scopes') AS scope) \
         AS scopes_of_api, \
         coalesce(a.data ->> '$.allow_offline_access', 0) AS allow_offline_access"
    };
}

/// Grants with what matters of their APIs, by one of the indexes.
macro_rules! grants_by {
    ($index:literal, $condition:literal) => {
        concat!(
            "SELECT g.number, iif(g.client_id IS NULL, 'default', 'client_grant') AS source, g.audience, g.subject_type, \
             coalesce(g.data ->> '$.scope', '[]') AS scope, \
             coalesce(g.data ->> '$.allow_all_scopes', 0) AS allow_all_scopes, ",
            of_api!(),
            " FROM client_grants AS g INDEXED BY ",
            $index,
            " JOIN resource_servers AS a ON a.tenant = g.tenant AND a.identifier = g.audience WHERE g.tenant = ?1 AND ",
            $condition
        )
    };
}

/// A tenant may have very many grants: those of one client and the defaults are found, not looked for.
const GRANTS: &str = concat!(
    grants_by!("client_grants_client", "g.client_id = ?2"),
    " UNION ALL ",
    grants_by!("client_grants_default", "g.client_id IS NULL"),
    " ORDER BY 1"
);

/// The client's own grants, and the APIs for which a permissive client needs none.
const PERMISSIVE_GRANTS: &str = concat!(
    grants_by!("client_grants_client", "g.client_id = ?2"),
    " UNION ALL SELECT * FROM (SELECT number, 'api_policy' AS source, identifier AS audience, 'user' AS subject_type, \
     '[]' AS scope, 1 AS allow_all_scopes, ",
    of_api!(),
    " FROM resource_servers AS a INDEXED BY resource_servers_order WHERE tenant = ?1 \
     AND coalesce(data ->> '$.subject_type_authorization.user.policy', 'allow_all') = 'allow_all' \
     ORDER BY number LIMIT ?3)"
);

const DOMAIN_CONNECTIONS: &str =
    "SELECT name FROM connections WHERE tenant = ?1 AND data ->> '$.is_domain_connection' ORDER BY number";

#[cfg(test)]
mod tests {
    use super::super::documents;
    use super::*;
    use crate::store::db::{Database, IfMissing, IfOlder};

    #[tokio::test]
    async fn no_grant_of_another_client_and_no_object_of_another_tenant_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let database = Sqlite::open(&folder.path().join("dcr.db"), IfMissing::Create, IfOlder::Refuse).await.unwrap();
        for (statement, indexes) in [
            (
                GRANTS,
                &[
                    "client_grants_client (client_id=?)",
                    "client_grants_default (tenant=?)",
                    "(tenant=? AND identifier=?)",
                    "(tenant=? AND identifier=?)",
                ][..],
            ),
            (
                PERMISSIVE_GRANTS,
                &[
                    "client_grants_client (client_id=?)",
                    "(tenant=? AND identifier=?)",
                    "resource_servers_order (tenant=?)",
                ],
            ),
            (documents::GRANTS_FOR, &["client_grants_client (client_id=?)", "client_grants_default (tenant=?)"]),
            (DOMAIN_CONNECTIONS, &["connections_order (tenant=?)"]),
        ] {
            let plan = database.plan_of(statement).await;
            let looks: Vec<_> = plan.iter().filter(|step| step.contains("USING")).collect();
            let is_scan = |step: &str| {
                let of_no_table = ["SCAN scope VIRTUAL TABLE INDEX 3:", "SCAN CONSTANT ROW"];
                step.starts_with("SCAN") && !step.starts_with("SCAN (subquery-") && !of_no_table.contains(&step)
            };
            assert!(!plan.iter().any(|step| is_scan(step)), "{plan:#?}");
            for index in indexes {
                assert!(looks.iter().any(|step| step.ends_with(index)), "{index}: {plan:#?}");
            }
        }
        database.close().await;
    }

    #[tokio::test]
    async fn permissions_and_the_change_feed_never_wait_for_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let database = Sqlite::open(&folder.path().join("dcr.db"), IfMissing::Create, IfOlder::Refuse).await.unwrap();
        let all = async |pool: &sqlx::SqlitePool| {
            let mut held = Vec::new();
            for _ in 0..pool.options().get_max_connections() {
                held.push(pool.acquire().await.unwrap());
            }
            held
        };
        let soon = std::time::Duration::from_secs(5);
        let held = all(&database.permission_readers).await;
        tokio::time::timeout(soon, database.changes(0, None)).await.unwrap().unwrap();
        drop(held);
        let held = [all(&database.readers).await, all(&database.searchers).await];
        assert!(tokio::time::timeout(soon, database.client_with_grants(1, "x")).await.unwrap().unwrap().is_none());
        assert!(tokio::time::timeout(soon, database.default_grants(1)).await.unwrap().unwrap().is_empty());
        assert!(tokio::time::timeout(soon, database.domain_connections(1)).await.unwrap().unwrap().is_empty());
        drop(held);
        database.close().await;
    }
}
