//! Counts calls per time slot when their records are written. The overview reads these counts, so it stays
//! fast however many calls there were: the figures of an hour come from slots of two minutes, those of a day from
//! slots of an hour, and those of a month from slots of a day.

use std::collections::BTreeMap;

use super::StoreError;
use super::columns::Column;
use super::driver::{Connection, Sql};
use super::exchanges::Call;
use super::figures::Count;
use crate::domain::clock::Timestamp;
use crate::domain::ids::MerchantId;

/// The lengths of slots, in seconds.
pub const DAY_SECS: i64 = 86_400;
pub const LONG_SECS: i64 = 3600;
pub const SHORT_SECS: i64 = 120;

/// The number of latency classes per doubling. The classes are then 19 % wide.
const CLASSES_PER_OCTAVE: f64 = 4.0;

/// The class of a latency.
fn class_of(latency_us: i64) -> i64 {
    let micros = f64::from(u32::try_from(latency_us.max(1)).unwrap_or(u32::MAX));
    // At most 128.
    (micros.log2() * CLASSES_PER_OCTAVE).floor() as i64
}

/// The longest latency of a class, in microseconds.
pub fn longest_of(class: i64) -> i64 {
    let exponent = f64::from(u32::try_from(class + 1).unwrap_or(0)) / CLASSES_PER_OCTAVE;
    exponent.exp2().ceil() as i64
}

const ADD: Sql = Sql {
    postgres: "insert into call_counts (merchant_id, slot_secs, slot, kind, reason, good, latency_class, calls) \
               select * from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], \
               $7::bigint[], $8::bigint[]) \
               on conflict (merchant_id, slot_secs, slot, kind, reason, good, latency_class) do update \
               set calls = call_counts.calls + excluded.calls",
    sqlite: "insert into call_counts (merchant_id, slot_secs, slot, kind, reason, good, latency_class, calls) \
             select unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
             value ->> 7 from jsonb_each($1) where true \
             on conflict (merchant_id, slot_secs, slot, kind, reason, good, latency_class) do update \
             set calls = call_counts.calls + excluded.calls",
};

/// Which row counts a call.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Slot<'a> {
    merchant: MerchantId,
    secs: i64,
    began: i64,
    kind: &'static str,
    reason: &'a str,
    good: i64,
    latency_class: i64,
}

/// What a call was for.
fn kind_of(call: &Call) -> &'static str {
    match call.exchange.path.as_str() {
        "/api/authorize" if !call.is_renewal => "issued",
        "/api/authorize" | "/api/refresh_token" => "refreshed",
        _ => "other",
    }
}

/// Counts calls, in the transaction that writes their records.
pub async fn add(db: &mut Connection, calls: &[Call]) -> Result<(), StoreError> {
    // Replicas update the same rows. All of them must lock the rows in the same order.
    let mut counts: BTreeMap<Slot<'_>, i64> = BTreeMap::new();
    for call in calls {
        for secs in [DAY_SECS, LONG_SECS, SHORT_SECS] {
            let length = secs * 1_000_000;
            let slot = Slot {
                merchant: call.exchange.merchant_id,
                secs,
                began: call.exchange.at.micros().div_euclid(length) * length,
                kind: kind_of(call),
                reason: call.exchange.reason.as_deref().unwrap_or_default(),
                good: i64::from(call.exchange.status < 400),
                latency_class: class_of(call.exchange.latency_us),
            };
            *counts.entry(slot).or_default() += 1;
        }
    }
    let slots = || counts.keys();
    let columns = vec![
        Column::ids(slots().map(|slot| slot.merchant)),
        Column::ints(slots().map(|slot| slot.secs)),
        Column::ints(slots().map(|slot| slot.began)),
        Column::text(slots().map(|slot| Some(slot.kind))),
        Column::text(slots().map(|slot| Some(slot.reason))),
        Column::ints(slots().map(|slot| slot.good)),
        Column::ints(slots().map(|slot| slot.latency_class)),
        Column::ints(counts.values().copied()),
    ];
    db.batch(&ADD, columns).execute().await?;
    Ok(())
}

/// A merchant's calls in slots of this length that began at `since` or later, by bucket, kind and outcome.
pub async fn counts(
    db: &mut Connection,
    merchant: MerchantId,
    slot_secs: i64,
    since: Timestamp,
    bucket_us: i64,
) -> Result<Vec<Count>, StoreError> {
    db.query(
        "select slot / $4 as bucket, kind, nullif(reason, '') as reason, good = 1 as is_good, \
         cast(sum(calls) as bigint) as calls \
         from call_counts where merchant_id = $1 and slot_secs = $2 and slot >= $3 group by slot / $4, kind, reason, good",
    )
    .bind(merchant)
    .bind(slot_secs)
    .bind(since)
    .bind(bucket_us)
    .all()
    .await
}

/// How many calls of a bucket fall into a latency class.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Latencies {
    pub bucket: i64,
    pub latency_class: i64,
    pub calls: i64,
}

/// The same by latency, fastest first within a bucket.
pub async fn latencies(
    db: &mut Connection,
    merchant: MerchantId,
    slot_secs: i64,
    since: Timestamp,
    bucket_us: i64,
) -> Result<Vec<Latencies>, StoreError> {
    db.query(
        "select slot / $4 as bucket, latency_class, cast(sum(calls) as bigint) as calls \
         from call_counts where merchant_id = $1 and slot_secs = $2 and slot >= $3 and latency_class >= 0 \
         group by slot / $4, latency_class order by slot / $4, latency_class",
    )
    .bind(merchant)
    .bind(slot_secs)
    .bind(since)
    .bind(bucket_us)
    .all()
    .await
}

/// Removes up to `limit` rows of slots of this length that began at `until` or before. Returns how many.
pub async fn sweep(
    db: &mut Connection,
    slot_secs: i64,
    until: Timestamp,
    limit: i64,
) -> Result<u64, StoreError> {
    db.query(
        "delete from call_counts where (merchant_id, slot_secs, slot, kind, reason, good, latency_class) in (\
         select merchant_id, slot_secs, slot, kind, reason, good, latency_class from call_counts \
         where slot_secs = $1 and slot <= $2 order by slot limit $3)",
    )
    .bind(slot_secs)
    .bind(until)
    .bind(limit)
    .execute()
    .await
}
