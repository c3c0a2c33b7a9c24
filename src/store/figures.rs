//! Counts and latencies over time, from the exchanges, for the charts of the overview.

use super::StoreError;
use super::driver::Connection;
use crate::domain::ids::{MerchantId, SessionId};

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

/// A client that started many sessions.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct BusyClient {
    pub client_id: String,
    pub key_name: String,
    pub sessions: i64,
}

/// Clients that started at least `sessions_min` sessions since `since`, busiest first.
pub async fn busiest_clients(
    db: &mut Connection,
    merchant: MerchantId,
    since: SessionId,
    sessions_min: i64,
) -> Result<Vec<BusyClient>, StoreError> {
    db.query(
        "select c.client_id, k.name as key_name, count(*) as sessions from sessions s \
         join credentials c on c.id = s.credential_id join api_keys k on k.id = c.api_key_id \
         where s.merchant_id = $1 and s.id >= $2 group by c.client_id, k.name having count(*) >= $3 \
         order by sessions desc, c.client_id limit 5",
    )
    .bind(merchant)
    .bind(since)
    .bind(sessions_min)
    .all()
    .await
}
