//! The database's clock, which all replicas share.

use super::driver::{Connection, Sql};
use super::{StoreError, touched};
use crate::domain::clock::Timestamp;

/// SQLite runs in this process and has no other clock than ours. So there we read the time that processes
/// have written.
const NOW: Sql = Sql {
    postgres: "select (extract(epoch from clock_timestamp()) * 1000000)::bigint",
    sqlite: "select at from clock where id = 1",
};

/// `None` if nobody has written a time yet.
pub async fn read(db: &mut Connection) -> Result<Option<Timestamp>, StoreError> {
    Ok(db.query_of(&NOW).optional::<(Timestamp,)>().await?.map(|(at,)| at))
}

/// Writes the time, for SQLite.
pub async fn write(db: &mut Connection, at: Timestamp) -> Result<(), StoreError> {
    let rows = db
        .query("insert into clock (id, at) values (1, $1) on conflict (id) do update set at = excluded.at")
        .bind(at)
        .execute()
        .await?;
    touched("clock", rows, 1)
}
