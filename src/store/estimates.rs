//! Numbers for a dashboard. They are cheap enough to be read every few seconds.

use super::StoreError;
use super::driver::{Connection, Sql};
use crate::domain::clock::Timestamp;
use crate::domain::ids::SessionId;
use crate::domain::session::Earliest;

/// Pending webhook deliveries.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    pub deliveries: i64,
    /// The time of the oldest one's event.
    pub oldest: Option<Timestamp>,
}

pub async fn outbox(db: &mut Connection) -> Result<Backlog, StoreError> {
    let (deliveries, oldest) = db
        .query("select count(*), min(created_at) from webhook_deliveries where state = 'pending'")
        .one::<(i64, Option<Timestamp>)>()
        .await?;
    Ok(Backlog { deliveries, oldest })
}

/// The number of session rows, estimated by the engine, because counting would read the whole table.
#[derive(Clone, Copy, Debug)]
pub struct SessionRows {
    pub live: i64,
    /// Dead row versions that wait for a vacuum. Always 0 on SQLite.
    pub dead: i64,
}

const SESSION_ROWS: Sql = Sql {
    postgres: "select coalesce(sum(n_live_tup), 0)::bigint, coalesce(sum(n_dead_tup), 0)::bigint \
               from pg_stat_user_tables where relid = 'sessions'::regclass",
    // Row ids are assigned in order, and the oldest rows are removed first, so their range is about the
    // number.
    sqlite: "select coalesce((select max(rowid) from sessions) - (select min(rowid) from sessions) + 1, 0), 0",
};

pub async fn session_rows(db: &mut Connection) -> Result<SessionRows, StoreError> {
    let (live, dead) = db.query_of(&SESSION_ROWS).one::<(i64, i64)>().await?;
    Ok(SessionRows { live, dead })
}

/// Looks at the oldest thousand sessions that started before `floor`. The sweeper goes by age, so rows that
/// it failed to remove are among them.
pub async fn earliest(db: &mut Connection, floor: SessionId) -> Result<Earliest, StoreError> {
    db.query(
        "select min(expires_at) as expires_at, min(rotated_at) as rotated_at, min(revoked_at) as revoked_at \
         from (select expires_at, rotated_at, revoked_at from sessions where id < $1 order by id limit 1000) \
         as oldest",
    )
    .bind(floor)
    .one()
    .await
}
