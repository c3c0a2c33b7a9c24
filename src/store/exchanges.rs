//! Exchanges: every call of the integrators' API, for "API details". They are written in batches.

use uuid::Uuid;

use super::StoreError;
use super::columns::Column;
use super::driver::{Connection, Sql};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, ExchangeId, MerchantId};

/// One call and its answer. It never contains a secret, because it has no headers and no body.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub id: ExchangeId,
    pub merchant_id: MerchantId,
    pub at: Timestamp,
    pub request_id: String,
    pub method: String,
    pub path: String,
    pub status: u16,
    /// The error that the caller saw.
    pub error: Option<String>,
    /// The exact reason: the name of a [`crate::domain::reason::Reason`].
    pub reason: Option<String>,
    pub client_ip: String,
    /// The proxies that the call came through, nearest last.
    pub hops: Vec<String>,
    pub api_key_id: Option<ApiKeyId>,
    pub client_id: Option<String>,
    pub latency_us: i64,
}

impl Exchange {
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

const INSERT: Sql = Sql {
    postgres: "insert into exchanges (id, merchant_id, at, request_id, method, path, status, error, reason, \
               client_ip, hops, api_key_id, client_id, latency_us) \
               select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], \
               $7::bigint[], $8::text[], $9::text[], $10::text[], $11::text[], $12::uuid[], $13::text[], \
               $14::bigint[])",
    sqlite: "insert into exchanges (id, merchant_id, at, request_id, method, path, status, error, reason, \
             client_ip, hops, api_key_id, client_id, latency_us) \
             select unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, value ->> 5, \
             value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, unhex(value ->> 11), \
             value ->> 12, value ->> 13 from jsonb_each($1)",
};

pub async fn insert(db: &mut Connection, calls: &[Call]) -> Result<(), StoreError> {
    let exchanges = || calls.iter().map(|call| &call.exchange);
    let text = |of: fn(&Exchange) -> Option<String>| Column::Text(exchanges().map(of).collect());
    let columns = vec![
        Column::ids(exchanges().map(|exchange| exchange.id)),
        Column::ids(exchanges().map(|exchange| exchange.merchant_id)),
        Column::times(exchanges().map(|exchange| exchange.at)),
        text(|exchange| Some(exchange.request_id.clone())),
        text(|exchange| Some(exchange.method.clone())),
        text(|exchange| Some(exchange.path.clone())),
        Column::ints(exchanges().map(|exchange| exchange.status.into())),
        text(|exchange| exchange.error.clone()),
        text(|exchange| exchange.reason.clone()),
        text(|exchange| Some(exchange.client_ip.clone())),
        text(|exchange| Some(serde_json::Value::from(exchange.hops.clone()).to_string())),
        Column::Uuid(
            exchanges()
                .map(|exchange| exchange.api_key_id.map(|id| id.uuid()))
                .collect::<Vec<Option<Uuid>>>(),
        ),
        text(|exchange| exchange.client_id.clone()),
        Column::ints(exchanges().map(|exchange| exchange.latency_us)),
    ];
    db.batch(&INSERT, columns).execute().await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct ExchangeRow {
    id: ExchangeId,
    merchant_id: MerchantId,
    at: Timestamp,
    request_id: String,
    method: String,
    path: String,
    status: i64,
    error: Option<String>,
    reason: Option<String>,
    client_ip: String,
    hops: String,
    api_key_id: Option<ApiKeyId>,
    client_id: Option<String>,
    latency_us: i64,
}

impl TryFrom<ExchangeRow> for Exchange {
    type Error = StoreError;
    fn try_from(row: ExchangeRow) -> Result<Self, StoreError> {
        let impossible = |what: String| StoreError::Impossible { table: "exchanges", what };
        Ok(Self {
            id: row.id,
            merchant_id: row.merchant_id,
            at: row.at,
            request_id: row.request_id,
            method: row.method,
            path: row.path,
            status: u16::try_from(row.status)
                .map_err(|_| impossible(format!("status {} of {}", row.status, row.id)))?,
            error: row.error,
            reason: row.reason,
            client_ip: row.client_ip,
            hops: serde_json::from_str(&row.hops)
                .map_err(|error| impossible(format!("hops of {}: {error}", row.id)))?,
            api_key_id: row.api_key_id,
            client_id: row.client_id,
            latency_us: row.latency_us,
        })
    }
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

/// A page of a merchant's exchanges, newest first, starting before `before`.
pub async fn list(
    db: &mut Connection,
    merchant: MerchantId,
    filter: &Filter,
    before: Option<ExchangeId>,
    limit: i64,
) -> Result<Vec<Exchange>, StoreError> {
    // There is an index on the request id. It can only be used if the statement always has the condition.
    let sql = match filter.request_id {
        Some(_) => {
            "select id, merchant_id, at, request_id, method, path, status, error, reason, client_ip, hops, \
             api_key_id, client_id, latency_us from exchanges \
             where merchant_id = $1 and request_id = $2 and (status = $3 or $3 is null) \
             and (api_key_id = $4 or $4 is null) and (at >= $5 or $5 is null) and (at < $6 or $6 is null) \
             and (id < $7 or $7 is null) and (client_ip = $9 or $9 is null) \
             and ((status >= 400 and (coalesce(reason, 'other') = $10 or $10 = 'any')) or $10 is null) order by id desc limit $8"
        }
        None => {
            "select id, merchant_id, at, request_id, method, path, status, error, reason, client_ip, hops, \
             api_key_id, client_id, latency_us from exchanges \
             where merchant_id = $1 and (request_id = $2 or $2 is null) and (status = $3 or $3 is null) \
             and (api_key_id = $4 or $4 is null) and (at >= $5 or $5 is null) and (at < $6 or $6 is null) \
             and (id < $7 or $7 is null) and (client_ip = $9 or $9 is null) \
             and ((status >= 400 and (coalesce(reason, 'other') = $10 or $10 = 'any')) or $10 is null) order by id desc limit $8"
        }
    };
    db.query(sql)
        .bind(merchant)
        .bind(filter.request_id.clone())
        .bind(filter.status.map(i64::from))
        .bind(filter.api_key_id)
        .bind(filter.from)
        .bind(filter.to)
        .bind(before)
        .bind(limit)
        .bind(filter.client_ip.clone())
        .bind(filter.denied.clone())
        .all::<ExchangeRow>()
        .await?
        .into_iter()
        .map(Exchange::try_from)
        .collect()
}

/// An address that a key was used from.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Seen {
    pub client_ip: String,
    pub calls: i64,
    pub first_seen_at: Timestamp,
    pub last_seen_at: Timestamp,
}

/// The addresses of a key's successful calls, most used first. Only its latest 100,000 calls count.
pub async fn addresses_of(
    db: &mut Connection,
    merchant: MerchantId,
    key: ApiKeyId,
) -> Result<Vec<Seen>, StoreError> {
    db.query(
        "select client_ip, count(*) as calls, min(at) as first_seen_at, max(at) as last_seen_at \
         from (select client_ip, at from exchanges where merchant_id = $1 and api_key_id = $2 and status < 400 \
         order by id desc limit 100000) as latest \
         group by client_ip order by calls desc, client_ip limit 1000",
    )
    .bind(merchant)
    .bind(key)
    .all()
    .await
}
