//! Stored answers for `Idempotency-Key`. They are sealed, and given again to clients that lost them.

use uuid::Uuid;

use super::driver::{Connection, Tx};
use super::{StoreError, touched};
use crate::domain::clock::Timestamp;

/// The answer stored for an actor's key, if it is not older than `since`. `key` is the hash of the key.
pub async fn find(
    db: &mut Connection,
    actor: Uuid,
    key: &str,
    since: Timestamp,
) -> Result<Option<Vec<u8>>, StoreError> {
    let row = db
        .query(
            "select sealed from idempotency_keys \
         where actor_id = $1 and key = $2 and created_at > $3",
        )
        .bind(actor)
        .bind(key.to_owned())
        .bind(since)
        .optional::<(Vec<u8>,)>()
        .await?;
    Ok(row.map(|(sealed,)| sealed))
}

/// Stores an answer in the transaction that created its object. Replaces an answer that is too old.
///
/// # Errors
/// [`StoreError::Conflict`] if another call with the same key was first.
pub async fn keep(
    tx: &mut Tx,
    actor: Uuid,
    key: &str,
    sealed: Vec<u8>,
    now: Timestamp,
    since: Timestamp,
) -> Result<(), StoreError> {
    tx.query("delete from idempotency_keys where actor_id = $1 and key = $2 and created_at <= $3")
        .bind(actor)
        .bind(key.to_owned())
        .bind(since)
        .execute()
        .await?;
    let rows = tx
        .query("insert into idempotency_keys (actor_id, key, sealed, created_at) values ($1, $2, $3, $4)")
        .bind(actor)
        .bind(key.to_owned())
        .bind(sealed)
        .bind(now)
        .execute()
        .await?;
    touched("idempotency_keys", rows, 1)
}
