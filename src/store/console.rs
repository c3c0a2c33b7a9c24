//! Console sessions, recovery codes and one-time sign-in links. All are found by a hash.

use super::driver::{Connection, Tx};
use super::{StoreError, touched};
use crate::domain::clock::Timestamp;
use crate::domain::console::{ConsoleSession, SESSIONS_MAX};
use crate::domain::ids::UserId;
use crate::domain::secret::SecretHash;

#[derive(sqlx::FromRow)]
struct SessionOf {
    user_id: UserId,
    #[sqlx(flatten)]
    session: ConsoleSession,
}

/// Writes a new session. Removes the user's oldest sessions above the limit. Sessions that await a second
/// factor have their own limit.
pub async fn insert_session(tx: &mut Tx, user: UserId, session: &ConsoleSession) -> Result<(), StoreError> {
    tx.query(
        "delete from console_sessions where user_id = $1 and awaits_totp = $2 and hash not in \
         (select hash from console_sessions where user_id = $1 and awaits_totp = $2 \
         order by created_at desc, hash limit $3)",
    )
    .bind(user)
    .bind(session.awaits_totp)
    .bind(SESSIONS_MAX - 1)
    .execute()
    .await?;
    let rows = tx
        .query(
            "insert into console_sessions (hash, user_id, awaits_totp, by_link, created_at, last_seen_at, \
             expires_at, client_ip) values ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(session.hash)
        .bind(user)
        .bind(session.awaits_totp)
        .bind(session.by_link)
        .bind(session.created_at)
        .bind(session.last_seen_at)
        .bind(session.expires_at)
        .bind(session.client_ip.clone())
        .execute()
        .await?;
    touched("console_sessions", rows, 1)
}

/// A session, even if it has ended, and its user.
pub async fn session(
    db: &mut Connection,
    hash: SecretHash,
) -> Result<Option<(UserId, ConsoleSession)>, StoreError> {
    let row = db
        .query(
            "select hash, user_id, awaits_totp, by_link, created_at, last_seen_at, expires_at, client_ip \
             from console_sessions where hash = $1",
        )
        .bind(hash)
        .optional::<SessionOf>()
        .await?;
    Ok(row.map(|row| (row.user_id, row.session)))
}

/// Restarts a session's idle time-out. Does nothing if the session has ended in the meantime.
pub async fn touch_session(db: &mut Connection, hash: SecretHash, now: Timestamp) -> Result<(), StoreError> {
    db.query("update console_sessions set last_seen_at = $2 where hash = $1 and last_seen_at < $2")
        .bind(hash)
        .bind(now)
        .execute()
        .await?;
    Ok(())
}

/// Ends a session. `false` if it had already ended.
pub async fn end_session(tx: &mut Tx, hash: SecretHash) -> Result<bool, StoreError> {
    let rows = tx.query("delete from console_sessions where hash = $1").bind(hash).execute().await?;
    Ok(rows == 1)
}

/// Ends all sessions of a user except `keep`.
pub async fn end_sessions_of(tx: &mut Tx, user: UserId, keep: Option<SecretHash>) -> Result<u64, StoreError> {
    let keep = keep.map_or_else(Vec::new, |hash| hash.bytes().to_vec());
    tx.query("delete from console_sessions where user_id = $1 and hash <> $2")
        .bind(user)
        .bind(keep)
        .execute()
        .await
}

/// Notes that the user has set a password, so the session's sign-in link no longer replaces one.
pub async fn forget_link(tx: &mut Tx, hash: SecretHash) -> Result<(), StoreError> {
    tx.query("update console_sessions set by_link = false where hash = $1").bind(hash).execute().await?;
    Ok(())
}

/// Replaces all recovery codes of a user.
pub async fn replace_recovery_codes(
    tx: &mut Tx,
    user: UserId,
    hashes: &[SecretHash],
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.query("delete from recovery_codes where user_id = $1").bind(user).execute().await?;
    for hash in hashes {
        let rows = tx
            .query(
                "insert into recovery_codes (hash, user_id, created_at, merchant_id) \
                 select $1, $2, $3, merchant_id from users where id = $2",
            )
            .bind(hash)
            .bind(user)
            .bind(now)
            .execute()
            .await?;
        touched("recovery_codes", rows, 1)?;
    }
    Ok(())
}

/// Uses a recovery code. `false` if this user does not have it, or it was already used.
pub async fn use_recovery_code(
    tx: &mut Tx,
    user: UserId,
    hash: SecretHash,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let rows = tx
        .query("update recovery_codes set used_at = $3 where hash = $1 and user_id = $2 and used_at is null")
        .bind(hash)
        .bind(user)
        .bind(now)
        .execute()
        .await?;
    Ok(rows == 1)
}

pub async fn count_recovery_codes(db: &mut Connection, user: UserId) -> Result<i64, StoreError> {
    db.query("select count(*) from recovery_codes where user_id = $1 and used_at is null")
        .bind(user)
        .one::<(i64,)>()
        .await
        .map(|(count,)| count)
}

/// Removes a user's sign-in links.
pub async fn end_links_of(tx: &mut Tx, user: UserId) -> Result<(), StoreError> {
    tx.query("delete from sign_in_links where user_id = $1").bind(user).execute().await.map(drop)
}

/// Writes a sign-in link, and removes the user's other links.
pub async fn replace_link(
    tx: &mut Tx,
    user: UserId,
    hash: SecretHash,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    end_links_of(tx, user).await?;
    let rows = tx
        .query("insert into sign_in_links (hash, user_id, created_at, expires_at) values ($1, $2, $3, $4)")
        .bind(hash)
        .bind(user)
        .bind(now)
        .bind(expires_at)
        .execute()
        .await?;
    touched("sign_in_links", rows, 1)
}

/// Uses a link and returns its user. `None` if there is no such link, or it was used or has expired.
pub async fn use_link(tx: &mut Tx, hash: SecretHash, now: Timestamp) -> Result<Option<UserId>, StoreError> {
    let row = tx
        .query(
            "update sign_in_links set used_at = $2 where hash = $1 and used_at is null and expires_at > $2 \
             returning user_id",
        )
        .bind(hash)
        .bind(now)
        .optional::<(UserId,)>()
        .await?;
    Ok(row.map(|(user,)| user))
}

/// Whether there is such a link that can still be used.
pub async fn has_link(db: &mut Connection, hash: SecretHash, now: Timestamp) -> Result<bool, StoreError> {
    let row = db
        .query("select user_id from sign_in_links where hash = $1 and used_at is null and expires_at > $2")
        .bind(hash)
        .bind(now)
        .optional::<(UserId,)>()
        .await?;
    Ok(row.is_some())
}
