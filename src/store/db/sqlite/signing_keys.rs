//! Keys that sign tokens.

use async_trait::async_trait;
use sqlx::sqlite::SqliteExecutor;

use super::{Sqlite, column, count, unreadable};
use crate::store::db::{Error, Rotation, SIGNING_KEYS, SigningKeys, StoredKey};

#[async_trait]
impl SigningKeys for Sqlite {
    async fn signing_keys(&self) -> Result<Vec<StoredKey>, Error> {
        newest_first(&self.readers).await
    }

    async fn ensure_signing_key(&self, candidate: StoredKey) -> Result<Vec<StoredKey>, Error> {
        sqlx::query(
            "INSERT INTO signing_keys (ed25519_seed, created_at) \
             SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM signing_keys)",
        )
        .bind(candidate.seed.as_slice())
        .bind(candidate.created_at.map(column))
        .execute(&self.writer)
        .await?;
        newest_first(&self.writer).await
    }

    async fn rotate_signing_keys(&self, new: StoredKey) -> Result<Rotation, Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let mut keys = newest_first(&mut *transaction).await?;
        sqlx::query("INSERT INTO signing_keys (ed25519_seed, created_at) VALUES (?, ?)")
            .bind(new.seed.as_slice())
            .bind(new.created_at.map(column))
            .execute(&mut *transaction)
            .await?;
        keys.insert(0, new);
        let retired = keys.split_off(SIGNING_KEYS.min(keys.len()));
        for key in &retired {
            sqlx::query("DELETE FROM signing_keys WHERE ed25519_seed = ?")
                .bind(key.seed.as_slice())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(Rotation { keys, retired })
    }
}

async fn newest_first(executor: impl SqliteExecutor<'_>) -> Result<Vec<StoredKey>, Error> {
    let rows: Vec<(Vec<u8>, Option<i64>)> =
        sqlx::query_as("SELECT ed25519_seed, created_at FROM signing_keys ORDER BY number DESC")
            .fetch_all(executor)
            .await?;
    let stored = |(seed, created_at): (Vec<u8>, Option<i64>)| {
        Ok(StoredKey {
            seed: seed.try_into().map_err(|_| unreadable("a signing key"))?,
            created_at: created_at.map(count).transpose()?,
        })
    };
    rows.into_iter().map(stored).collect()
}
