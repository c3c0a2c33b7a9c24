//! Exchanges: every call of the integrators' API, for "API details". They are written in batches.
//!
//! If the caller sent no request id, the id of the record is the request id. It is stored only once:
//! `request_id` is empty then, and the index by request id does not contain the row.

use std::borrow::Cow;

use constcat::concat;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::StoreError;
use super::columns::Column;
use super::driver::{Connection, Sql};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, ExchangeId, Id, MerchantId};
use crate::domain::stored::JsonText;

// One call and its answer. It never contains a secret, because it has no headers and no body.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, ToSchema)]
#[schema(as = ExchangeView)]
pub struct Exchange {
    pub id: ExchangeId,
    #[serde(skip)]
    pub merchant_id: MerchantId,
    pub request_id: String,
    pub at: Timestamp,
    pub method: String,
    pub path: String,
    #[sqlx(try_from = "i64")]
    pub status: u16,
    /// The error that the caller was told.
    pub error: Option<String>,
    // The name of a [`crate::domain::reason::Reason`].
    /// The exact reason, such as `address_not_allowed`. `address_observed` is set on a call that was allowed.
    pub reason: Option<String>,
    pub client_ip: String,
    /// The trusted proxies that the call came through, nearest last.
    #[sqlx(try_from = "JsonText<Vec<String>>")]
    pub hops: Vec<String>,
    pub api_key_id: Option<ApiKeyId>,
    pub client_id: Option<String>,
    /// Time until the answer, in microseconds.
    pub latency_us: i64,
}

impl Exchange {
    fn has_own_request_id(&self) -> bool {
        let mut id = Uuid::encode_buffer();
        self.request_id != *self.id.uuid().hyphenated().encode_lower(&mut id)
    }

    /// Its size in memory.
    pub fn bytes(&self) -> usize {
        let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let hops: usize = self.hops.iter().map(|hop| size_of::<String>() + hop.len()).sum();
        size_of::<Self>()
            + self.request_id.len()
            + self.method.len()
            + self.path.len()
            + self.client_ip.len()
            + of(&self.error)
            + of(&self.reason)
            + of(&self.client_id)
            + hops
    }
}

/// A call as the log writes it.
pub struct Call {
    pub exchange: Exchange,
    /// The call renewed a session, or tried to. For `/api/authorize`, the path does not show this.
    pub is_renewal: bool,
}

const COLUMNS: &str = "id, merchant_id, at, request_id, method, path, status, error, reason, client_ip, hops, \
                       api_key_id, client_id, latency_us";

const INSERT: Sql = Sql {
    postgres: concat!("copy exchanges (", COLUMNS, ") from stdin (format binary)"),
    sqlite: concat!(
        "insert into exchanges (",
        COLUMNS,
        ") select unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, value ->> 5, \
         value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, unhex(value ->> 11), \
         value ->> 12, value ->> 13 from jsonb_each($1)"
    ),
};

pub async fn insert(db: &mut Connection, calls: &[&Call]) -> Result<(), StoreError> {
    let exchanges = || calls.iter().map(|call| &call.exchange);
    let text = |of: fn(&Exchange) -> Option<&str>| Column::text(exchanges().map(of));
    let columns = vec![
        Column::ids(exchanges().map(|exchange| exchange.id)),
        Column::ids(exchanges().map(|exchange| exchange.merchant_id)),
        Column::times(exchanges().map(|exchange| exchange.at)),
        text(|exchange| Some(if exchange.has_own_request_id() { &exchange.request_id } else { "" })),
        text(|exchange| Some(&exchange.method)),
        text(|exchange| Some(&exchange.path)),
        Column::ints(exchanges().map(|exchange| exchange.status.into())),
        text(|exchange| exchange.error.as_deref()),
        text(|exchange| exchange.reason.as_deref()),
        text(|exchange| Some(&exchange.client_ip)),
        Column::text(exchanges().map(|exchange| {
            Some(match exchange.hops.as_slice() {
                [] => Cow::Borrowed("[]"),
                hops => Cow::Owned(serde_json::Value::from(hops).to_string()),
            })
        })),
        Column::maybe_ids(exchanges().map(|exchange| exchange.api_key_id)),
        text(|exchange| exchange.client_id.as_deref()),
        Column::ints(exchanges().map(|exchange| exchange.latency_us)),
    ];
    db.copy(&INSERT, columns).await
}

/// Which exchanges to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub request_id: Option<String>,
    pub status: Option<u16>,
    pub api_key_id: Option<ApiKeyId>,
    /// Refused for this reason. `other` means refused without a reason, `any` means all refused calls.
    pub denied: Option<String>,
    pub client_ip: Option<String>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

const SELECT: &str = concat!("select ", COLUMNS, " from exchanges");
const IN_RANGE: &str = " where merchant_id = $1 and id >= $2 and id < $3 and at >= $4 and at < $5 \
     and (status = $6 or $6 is null) and (api_key_id = $7 or $7 is null) and (client_ip = $8 or $8 is null) \
     and ((status >= 400 and (coalesce(reason, 'other') = $9 or $9 = 'any')) or $9 is null)";
/// The condition of the index of refused calls.
const REFUSED: &str = " and status >= 400";
/// Found by the request id first. PostgreSQL would otherwise go through all calls in the range.
const NAMED: &str = concat!(
    "with named as materialized (",
    SELECT,
    " where merchant_id = $1 and request_id = $11 and request_id <> '' union all ",
    SELECT,
    " where merchant_id = $1 and id = $12 and request_id = '') select ",
    COLUMNS,
    " from named"
);
const NEWEST_FIRST: &str = " order by id desc limit $10";

/// A page of a merchant's exchanges, newest first, starting before `before`.
pub async fn list(
    db: &mut Connection,
    merchant: MerchantId,
    filter: &Filter,
    before: Option<ExchangeId>,
    limit: i64,
) -> Result<Vec<Exchange>, StoreError> {
    // Ids begin with the time. Both ends of the range are always bound: PostgreSQL keeps one plan for all calls,
    // and in that plan a condition that may be absent cannot use an index. For the same reason a request id, and
    // refused calls, which have an index of their own, have a statement of their own. A request id may also be the
    // id of the record.
    let from = filter.from.unwrap_or(Timestamp::MIN);
    let to = filter.to.unwrap_or(Timestamp::MAX);
    let end = before.unwrap_or(Id::max()).min(filter.to.map_or(Id::max(), Id::first_after));
    let own_id = |request_id: &String| request_id.parse().unwrap_or(ExchangeId::nil());
    let is_of_refused = filter.denied.is_some() || filter.status.is_some_and(|status| status >= 400);
    let sql = match (&filter.request_id, is_of_refused) {
        (Some(_), _) => concat!(NAMED, IN_RANGE, NEWEST_FIRST),
        (None, true) => concat!(SELECT, IN_RANGE, REFUSED, NEWEST_FIRST),
        (None, false) => concat!(SELECT, IN_RANGE, NEWEST_FIRST),
    };
    let query = db
        .query(sql)
        .bind(merchant)
        .bind(filter.from.map_or(ExchangeId::nil(), ExchangeId::first_of))
        .bind(end)
        .bind(from)
        .bind(to)
        .bind(filter.status.map(i64::from))
        .bind(filter.api_key_id)
        .bind(filter.client_ip.clone())
        .bind(filter.denied.clone())
        .bind(limit)
        .bind_if(filter.request_id.clone())
        .bind_if(filter.request_id.as_ref().map(own_id));
    let mut exchanges: Vec<Exchange> = query.all().await?;
    for exchange in exchanges.iter_mut().filter(|exchange| exchange.request_id.is_empty()) {
        exchange.request_id = exchange.id.to_string();
    }
    Ok(exchanges)
}

/// Calls of a key in one hour with the same outcome.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct HourOfKey {
    /// Hours since 1970.
    pub hour: i64,
    pub is_good: bool,
    pub reason: Option<String>,
    pub calls: i64,
}

/// A key's calls since `since`, by hour and outcome. Looks at no more than the newest `calls_max` calls of the
/// merchant.
pub async fn hours_of_key(
    db: &mut Connection,
    merchant: MerchantId,
    key: ApiKeyId,
    since: ExchangeId,
    calls_max: i64,
) -> Result<Vec<HourOfKey>, StoreError> {
    db.query(
        "select at / 3600000000 as hour, status < 400 as is_good, reason, count(*) as calls \
         from (select at, status, reason, api_key_id from exchanges where merchant_id = $1 and id >= $3 \
         order by id desc limit $4) as newest where api_key_id = $2 \
         group by at / 3600000000, status < 400, reason",
    )
    .bind(merchant)
    .bind(key)
    .bind(since)
    .bind(calls_max)
    .all()
    .await
}

/// An address that a key was used from.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Seen {
    pub client_ip: String,
    pub calls: i64,
    pub first_seen_at: Timestamp,
    pub last_seen_at: Timestamp,
}

/// The addresses of a key's successful calls, most used first. Only its latest 100,000 calls count, and only
/// those among the newest `calls_max` calls of the merchant.
pub async fn addresses_of(
    db: &mut Connection,
    merchant: MerchantId,
    key: ApiKeyId,
    calls_max: i64,
) -> Result<Vec<Seen>, StoreError> {
    db.query(
        "select client_ip, count(*) as calls, min(at) as first_seen_at, max(at) as last_seen_at \
         from (select client_ip, at from (select id, client_ip, at, api_key_id, status from exchanges \
         where merchant_id = $1 order by id desc limit $3) as newest \
         where api_key_id = $2 and status < 400 order by id desc limit 100000) as latest \
         group by client_ip order by calls desc, client_ip limit 1000",
    )
    .bind(merchant)
    .bind(key)
    .bind(calls_max)
    .all()
    .await
}
