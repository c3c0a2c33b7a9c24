//! Admin tokens: who may call the admin API, and introspect.

use super::columns::Column;
use super::driver::{Connection, Sql, Tx};
use super::{StoreError, parse_name, touched};
use crate::domain::admin::{AdminToken, Permission};
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
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
}

impl TryFrom<AdminTokenRow> for AdminToken {
    type Error = StoreError;
    fn try_from(row: AdminTokenRow) -> Result<Self, StoreError> {
        let permissions: Vec<Permission> =
            serde_json::from_str(&row.permissions).map_err(|error| StoreError::Impossible {
                table: "admin_tokens",
                what: format!("permissions of {}: {error}", row.id),
            })?;
        Ok(Self {
            id: row.id,
            name: row.name,
            role: parse_name("admin_tokens", &row.role)?,
            merchant_id: row.merchant_id,
            permissions,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        })
    }
}

/// # Errors
/// [`StoreError`], as for all below.
pub async fn insert(tx: &mut Tx, token: &AdminToken, hash: SecretHash) -> Result<(), StoreError> {
    let permissions = serde_json::to_string(&token.permissions)
        .map_err(|error| StoreError::Impossible { table: "admin_tokens", what: error.to_string() })?;
    let rows = tx
        .query(
            "insert into admin_tokens (id, name, role, merchant_id, permissions, hash, created_at, expires_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(token.id)
        .bind(token.name.clone())
        .bind(<&str>::from(token.role))
        .bind(token.merchant_id)
        .bind(permissions)
        .bind(hash.bytes().to_vec())
        .bind(token.created_at)
        .bind(token.expires_at)
        .execute()
        .await?;
    touched("admin_tokens", rows, 1)
}

/// # Errors
/// [`StoreError`].
pub async fn by_hash(db: &mut Connection, hash: SecretHash) -> Result<Option<AdminToken>, StoreError> {
    db.query(
        "select id, name, role, merchant_id, permissions, created_at, expires_at, revoked_at, last_used_at \
         from admin_tokens where hash = $1",
    )
    .bind(hash.bytes().to_vec())
    .optional::<AdminTokenRow>()
    .await?
    .map(AdminToken::try_from)
    .transpose()
}

/// # Errors
/// [`StoreError`].
pub async fn by_id(db: &mut Connection, id: AdminTokenId) -> Result<Option<AdminToken>, StoreError> {
    db.query(
        "select id, name, role, merchant_id, permissions, created_at, expires_at, revoked_at, last_used_at \
         from admin_tokens where id = $1",
    )
    .bind(id)
    .optional::<AdminTokenRow>()
    .await?
    .map(AdminToken::try_from)
    .transpose()
}

/// A page of tokens, of one merchant or of all, newest first, from before `before`.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    db: &mut Connection,
    merchant: Option<MerchantId>,
    before: Option<AdminTokenId>,
    limit: i64,
) -> Result<Vec<AdminToken>, StoreError> {
    db.query(
        "select id, name, role, merchant_id, permissions, created_at, expires_at, revoked_at, last_used_at \
         from admin_tokens where (merchant_id = $1 or $1 is null) and (id < $2 or $2 is null) \
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

/// Ends a token; `false` when it had ended before.
///
/// # Errors
/// [`StoreError`].
pub async fn revoke(tx: &mut Tx, id: AdminTokenId, now: Timestamp) -> Result<bool, StoreError> {
    let rows = tx
        .query("update admin_tokens set revoked_at = $2 where id = $1 and revoked_at is null")
        .bind(id)
        .bind(now)
        .execute()
        .await?;
    Ok(rows == 1)
}

const NOTE_USES: Sql = Sql {
    postgres: "update admin_tokens set last_used_at = c.at from unnest($1::uuid[], $2::bigint[]) as c (id, at) \
               where admin_tokens.id = c.id",
    sqlite: "update admin_tokens set last_used_at = c.at \
             from (select unhex(value ->> 0) as id, value ->> 1 as at from jsonb_each($1)) as c \
             where admin_tokens.id = c.id",
};

/// Writes last-used times.
///
/// # Errors
/// [`StoreError`].
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
