//! Deadlines of API keys and licences, and which of them were announced.
//!
//! A row stores the deadline that was announced last. So each deadline is announced once, by the replica that
//! writes it. If a deadline is moved, the new one is announced too.

use constcat::concat;

use super::StoreError;
use super::driver::{Connection, Tx};
use super::merchants::IS_HERE;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, MerchantId};
use crate::domain::licence::Product;

/// The most deadlines that one call returns.
pub const PAGE: usize = 100;

/// What is announced about a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Expiring,
    Expired,
}

/// When a key stops working.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct KeyDeadline {
    pub id: ApiKeyId,
    pub merchant_id: MerchantId,
    pub name: String,
    pub expires_at: Timestamp,
}

/// When a licence expires.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct LicenceDeadline {
    pub merchant_id: MerchantId,
    pub product: Product,
    pub expires_at: Timestamp,
}

/// The deadlines after `after` and up to `until` that were not announced yet, of keys that are not revoked.
pub async fn of_keys(
    db: &mut Connection,
    stage: Stage,
    after: Timestamp,
    until: Timestamp,
) -> Result<Vec<KeyDeadline>, StoreError> {
    let sql = match stage {
        Stage::Expiring => {
            concat!(
                "select id, merchant_id, name, expires_at from api_keys \
             where expires_at > $1 and expires_at <= $2 and revoked_at is null \
             and (expiring_told_for is null or expiring_told_for <> expires_at) and ",
                IS_HERE,
                " order by expires_at limit 100"
            )
        }
        Stage::Expired => {
            concat!(
                "select id, merchant_id, name, expires_at from api_keys \
             where expires_at > $1 and expires_at <= $2 and revoked_at is null \
             and (expired_told_for is null or expired_told_for <> expires_at) and ",
                IS_HERE,
                " order by expires_at limit 100"
            )
        }
    };
    db.query(sql).bind(after).bind(until).all().await
}

/// Marks a key's deadline as announced. `false` if it already was, or the deadline has changed.
pub async fn tell_key(tx: &mut Tx, stage: Stage, deadline: &KeyDeadline) -> Result<bool, StoreError> {
    let sql = match stage {
        Stage::Expiring => {
            "update api_keys set expiring_told_for = expires_at where id = $1 and expires_at = $2 \
             and revoked_at is null and (expiring_told_for is null or expiring_told_for <> expires_at)"
        }
        Stage::Expired => {
            "update api_keys set expired_told_for = expires_at where id = $1 and expires_at = $2 \
             and revoked_at is null and (expired_told_for is null or expired_told_for <> expires_at)"
        }
    };
    let rows = tx.query(sql).bind(deadline.id).bind(deadline.expires_at).execute().await?;
    Ok(rows == 1)
}

/// The same for active licences.
pub async fn of_licences(
    db: &mut Connection,
    stage: Stage,
    after: Timestamp,
    until: Timestamp,
) -> Result<Vec<LicenceDeadline>, StoreError> {
    let sql = match stage {
        Stage::Expiring => {
            concat!(
                "select merchant_id, product, expires_at from licences \
             where expires_at > $1 and expires_at <= $2 and active \
             and (expiring_told_for is null or expiring_told_for <> expires_at) and ",
                IS_HERE,
                " order by expires_at limit 100"
            )
        }
        Stage::Expired => {
            concat!(
                "select merchant_id, product, expires_at from licences \
             where expires_at > $1 and expires_at <= $2 and active \
             and (expired_told_for is null or expired_told_for <> expires_at) and ",
                IS_HERE,
                " order by expires_at limit 100"
            )
        }
    };
    db.query(sql).bind(after).bind(until).all().await
}

pub async fn tell_licence(tx: &mut Tx, stage: Stage, deadline: &LicenceDeadline) -> Result<bool, StoreError> {
    let sql = match stage {
        Stage::Expiring => {
            "update licences set expiring_told_for = expires_at \
             where merchant_id = $1 and product = $2 and expires_at = $3 and active \
             and (expiring_told_for is null or expiring_told_for <> expires_at)"
        }
        Stage::Expired => {
            "update licences set expired_told_for = expires_at \
             where merchant_id = $1 and product = $2 and expires_at = $3 and active \
             and (expired_told_for is null or expired_told_for <> expires_at)"
        }
    };
    let rows = tx
        .query(sql)
        .bind(deadline.merchant_id)
        .bind(deadline.product)
        .bind(deadline.expires_at)
        .execute()
        .await?;
    Ok(rows == 1)
}
