//! The outbox: events are stored in the transaction that caused them, and delivered later.

use super::driver::Tx;
use super::{StoreError, touched};
use crate::domain::entropy::Entropy;
use crate::domain::event::WebhookEvent;
use crate::domain::ids::{ApiKeyId, DeliveryId, EventId};

/// Which webhooks get an event.
#[derive(Clone, Copy, Debug)]
pub enum Audience {
    /// The webhook of the key that the event is about, even if the key was just revoked.
    Key(ApiKeyId),
    /// The webhooks of all the merchant's keys that are not revoked.
    Merchant,
}

/// Writes an event and a delivery for each of its webhooks.
///
/// # Errors
/// [`StoreError::Conflict`] if the idempotency key was already used.
pub async fn publish(
    tx: &mut Tx,
    event: &WebhookEvent,
    audience: Audience,
    entropy: &Entropy,
) -> Result<(), StoreError> {
    let written = publish_once(tx, event, audience, entropy).await?;
    touched("webhook_events", written.into(), 1)
}

/// Like [`publish`], but if the merchant already has an event with this idempotency key, it writes nothing
/// and returns `false`.
pub async fn publish_once(
    tx: &mut Tx,
    event: &WebhookEvent,
    audience: Audience,
    entropy: &Entropy,
) -> Result<bool, StoreError> {
    let rows = tx
        .query(
            "insert into webhook_events (id, merchant_id, type, data, idempotency_key, created_at) \
             values ($1, $2, $3, $4, $5, $6) on conflict (merchant_id, idempotency_key) do nothing",
        )
        .bind(event.id)
        .bind(event.merchant_id)
        .bind(event.event_type.clone())
        .bind(event.data.as_str().to_owned())
        .bind(event.idempotency_key.clone())
        .bind(event.created_at)
        .execute()
        .await?;
    if rows == 0 {
        return Ok(false);
    }
    fan_out(tx, event, audience, entropy).await?;
    Ok(true)
}

#[derive(sqlx::FromRow)]
struct EndpointRow {
    id: ApiKeyId,
    is_disabled: bool,
}

/// Writes one delivery for each endpoint. For a disabled endpoint the delivery is written as failed. So the
/// event is in its log, and can be redelivered when the endpoint is enabled again.
async fn fan_out(
    tx: &mut Tx,
    event: &WebhookEvent,
    audience: Audience,
    entropy: &Entropy,
) -> Result<(), StoreError> {
    let only = match audience {
        Audience::Key(id) => Some(id),
        Audience::Merchant => None,
    };
    let endpoints = tx
        .query(
            "select id, webhook_disabled_at is not null as is_disabled from api_keys \
             where merchant_id = $1 and webhook_url is not null \
             and (id = $2 or ($2 is null and revoked_at is null)) order by id",
        )
        .bind(event.merchant_id)
        .bind(only)
        .all::<EndpointRow>()
        .await?;
    for endpoint in endpoints {
        let rows = tx
            .query(
                "insert into webhook_deliveries (id, event_id, merchant_id, api_key_id, state, attempts, tries, \
                 next_attempt_at, created_at, finished_at) values ($1, $2, $3, $4, $5, 0, 0, $6, $6, $7)",
            )
            .bind(DeliveryId::generate(event.created_at, entropy))
            .bind(event.id)
            .bind(event.merchant_id)
            .bind(endpoint.id)
            .bind(if endpoint.is_disabled { "failed" } else { "pending" })
            .bind(event.created_at)
            .bind(endpoint.is_disabled.then_some(event.created_at))
            .execute()
            .await?;
        touched("webhook_deliveries", rows, 1)?;
        if !endpoint.is_disabled {
            tx.leaves_deliveries();
        }
    }
    Ok(())
}

/// An event that was published before.
#[derive(sqlx::FromRow)]
pub struct Published {
    pub id: EventId,
    #[sqlx(rename = "type")]
    pub event_type: String,
    pub data: String,
}

/// The event with the merchant's idempotency key. It is an error if there is none.
pub async fn by_idempotency_key(tx: &mut Tx, event: &WebhookEvent) -> Result<Published, StoreError> {
    tx.query("select id, type, data from webhook_events where merchant_id = $1 and idempotency_key = $2")
        .bind(event.merchant_id)
        .bind(event.idempotency_key.clone())
        .one()
        .await
}
