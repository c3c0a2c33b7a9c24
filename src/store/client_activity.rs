//! How many sessions each client opened and refreshed per time slot. Every replica counts, and the counts are
//! added up here.

use chrono::TimeDelta;

use super::StoreError;
use super::columns::Column;
use super::driver::{Connection, Sql};
use crate::domain::clock::Timestamp;
use crate::domain::ids::CredentialId;

/// The length of a slot.
pub const SLOT: TimeDelta = TimeDelta::minutes(5);

/// What a client did in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Activity {
    pub opened: i64,
    pub refreshed: i64,
}

/// The start of the slot that contains `time`.
pub fn slot_of(time: Timestamp) -> Timestamp {
    let length = SLOT.num_microseconds().expect("five minutes are some microseconds");
    Timestamp::from_micros(time.micros().div_euclid(length) * length)
}

const ADD: Sql = Sql {
    postgres: "insert into client_activity (credential_id, slot, opened, refreshed) \
               select * from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[]) \
               on conflict (credential_id, slot) do update set \
               opened = client_activity.opened + excluded.opened, \
               refreshed = client_activity.refreshed + excluded.refreshed",
    sqlite: "insert into client_activity (credential_id, slot, opened, refreshed) \
             select unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3 from jsonb_each($1) where true \
             on conflict (credential_id, slot) do update set \
             opened = client_activity.opened + excluded.opened, \
             refreshed = client_activity.refreshed + excluded.refreshed",
};

/// Adds to the counts, by client and start of the slot.
pub async fn add(
    db: &mut Connection,
    mut activities: Vec<((CredentialId, Timestamp), Activity)>,
) -> Result<(), StoreError> {
    // Sort, so that all replicas lock rows in the same order.
    activities.sort_by_key(|(slot, _)| *slot);
    let columns = vec![
        Column::ids(activities.iter().map(|((client, _), _)| *client)),
        Column::times(activities.iter().map(|((_, slot), _)| *slot)),
        Column::ints(activities.iter().map(|(_, activity)| activity.opened)),
        Column::ints(activities.iter().map(|(_, activity)| activity.refreshed)),
    ];
    db.batch(&ADD, columns).execute().await?;
    Ok(())
}

/// What a client did in slots that began at `since` or later.
pub async fn since(
    db: &mut Connection,
    client: CredentialId,
    since: Timestamp,
) -> Result<Activity, StoreError> {
    db.query(
        "select cast(coalesce(sum(opened), 0) as bigint) as opened, \
         cast(coalesce(sum(refreshed), 0) as bigint) as refreshed \
         from client_activity where credential_id = $1 and slot >= $2",
    )
    .bind(client)
    .bind(since)
    .one()
    .await
}
