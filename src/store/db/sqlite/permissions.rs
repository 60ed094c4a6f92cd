//! What clients may do: their grants, with the APIs, and the connections.

use async_trait::async_trait;

use super::{Sqlite, unreadable};
use crate::management::{ClientGrant, ResourceServer};
use crate::store::db::{Error, Permissions};

#[async_trait]
impl Permissions for Sqlite {
    async fn grants_of(&self, tenant: u32, client_id: &str) -> Result<Vec<(ClientGrant, ResourceServer)>, Error> {
        let rows: Vec<(i64, String, String)> =
            sqlx::query_as(GRANTS).bind(tenant).bind(client_id).fetch_all(&self.readers).await?;
        let read = |(_, grant, api): (i64, String, String)| {
            let pair = serde_json::from_str(&grant).and_then(|grant| Ok((grant, serde_json::from_str(&api)?)));
            pair.map_err(|_| unreadable("a client grant or its API"))
        };
        rows.into_iter().map(read).collect()
    }

    async fn domain_connections(&self, tenant: u32) -> Result<Vec<String>, Error> {
        Ok(sqlx::query_scalar(DOMAIN_CONNECTIONS).bind(tenant).fetch_all(&self.readers).await?)
    }
}

/// Grants with their APIs, by one of the indexes.
macro_rules! grants_by {
    ($index:literal, $condition:literal) => {
        concat!(
            "SELECT g.number, g.data, a.data FROM client_grants AS g INDEXED BY ",
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

const DOMAIN_CONNECTIONS: &str =
    "SELECT name FROM connections WHERE tenant = ?1 AND data ->> '$.is_domain_connection' ORDER BY number";

#[cfg(test)]
mod tests {
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
            (DOMAIN_CONNECTIONS, &["connections_order (tenant=?)"]),
        ] {
            let explain = format!("EXPLAIN QUERY PLAN {statement}");
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(explain)).fetch_all(&database.readers).await.unwrap();
            let looks: Vec<_> = plan.iter().map(|(.., step)| step).filter(|step| step.contains("USING")).collect();
            assert!(!plan.iter().any(|(.., step)| step.starts_with("SCAN")), "{plan:#?}");
            for index in indexes {
                assert!(looks.iter().any(|step| step.ends_with(index)), "{index}: {plan:#?}");
            }
        }
        database.close().await;
    }
}
