//! Finds and removes the sessions of clients that have more than they may.

use super::StoreError;
use super::columns::Column;
use super::driver::{Connection, Sql};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{CredentialId, MerchantId, SessionId};

/// A merchant, and whether it has more sessions than asked about.
pub type Has = (MerchantId, bool);

/// The next merchants after `after`, and whether each has more than `max` sessions. Only then can one of its clients
/// have more. Reads at most `max` index entries of each.
pub async fn next(
    db: &mut Connection,
    after: MerchantId,
    max: i64,
    limit: i64,
) -> Result<Vec<Has>, StoreError> {
    db.query(
        "select id, (select sessions.id from sessions where merchant_id = merchants.id order by sessions.id \
         limit 1 offset $2) is not null from merchants where id > $1 order by id limit $3",
    )
    .bind(after)
    .bind(max)
    .bind(limit)
    .all()
    .await
}

/// The columns that decide which sessions of a client are removed first.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Held {
    pub id: SessionId,
    pub credential_id: CredentialId,
    pub rotated_at: Timestamp,
    pub is_revoked: bool,
}

/// The next sessions of a merchant after `after`, in order of start.
pub async fn held(
    db: &mut Connection,
    merchant: MerchantId,
    after: SessionId,
    limit: i64,
) -> Result<Vec<Held>, StoreError> {
    db.query(
        "select id, credential_id, rotated_at, revoked_at is not null as is_revoked from sessions \
         where merchant_id = $1 and id > $2 order by id limit $3",
    )
    .bind(merchant)
    .bind(after)
    .bind(limit)
    .all()
    .await
}

const REMOVE: Sql = Sql {
    postgres: "delete from sessions using unnest($1::uuid[], $2::bigint[]) as c (id, rotated_at) \
               where sessions.id = c.id and sessions.rotated_at = c.rotated_at",
    sqlite: "delete from sessions where (id, rotated_at) in \
             (select unhex(value ->> 0), value ->> 1 from jsonb_each($1))",
};

/// Removes sessions, unless they were refreshed after they were read. Returns how many.
pub async fn remove(
    db: &mut Connection,
    mut surplus: Vec<(Timestamp, SessionId)>,
) -> Result<u64, StoreError> {
    // Sort, so that all replicas lock rows in the same order.
    surplus.sort_by_key(|(_, id)| *id);
    let columns = vec![
        Column::ids(surplus.iter().map(|(_, id)| *id)),
        Column::times(surplus.iter().map(|(rotated_at, _)| *rotated_at)),
    ];
    db.batch(&REMOVE, columns).execute().await
}
