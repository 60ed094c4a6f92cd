//! The fleet's buckets.

use std::collections::HashMap;

use super::{Connection, SharedClock, column, count, query, query_as, to_json, unreadable};
use crate::rate_limit::Bucket;
use crate::store::clock::{BootId, Steady};
use crate::store::db::Error;
use crate::store::fleet_limit::FleetBucket;
use crate::tenant::RateLimit;

/// The buckets of tenants, by slot. One that has none yet has a full one.
#[derive(Default)]
pub(super) struct Buckets {
    stored: HashMap<i64, FleetBucket>,
    now: HashMap<i64, FleetBucket>,
}

impl Buckets {
    /// Those of the tenants in `slots`.
    pub(super) async fn read(
        connection: &mut Connection,
        clock: &SharedClock,
        slots: impl Iterator<Item = i64>,
    ) -> Result<Self, Error> {
        let now: HashMap<i64, FleetBucket> = slots.map(|slot| (slot, FleetBucket::default())).collect();
        if now.is_empty() {
            return Ok(Self::default());
        }
        let slots: Vec<i64> = now.keys().copied().collect();
        let rows: Vec<(i64, Vec<u8>, Vec<u8>, i64)> = query_as(concat!(
            "SELECT tenant, tokens, boot, changed_at FROM buckets WHERE tenant IN (",
            integers!("$1"),
            ")"
        ))
        .bind(to_json(&slots)?)
        .fetch_all(connection)
        .await?;
        let mut buckets = Self { stored: HashMap::new(), now };
        for (slot, tokens, boot, changed_at) in rows {
            let decoded = Bucket::decode(&tokens).zip(boot.try_into().ok());
            let (tokens, boot) = decoded.ok_or_else(|| unreadable(&format!("the bucket of slot {slot}")))?;
            let changed_at = clock.past(Steady { boot: BootId(boot), nanos: count(changed_at)? });
            let bucket = FleetBucket { tokens, changed_at };
            buckets.stored.insert(slot, bucket);
            buckets.now.insert(slot, bucket);
        }
        Ok(buckets)
    }

    /// The bucket of the tenant in `slot`.
    pub(super) fn of(&mut self, slot: i64) -> &mut FleetBucket {
        self.now.entry(slot).or_default()
    }

    /// Writes those that changed.
    pub(super) async fn write(&self, connection: &mut Connection) -> Result<(), Error> {
        let full = FleetBucket::default();
        let changed: Vec<(i64, String, String, i64)> = self
            .now
            .iter()
            .filter(|&(slot, bucket)| self.stored.get(slot).unwrap_or(&full) != bucket)
            .map(|(slot, FleetBucket { tokens, changed_at: Steady { boot, nanos } })| {
                (*slot, hex::encode(tokens.encode()), hex::encode(boot.0), column(*nanos))
            })
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        query(concat!(
            "INSERT INTO buckets (tenant, tokens, boot, changed_at) SELECT CAST(bucket.value ->> 0 AS BIGINT), ",
            bytes!("bucket.value ->> 1"),
            ", ",
            bytes!("bucket.value ->> 2"),
            ", CAST(bucket.value ->> 3 AS BIGINT) FROM ",
            rows!("$1", "bucket"),
            " WHERE true ON CONFLICT (tenant) DO UPDATE \
                 SET tokens = excluded.tokens, boot = excluded.boot, changed_at = excluded.changed_at",
        ))
        .bind(to_json(&changed)?)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Puts the bucket of the tenant in `slot` under this limit from `now` on.
pub(super) async fn limit(
    connection: &mut Connection,
    clock: &SharedClock,
    slot: i64,
    now: Steady,
    limit: RateLimit,
) -> Result<(), Error> {
    let mut buckets = Buckets::read(connection, clock, std::iter::once(slot)).await?;
    let Some(stored) = buckets.stored.get(&slot).copied() else { return Ok(()) };
    *buckets.of(slot) = stored.under(clock.moment(now), limit);
    buckets.write(connection).await
}
