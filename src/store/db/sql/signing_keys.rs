//! Keys that sign tokens.

use async_trait::async_trait;

use super::{Backend, Connection, column, count, lock_store, query, query_as, unreadable};
use crate::store::db::{Error, Rotation, SIGNING_KEYS, SigningKeys, StoredKey};

#[async_trait]
impl SigningKeys for Backend {
    async fn signing_keys(&self) -> Result<Vec<StoredKey>, Error> {
        newest_first(&mut *self.read().await?).await
    }

    async fn ensure_signing_key(&self, candidate: StoredKey) -> Result<Vec<StoredKey>, Error> {
        let mut transaction = self.write().await?;
        lock_store(&mut transaction).await?;
        query(
            "INSERT INTO signing_keys (ed25519_seed, created_at) \
             SELECT $1, $2 WHERE NOT EXISTS (SELECT 1 FROM signing_keys)",
        )
        .bind(candidate.seed.as_slice())
        .bind(candidate.created_at.map(column))
        .execute(&mut *transaction)
        .await?;
        let keys = newest_first(&mut transaction).await?;
        transaction.commit().await?;
        Ok(keys)
    }

    async fn rotate_signing_keys(&self, new: StoredKey) -> Result<Rotation, Error> {
        let mut transaction = self.write().await?;
        lock_store(&mut transaction).await?;
        let mut keys = newest_first(&mut transaction).await?;
        query("INSERT INTO signing_keys (ed25519_seed, created_at) VALUES ($1, $2)")
            .bind(new.seed.as_slice())
            .bind(new.created_at.map(column))
            .execute(&mut *transaction)
            .await?;
        keys.insert(0, new);
        let retired = keys.split_off(SIGNING_KEYS.min(keys.len()));
        for key in &retired {
            query("DELETE FROM signing_keys WHERE ed25519_seed = $1")
                .bind(key.seed.as_slice())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(Rotation { keys, retired })
    }
}

async fn newest_first(connection: &mut Connection) -> Result<Vec<StoredKey>, Error> {
    let rows: Vec<(Vec<u8>, Option<i64>)> =
        query_as("SELECT ed25519_seed, created_at FROM signing_keys ORDER BY number DESC")
            .fetch_all(connection)
            .await?;
    let stored = |(seed, created_at): (Vec<u8>, Option<i64>)| {
        Ok(StoredKey {
            seed: seed.try_into().map_err(|_| unreadable("a signing key"))?,
            created_at: created_at.map(count).transpose()?,
        })
    };
    rows.into_iter().map(stored).collect()
}
