//! Admin tokens, for the admin API and for introspection.

use constcat::concat;

use super::columns::Column;
use super::driver::{Connection, Sql, Tx};
use super::merchants::IS_HERE;
use super::{StoreError, touched};
use crate::domain::admin::AdminToken;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{AdminTokenId, Id, MerchantId};
use crate::domain::secret::SecretHash;
use crate::domain::stored::JsonText;

const COLUMNS: &str = "id, name, role, merchant_id, permissions, allowed_ips, overlap_secs, earlier_ends_at, \
                       created_at, expires_at, revoked_at, last_used_at";
/// Without the tokens of merchants that another cell serves. One that was revoked there must not work here, so nobody
/// finds them here.
const SELECT: &str = concat!("select ", COLUMNS, " from admin_tokens where ", IS_HERE);

/// A token that was found by one of its two secrets.
#[derive(Clone, sqlx::FromRow)]
pub struct Presented {
    #[sqlx(flatten)]
    pub token: AdminToken,
    /// The token was found by its previous secret.
    pub is_earlier: bool,
}

impl Presented {
    /// Whether the secret that was presented works at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.token.is_live(now) && (!self.is_earlier || self.earlier_is_live(now))
    }

    /// Whether there is a previous secret that still works.
    pub fn earlier_is_live(&self, now: Timestamp) -> bool {
        self.token.overlap.is_some_and(|overlap| overlap.earlier_ends_at.is_none_or(|end| end > now))
    }
}

pub async fn insert(tx: &mut Tx, token: &AdminToken, hash: SecretHash) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "insert into admin_tokens (id, name, role, merchant_id, permissions, hash, created_at, expires_at, \
             allowed_ips) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(token.id)
        .bind(token.name.clone())
        .bind(token.role)
        .bind(token.merchant_id)
        .bind(JsonText(token.permissions.clone()))
        .bind(hash)
        .bind(token.created_at)
        .bind(token.expires_at)
        .bind(token.allow_list.clone())
        .execute()
        .await?;
    touched("admin_tokens", rows, 1)
}

const PRESENTED: &str = concat!(
    "select ",
    COLUMNS,
    ", hash <> $1 as is_earlier from admin_tokens where (hash = $1 or earlier_hash = $1)"
);

/// `None` also if another cell serves the token's merchant.
pub async fn by_hash(db: &mut Connection, hash: SecretHash) -> Result<Option<Presented>, StoreError> {
    db.query(concat!(PRESENTED, " and ", IS_HERE)).bind(hash).optional().await
}

/// Also a token that does not work here because another cell serves its merchant.
pub async fn by_hash_in_any_cell(
    db: &mut Connection,
    hash: SecretHash,
) -> Result<Option<Presented>, StoreError> {
    db.query(PRESENTED).bind(hash).optional().await
}

pub async fn by_id(db: &mut Connection, id: AdminTokenId) -> Result<Option<AdminToken>, StoreError> {
    db.query(concat!(SELECT, " and id = $1")).bind(id).optional().await
}

/// A page of tokens of one merchant or of all, newest first, starting before `before`.
pub async fn list(
    db: &mut Connection,
    merchant: Option<MerchantId>,
    before: Option<AdminTokenId>,
    limit: i64,
) -> Result<Vec<AdminToken>, StoreError> {
    let sql = match merchant {
        Some(_) => concat!(SELECT, " and id < $1 and merchant_id = $3 order by id desc limit $2"),
        None => concat!(SELECT, " and id < $1 order by id desc limit $2"),
    };
    db.query(sql).bind(before.unwrap_or(Id::max())).bind(limit).bind_if(merchant).all().await
}

/// Live tokens with the rights of an operator, or with permissions in addition to their role. Only those made
/// at `until` or before, oldest first, at most 1000.
pub async fn broad(
    db: &mut Connection,
    now: Timestamp,
    until: Timestamp,
) -> Result<Vec<AdminToken>, StoreError> {
    const BROAD: &str = concat!(
        SELECT,
        " and revoked_at is null and (expires_at is null or expires_at > $1) and created_at <= $2 \
         and role <> 'service' and (role = 'operator' or permissions <> '[]') order by id limit 1000"
    );
    db.query(BROAD).bind(now).bind(until).all().await
}

/// Records that the audit trail says that the token should be narrowed. `false` if it was recorded before.
pub async fn tell_narrow(tx: &mut Tx, id: AdminTokenId, now: Timestamp) -> Result<bool, StoreError> {
    let query = "update admin_tokens set narrow_told_at = $2 where id = $1 and narrow_told_at is null";
    Ok(tx.query(query).bind(id).bind(now).execute().await? == 1)
}

/// How many tokens of a merchant are neither revoked nor expired.
pub async fn count_live(
    db: &mut Connection,
    merchant: MerchantId,
    now: Timestamp,
) -> Result<i64, StoreError> {
    db.query(
        "select count(*) from admin_tokens where merchant_id = $1 and revoked_at is null \
         and (expires_at is null or expires_at > $2)",
    )
    .bind(merchant)
    .bind(now)
    .one::<(i64,)>()
    .await
    .map(|(count,)| count)
}

/// Gives a token a new secret. The current secret becomes the previous one and keeps working. If the current
/// secret was never used, the previous one stays instead.
pub async fn rotate(
    tx: &mut Tx,
    id: AdminTokenId,
    hash: SecretHash,
    overlap_secs: i64,
) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "update admin_tokens set hash = $2, overlap_secs = $3, \
             earlier_hash = case when overlap_secs is null or earlier_ends_at is not null then hash \
             else earlier_hash end, earlier_ends_at = null where id = $1",
        )
        .bind(id)
        .bind(hash)
        .bind(overlap_secs)
        .execute()
        .await?;
    touched("admin_tokens", rows, 1)
}

/// Sets when the previous secret ends, after the first use of the newest one or after a leak. The time is
/// never moved later.
pub async fn end_earlier(tx: &mut Tx, id: AdminTokenId, at: Timestamp) -> Result<(), StoreError> {
    tx.query(
        "update admin_tokens set earlier_ends_at = $2 \
         where id = $1 and overlap_secs is not null and (earlier_ends_at is null or earlier_ends_at > $2)",
    )
    .bind(id)
    .bind(at)
    .execute()
    .await
    .map(drop)
}

/// Ends the newest secret of a token. The previous one keeps working.
pub async fn end_newest(tx: &mut Tx, id: AdminTokenId) -> Result<(), StoreError> {
    let query = "update admin_tokens set hash = earlier_hash, earlier_hash = null, overlap_secs = null, \
                 earlier_ends_at = null where id = $1 and earlier_hash is not null";
    touched("admin_tokens", tx.query(query).bind(id).execute().await?, 1)
}

pub async fn rename(tx: &mut Tx, id: AdminTokenId, name: &str) -> Result<(), StoreError> {
    let query = tx.query("update admin_tokens set name = $2 where id = $1").bind(id).bind(name.to_owned());
    touched("admin_tokens", query.execute().await?, 1)
}

/// Tokens with exactly this name, those that are not revoked first, then newest first, at most 100. Reads the whole
/// table, so it is only for the command line.
pub async fn called(db: &mut Connection, name: &str) -> Result<Vec<AdminToken>, StoreError> {
    const CALLED: &str = concat!(SELECT, " and name = $1 order by revoked_at is not null, id desc limit 100");
    db.query(CALLED).bind(name.to_owned()).all().await
}

/// Revokes a token. `false` if it was already revoked.
pub async fn revoke(tx: &mut Tx, id: AdminTokenId, now: Timestamp) -> Result<bool, StoreError> {
    let rows = tx
        .query("update admin_tokens set revoked_at = $2 where id = $1 and revoked_at is null")
        .bind(id)
        .bind(now)
        .execute()
        .await?;
    Ok(rows == 1)
}

/// Hashes of tokens that may work, newest first.
pub async fn hashes(db: &mut Connection, now: Timestamp, limit: i64) -> Result<Vec<SecretHash>, StoreError> {
    let rows = db
        .query(
            "select hash, earlier_hash from admin_tokens where revoked_at is null \
             and (expires_at is null or expires_at > $1) order by id desc limit $2",
        )
        .bind(now)
        .bind(limit)
        .all::<(Vec<u8>, Option<Vec<u8>>)>()
        .await?;
    let hashes = rows.into_iter().flat_map(|(newest, earlier)| [Some(newest), earlier]).flatten();
    Ok(hashes.filter_map(|hash| hash.try_into().ok().map(SecretHash::from_bytes)).collect())
}

const NOTE_USES: Sql = Sql {
    postgres: "update admin_tokens set last_used_at = c.at from unnest($1::uuid[], $2::bigint[]) as c (id, at) \
               where admin_tokens.id = c.id",
    sqlite: "update admin_tokens set last_used_at = c.at \
             from (select unhex(value ->> 0) as id, value ->> 1 as at from jsonb_each($1)) as c \
             where admin_tokens.id = c.id",
};

pub async fn note_uses(
    db: &mut Connection,
    mut uses: Vec<(AdminTokenId, Timestamp)>,
) -> Result<(), StoreError> {
    uses.sort_unstable();
    let columns =
        vec![Column::ids(uses.iter().map(|(id, _)| *id)), Column::times(uses.iter().map(|(_, at)| *at))];
    db.batch(&NOTE_USES, columns).execute().await?;
    Ok(())
}
