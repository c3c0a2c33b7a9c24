//! Webhook deliveries: claiming, attempting and finishing them.
//!
//! Any number of replicas can deliver. `next_attempt_at` is also the claim: a replica that moves it forward
//! with a guarded update has the delivery until that time. If the time passes without a recorded attempt, the
//! replica is gone, and the delivery is due again.

use super::driver::{Connection, Tx};
use super::{StoreError, touched};
use crate::domain::api_key::WebhookFormat;
use crate::domain::clock::Timestamp;
use crate::domain::delivery::{Attempt, DeliveryState};
use crate::domain::event::WebhookEvent;
use crate::domain::ids::{ApiKeyId, DeliveryId, EventId, MerchantId};

/// The keys with deliveries that are due, with their merchants, which this cell serves. Those that have waited longest come first.
pub async fn due_endpoints(
    db: &mut Connection,
    now: Timestamp,
) -> Result<Vec<(MerchantId, ApiKeyId)>, StoreError> {
    db.query(
        "select api_keys.merchant_id, api_keys.id from (\
             select api_key_id, min(next_attempt_at) as since from webhook_deliveries \
             where state = 'pending' and next_attempt_at <= $1 group by api_key_id) as due \
             join api_keys on api_keys.id = due.api_key_id \
             join merchants m on m.id = api_keys.merchant_id \
             where m.home is null or m.home = (select number from cell) order by due.since",
    )
    .bind(now)
    .all()
    .await
}

/// Where the webhooks of a key go.
#[derive(sqlx::FromRow)]
pub struct Endpoint {
    pub api_key_id: ApiKeyId,
    pub merchant_id: MerchantId,
    pub url: Option<String>,
    pub format: WebhookFormat,
    pub is_disabled: bool,
    pub failing_since: Option<Timestamp>,
}

pub async fn endpoint(db: &mut Connection, key: ApiKeyId) -> Result<Option<Endpoint>, StoreError> {
    db.query(
        "select id as api_key_id, merchant_id, webhook_url as url, webhook_format as format, \
         webhook_disabled_at is not null as is_disabled, webhook_failing_since as failing_since \
         from api_keys where id = $1",
    )
    .bind(key)
    .optional()
    .await
}

/// Claims up to `limit` due deliveries of an endpoint until `until`.
pub async fn claim(
    db: &mut Connection,
    key: ApiKeyId,
    now: Timestamp,
    until: Timestamp,
    limit: i64,
) -> Result<Vec<(DeliveryId, EventId)>, StoreError> {
    // The outer conditions are needed: PostgreSQL checks them again on a row that another claim has just
    // released.
    db.query(
        "update webhook_deliveries set next_attempt_at = $3 \
         where state = 'pending' and next_attempt_at <= $2 and id in ( \
         select id from webhook_deliveries where api_key_id = $1 and state = 'pending' \
         and next_attempt_at <= $2 order by next_attempt_at, id limit $4) returning id, event_id",
    )
    .bind(key)
    .bind(now)
    .bind(until)
    .bind(limit)
    .all()
    .await
}

/// Reads an event. It is an error if there is none.
pub async fn event(db: &mut Connection, id: EventId) -> Result<WebhookEvent, StoreError> {
    db.query(
        "select id, merchant_id, type, data, idempotency_key, created_at from webhook_events where id = $1",
    )
    .bind(id)
    .one()
    .await
}

/// A delivery after an attempt was counted.
#[derive(sqlx::FromRow)]
pub struct Counted {
    #[sqlx(rename = "attempts")]
    pub number: i64,
    pub tries: i64,
    pub began_at: Timestamp,
    pub state: DeliveryState,
    pub next_attempt_at: Timestamp,
}

/// Counts an attempt that began at `at`, and locks the delivery until the commit.
pub async fn count_attempt(tx: &mut Tx, id: DeliveryId, at: Timestamp) -> Result<Counted, StoreError> {
    tx.query(
        "update webhook_deliveries set attempts = attempts + 1, tries = tries + 1, \
         began_at = coalesce(began_at, $2) where id = $1 \
         returning attempts, tries, began_at, state, next_attempt_at",
    )
    .bind(id)
    .bind(at)
    .one()
    .await
}

pub async fn insert_attempt(tx: &mut Tx, id: DeliveryId, attempt: &Attempt) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "insert into webhook_attempts (delivery_id, number, at, status, error, latency_us, response) \
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id)
        .bind(attempt.number)
        .bind(attempt.at)
        .bind(attempt.status.map(i64::from))
        .bind(attempt.error)
        .bind(attempt.latency_us)
        .bind(attempt.response.clone())
        .execute()
        .await?;
    touched("webhook_attempts", rows, 1)
}

/// Finishes a delivery. It may become delivered even if it was given up in the meantime.
pub async fn finish(
    tx: &mut Tx,
    id: DeliveryId,
    state: DeliveryState,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "update webhook_deliveries set state = $2, finished_at = $3 where id = $1 and state <> 'delivered'",
        )
        .bind(id)
        .bind(state)
        .bind(now)
        .execute()
        .await?;
    touched("webhook_deliveries", rows, 1)
}

pub async fn retry_at(tx: &mut Tx, id: DeliveryId, at: Timestamp) -> Result<(), StoreError> {
    let rows = tx
        .query("update webhook_deliveries set next_attempt_at = $2 where id = $1 and state = 'pending'")
        .bind(id)
        .bind(at)
        .execute()
        .await?;
    touched("webhook_deliveries", rows, 1)
}

/// Gives up all pending deliveries of an endpoint that is gone, and returns how many.
pub async fn fail_pending(db: &mut Connection, key: ApiKeyId, now: Timestamp) -> Result<u64, StoreError> {
    db.query(
        "update webhook_deliveries set state = 'failed', finished_at = $2 \
         where api_key_id = $1 and state = 'pending'",
    )
    .bind(key)
    .bind(now)
    .execute()
    .await
}

/// Notes when an endpoint first failed since it last worked.
pub async fn note_failing(db: &mut Connection, key: ApiKeyId, now: Timestamp) -> Result<(), StoreError> {
    db.query(
        "update api_keys set webhook_failing_since = $2 where id = $1 and webhook_failing_since is null",
    )
    .bind(key)
    .bind(now)
    .execute()
    .await?;
    Ok(())
}

/// Forgets that an endpoint failed, because it works or has another URL now.
pub async fn note_working(db: &mut Connection, key: ApiKeyId) -> Result<(), StoreError> {
    db.query(
        "update api_keys set webhook_failing_since = null where id = $1 and webhook_failing_since is not null",
    )
    .bind(key)
    .execute()
    .await?;
    Ok(())
}

/// Disables an endpoint. `false` if it was disabled or got another URL in the meantime.
pub async fn disable_endpoint(
    tx: &mut Tx,
    key: ApiKeyId,
    url: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let rows = tx
        .query(
            "update api_keys set webhook_disabled_at = $3, updated_at = $3, version = version + 1 \
             where id = $1 and webhook_url = $2 and webhook_disabled_at is null",
        )
        .bind(key)
        .bind(url.to_owned())
        .bind(now)
        .execute()
        .await?;
    Ok(rows == 1)
}
