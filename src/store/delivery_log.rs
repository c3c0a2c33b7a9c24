//! The log of webhook deliveries with their attempts, and redelivery.

use std::collections::HashMap;

use super::columns::Column;
use super::driver::{Connection, Sql, Tx};
use super::{StoreError, parse_name, touched};
use crate::domain::clock::Timestamp;
use crate::domain::delivery::{Attempt, Delivery, DeliveryState};
use crate::domain::ids::{ApiKeyId, DeliveryId, EventId, MerchantId};
use crate::domain::webhook::EventData;

/// Which deliveries to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    pub api_key: Option<ApiKeyId>,
    pub state: Option<DeliveryState>,
}

#[derive(sqlx::FromRow)]
struct DeliveryRow {
    id: DeliveryId,
    event_id: EventId,
    merchant_id: MerchantId,
    api_key_id: ApiKeyId,
    r#type: String,
    data: String,
    state: String,
    next_attempt_at: Timestamp,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct AttemptRow {
    delivery_id: DeliveryId,
    number: i64,
    at: Timestamp,
    status: Option<i64>,
    error: Option<String>,
    latency_us: i64,
    response: String,
}

impl TryFrom<AttemptRow> for Attempt {
    type Error = StoreError;
    fn try_from(row: AttemptRow) -> Result<Self, StoreError> {
        let status = row.status.map(u16::try_from).transpose().map_err(|_| StoreError::Impossible {
            table: "webhook_attempts",
            what: format!("status {:?}", row.status),
        })?;
        Ok(Self {
            number: row.number,
            at: row.at,
            status,
            error: row.error.map(|name| parse_name("webhook_attempts", &name)).transpose()?,
            latency_us: row.latency_us,
            response: row.response,
        })
    }
}

/// A page of a merchant's deliveries with their attempts, newest first, starting before `before`.
pub async fn list(
    db: &mut Connection,
    merchant: MerchantId,
    filter: Filter,
    before: Option<DeliveryId>,
    limit: i64,
) -> Result<Vec<Delivery>, StoreError> {
    let rows = db
        .query(
            "select d.id, d.event_id, d.merchant_id, d.api_key_id, e.type, e.data, d.state, \
             d.next_attempt_at, d.created_at, d.finished_at \
             from webhook_deliveries d join webhook_events e on e.id = d.event_id \
             where d.merchant_id = $1 and (d.id < $2 or $2 is null) and (d.api_key_id = $3 or $3 is null) \
             and (d.state = $4 or $4 is null) order by d.id desc limit $5",
        )
        .bind(merchant)
        .bind(before)
        .bind(filter.api_key)
        .bind(filter.state.map(<&str>::from))
        .bind(limit)
        .all::<DeliveryRow>()
        .await?;
    with_attempts(db, rows).await
}

pub async fn by_id(db: &mut Connection, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
    let row = db
        .query(
            "select d.id, d.event_id, d.merchant_id, d.api_key_id, e.type, e.data, d.state, \
             d.next_attempt_at, d.created_at, d.finished_at \
             from webhook_deliveries d join webhook_events e on e.id = d.event_id where d.id = $1",
        )
        .bind(id)
        .optional::<DeliveryRow>()
        .await?;
    Ok(with_attempts(db, row.into_iter().collect()).await?.pop())
}

const ATTEMPTS: Sql = Sql {
    postgres: "select delivery_id, number, at, status, error, latency_us, response from webhook_attempts \
               where delivery_id = any($1::uuid[]) order by number",
    sqlite: "select delivery_id, number, at, status, error, latency_us, response from webhook_attempts \
             where delivery_id in (select unhex(value ->> 0) from jsonb_each($1)) order by number",
};

async fn with_attempts(db: &mut Connection, rows: Vec<DeliveryRow>) -> Result<Vec<Delivery>, StoreError> {
    let columns = vec![Column::ids(rows.iter().map(|row| row.id))];
    let mut by_delivery: HashMap<_, Vec<Attempt>> = HashMap::new();
    for row in db.batch(&ATTEMPTS, columns).all::<AttemptRow>().await? {
        by_delivery.entry(row.delivery_id).or_default().push(row.try_into()?);
    }
    rows.into_iter()
        .map(|row| {
            let attempts = by_delivery.remove(&row.id).unwrap_or_default();
            of_row(row, attempts)
        })
        .collect()
}

fn of_row(row: DeliveryRow, attempts: Vec<Attempt>) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        id: row.id,
        event_id: row.event_id,
        merchant_id: row.merchant_id,
        api_key_id: row.api_key_id,
        event_type: row.r#type,
        data: EventData::from_stored(row.data),
        state: parse_name("webhook_deliveries", &row.state)?,
        next_attempt_at: row.next_attempt_at,
        created_at: row.created_at,
        finished_at: row.finished_at,
        attempts,
    })
}

/// Makes one delivery due now, in a new round.
pub async fn redeliver(tx: &mut Tx, id: DeliveryId, now: Timestamp) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "update webhook_deliveries set state = 'pending', next_attempt_at = $2, tries = 0, \
             began_at = null, finished_at = null where id = $1",
        )
        .bind(id)
        .bind(now)
        .execute()
        .await?;
    tx.leaves_deliveries();
    touched("webhook_deliveries", rows, 1)
}

/// Makes a merchant's failed deliveries due that were created at `since` or later and still have an endpoint.
/// Returns how many.
pub async fn redeliver_failed(
    tx: &mut Tx,
    merchant: MerchantId,
    key: Option<ApiKeyId>,
    since: Timestamp,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let rows = tx
        .query(
            "update webhook_deliveries set state = 'pending', next_attempt_at = $4, tries = 0, \
             began_at = null, finished_at = null \
             where merchant_id = $1 and state = 'failed' and created_at >= $3 \
             and (api_key_id = $2 or $2 is null) and api_key_id in (select id from api_keys \
             where merchant_id = $1 and webhook_url is not null and webhook_disabled_at is null)",
        )
        .bind(merchant)
        .bind(key)
        .bind(since)
        .bind(now)
        .execute()
        .await?;
    if rows > 0 {
        tx.leaves_deliveries();
    }
    Ok(rows)
}
