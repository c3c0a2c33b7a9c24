//! Which scopes the clients of a key were granted lately, and which scopes resource servers asked for. This
//! is only read when somebody is about to narrow them. So it is computed from the sessions and the recorded
//! calls, and a call records nothing extra for it.

use super::StoreError;
use super::driver::Connection;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, ExchangeId, MerchantId};

/// Sessions of one client with one set of scopes.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Granted {
    pub client_id: String,
    /// As on the wire. `None` means every scope.
    pub scopes: Option<String>,
    pub sessions: i64,
    /// How many calls issued a token: one for each generation of each session.
    pub tokens: i64,
    pub last_at: Timestamp,
}

/// What the sessions of a key's clients were granted. Only sessions that started or were refreshed at `since`
/// or later, out of the merchant's latest 100,000.
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

/// Calls of resource servers with one path.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Asked {
    pub path: String,
    pub client_id: Option<String>,
    pub calls: i64,
    pub last_at: Timestamp,
}

/// The calls to `/api/verify-scope/` that were admitted with a key since `since`, by path and client. Only
/// out of the merchant's latest 100,000 calls.
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
