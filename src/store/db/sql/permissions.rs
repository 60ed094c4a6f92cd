//! What clients may do: their grants, with the APIs, and the connections.

use async_trait::async_trait;

use super::{Backend, Connection, clients, query_as, query_scalar, text, unreadable};
use crate::management::{GrantOfApi, PermissionSource, SubjectType};
use crate::store::db::permission::{MOST_GRANTS, permitted};
use crate::store::db::{ControlledClient, Error, Permissions, StoredClient};
use crate::tenant::SecurityMode;

#[async_trait]
impl Permissions for Backend {
    async fn client_with_grants(
        &self,
        tenant: u32,
        client_id: &str,
    ) -> Result<Option<(StoredClient, Vec<GrantOfApi>)>, Error> {
        let mut snapshot = self.permission_snapshot().await?;
        with_grants(&mut snapshot, tenant, client_id).await
    }

    async fn controlled_client(&self, tenant: u32, client_id: &str) -> Result<Option<ControlledClient>, Error> {
        let mut snapshot = self.permission_snapshot().await?;
        let Some((client, grants)) = with_grants(&mut snapshot, tenant, client_id).await? else { return Ok(None) };
        let client_secret_sha256 = clients::secret_sha256(&mut snapshot, tenant, client_id).await?;
        let permitted = permitted(client, grants)?;
        // Nobody logs in with a client without users.
        let connections =
            if permitted.abilities.has_users { domain_connections(&mut snapshot, tenant).await? } else { Vec::new() };
        Ok(Some(ControlledClient { permitted, client_secret_sha256, connections }))
    }

    async fn default_grants(&self, tenant: u32) -> Result<Vec<GrantOfApi>, Error> {
        grants(&mut *self.permission_snapshot().await?, GRANTS, tenant, None).await
    }

    async fn domain_connections(&self, tenant: u32) -> Result<Vec<String>, Error> {
        domain_connections(&mut *self.permission_snapshot().await?, tenant).await
    }
}

async fn with_grants(
    connection: &mut Connection,
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

async fn domain_connections(connection: &mut Connection, tenant: u32) -> Result<Vec<String>, Error> {
    Ok(query_scalar(DOMAIN_CONNECTIONS).bind(i64::from(tenant)).fetch_all(connection).await?)
}

/// What `statement` finds of a tenant and a client.
async fn grants(
    connection: &mut Connection,
    statement: &'static str,
    tenant: u32,
    client_id: Option<&str>,
) -> Result<Vec<GrantOfApi>, Error> {
    let rows: Vec<GrantRow> = query_as(statement)
        .bind(i64::from(tenant))
        .bind(client_id.map(text))
        .bind(i64::from(MOST_GRANTS))
        .fetch_all(connection)
        .await?;
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
        concat!(
            "coalesce(",
            member!("a.data", "subject_type_authorization"),
            ", '{}') AS subject_type_authorization, (SELECT ",
            sql!(
                sqlite: "json_group_array(scope.value ->> 'value')",
                postgres: "coalesce(json_agg(scope.value ->> 'value')::text, '[]')",
            ),
            " FROM ",
            elements!("a.data", "scopes", "scope"),
            ") AS scopes_of_api, ",
            flag!("a.data", "allow_offline_access"),
            " AS allow_offline_access"
        )
    };
}

/// Grants with what matters of their APIs, by one of the indexes.
macro_rules! grants_by {
    ($index:literal, $condition:literal) => {
        concat!(
            "SELECT g.number, CASE WHEN g.client_id IS NULL THEN 'default' ELSE 'client_grant' END AS source, \
             g.audience, g.subject_type, coalesce(",
            member!("g.data", "scope"),
            ", '[]') AS scope, ",
            flag!("g.data", "allow_all_scopes"),
            " AS allow_all_scopes, ",
            of_api!(),
            " FROM client_grants AS g",
            sql!(sqlite: concat!(" INDEXED BY ", $index), postgres: ""),
            " JOIN resource_servers AS a ON a.tenant = g.tenant AND a.identifier = g.audience WHERE g.tenant = $1 AND ",
            $condition
        )
    };
}

/// A tenant may have very many grants: those of one client and the defaults are found, not looked for.
pub(in crate::store::db) const GRANTS: &str = concat!(
    grants_by!("client_grants_client", "g.client_id = $2"),
    " UNION ALL ",
    grants_by!("client_grants_default", "g.client_id IS NULL"),
    " ORDER BY 1"
);

/// The client's own grants, and the APIs for which a permissive client needs none.
pub(in crate::store::db) const PERMISSIVE_GRANTS: &str = concat!(
    grants_by!("client_grants_client", "g.client_id = $2"),
    " UNION ALL SELECT * FROM (SELECT number, 'api_policy' AS source, identifier AS audience, 'user' AS subject_type, \
     '[]' AS scope, true AS allow_all_scopes, ",
    of_api!(),
    " FROM resource_servers AS a",
    sql!(sqlite: " INDEXED BY resource_servers_order", postgres: ""),
    " WHERE tenant = $1 AND coalesce(",
    user_policy!("data"),
    ", 'allow_all') = 'allow_all' ORDER BY number LIMIT $3) AS apis"
);

pub(in crate::store::db) const DOMAIN_CONNECTIONS: &str = concat!(
    "SELECT name FROM connections WHERE tenant = $1 AND ",
    flag!("data", "is_domain_connection"),
    " ORDER BY number"
);
