//! Sessions: ending, listing and counting them. The hot path has its own statements, in [`super::hot`].

use constcat::concat;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};
use utoipa::ToSchema;

use super::StoreError;
use super::driver::{Connection, Tx};
use super::merchants::{self, IS_HERE};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, CredentialId, Id, MerchantId, SessionId};

/// Revokes a session. `false` if it was already revoked, or does not exist. Fails with [`StoreError::Elsewhere`] if
/// another cell serves its merchant, because the revocation would be lost.
pub async fn revoke(
    tx: &mut Tx,
    id: SessionId,
    reason: &'static str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let rows = tx
        .query(concat!(
            "update sessions set revoked_at = $2, revoked_reason = $3 where id = $1 and revoked_at is null and ",
            IS_HERE
        ))
        .bind(id)
        .bind(now)
        .bind(reason)
        .execute()
        .await?;
    if rows == 0
        && let Some(merchant) = merchant_of(tx, id).await?
    {
        merchants::by_id(tx, merchant).await?;
    }
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

/// What has become of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, IntoStaticStr, EnumString, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    Active,
    Expired,
    /// Revoked, or over because its credentials were switched OFF.
    Ended,
}

/// Which sessions to list. `None` means any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub api_key_id: Option<ApiKeyId>,
    /// The beginning of a client id.
    pub client_id: Option<String>,
    pub status: Option<Status>,
    /// Started at or after this time.
    pub from: Option<Timestamp>,
    /// Started before this time.
    pub to: Option<Timestamp>,
}

impl Filter {
    const fn narrows(&self) -> bool {
        self.api_key_id.is_some() || self.client_id.is_some() || self.status.is_some()
    }
}

const IN_RANGE: &str = concat!(
    LISTED,
    " where s.merchant_id = $1 and s.id >= $2 and s.id < $3 and s.started_at >= $4 and s.started_at < $5"
);
const NARROWED: &str = concat!(
    " and (c.api_key_id = $7 or $7 is null) and (c.client_id like lower($8) escape '!' or $8 is null) \
     and (case when s.revoked_at is not null or s.epoch <> c.epoch then 'ended' \
     when s.expires_at <= $10 then 'expired' else 'active' end = $9 or $9 is null)"
);
const NEWEST_FIRST: &str = " order by s.id desc limit $6";

/// A page of those of a merchant's sessions that match, newest first, starting before `before`.
pub async fn list(
    db: &mut Connection,
    merchant: MerchantId,
    filter: &Filter,
    before: Option<SessionId>,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Listed>, StoreError> {
    // Ids begin with the time of the start, so both ends of the time are also ends of the id, which has an index.
    // A list of everything has a statement of its own, so that its plan never depends on what could be absent.
    let sql = match filter.narrows() {
        true => concat!(IN_RANGE, NARROWED, NEWEST_FIRST),
        false => concat!(IN_RANGE, NEWEST_FIRST),
    };
    let end = before.unwrap_or(Id::max()).min(filter.to.map_or(Id::max(), Id::first_after));
    let query = db
        .query(sql)
        .bind(merchant)
        .bind(filter.from.map_or(SessionId::nil(), SessionId::first_of))
        .bind(end)
        .bind(filter.from.unwrap_or(Timestamp::MIN))
        .bind(filter.to.unwrap_or(Timestamp::MAX))
        .bind(limit);
    if !filter.narrows() {
        return query.all().await;
    }
    query
        .bind(filter.api_key_id)
        .bind(filter.client_id.as_deref().map(super::beginning))
        .bind(filter.status.map(|status| <&str>::from(status).to_owned()))
        .bind(now)
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
