//! Which scopes the clients of a key were granted lately, as the rows of their sessions tell, and which the
//! calls of resource servers asked for. Read when somebody is about to narrow them, so nothing is recorded
//! for it on the way of a call.

use super::StoreError;
use super::driver::Connection;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, ExchangeId, MerchantId};

/// Sessions of one client with one set of scopes.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Granted {
    pub client_id: String,
    /// As on the wire; `None` is everything.
    pub scopes: Option<String>,
    pub sessions: i64,
    /// Calls that gave a token: one for each generation of each session.
    pub tokens: i64,
    pub last_at: Timestamp,
}

/// What the sessions of a key's clients were granted that started or were refreshed at `since` or later, out
/// of the merchant's latest hundred thousand.
pub async fn granted(
    db: &mut Connection,
    merchant: MerchantId,
    key: ApiKeyId,
    since: Timestamp,
) -> Result<Vec<Granted>, StoreError> {
    db.query(
        "select c.client_id, s.scopes, count(*) as sessions, cast(sum(s.generation) as bigint) as tokens, \
         max(s.rotated_at) as last_at \
         from (select credential_id, scopes, generation, rotated_at from sessions where merchant_id = $1 \
         order by id desc limit 100000) as s \
         join credentials c on c.id = s.credential_id where c.api_key_id = $2 and s.rotated_at >= $3 \
         group by c.client_id, s.scopes order by tokens desc, c.client_id limit 1000",
    )
    .bind(merchant)
    .bind(key)
    .bind(since)
    .all()
    .await
}

/// Calls of a resource server that one path asked for.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Asked {
    pub path: String,
    pub client_id: Option<String>,
    pub calls: i64,
    pub last_at: Timestamp,
}

/// The calls that passed `/api/verify-scope/` with a key from `since` on, by path and client, out of the
/// merchant's latest hundred thousand calls.
pub async fn asked(
    db: &mut Connection,
    merchant: MerchantId,
    key: ApiKeyId,
    since: ExchangeId,
) -> Result<Vec<Asked>, StoreError> {
    db.query(
        "select path, client_id, count(*) as calls, max(at) as last_at \
         from (select path, client_id, at, status, api_key_id from exchanges \
         where merchant_id = $1 and id >= $3 order by id desc limit 100000) as latest \
         where api_key_id = $2 and status < 400 and path like '/api/verify-scope/%' \
         group by path, client_id order by calls desc, path limit 1000",
    )
    .bind(merchant)
    .bind(key)
    .bind(since)
    .all()
    .await
}
