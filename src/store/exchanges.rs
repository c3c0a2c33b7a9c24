//! Exchanges: every call of the integrators' API, for "API details". Written in batches.

use uuid::Uuid;

use super::StoreError;
use super::driver::{Column, Connection, Sql};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, ExchangeId, MerchantId};

/// One call as it was answered. Never holds a secret: no header, no body.
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
    /// Exactly why: the name of a [`crate::domain::access::Reason`].
    pub reason: Option<String>,
    pub client_ip: String,
    /// The proxies it came through, nearest last.
    pub hops: Vec<String>,
    pub api_key_id: Option<ApiKeyId>,
    pub client_id: Option<String>,
    pub latency_us: i64,
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
             value ->> 12, value ->> 13 from json_each($1)",
};

/// # Errors
/// [`StoreError`].
pub async fn insert(db: &mut Connection, exchanges: &[Exchange]) -> Result<(), StoreError> {
    let text = |of: fn(&Exchange) -> Option<String>| Column::Text(exchanges.iter().map(of).collect());
    let columns = vec![
        Column::ids(exchanges.iter().map(|exchange| exchange.id)),
        Column::ids(exchanges.iter().map(|exchange| exchange.merchant_id)),
        Column::times(exchanges.iter().map(|exchange| exchange.at)),
        text(|exchange| Some(exchange.request_id.clone())),
        text(|exchange| Some(exchange.method.clone())),
        text(|exchange| Some(exchange.path.clone())),
        Column::ints(exchanges.iter().map(|exchange| exchange.status.into())),
        text(|exchange| exchange.error.clone()),
        text(|exchange| exchange.reason.clone()),
        text(|exchange| Some(exchange.client_ip.clone())),
        text(|exchange| Some(serde_json::Value::from(exchange.hops.clone()).to_string())),
        Column::Uuid(
            exchanges
                .iter()
                .map(|exchange| exchange.api_key_id.map(|id| id.uuid()))
                .collect::<Vec<Option<Uuid>>>(),
        ),
        text(|exchange| exchange.client_id.clone()),
        Column::ints(exchanges.iter().map(|exchange| exchange.latency_us)),
    ];
    db.batch(&INSERT, columns).execute().await?;
    Ok(())
}
