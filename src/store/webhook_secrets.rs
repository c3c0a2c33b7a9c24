//! The signing secrets of webhooks, sealed: this file never sees one in clear.

use super::driver::{Connection, Tx};
use super::{StoreError, touched};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, SecretId};

/// A sealed secret. Its id is what it is sealed for.
#[derive(sqlx::FromRow)]
pub struct SealedSecret {
    pub id: SecretId,
    pub sealed: Vec<u8>,
}

/// # Errors
/// [`StoreError`], as for all below.
pub async fn insert(
    tx: &mut Tx,
    key: ApiKeyId,
    secret: &SealedSecret,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rows = tx
        .query("insert into webhook_secrets (id, api_key_id, sealed, created_at) values ($1, $2, $3, $4)")
        .bind(secret.id)
        .bind(key)
        .bind(secret.sealed.clone())
        .bind(now)
        .execute()
        .await?;
    touched("webhook_secrets", rows, 1)
}

/// The secrets of a key that sign now, newest first.
///
/// # Errors
/// [`StoreError`].
pub async fn live(
    db: &mut Connection,
    key: ApiKeyId,
    now: Timestamp,
) -> Result<Vec<SealedSecret>, StoreError> {
    db.query(
        "select id, sealed from webhook_secrets where api_key_id = $1 and (ends_at is null or ends_at > $2) \
         order by created_at desc, id desc",
    )
    .bind(key)
    .bind(now)
    .all()
    .await
}

/// Lets every secret of a key end at `end`, if it does not end before.
///
/// # Errors
/// [`StoreError`].
pub async fn end_all(tx: &mut Tx, key: ApiKeyId, end: Timestamp) -> Result<u64, StoreError> {
    tx.query(
        "update webhook_secrets set ends_at = $2 where api_key_id = $1 and (ends_at is null or ends_at > $2)",
    )
    .bind(key)
    .bind(end)
    .execute()
    .await
}
