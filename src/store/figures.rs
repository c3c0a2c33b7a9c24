//! Counts and latencies over time, from the exchanges, for the charts of the overview.

use super::StoreError;
use super::driver::Connection;
use crate::domain::ids::{ExchangeId, MerchantId, SessionId};

/// The calls of one kind in one time bucket.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Count {
    /// The number of the bucket: its start divided by its length.
    pub bucket: i64,
    /// `issued`, `refreshed` or `other`.
    pub kind: String,
    pub reason: Option<String>,
    pub is_good: bool,
    pub calls: i64,
}

/// Counts a merchant's calls since `since` by bucket, kind and outcome. Only the latest `calls_max` calls
/// count.
pub async fn counts(
    db: &mut Connection,
    merchant: MerchantId,
    since: ExchangeId,
    bucket_us: i64,
    calls_max: i64,
) -> Result<Vec<Count>, StoreError> {
    db.query(
        "select bucket, kind, reason, is_good, count(*) as calls from (\
         select at / $3 as bucket, case path when '/api/authorize' then 'issued' \
         when '/api/refresh_token' then 'refreshed' else 'other' end as kind, reason, status < 400 as is_good \
         from exchanges where merchant_id = $1 and id >= $2 order by id desc limit $4) as latest \
         group by bucket, kind, reason, is_good",
    )
    .bind(merchant)
    .bind(since)
    .bind(bucket_us)
    .bind(calls_max)
    .all()
    .await
}

/// The median or the 95th percentile of a bucket's latencies.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Latency {
    pub bucket: i64,
    /// Its rank among the `calls` of the bucket, fastest first.
    pub place: i64,
    pub calls: i64,
    pub latency_us: i64,
}

impl Latency {
    pub const fn is_median(&self) -> bool {
        self.place == (self.calls + 1) / 2
    }

    pub const fn is_p95(&self) -> bool {
        self.place == (self.calls * 95 + 99) / 100
    }
}

/// The medians and 95th percentiles of the same calls as in [`counts`].
pub async fn latencies(
    db: &mut Connection,
    merchant: MerchantId,
    since: ExchangeId,
    bucket_us: i64,
    calls_max: i64,
) -> Result<Vec<Latency>, StoreError> {
    db.query(
        "select bucket, place, calls, latency_us from (\
         select bucket, latency_us, row_number() over (partition by bucket order by latency_us) as place, \
         count(*) over (partition by bucket) as calls from (\
         select at / $3 as bucket, latency_us from exchanges \
         where merchant_id = $1 and id >= $2 order by id desc limit $4) as latest) as ranked \
         where place = (calls + 1) / 2 or place = (calls * 95 + 99) / 100",
    )
    .bind(merchant)
    .bind(since)
    .bind(bucket_us)
    .bind(calls_max)
    .all()
    .await
}

/// Clients that started at least `sessions_min` sessions since `since`, busiest first.
pub async fn busiest_clients(
    db: &mut Connection,
    merchant: MerchantId,
    since: SessionId,
    sessions_min: i64,
) -> Result<Vec<(String, i64)>, StoreError> {
    db.query(
        "select c.client_id, count(*) as sessions from sessions s join credentials c on c.id = s.credential_id \
         where s.merchant_id = $1 and s.id >= $2 group by c.client_id having count(*) >= $3 \
         order by sessions desc, c.client_id limit 5",
    )
    .bind(merchant)
    .bind(since)
    .bind(sessions_min)
    .all()
    .await
}
