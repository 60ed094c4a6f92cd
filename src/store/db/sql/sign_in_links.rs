//! Links that sign a person in to the console.

use async_trait::async_trait;

use super::{Backend, column, count, query, query_as, small, unreadable};
use crate::store::db::{Error, SignInLink, SignInLinks, SignedIn};
use crate::tenant::Domain;

#[async_trait]
impl SignInLinks for Backend {
    async fn create_sign_in_link(&self, link: &SignInLink, now: u64) -> Result<bool, Error> {
        let SignInLink { code_sha256, tenant, scope, session_ttl, expires_at } = link;
        let mut transaction = self.write().await?;
        query("DELETE FROM sign_in_links WHERE expires_at <= $1").bind(column(now)).execute(&mut *transaction).await?;
        let created = query(
            "INSERT INTO sign_in_links (code_sha256, tenant, scope, session_ttl, expires_at) \
             SELECT $1, slot, $2, $3, $4 FROM tenants WHERE slot = $5 AND deleted = 0",
        )
        .bind(code_sha256.as_slice())
        .bind(scope)
        .bind(column(*session_ttl))
        .bind(column(*expires_at))
        .bind(i64::from(*tenant))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(created.rows_affected() > 0)
    }

    async fn take_sign_in_link(&self, code_sha256: &[u8; 32], now: u64) -> Result<Option<SignedIn>, Error> {
        let mut transaction = self.write().await?;
        let found: Option<(i64, String, String, i64)> = query_as(
            "SELECT slot, host, scope, session_ttl FROM sign_in_links \
             JOIN tenants ON slot = sign_in_links.tenant AND deleted = 0 \
             JOIN tenant_domains ON tenant_domains.tenant = slot \
             WHERE code_sha256 = $1 AND expires_at > $2 ORDER BY position LIMIT 1",
        )
        .bind(code_sha256.as_slice())
        .bind(column(now))
        .fetch_optional(&mut *transaction)
        .await?;
        let taken = query("DELETE FROM sign_in_links WHERE code_sha256 = $1")
            .bind(code_sha256.as_slice())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        // Whoever found it at the same time waited for the other to delete it.
        let Some((slot, host, scope, session_ttl)) = found.filter(|_| taken.rows_affected() > 0) else {
            return Ok(None);
        };
        Ok(Some(SignedIn {
            tenant: small(slot)?,
            domain: Domain::try_from(host).map_err(|_| unreadable("a host"))?,
            scope,
            session_ttl: count(session_ttl)?,
        }))
    }
}
