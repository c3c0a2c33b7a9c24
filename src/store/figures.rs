//! What the overview shows besides [`super::call_counts`]: clients that start many sessions.

use super::StoreError;
use super::driver::Connection;
use crate::domain::clock::Timestamp;
use crate::domain::ids::MerchantId;

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

/// Clients that started at least `sessions_min` sessions in slots that began at `since` or later, busiest first.
pub async fn busiest_clients(
    db: &mut Connection,
    merchant: MerchantId,
    since: Timestamp,
    sessions_min: i64,
) -> Result<Vec<BusyClient>, StoreError> {
    db.query(
        "select c.client_id, k.name as key_name, cast(sum(a.opened) as bigint) as sessions \
         from api_keys k join credentials c on c.api_key_id = k.id join client_activity a on a.credential_id = c.id \
         where k.merchant_id = $1 and a.slot >= $2 group by c.client_id, k.name having sum(a.opened) >= $3 \
         order by sessions desc, c.client_id limit 5",
    )
    .bind(merchant)
    .bind(since)
    .bind(sessions_min)
    .all()
    .await
}
