//! The outbox: events are written in the transaction that caused them, and delivered later.

use super::driver::Tx;
use super::{StoreError, touched};
use crate::domain::entropy::Entropy;
use crate::domain::event::WebhookEvent;
use crate::domain::ids::{ApiKeyId, DeliveryId};

/// Whose webhooks tell of an event.
#[derive(Clone, Copy, Debug)]
pub enum Audience {
    /// The one key that it is about, even if it has just been revoked.
    Key(ApiKeyId),
    /// Every key of the merchant that is not revoked.
    Merchant,
}

/// Writes an event, and a delivery for each webhook that is to tell of it.
///
/// # Errors
/// [`StoreError`]; [`StoreError::Conflict`] when the idempotency key was used before.
pub async fn publish(
    tx: &mut Tx,
    event: &WebhookEvent,
    audience: Audience,
    entropy: &Entropy,
) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "insert into webhook_events (id, merchant_id, type, data, idempotency_key, created_at) \
             values ($1, $2, $3, $4, $5, $6)",
        )
        .bind(event.id)
        .bind(event.merchant_id)
        .bind(event.event_type.clone())
        .bind(event.data.to_string())
        .bind(event.idempotency_key.clone())
        .bind(event.created_at)
        .execute()
        .await?;
    touched("webhook_events", rows, 1)?;
    let only = match audience {
        Audience::Key(id) => Some(id),
        Audience::Merchant => None,
    };
    let keys = tx
        .query(
            "select id from api_keys where merchant_id = $1 and webhook_url is not null \
             and webhook_disabled_at is null and (id = $2 or ($2 is null and revoked_at is null)) order by id",
        )
        .bind(event.merchant_id)
        .bind(only)
        .all::<(ApiKeyId,)>()
        .await?;
    for (key,) in keys {
        let rows = tx
            .query(
                "insert into webhook_deliveries (id, event_id, merchant_id, api_key_id, state, attempts, \
                 next_attempt_at, created_at) values ($1, $2, $3, $4, 'pending', 0, $5, $5)",
            )
            .bind(DeliveryId::generate(event.created_at, entropy))
            .bind(event.id)
            .bind(event.merchant_id)
            .bind(key)
            .bind(event.created_at)
            .execute()
            .await?;
        touched("webhook_deliveries", rows, 1)?;
    }
    Ok(())
}
