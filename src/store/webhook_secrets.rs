//! The signing secrets of webhooks. They are always sealed here.

use serde::Serialize;
use utoipa::ToSchema;

use super::driver::{Connection, Tx};
use super::{StoreError, touched};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, SecretId};
use crate::domain::secret::SecretHash;

/// A sealed secret. The seal is bound to its id.
#[derive(sqlx::FromRow)]
pub struct SealedSecret {
    pub id: SecretId,
    pub sealed: Vec<u8>,
}

pub async fn insert(
    tx: &mut Tx,
    key: ApiKeyId,
    secret: &SealedSecret,
    hash: SecretHash,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "insert into webhook_secrets (id, api_key_id, sealed, hash, created_at, merchant_id) \
             select $1, $2, $3, $4, $5, merchant_id from api_keys where id = $2",
        )
        .bind(secret.id)
        .bind(key)
        .bind(secret.sealed.clone())
        .bind(hash)
        .bind(now)
        .execute()
        .await?;
    touched("webhook_secrets", rows, 1)
}

/// A sealed secret and when it signs.
#[derive(sqlx::FromRow)]
pub struct SigningSecret {
    #[sqlx(flatten)]
    pub secret: SealedSecret,
    pub created_at: Timestamp,
    pub ends_at: Option<Timestamp>,
}

/// The newest 20 secrets of a key, including ended ones, newest first.
pub async fn all(db: &mut Connection, key: ApiKeyId) -> Result<Vec<SigningSecret>, StoreError> {
    db.query(
        "select id, sealed, created_at, ends_at from webhook_secrets where api_key_id = $1 \
         order by created_at desc, id desc limit 20",
    )
    .bind(key)
    .all()
    .await
}

/// A secret without the secret itself.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, ToSchema)]
#[schema(as = WebhookSecretView)]
pub struct ListedSecret {
    pub id: SecretId,
    pub created_at: Timestamp,
    /// When it stops signing; null while that is not known.
    pub ends_at: Option<Timestamp>,
}

/// The newest 20 secrets of a key, including ended ones, newest first.
pub async fn list(db: &mut Connection, key: ApiKeyId) -> Result<Vec<ListedSecret>, StoreError> {
    db.query(
        "select id, created_at, ends_at from webhook_secrets where api_key_id = $1 \
         order by created_at desc, id desc limit 20",
    )
    .bind(key)
    .all()
    .await
}

/// The secrets of a key that sign now, newest first.
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

/// Ends all secrets of a key at `end`, unless they end earlier anyway.
pub async fn end_all(tx: &mut Tx, key: ApiKeyId, end: Timestamp) -> Result<u64, StoreError> {
    tx.query(
        "update webhook_secrets set ends_at = $2 where api_key_id = $1 and (ends_at is null or ends_at > $2)",
    )
    .bind(key)
    .bind(end)
    .execute()
    .await
}

/// Finds a secret that signs now by its hash, and its key.
pub async fn live_by_hash(
    db: &mut Connection,
    hash: SecretHash,
    now: Timestamp,
) -> Result<Option<(SecretId, ApiKeyId)>, StoreError> {
    db.query(
        "select id, api_key_id from webhook_secrets where hash = $1 and (ends_at is null or ends_at > $2)",
    )
    .bind(hash)
    .bind(now)
    .optional()
    .await
}

/// Ends one secret now. `false` if it had already ended.
pub async fn end(tx: &mut Tx, id: SecretId, now: Timestamp) -> Result<bool, StoreError> {
    let rows = tx
        .query("update webhook_secrets set ends_at = $2 where id = $1 and (ends_at is null or ends_at > $2)")
        .bind(id)
        .bind(now)
        .execute()
        .await?;
    Ok(rows == 1)
}

/// The next secrets without a hash, after `after`.
pub async fn without_hash(db: &mut Connection, after: SecretId) -> Result<Vec<SealedSecret>, StoreError> {
    db.query("select id, sealed from webhook_secrets where hash is null and id > $1 order by id limit 200")
        .bind(after)
        .all()
        .await
}

pub async fn set_hash(tx: &mut Tx, id: SecretId, hash: SecretHash) -> Result<(), StoreError> {
    let rows =
        tx.query("update webhook_secrets set hash = $2 where id = $1").bind(id).bind(hash).execute().await?;
    touched("webhook_secrets", rows, 1)
}
