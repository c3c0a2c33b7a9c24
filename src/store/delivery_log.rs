//! The log of webhook deliveries with their attempts, and redelivery.

use std::collections::HashMap;

use constcat::concat;

use super::columns::Column;
use super::driver::{Connection, Sql, Tx};
use super::{StoreError, touched};
use crate::domain::clock::Timestamp;
use crate::domain::delivery::{Attempt, Delivery, DeliveryState};
use crate::domain::ids::{ApiKeyId, DeliveryId, Id, MerchantId};

/// Which deliveries to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    pub api_key: Option<ApiKeyId>,
    pub state: Option<DeliveryState>,
}

const SELECT: &str = "select d.id, d.event_id, d.merchant_id, d.api_key_id, e.type, e.data, d.state, \
                      d.created_at, d.finished_at, \
                      case when d.state = 'pending' then d.next_attempt_at end as next_attempt_at \
                      from webhook_deliveries d join webhook_events e on e.id = d.event_id";

#[derive(sqlx::FromRow)]
struct AttemptOf {
    delivery_id: DeliveryId,
    #[sqlx(flatten)]
    attempt: Attempt,
}

/// A page of a merchant's deliveries with their attempts, newest first, starting before `before`.
pub async fn list(
    db: &mut Connection,
    merchant: MerchantId,
    filter: Filter,
    before: Option<DeliveryId>,
    limit: i64,
) -> Result<Vec<Delivery>, StoreError> {
    const LIST: &str = concat!(
        SELECT,
        " where d.merchant_id = $1 and d.id < $2 and (d.api_key_id = $3 or $3 is null) \
         and (d.state = $4 or $4 is null) order by d.id desc limit $5"
    );
    let page = db
        .query(LIST)
        .bind(merchant)
        .bind(before.unwrap_or(Id::max()))
        .bind(filter.api_key)
        .bind(filter.state)
        .bind(limit)
        .all()
        .await?;
    with_attempts(db, page).await
}

pub async fn by_id(db: &mut Connection, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
    let found = db.query(concat!(SELECT, " where d.id = $1")).bind(id).all().await?;
    Ok(with_attempts(db, found).await?.pop())
}

const ATTEMPTS: Sql = Sql {
    postgres: "select delivery_id, number, at, status, error, latency_us, response from webhook_attempts \
               where delivery_id = any($1::uuid[]) order by number",
    sqlite: "select delivery_id, number, at, status, error, latency_us, response from webhook_attempts \
             where delivery_id in (select unhex(value ->> 0) from jsonb_each($1)) order by number",
};

async fn with_attempts(
    db: &mut Connection,
    mut deliveries: Vec<Delivery>,
) -> Result<Vec<Delivery>, StoreError> {
    let columns = vec![Column::ids(deliveries.iter().map(|delivery| delivery.id))];
    let mut attempts: HashMap<_, Vec<Attempt>> = HashMap::new();
    for row in db.batch(&ATTEMPTS, columns).all::<AttemptOf>().await? {
        attempts.entry(row.delivery_id).or_default().push(row.attempt);
    }
    for delivery in &mut deliveries {
        delivery.attempts = attempts.remove(&delivery.id).unwrap_or_default();
    }
    Ok(deliveries)
}

/// Makes one delivery due now, in a new round.
pub async fn redeliver(tx: &mut Tx, id: DeliveryId, now: Timestamp) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "update webhook_deliveries set state = 'pending', next_attempt_at = $2, tries = 0, \
             began_at = null, finished_at = null where id = $1",
        )
        .bind(id)
        .bind(now)
        .execute()
        .await?;
    tx.leaves_deliveries();
    touched("webhook_deliveries", rows, 1)
}

const STILL_FAILED: &str = "merchant_id = $1 and state = 'failed' and created_at >= $3 \
     and (api_key_id = $2 or $2 is null) and api_key_id in (select id from api_keys \
     where merchant_id = $1 and webhook_url is not null and webhook_disabled_at is null)";

/// How many of a merchant's deliveries [`redeliver_failed`] would make due.
pub async fn count_failed(
    db: &mut Connection,
    merchant: MerchantId,
    key: Option<ApiKeyId>,
    since: Timestamp,
    limit: i64,
) -> Result<i64, StoreError> {
    const COUNT: &str = concat!(
        "select count(*) from (select 1 as one from webhook_deliveries where ",
        STILL_FAILED,
        " limit $4) as failed"
    );
    let row = db.query(COUNT).bind(merchant).bind(key).bind(since).bind(limit).one::<(i64,)>();
    Ok(row.await?.0)
}

/// Makes a merchant's failed deliveries due that were created at `since` or later and still have an endpoint:
/// up to `limit`, oldest first. Returns how many.
pub async fn redeliver_failed(
    tx: &mut Tx,
    merchant: MerchantId,
    key: Option<ApiKeyId>,
    since: Timestamp,
    now: Timestamp,
    limit: i64,
) -> Result<u64, StoreError> {
    // The outer condition is checked again on PostgreSQL after a wait for a row that another call has made due.
    const REDELIVER: &str = concat!(
        "update webhook_deliveries set state = 'pending', next_attempt_at = $4, tries = 0, \
         began_at = null, finished_at = null where state = 'failed' and id in (select id from webhook_deliveries where ",
        STILL_FAILED,
        " order by id limit $5)"
    );
    let rows =
        tx.query(REDELIVER).bind(merchant).bind(key).bind(since).bind(now).bind(limit).execute().await?;
    if rows > 0 {
        tx.leaves_deliveries();
    }
    Ok(rows)
}
