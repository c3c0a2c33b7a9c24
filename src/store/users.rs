//! Admin tokens: who may call the admin API and introspect every merchant's tokens.

use super::driver::{Connection, Tx};
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
pub async fn insert_token(tx: &mut Tx, token: &AdminToken, hash: SecretHash) -> Result<(), StoreError> {
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
pub async fn token_by_hash(db: &mut Connection, hash: SecretHash) -> Result<Option<AdminToken>, StoreError> {
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
