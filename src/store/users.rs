//! Users of the console.

use constcat::concat;

use super::driver::{Connection, Sql, Tx};
use super::merchants::IS_HERE;
use super::{StoreError, touched};
use crate::domain::admin::User;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{Id, MerchantId, UserId};

/// Without the users of merchants that another cell serves. Those can do nothing here, so nobody finds them here.
const SELECT: &str = concat!(
    "select id, email, role, merchant_id, locked_until, totp_secret is not null as has_totp, \
     disabled_at, version, created_at, updated_at, last_login_at from users where ",
    IS_HERE
);

/// # Errors
/// [`StoreError::Conflict`] if the address is taken.
pub async fn insert(tx: &mut Tx, user: &User, password_hash: &str) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "insert into users (id, email, role, merchant_id, password_hash, failed_logins, version, created_at, \
             updated_at) values ($1, $2, $3, $4, $5, 0, $6, $7, $8)",
        )
        .bind(user.id)
        .bind(user.email.clone())
        .bind(user.role)
        .bind(user.merchant_id)
        .bind(password_hash.to_owned())
        .bind(user.version)
        .bind(user.created_at)
        .bind(user.updated_at)
        .execute()
        .await?;
    touched("users", rows, 1)
}

/// Two calls may make the first user of an address at the same time. The second one must see the user of the
/// first.
const LOCK_ADDRESS: Sql =
    Sql { postgres: "select pg_advisory_xact_lock(hashtextextended($1, 0))", sqlite: "select $1" };

/// Lets no other call add a user to this address until the transaction ends.
pub async fn lock_address(tx: &mut Tx, email: &str) -> Result<(), StoreError> {
    tx.query_of(&LOCK_ADDRESS).bind(email.to_owned()).execute().await.map(drop)
}

/// The password hash of any user of this address. They all have the same salt. `None` if there is no user.
pub async fn any_password_hash(db: &mut Connection, email: &str) -> Result<Option<String>, StoreError> {
    let query = "select password_hash from users where email = $1 limit 1";
    let row = db.query(query).bind(email.to_owned()).optional::<(String,)>().await?;
    Ok(row.map(|(hash,)| hash))
}

pub async fn by_id(db: &mut Connection, id: UserId) -> Result<Option<User>, StoreError> {
    db.query(concat!(SELECT, " and id = $1")).bind(id).optional().await
}

/// A page of users of one merchant or of all, newest first, starting before `before`.
pub async fn list(
    db: &mut Connection,
    merchant: Option<MerchantId>,
    before: Option<UserId>,
    limit: i64,
) -> Result<Vec<User>, StoreError> {
    let sql = match merchant {
        Some(_) => concat!(SELECT, " and id < $1 and merchant_id = $3 order by id desc limit $2"),
        None => concat!(SELECT, " and id < $1 order by id desc limit $2"),
    };
    db.query(sql).bind(before.unwrap_or(Id::max())).bind(limit).bind_if(merchant).all().await
}

/// How many users of a merchant are not disabled.
pub async fn count_enabled(db: &mut Connection, merchant: MerchantId) -> Result<i64, StoreError> {
    db.query("select count(*) from users where merchant_id = $1 and disabled_at is null")
        .bind(merchant)
        .one::<(i64,)>()
        .await
        .map(|(count,)| count)
}

/// Writes the address, whether the user is disabled, and a new password if there is one. Raises the version.
///
/// # Errors
/// [`StoreError::Conflict`] if the address is taken.
pub async fn update(tx: &mut Tx, user: &User, password_hash: Option<&str>) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "update users set disabled_at = $2, password_hash = coalesce($3, password_hash), \
             password_was_right = password_was_right and $3 is null, updated_at = $4, version = version + 1, \
             email = $6 where id = $1 and version = $5",
        )
        .bind(user.id)
        .bind(user.disabled_at)
        .bind(password_hash.map(str::to_owned))
        .bind(user.updated_at)
        .bind(user.version)
        .bind(user.email.clone())
        .execute()
        .await?;
    touched("users", rows, 1)
}

/// Unlocks a user who was given a link or a new password. The second factor stays.
pub async fn unlock(tx: &mut Tx, id: UserId) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "update users set failed_logins = 0, locked_until = null, failed_proofs = 0, \
             proofs_locked_until = null where id = $1",
        )
        .bind(id)
        .execute()
        .await?;
    touched("users", rows, 1)
}

/// Notes that a user has signed in, and resets the count of failures.
pub async fn note_sign_in(tx: &mut Tx, id: UserId, now: Timestamp) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "update users set failed_logins = 0, locked_until = null, failed_proofs = 0, \
             proofs_locked_until = null, last_login_at = $2 where id = $1",
        )
        .bind(id)
        .bind(now)
        .execute()
        .await?;
    touched("users", rows, 1)
}

/// Sets or removes a user's authenticator app. The code of `last_step` was just used.
pub async fn set_totp(
    tx: &mut Tx,
    id: UserId,
    sealed: Option<Vec<u8>>,
    last_step: Option<i64>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "update users set totp_secret = $2, totp_last_step = $3, updated_at = $4, version = version + 1 \
             where id = $1",
        )
        .bind(id)
        .bind(sealed)
        .bind(last_step)
        .bind(now)
        .execute()
        .await?;
    touched("users", rows, 1)
}

/// Uses the code of a step. `false` if it or a later one was already used.
pub async fn use_totp_step(tx: &mut Tx, id: UserId, step: i64) -> Result<bool, StoreError> {
    let rows = tx
        .query(
            "update users set totp_last_step = $2 \
             where id = $1 and (totp_last_step is null or totp_last_step < $2)",
        )
        .bind(id)
        .bind(step)
        .execute()
        .await?;
    Ok(rows == 1)
}

/// The users of an address: at most one of each merchant and one of the platform.
pub async fn of_email(db: &mut Connection, email: &str) -> Result<Vec<User>, StoreError> {
    db.query(concat!(SELECT, " and email = $1")).bind(email.to_owned()).all().await
}
