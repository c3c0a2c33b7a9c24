//! Counts calls per time slot when their records are written. The overview reads these counts, so it stays
//! fast however many calls there were.
//!
//! A call is counted once, in a slot of a minute. After some hours the sweeper adds the counts of short slots to
//! those of their hour and of their day, and removes them. So the figures of an hour come from short slots, those
//! of a day from short slots and hours, and those of a month from short slots and days.

use std::collections::BTreeMap;

use constcat::concat;

use super::StoreError;
use super::columns::Column;
use super::driver::{Connection, Sql, Tx};
use super::exchanges::Call;
use super::figures::Count;
use super::merchants::IS_HERE;
use crate::domain::clock::Timestamp;
use crate::domain::ids::MerchantId;

/// The lengths of slots, in seconds.
pub const DAY_SECS: i64 = 86_400;
pub const HOUR_SECS: i64 = 3600;
pub const SHORT_SECS: i64 = 60;

/// Earlier versions counted a call at once in a slot of two minutes, of an hour and of a day. Short slots have
/// another length now, so that the calls of a replica with an earlier version are not added again. The last hour's
/// figures read both.
pub const EARLIER_SHORT_SECS: i64 = 120;

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

const REMOVE: &str = "delete from call_counts where (merchant_id, slot_secs, slot, kind, reason, good, latency_class) in (\
     select merchant_id, slot_secs, slot, kind, reason, good, latency_class from call_counts \
     where slot_secs = $1 and slot <= $2";
const OLDEST_FIRST: &str = " order by slot limit $3)";

const COLUMNS: &str = "merchant_id, slot_secs, slot, kind, reason, good, latency_class, calls";
const POSTGRES_ADD: &str = concat!(
    "insert into call_counts (",
    COLUMNS,
    ") select * from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], \
     $7::bigint[], $8::bigint[]) as counted (",
    COLUMNS,
    ") where "
);
const SQLITE_ADD: &str = concat!(
    "insert into call_counts (",
    COLUMNS,
    ") select * from (select unhex(value ->> 0) as merchant_id, value ->> 1, value ->> 2, value ->> 3, value ->> 4, \
     value ->> 5, value ->> 6, value ->> 7 from jsonb_each($1)) where "
);
const TO_WHAT_IS_COUNTED: &str = " on conflict (merchant_id, slot_secs, slot, kind, reason, good, latency_class) \
                                  do update set calls = call_counts.calls + excluded.calls";

const ADD: Sql = Sql {
    postgres: concat!(POSTGRES_ADD, "true", TO_WHAT_IS_COUNTED),
    sqlite: concat!(SQLITE_ADD, "true", TO_WHAT_IS_COUNTED),
};

/// Counts only calls of merchants that this cell serves. While a merchant comes from another cell, a row that was
/// counted here would be in the way of the same row from there.
const ADD_CALLS: Sql = Sql {
    postgres: concat!(POSTGRES_ADD, IS_HERE, TO_WHAT_IS_COUNTED),
    sqlite: concat!(SQLITE_ADD, IS_HERE, TO_WHAT_IS_COUNTED),
};

/// Which row counts a call. Replicas update the same rows, so each writes them in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Slot<'a> {
    merchant: MerchantId,
    secs: i64,
    began: i64,
    kind: &'a str,
    reason: &'a str,
    good: i64,
    latency_class: i64,
}

/// When the slot with this time began, in microseconds.
const fn began(at: i64, slot_secs: i64) -> i64 {
    let length = slot_secs * 1_000_000;
    at.div_euclid(length) * length
}

/// What a call was for.
fn kind_of(call: &Call) -> &'static str {
    match call.exchange.path.as_str() {
        "/api/authorize" if !call.is_renewal => "issued",
        "/api/authorize" | "/api/refresh_token" => "refreshed",
        _ => "other",
    }
}

type Counts<'a> = BTreeMap<Slot<'a>, i64>;

/// Counts calls, in the transaction that writes their records.
pub async fn add(db: &mut Connection, calls: &[Call]) -> Result<(), StoreError> {
    let mut counts = Counts::new();
    for call in calls {
        let slot = Slot {
            merchant: call.exchange.merchant_id,
            secs: SHORT_SECS,
            began: began(call.exchange.at.micros(), SHORT_SECS),
            kind: kind_of(call),
            reason: call.exchange.reason.as_deref().unwrap_or_default(),
            good: i64::from(call.exchange.status < 400),
            latency_class: class_of(call.exchange.latency_us),
        };
        *counts.entry(slot).or_default() += 1;
    }
    write(db, &ADD_CALLS, &counts).await
}

async fn write(db: &mut Connection, add: &'static Sql, counts: &Counts<'_>) -> Result<(), StoreError> {
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
    db.batch(add, columns).execute().await?;
    Ok(())
}

/// A row of a short slot.
#[derive(sqlx::FromRow)]
struct Counted {
    merchant_id: MerchantId,
    slot: i64,
    kind: String,
    reason: String,
    good: i64,
    latency_class: i64,
    calls: i64,
}

/// Moves up to `limit` rows of short slots that began at `until` or before to those of their hour and day. Returns
/// how many. While a merchant moves to another cell, only the cell that serves it does this, and the other one gets the
/// rows from there.
pub async fn roll_up(tx: &mut Tx, until: Timestamp, limit: i64) -> Result<u64, StoreError> {
    let moved: Vec<Counted> = tx
        .query(concat!(
            REMOVE,
            " and ",
            IS_HERE,
            OLDEST_FIRST,
            " returning merchant_id, slot, kind, reason, good, latency_class, calls"
        ))
        .bind(SHORT_SECS)
        .bind(until)
        .bind(limit)
        .all()
        .await?;
    let mut counts = Counts::new();
    for row in &moved {
        for secs in [HOUR_SECS, DAY_SECS] {
            let slot = Slot {
                merchant: row.merchant_id,
                secs,
                began: began(row.slot, secs),
                kind: &row.kind,
                reason: &row.reason,
                good: row.good,
                latency_class: row.latency_class,
            };
            *counts.entry(slot).or_default() += row.calls;
        }
    }
    if !counts.is_empty() {
        write(tx, &ADD, &counts).await?;
    }
    Ok(moved.len() as u64)
}

/// A merchant's calls in short slots and in those of this length that began at `since` or later, by bucket, kind
/// and outcome.
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
         from call_counts where merchant_id = $1 and slot_secs in ($2, $5) and slot >= $3 group by slot / $4, kind, reason, good",
    )
    .bind(merchant)
    .bind(slot_secs)
    .bind(since)
    .bind(bucket_us)
    .bind(SHORT_SECS)
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
         from call_counts where merchant_id = $1 and slot_secs in ($2, $5) and slot >= $3 and latency_class >= 0 \
         group by slot / $4, latency_class order by slot / $4, latency_class",
    )
    .bind(merchant)
    .bind(slot_secs)
    .bind(since)
    .bind(bucket_us)
    .bind(SHORT_SECS)
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
    db.query(concat!(REMOVE, OLDEST_FIRST)).bind(slot_secs).bind(until).bind(limit).execute().await
}
