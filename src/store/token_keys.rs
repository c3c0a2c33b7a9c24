//! Which token keys exist, which replicas have them, and what each has sealed. The keys themselves are never
//! stored.
//!
//! Times come from the database's clock, so that replicas with different clocks agree on which replicas still
//! run.

use uuid::Uuid;

use super::driver::{Connection, Sql, Tx};
use super::{StoreError, touched};
use crate::domain::clock::Timestamp;
use crate::domain::ids::SessionId;
use crate::domain::keyring::{ServerKeyId, SignerId};

/// An arbitrary advisory-lock key. SQLite needs no lock, because it has only one writer.
const TURN: Sql = Sql { postgres: "select pg_advisory_xact_lock(7049021335618232)", sqlite: "select 1" };

/// Waits until no other replica is choosing a key. The lock lasts until the end of the transaction.
pub async fn take_turn(tx: &mut Tx) -> Result<(), StoreError> {
    tx.query_of(&TURN).execute().await.map(drop)
}

/// A key that a replica has or had.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Known {
    pub id: ServerKeyId,
    pub first_seen_at: Timestamp,
    pub signs_since: Option<Timestamp>,
    pub lost_at: Option<Timestamp>,
    /// Known for long enough that all replicas that started at the same time are registered.
    pub is_settled: bool,
}

const KNOWN: Sql = Sql {
    postgres: "select id, first_seen_at, signs_since, lost_at, \
               first_seen_at <= (extract(epoch from clock_timestamp()) * 1000000)::bigint - $1 as is_settled \
               from token_keys order by id",
    sqlite: "select id, first_seen_at, signs_since, lost_at, \
             first_seen_at <= cast(unixepoch('subsec') * 1000000 as integer) - $1 as is_settled \
             from token_keys order by id",
};

/// All known keys. A key is settled `settle_micros` after it was first seen.
pub async fn known(db: &mut Connection, settle_micros: i64) -> Result<Vec<Known>, StoreError> {
    db.query_of(&KNOWN).bind(settle_micros).all().await
}

const NOTE: Sql = Sql {
    postgres: "insert into token_keys (id, first_seen_at) \
               values ($1, (extract(epoch from clock_timestamp()) * 1000000)::bigint) on conflict (id) do nothing",
    sqlite: "insert into token_keys (id, first_seen_at) \
             values ($1, cast(unixepoch('subsec') * 1000000 as integer)) on conflict (id) do nothing",
};

/// Records this key if no replica had it before.
pub async fn note(tx: &mut Tx, id: ServerKeyId) -> Result<(), StoreError> {
    tx.query_of(&NOTE).bind(id).execute().await.map(drop)
}

const ACTIVATE: Sql = Sql {
    postgres: "update token_keys set signs_since = (extract(epoch from clock_timestamp()) * 1000000)::bigint \
               where id = $1 and signs_since is null",
    sqlite: "update token_keys set signs_since = cast(unixepoch('subsec') * 1000000 as integer) \
             where id = $1 and signs_since is null",
};

/// Makes a key sign from now on.
pub async fn activate(tx: &mut Tx, id: ServerKeyId) -> Result<(), StoreError> {
    let rows = tx.query_of(&ACTIVATE).bind(id).execute().await?;
    touched("token_keys", rows, 1)
}

/// Marks a key as lost since `at`, or as found again.
pub async fn set_lost(tx: &mut Tx, id: ServerKeyId, at: Option<Timestamp>) -> Result<(), StoreError> {
    let rows =
        tx.query("update token_keys set lost_at = $2 where id = $1").bind(id).bind(at).execute().await?;
    touched("token_keys", rows, 1)
}

/// Removes a key that nothing needs any more.
pub async fn forget(tx: &mut Tx, id: ServerKeyId) -> Result<(), StoreError> {
    tx.query("delete from token_keys where id = $1").bind(id).execute().await.map(drop)
}

/// A running replica.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Replica {
    pub id: Uuid,
    /// JSON array of numbers: the id of each signer that it knows, two for each key.
    pub token_keys: String,
    pub signs_with: ServerKeyId,
}

const RUNNING: Sql = Sql {
    postgres: "select id, token_keys, signs_with from replicas \
               where seen_at > (extract(epoch from clock_timestamp()) * 1000000)::bigint - $1 order by id",
    sqlite: "select id, token_keys, signs_with from replicas \
             where seen_at > cast(unixepoch('subsec') * 1000000 as integer) - $1 order by id",
};

/// The replicas that announced themselves within `within_micros`.
pub async fn running(db: &mut Connection, within_micros: i64) -> Result<Vec<Replica>, StoreError> {
    db.query_of(&RUNNING).bind(within_micros).all().await
}

const BEAT: Sql = Sql {
    postgres: "insert into replicas (id, token_keys, signs_with, seen_at) \
               values ($1, $2, $3, (extract(epoch from clock_timestamp()) * 1000000)::bigint) \
               on conflict (id) do update set token_keys = excluded.token_keys, \
               signs_with = excluded.signs_with, seen_at = excluded.seen_at",
    sqlite: "insert into replicas (id, token_keys, signs_with, seen_at) \
             values ($1, $2, $3, cast(unixepoch('subsec') * 1000000 as integer)) \
             on conflict (id) do update set token_keys = excluded.token_keys, \
             signs_with = excluded.signs_with, seen_at = excluded.seen_at",
};

/// Announces that this replica runs, and its keys.
pub async fn beat(tx: &mut Tx, replica: Replica) -> Result<(), StoreError> {
    let Replica { id, token_keys, signs_with } = replica;
    let rows = tx.query_of(&BEAT).bind(id).bind(token_keys).bind(signs_with).execute().await?;
    touched("replicas", rows, 1)
}

const CLEAR: Sql = Sql {
    postgres: "delete from replicas where seen_at < (extract(epoch from clock_timestamp()) * 1000000)::bigint - $1",
    sqlite: "delete from replicas where seen_at < cast(unixepoch('subsec') * 1000000 as integer) - $1",
};

/// Removes replicas that have not announced themselves for `since_micros`.
pub async fn clear_replicas(tx: &mut Tx, since_micros: i64) -> Result<(), StoreError> {
    tx.query_of(&CLEAR).bind(since_micros).execute().await.map(drop)
}

/// Removes a replica that stops.
pub async fn leave(db: &mut Connection, replica: Uuid) -> Result<(), StoreError> {
    db.query("delete from replicas where id = $1").bind(replica).execute().await.map(drop)
}

/// How many secrets of a kind a key has sealed.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct SealedBy {
    pub kind: String,
    /// The id of the key, from the start of the seals.
    pub key: Vec<u8>,
    pub held: i64,
}

/// Counts the secrets that are in use at `now`, by the key that sealed them.
pub async fn sealed_secrets(db: &mut Connection, now: Timestamp) -> Result<Vec<SealedBy>, StoreError> {
    db.query(
        "select 'webhook_secrets' as kind, substr(sealed, 1, 8) as key, count(*) as held \
         from webhook_secrets where ends_at is null or ends_at > $1 group by 2 \
         union all select 'second_factors', substr(totp_secret, 1, 8), count(*) \
         from users where totp_secret is not null group by 2",
    )
    .bind(now)
    .all()
    .await
}

/// The sessions that use a signer.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct SessionsOf {
    pub key: SignerId,
    pub live: i64,
    /// The latest time at which the last of them ends.
    pub until: Timestamp,
}

/// Counts by signer the sessions after `after` and up to `to` that can still be used at `now`: those that were
/// refreshed after `idle_since`.
pub async fn sessions(
    db: &mut Connection,
    after: SessionId,
    to: SessionId,
    now: Timestamp,
    idle_since: Timestamp,
) -> Result<Vec<SessionsOf>, StoreError> {
    db.query(
        "select token_key_id as key, count(*) as live, max(expires_at) as until from sessions \
         where id > $1 and id <= $2 and revoked_at is null and expires_at > $3 and rotated_at > $4 \
         group by token_key_id",
    )
    .bind(after)
    .bind(to)
    .bind(now)
    .bind(idle_since)
    .all()
    .await
}

/// Whether there is any session that has neither ended nor been revoked.
pub async fn has_session(db: &mut Connection, now: Timestamp) -> Result<bool, StoreError> {
    let query = "select id from sessions where revoked_at is null and expires_at > $1 limit 1";
    Ok(db.query(query).bind(now).optional::<(SessionId,)>().await?.is_some())
}

/// A sealed secret and its owner.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Sealed {
    pub owner: Uuid,
    pub sealed: Vec<u8>,
}

/// The kinds of secrets that can be sealed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    Webhooks,
    SecondFactors,
}

/// The next secrets of a kind with owners after `after`.
pub async fn page(
    db: &mut Connection,
    kind: Secrets,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Sealed>, StoreError> {
    let query = match kind {
        Secrets::Webhooks => {
            db.query("select id as owner, sealed from webhook_secrets where id > $1 order by id limit $2")
        }
        Secrets::SecondFactors => db.query(
            "select id as owner, totp_secret as sealed from users \
             where id > $1 and totp_secret is not null order by id limit $2",
        ),
    };
    query.bind(after).bind(limit).all().await
}

/// Replaces the seal `old`. `false` if it was already replaced.
pub async fn reseal(
    tx: &mut Tx,
    kind: Secrets,
    owner: Uuid,
    old: Vec<u8>,
    new: Vec<u8>,
) -> Result<bool, StoreError> {
    let query = match kind {
        Secrets::Webhooks => tx.query("update webhook_secrets set sealed = $3 where id = $1 and sealed = $2"),
        Secrets::SecondFactors => {
            tx.query("update users set totp_secret = $3 where id = $1 and totp_secret = $2")
        }
    };
    Ok(query.bind(owner).bind(old).bind(new).execute().await? == 1)
}
