//! Sessions: ending, listing and counting them. The hot path has its own statements, in [`super::hot`].

use constcat::concat;
use serde::Serialize;
use utoipa::ToSchema;

use super::StoreError;
use super::driver::{Connection, Tx};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, CredentialId, Id, MerchantId, SessionId};

/// Revokes a session. `false` if it was already revoked, or does not exist.
pub async fn revoke(
    tx: &mut Tx,
    id: SessionId,
    reason: &'static str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let rows = tx
        .query(
            "update sessions set revoked_at = $2, revoked_reason = $3 where id = $1 and revoked_at is null",
        )
        .bind(id)
        .bind(now)
        .bind(reason)
        .execute()
        .await?;
    Ok(rows == 1)
}

/// A session for the admin API, without its secret.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, ToSchema)]
pub struct Listed {
    pub id: SessionId,
    #[serde(skip)]
    pub merchant_id: MerchantId,
    pub client_id: String,
    pub api_key_id: ApiKeyId,
    #[serde(skip)]
    pub epoch: i64,
    #[serde(skip)]
    pub credential_epoch: i64,
    /// 1 at the start. Each refresh adds one.
    pub generation: i64,
    pub started_at: Timestamp,
    pub rotated_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    /// `revoked`, `replayed` or `ended_by_admin`.
    pub revoked_reason: Option<String>,
}

const LISTED: &str = "select s.id, s.merchant_id, c.client_id, c.api_key_id, s.epoch, c.epoch as credential_epoch, s.generation, \
     s.started_at, s.rotated_at, s.expires_at, s.revoked_at, s.revoked_reason \
     from sessions s join credentials c on c.id = s.credential_id";

/// A session, even if it has ended.
pub async fn one(db: &mut Connection, id: SessionId) -> Result<Option<Listed>, StoreError> {
    db.query(concat!(LISTED, " where s.id = $1")).bind(id).optional().await
}

/// A page of a merchant's sessions, newest first, starting before `before`.
pub async fn list(
    db: &mut Connection,
    merchant: MerchantId,
    before: Option<SessionId>,
    limit: i64,
) -> Result<Vec<Listed>, StoreError> {
    db.query(concat!(LISTED, " where s.merchant_id = $1 and s.id < $2 order by s.id desc limit $3"))
        .bind(merchant)
        .bind(before.unwrap_or(Id::max()))
        .bind(limit)
        .all()
        .await
}

/// Which sessions to list. `None` means any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub api_key_id: Option<ApiKeyId>,
    /// The beginning of a client id.
    pub client_id: Option<String>,
    /// `active`, `expired` or `ended`.
    pub state: Option<String>,
}

/// A page of those of a merchant's sessions that match, newest first, starting before `before`.
pub async fn found(
    db: &mut Connection,
    merchant: MerchantId,
    filter: &Filter,
    before: Option<SessionId>,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Listed>, StoreError> {
    const MATCHING: &str = concat!(
        LISTED,
        " where s.merchant_id = $1 and s.id < $2 and (c.api_key_id = $3 or $3 is null) \
         and (c.client_id like lower($4) escape '!' or $4 is null) \
         and (case when s.revoked_at is not null or s.epoch <> c.epoch then 'ended' \
         when s.expires_at <= $6 then 'expired' else 'active' end = $5 or $5 is null) \
         order by s.id desc limit $7"
    );
    db.query(MATCHING)
        .bind(merchant)
        .bind(before.unwrap_or(Id::max()))
        .bind(filter.api_key_id)
        .bind(filter.client_id.as_deref().map(super::beginning))
        .bind(filter.state.clone())
        .bind(now)
        .bind(limit)
        .all()
        .await
}

/// How many sessions of a merchant are live. If a key or client is given, only its sessions count. Counting
/// stops at `count_max`.
pub async fn count_live(
    db: &mut Connection,
    merchant: MerchantId,
    key: Option<ApiKeyId>,
    client: Option<CredentialId>,
    now: Timestamp,
    count_max: i64,
) -> Result<i64, StoreError> {
    db.query(
        "select count(*) from (select 1 as one from sessions s join credentials c on c.id = s.credential_id \
         where s.merchant_id = $1 and (c.api_key_id = $2 or $2 is null) and (c.id = $3 or $3 is null) \
         and s.revoked_at is null and s.expires_at > $4 and s.epoch = c.epoch limit $5) as live",
    )
    .bind(merchant)
    .bind(key)
    .bind(client)
    .bind(now)
    .bind(count_max)
    .one::<(i64,)>()
    .await
    .map(|(count,)| count)
}

/// The merchant of a session.
pub async fn merchant_of(db: &mut Connection, id: SessionId) -> Result<Option<MerchantId>, StoreError> {
    let row = db.query("select merchant_id from sessions where id = $1").bind(id).optional::<(MerchantId,)>();
    Ok(row.await?.map(|(merchant,)| merchant))
}
