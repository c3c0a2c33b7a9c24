//! Attempts at a user's password or second factor. Each counts as failed until it is taken back.

use constcat::concat;

use super::StoreError;
use super::driver::Connection;
use super::merchants::IS_HERE;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MerchantId, UserId};

/// The data that a sign-in attempt is checked against.
#[derive(sqlx::FromRow)]
pub struct Attempt {
    #[sqlx(rename = "id")]
    pub user: UserId,
    pub email: String,
    pub merchant_id: Option<MerchantId>,
    pub password_hash: String,
    /// Whether this password was right at a sign-in before.
    pub password_was_right: bool,
    pub version: i64,
    /// Sealed.
    pub totp_secret: Option<Vec<u8>>,
    /// Set if a failure of this attempt locks the account.
    pub locked_until: Option<Timestamp>,
}

/// Who makes an attempt: anybody who tries to sign in, or a user who is already signed in. The two are
/// counted separately.
#[derive(Clone, Copy)]
pub enum Claimant<'a> {
    Email(&'a str),
    User(UserId),
}

/// Counts an attempt as failed before it is checked, and locks the account at the last allowed attempt. So
/// parallel attempts get no extra guesses. An attempt with an address counts for each of its users, except
/// disabled and locked ones, and those of merchants that another cell serves.
pub async fn claim_attempts(
    db: &mut Connection,
    claimant: Claimant<'_>,
    failures_max: i64,
    now: Timestamp,
    lock_until: Timestamp,
) -> Result<Vec<Attempt>, StoreError> {
    let query = match claimant {
        Claimant::Email(email) => db
            .query(concat!(
                "update users set \
                 failed_logins = case when locked_until is null then failed_logins + 1 else 1 end, \
                 locked_until = case when locked_until is null and failed_logins + 1 >= $2 \
                 then cast($4 as bigint) else null end \
                 where email = $1 and disabled_at is null and (locked_until is null or locked_until <= $3) and ",
                IS_HERE,
                " returning id, email, merchant_id, password_hash, password_was_right, version, totp_secret, \
                 locked_until",
            ))
            .bind(email.to_owned()),
        Claimant::User(id) => db
            .query(concat!(
                "update users set \
                 failed_proofs = case when proofs_locked_until is null then failed_proofs + 1 else 1 end, \
                 proofs_locked_until = case when proofs_locked_until is null and failed_proofs + 1 >= $2 \
                 then cast($4 as bigint) else null end \
                 where id = $1 and disabled_at is null \
                 and (proofs_locked_until is null or proofs_locked_until <= $3) and ",
                IS_HERE,
                " returning id, email, merchant_id, password_hash, password_was_right, version, totp_secret, \
                 proofs_locked_until as locked_until",
            ))
            .bind(id),
    };
    query.bind(failures_max).bind(now).bind(lock_until).all().await
}

/// Writes a row without changing it, so that an attempt for an unknown user takes as long as for a known one.
pub async fn claim_nothing(db: &mut Connection) -> Result<(), StoreError> {
    db.query("update users set failed_logins = failed_logins where id = (select id from users order by id limit 1)")
        .execute()
        .await
        .map(drop)
}

/// Notes that the password of a user was right at a sign-in.
pub async fn note_right_password(db: &mut Connection, id: UserId) -> Result<(), StoreError> {
    db.query("update users set password_was_right = true where id = $1").bind(id).execute().await.map(drop)
}

/// The two counts of a user's failed attempts.
#[derive(Clone, Copy)]
pub enum Count {
    /// Of sign-ins, which anybody may try.
    SignIns,
    /// Of users who are past the password or signed in.
    Proofs,
}

/// Takes back an attempt, because it was right.
pub async fn take_back(db: &mut Connection, id: UserId, count: Count) -> Result<(), StoreError> {
    let statement = match count {
        Count::SignIns => {
            "update users set failed_logins = failed_logins - 1, locked_until = null \
             where id = $1 and failed_logins > 0"
        }
        Count::Proofs => {
            "update users set failed_proofs = failed_proofs - 1, proofs_locked_until = null \
             where id = $1 and failed_proofs > 0"
        }
    };
    db.query(statement).bind(id).execute().await?;
    Ok(())
}
