//! Admin tokens, for the admin API and for introspection.

use std::fmt::Display;

use super::columns::Column;
use super::driver::{Connection, Sql, Tx};
use super::{StoreError, parse_name, touched};
use crate::domain::admin::{AdminToken, Permission, TokenOverlap};
use crate::domain::allow_list::AllowList;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{AdminTokenId, MerchantId};
use crate::domain::secret::SecretHash;

#[derive(sqlx::FromRow)]
struct AdminTokenRow {
    id: AdminTokenId,
    name: String,
    role: String,
    merchant_id: Option<MerchantId>,
    permissions: String,
    allowed_ips: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    overlap_secs: Option<i64>,
    earlier_ends_at: Option<Timestamp>,
    is_earlier: bool,
}

/// A token that was found by one of its two secrets.
#[derive(Clone)]
pub struct Presented {
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

impl TryFrom<AdminTokenRow> for AdminToken {
    type Error = StoreError;
    fn try_from(row: AdminTokenRow) -> Result<Self, StoreError> {
        let impossible = |column: &str, error: &dyn Display| StoreError::Impossible {
            table: "admin_tokens",
            what: format!("{column} of {}: {error}", row.id),
        };
        let permissions: Vec<Permission> =
            serde_json::from_str(&row.permissions).map_err(|error| impossible("permissions", &error))?;
        let ranges: Vec<String> =
            serde_json::from_str(&row.allowed_ips).map_err(|error| impossible("allowed_ips", &error))?;
        let allow_list = AllowList::parse(&ranges).map_err(|error| impossible("allowed_ips", &error))?;
        Ok(Self {
            id: row.id,
            name: row.name,
            role: parse_name("admin_tokens", &row.role)?,
            merchant_id: row.merchant_id,
            permissions,
            allow_list,
            overlap: row.overlap_secs.map(|secs| TokenOverlap { secs, earlier_ends_at: row.earlier_ends_at }),
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        })
    }
}

pub async fn insert(tx: &mut Tx, token: &AdminToken, hash: SecretHash) -> Result<(), StoreError> {
    let permissions = serde_json::to_string(&token.permissions)
        .map_err(|error| StoreError::Impossible { table: "admin_tokens", what: error.to_string() })?;
    let rows = tx
        .query(
            "insert into admin_tokens (id, name, role, merchant_id, permissions, hash, created_at, expires_at, \
             allowed_ips) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(token.id)
        .bind(token.name.clone())
        .bind(<&str>::from(token.role))
        .bind(token.merchant_id)
        .bind(permissions)
        .bind(hash.bytes().to_vec())
        .bind(token.created_at)
        .bind(token.expires_at)
        .bind(serde_json::Value::from(token.allow_list.to_strings()).to_string())
        .execute()
        .await?;
    touched("admin_tokens", rows, 1)
}

pub async fn by_hash(db: &mut Connection, hash: SecretHash) -> Result<Option<Presented>, StoreError> {
    let row = db
        .query(
        "select id, name, role, merchant_id, permissions, allowed_ips, created_at, expires_at, revoked_at, last_used_at, \
         overlap_secs, earlier_ends_at, hash <> $1 as is_earlier \
         from admin_tokens where hash = $1 or earlier_hash = $1",
    )
        .bind(hash.bytes().to_vec())
        .optional::<AdminTokenRow>()
        .await?;
    row.map(|row| Ok(Presented { is_earlier: row.is_earlier, token: row.try_into()? })).transpose()
}

pub async fn by_id(db: &mut Connection, id: AdminTokenId) -> Result<Option<AdminToken>, StoreError> {
    db.query(
        "select id, name, role, merchant_id, permissions, allowed_ips, created_at, expires_at, revoked_at, last_used_at, \
         overlap_secs, earlier_ends_at, false as is_earlier from admin_tokens where id = $1",
    )
    .bind(id)
    .optional::<AdminTokenRow>()
    .await?
    .map(AdminToken::try_from)
    .transpose()
}

/// A page of tokens of one merchant or of all, newest first, starting before `before`.
pub async fn list(
    db: &mut Connection,
    merchant: Option<MerchantId>,
    before: Option<AdminTokenId>,
    limit: i64,
) -> Result<Vec<AdminToken>, StoreError> {
    db.query(
        "select id, name, role, merchant_id, permissions, allowed_ips, created_at, expires_at, revoked_at, last_used_at, \
         overlap_secs, earlier_ends_at, false as is_earlier from admin_tokens where (merchant_id = $1 or $1 is null) and (id < $2 or $2 is null) \
         order by id desc limit $3",
    )
    .bind(merchant)
    .bind(before)
    .bind(limit)
    .all::<AdminTokenRow>()
    .await?
    .into_iter()
    .map(AdminToken::try_from)
    .collect()
}

/// Live tokens with the rights of an operator, or with permissions in addition to their role. Only those made
/// at `until` or before, oldest first, at most 1000.
pub async fn broad(
    db: &mut Connection,
    now: Timestamp,
    until: Timestamp,
) -> Result<Vec<AdminToken>, StoreError> {
    db.query(
        "select id, name, role, merchant_id, permissions, allowed_ips, created_at, expires_at, revoked_at, last_used_at, \
         overlap_secs, earlier_ends_at, false as is_earlier from admin_tokens \
         where revoked_at is null and (expires_at is null or expires_at > $1) and created_at <= $2 \
         and role <> 'service' and (role = 'operator' or permissions <> '[]') order by id limit 1000",
    )
    .bind(now)
    .bind(until)
    .all::<AdminTokenRow>()
    .await?
    .into_iter()
    .map(AdminToken::try_from)
    .collect()
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
        .bind(hash.bytes().to_vec())
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
