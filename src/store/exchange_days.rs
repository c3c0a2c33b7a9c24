//! The tables of exchanges on PostgreSQL: one for each day (UTC), so that old exchanges go by dropping a table.
//! The migration that divided them has the functions. SQLite keeps one table and removes rows.

use chrono::TimeDelta;

use super::StoreError;
use super::driver::{Connection, Sql};
use crate::domain::clock::Timestamp;
use crate::domain::ids::ExchangeId;

/// How many days have a table, from today on. The sweeper may be away for as long. Exchanges of a day without one
/// are kept in a table of their own until it is made.
const DAYS: i64 = 8;

/// The start of the day in UTC.
pub fn midnight(time: Timestamp) -> Timestamp {
    let day = TimeDelta::days(1).num_microseconds().expect("a day has fewer than 2^63 microseconds");
    Timestamp::from_micros(time.micros().div_euclid(day) * day)
}

const MAKE: Sql = Sql { postgres: "select make_exchange_days($1, $2)", sqlite: "select 0 * $1 * $2" };

/// Makes the tables of today and the next days. Returns how many were missing.
pub async fn make(db: &mut Connection, now: Timestamp) -> Result<i64, StoreError> {
    db.query_of(&MAKE).bind(midnight(now)).bind(DAYS).one::<(i64,)>().await.map(|(made,)| made)
}

const DROP: Sql =
    Sql { postgres: "select drop_exchange_day($1)", sqlite: "select 0 from merchants where id < $1 limit 0" };

/// Drops the oldest table whose exchanges are all from before `until`. Returns how many it had, about. `None` if
/// there is no such table.
pub async fn drop_oldest(db: &mut Connection, until: ExchangeId) -> Result<Option<i64>, StoreError> {
    let row = db.query_of(&DROP).bind(until).optional::<(Option<i64>,)>().await?;
    Ok(row.and_then(|(rows,)| rows))
}
