//! Users of the console.

use super::driver::{Connection, Tx};
use super::{StoreError, parse_name, touched};
use crate::domain::admin::User;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MerchantId, UserId};

#[derive(sqlx::FromRow)]
struct UserRow {
    id: UserId,
    email: String,
    role: String,
    merchant_id: Option<MerchantId>,
    locked_until: Option<Timestamp>,
    disabled_at: Option<Timestamp>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    last_login_at: Option<Timestamp>,
}

impl TryFrom<UserRow> for User {
    type Error = StoreError;
    fn try_from(row: UserRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            email: row.email,
            role: parse_name("users", &row.role)?,
            merchant_id: row.merchant_id,
            locked_until: row.locked_until,
            disabled_at: row.disabled_at,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            last_login_at: row.last_login_at,
        })
    }
}

/// # Errors
/// [`StoreError`], as for all below; [`StoreError::Conflict`] when the address is taken.
pub async fn insert(tx: &mut Tx, user: &User, password_hash: &str) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "insert into users (id, email, role, merchant_id, password_hash, failed_logins, version, created_at, \
             updated_at) values ($1, $2, $3, $4, $5, 0, $6, $7, $8)",
        )
        .bind(user.id)
        .bind(user.email.clone())
        .bind(<&str>::from(user.role))
        .bind(user.merchant_id)
        .bind(password_hash.to_owned())
        .bind(user.version)
        .bind(user.created_at)
        .bind(user.updated_at)
        .execute()
        .await?;
    touched("users", rows, 1)
}

/// # Errors
/// [`StoreError`].
pub async fn by_id(db: &mut Connection, id: UserId) -> Result<Option<User>, StoreError> {
    db.query(
        "select id, email, role, merchant_id, locked_until, disabled_at, version, created_at, updated_at, \
         last_login_at from users where id = $1",
    )
    .bind(id)
    .optional::<UserRow>()
    .await?
    .map(User::try_from)
    .transpose()
}

/// A page of users, of one merchant or of all, newest first, from before `before`.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    db: &mut Connection,
    merchant: Option<MerchantId>,
    before: Option<UserId>,
    limit: i64,
) -> Result<Vec<User>, StoreError> {
    db.query(
        "select id, email, role, merchant_id, locked_until, disabled_at, version, created_at, updated_at, \
         last_login_at from users where (merchant_id = $1 or $1 is null) and (id < $2 or $2 is null) \
         order by id desc limit $3",
    )
    .bind(merchant)
    .bind(before)
    .bind(limit)
    .all::<UserRow>()
    .await?
    .into_iter()
    .map(User::try_from)
    .collect()
}

/// Writes whether a user is disabled, and a new password where there is one, and the next version.
///
/// # Errors
/// [`StoreError`].
pub async fn update(tx: &mut Tx, user: &User, password_hash: Option<&str>) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "update users set disabled_at = $2, password_hash = coalesce($3, password_hash), updated_at = $4, \
             version = version + 1 where id = $1 and version = $5",
        )
        .bind(user.id)
        .bind(user.disabled_at)
        .bind(password_hash.map(str::to_owned))
        .bind(user.updated_at)
        .bind(user.version)
        .execute()
        .await?;
    touched("users", rows, 1)
}
