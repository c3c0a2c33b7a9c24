//! Merchants and licences.

use constcat::concat;

use super::driver::{Connection, Sql, Tx};
use super::{StoreError, like, touched};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{Id, MerchantId};
use crate::domain::licence::{Licence, Product};
use crate::domain::merchant::Merchant;

const COLUMNS: &str = "id, name, gateway, status, revision, created_at, updated_at";
/// For a row of `merchants`: both licences.
const LICENCES: &str = "(select active from licences where merchant_id = merchants.id and product = 'api_keys') as api_keys_active, \
     (select expires_at from licences where merchant_id = merchants.id and product = 'api_keys') \
     as api_keys_expires_at, \
     (select active from licences where merchant_id = merchants.id and product = 'enhanced_security') \
     as enhanced_security_active, \
     (select expires_at from licences where merchant_id = merchants.id and product = 'enhanced_security') \
     as enhanced_security_expires_at";

/// For a row of `merchants`: whether another cell serves it.
pub(super) const IS_ELSEWHERE: &str =
    "home is not null and home <> coalesce((select number from cell), -2) as is_elsewhere";

const SELECT: &str = concat!("select ", COLUMNS, ", ", LICENCES, ", ", IS_ELSEWHERE, " from merchants");

/// For a row with a `merchant_id`: whether this cell serves the merchant, or the row has none.
pub(super) const IS_HERE: &str = "(merchant_id is null or exists (select 1 from merchants m \
     where m.id = merchant_id and (m.home is null or m.home = (select number from cell))))";

/// Writes a new merchant, which has no licences yet.
pub async fn insert(tx: &mut Tx, merchant: &Merchant) -> Result<(), StoreError> {
    let rows = tx
        .query(concat!("insert into merchants (", COLUMNS, ") values ($1, $2, $3, $4, $5, $6, $7)"))
        .bind(merchant.id)
        .bind(merchant.name.clone())
        .bind(merchant.gateway.clone())
        .bind(merchant.status)
        .bind(merchant.revision)
        .bind(merchant.created_at)
        .bind(merchant.updated_at)
        .execute()
        .await?;
    touched("merchants", rows, 1)
}

/// Fails with [`StoreError::Elsewhere`] if another cell serves the merchant.
pub async fn by_id(db: &mut Connection, id: MerchantId) -> Result<Option<Merchant>, StoreError> {
    let found: Option<Merchant> = db.query(concat!(SELECT, " where id = $1")).bind(id).optional().await?;
    if found.as_ref().is_some_and(|merchant| merchant.is_elsewhere) {
        return Err(StoreError::Elsewhere);
    }
    Ok(found)
}

/// A page of merchants, newest first, starting before `before`.
pub async fn list(
    db: &mut Connection,
    before: Option<MerchantId>,
    limit: i64,
) -> Result<Vec<Merchant>, StoreError> {
    db.query(concat!(SELECT, " where id < $1 order by id desc limit $2"))
        .bind(before.unwrap_or(Id::max()))
        .bind(limit)
        .all()
        .await
}

/// Merchants whose name contains this text, newest first, starting before `before`.
pub async fn named(
    db: &mut Connection,
    part: &str,
    before: Option<MerchantId>,
    limit: i64,
) -> Result<Vec<Merchant>, StoreError> {
    db.query(concat!(
        SELECT,
        " where id < $1 and lower(name) like lower($2) escape '!' order by id desc limit $3"
    ))
    .bind(before.unwrap_or(Id::max()))
    .bind(like(part))
    .bind(limit)
    .all()
    .await
}

/// Merchants with exactly this name, newest first, at most 100. Reads the whole table, so it is only for the command
/// line.
pub async fn called(db: &mut Connection, name: &str) -> Result<Vec<Merchant>, StoreError> {
    db.query(concat!(SELECT, " where name = $1 order by id desc limit 100")).bind(name.to_owned()).all().await
}

/// Writes the fields that an operator can change. [`put_licence`] writes a licence.
pub async fn update(tx: &mut Tx, merchant: &Merchant) -> Result<(), StoreError> {
    let rows = tx
        .query("update merchants set name = $2, gateway = $3, status = $4, updated_at = $5 where id = $1")
        .bind(merchant.id)
        .bind(merchant.name.clone())
        .bind(merchant.gateway.clone())
        .bind(merchant.status)
        .bind(merchant.updated_at)
        .execute()
        .await?;
    touched("merchants", rows, 1)
}

/// The next revision is the database's time in microseconds, or the last revision plus one if the clock is
/// behind. A simple counter would reuse revisions after a restore, and a record that was cached before the
/// restore could then be taken for a current one.
const LOCK: Sql = Sql {
    postgres: "update merchants \
               set revision = greatest(revision + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint) \
               where id = $1 and (home is null or home = (select number from cell))",
    sqlite: "update merchants \
             set revision = max(revision + 1, cast(unixepoch('now', 'subsec') * 1000000 as integer)) \
             where id = $1 and (home is null or home = (select number from cell))",
};

/// Every change to a merchant begins with this. It raises the revision, which invalidates all cached records.
/// It also locks the merchant's row until the commit, so that changes to a merchant happen one after the
/// other. `false` if there is no such merchant. Fails with [`StoreError::Elsewhere`] if another cell serves it.
///
/// Read the merchant in a statement after this one. If this statement waited for the lock, licences that it
/// returned on PostgreSQL would be those from before the wait.
pub async fn lock(tx: &mut Tx, id: MerchantId) -> Result<bool, StoreError> {
    if tx.query_of(&LOCK).bind(id).execute().await? == 1 {
        return Ok(true);
    }
    by_id(tx, id).await.map(|found| found.is_some())
}

pub async fn put_licence(
    tx: &mut Tx,
    merchant: MerchantId,
    product: Product,
    licence: Licence,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "insert into licences (merchant_id, product, active, expires_at, updated_at) \
             values ($1, $2, $3, $4, $5) \
             on conflict (merchant_id, product) do update \
             set active = excluded.active, expires_at = excluded.expires_at, updated_at = excluded.updated_at",
        )
        .bind(merchant)
        .bind(product)
        .bind(licence.active)
        .bind(licence.expires_at)
        .bind(now)
        .execute()
        .await?;
    touched("licences", rows, 1)
}
