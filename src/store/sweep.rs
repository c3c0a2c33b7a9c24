//! Removes old rows. Each function is a small step of a walk in key order.
//!
//! A step first reads where it ends. Then one short statement or transaction checks each row up to there
//! again, and removes those that are due. So it does no harm if a step is lost or made twice, on any number
//! of replicas.

use super::columns::Column;
use super::driver::{Connection, Sql, Tx};
use super::{Store, StoreError};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{DeliveryId, EventId, ExchangeId, MerchantId, SessionId};
use crate::domain::session::DeadBefore;

/// An arbitrary advisory-lock key. SQLite needs no lock, because it has only one writer.
const TURN: Sql =
    Sql { postgres: "select pg_try_advisory_xact_lock(7049021335618300 + $1)", sqlite: "select $1 >= 0" };

/// A transaction that locks this kind of row, so that no other replica removes any. `None` if another replica
/// has the lock.
pub async fn turn(store: &Store, kind: i64) -> Result<Option<Tx>, StoreError> {
    let mut tx = store.begin().await?;
    let (is_ours,) = tx.query_of(&TURN).bind(kind).one::<(bool,)>().await?;
    Ok(is_ours.then_some(tx))
}

/// The end of a step of `limit` sessions after `after`. `None` if there are fewer before `until`.
pub async fn session_step(
    db: &mut Connection,
    after: SessionId,
    until: SessionId,
    limit: i64,
) -> Result<Option<SessionId>, StoreError> {
    let row = db
        .query("select id from sessions where id > $1 and id < $2 order by id limit 1 offset $3")
        .bind(after)
        .bind(until)
        .bind(limit - 1)
        .optional::<(SessionId,)>()
        .await?;
    Ok(row.map(|(id,)| id))
}

/// Removes the dead sessions after `after` and up to `to`. Returns how many.
pub async fn sessions(
    db: &mut Connection,
    after: SessionId,
    to: SessionId,
    dead: DeadBefore,
) -> Result<u64, StoreError> {
    db.query(
        "delete from sessions where id > $1 and id <= $2 \
         and (expires_at <= $3 or revoked_at <= $3 or rotated_at <= $4)",
    )
    .bind(after)
    .bind(to)
    .bind(dead.ended)
    .bind(dead.rotated)
    .execute()
    .await
}

/// The next merchants after `after`.
pub async fn merchants(
    db: &mut Connection,
    after: MerchantId,
    limit: i64,
) -> Result<Vec<MerchantId>, StoreError> {
    let rows = db
        .query("select id from merchants where id > $1 order by id limit $2")
        .bind(after)
        .bind(limit)
        .all::<(MerchantId,)>()
        .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// An exchange that is to be removed.
pub type Old = (MerchantId, ExchangeId);

/// For each merchant by itself, because the primary key begins with the merchant.
const OLD_EXCHANGES: Sql = Sql {
    postgres: "select e.merchant_id, e.id from unnest($1::uuid[]) as m (id) cross join lateral (\
               select merchant_id, id from exchanges where merchant_id = m.id and id < $2 order by id limit $3) as e \
               limit $3",
    sqlite: "select e.merchant_id, e.id from jsonb_each($1) as m cross join exchanges as e \
             where e.merchant_id = unhex(m.value ->> 0) and e.id < $2 limit $3",
};

/// Up to `limit` exchanges of these merchants before `until`.
pub async fn old_exchanges(
    db: &mut Connection,
    merchants: &[MerchantId],
    until: ExchangeId,
    limit: i64,
) -> Result<Vec<Old>, StoreError> {
    let merchants = vec![Column::ids(merchants.iter().copied())];
    db.batch(&OLD_EXCHANGES, merchants).bind(until).bind(limit).all().await
}

const REMOVE_EXCHANGES: Sql = Sql {
    postgres: "delete from exchanges using unnest($1::uuid[], $2::uuid[]) as c (merchant_id, id) \
               where exchanges.merchant_id = c.merchant_id and exchanges.id = c.id",
    sqlite: "delete from exchanges where (merchant_id, id) in \
             (select unhex(value ->> 0), unhex(value ->> 1) from jsonb_each($1))",
};

/// Removes exchanges. Returns how many.
pub async fn exchanges(db: &mut Connection, old: &[Old]) -> Result<u64, StoreError> {
    let columns = vec![
        Column::ids(old.iter().map(|(merchant, _)| *merchant)),
        Column::ids(old.iter().map(|(_, exchange)| *exchange)),
    ];
    db.batch(&REMOVE_EXCHANGES, columns).execute().await
}

/// The end of a step of `limit` webhook deliveries after `after`, as for sessions.
pub async fn delivery_step(
    db: &mut Connection,
    after: DeliveryId,
    until: DeliveryId,
    limit: i64,
) -> Result<Option<DeliveryId>, StoreError> {
    let row = db
        .query("select id from webhook_deliveries where id > $1 and id < $2 order by id limit 1 offset $3")
        .bind(after)
        .bind(until)
        .bind(limit - 1)
        .optional::<(DeliveryId,)>()
        .await?;
    Ok(row.map(|(id,)| id))
}

/// Removes the deliveries after `after` and up to `to` that were finished by `finished`, with their attempts.
/// Returns how many deliveries.
pub async fn deliveries(
    tx: &mut Tx,
    after: DeliveryId,
    to: DeliveryId,
    finished: Timestamp,
) -> Result<u64, StoreError> {
    tx.query(
        "delete from webhook_attempts where delivery_id > $1 and delivery_id <= $2 and delivery_id in (\
         select id from webhook_deliveries where id > $1 and id <= $2 and state <> 'pending' \
         and finished_at <= $3)",
    )
    .bind(after)
    .bind(to)
    .bind(finished)
    .execute()
    .await?;
    tx.query(
        "delete from webhook_deliveries where id > $1 and id <= $2 and state <> 'pending' \
         and finished_at <= $3",
    )
    .bind(after)
    .bind(to)
    .bind(finished)
    .execute()
    .await
}

/// The end of a step of `limit` webhook events after `after`, as for sessions.
pub async fn event_step(
    db: &mut Connection,
    after: EventId,
    until: EventId,
    limit: i64,
) -> Result<Option<EventId>, StoreError> {
    let row = db
        .query("select id from webhook_events where id > $1 and id < $2 order by id limit 1 offset $3")
        .bind(after)
        .bind(until)
        .bind(limit - 1)
        .optional::<(EventId,)>()
        .await?;
    Ok(row.map(|(id,)| id))
}

/// Removes the events after `after` and up to `to` that have no deliveries left. Returns how many. The
/// deliveries of an event are written in its own transaction, so an old event gets no more.
pub async fn events(db: &mut Connection, after: EventId, to: EventId) -> Result<u64, StoreError> {
    db.query(
        "delete from webhook_events where id > $1 and id <= $2 and not exists (\
         select 1 from webhook_deliveries where event_id = webhook_events.id)",
    )
    .bind(after)
    .bind(to)
    .execute()
    .await
}

/// Removes up to `limit` stored answers from `until` or earlier. Returns how many.
pub async fn idempotency_keys(db: &mut Connection, until: Timestamp, limit: i64) -> Result<u64, StoreError> {
    // The outer condition is needed, because the key may be used again in the meantime.
    db.query(
        "delete from idempotency_keys where created_at <= $1 and (actor_id, key) in (\
         select actor_id, key from idempotency_keys where created_at <= $1 order by created_at limit $2)",
    )
    .bind(until)
    .bind(limit)
    .execute()
    .await
}

/// Removes up to `limit` slots of activity from `until` or earlier. Returns how many.
pub async fn client_activity(db: &mut Connection, until: Timestamp, limit: i64) -> Result<u64, StoreError> {
    db.query(
        "delete from client_activity where (credential_id, slot) in (\
         select credential_id, slot from client_activity where slot <= $1 order by slot limit $2)",
    )
    .bind(until)
    .bind(limit)
    .execute()
    .await
}

/// Removes up to `limit` console sessions that ended by `now`. Returns how many.
pub async fn console_sessions(db: &mut Connection, now: Timestamp, limit: i64) -> Result<u64, StoreError> {
    db.query(
        "delete from console_sessions where hash in (\
         select hash from console_sessions where expires_at <= $1 order by expires_at limit $2)",
    )
    .bind(now)
    .bind(limit)
    .execute()
    .await
}

/// Removes up to `limit` sign-in links that expired by `now`, used or not. Returns how many.
pub async fn sign_in_links(db: &mut Connection, now: Timestamp, limit: i64) -> Result<u64, StoreError> {
    db.query(
        "delete from sign_in_links where hash in (\
         select hash from sign_in_links where expires_at <= $1 order by expires_at limit $2)",
    )
    .bind(now)
    .bind(limit)
    .execute()
    .await
}
