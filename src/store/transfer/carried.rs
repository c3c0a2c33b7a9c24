//! What calls of a merchant carry, as a proxy looks it up: hashes of API keys and admin tokens, client ids, and ids without
//! hyphens.

use uuid::Uuid;

use super::End;
use crate::domain::ids::{MerchantId, SessionId};
use crate::store::StoreError;

impl End {
    /// What calls of the merchant carry. Of the sessions, those from this id on.
    pub async fn carried(
        &mut self,
        merchant: MerchantId,
        first: SessionId,
    ) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "select encode(hash, 'hex') from secrets where merchant_id = $1 and owner_kind = 'api_key' \
             union all select encode(hash, 'hex') from admin_tokens where merchant_id = $1 \
             union all select encode(earlier_hash, 'hex') from admin_tokens \
             where merchant_id = $1 and earlier_hash is not null \
             union all select client_id from credentials where merchant_id = $1 \
             union all select replace(id::text, '-', '') from (select $1::uuid as id \
             union all select id from api_keys where merchant_id = $1 \
             union all select id from users where merchant_id = $1 \
             union all select id from admin_tokens where merchant_id = $1 \
             union all select id from sessions where merchant_id = $1 and id >= $2 and revoked_at is null) as ids",
        )
        .bind(merchant)
        .bind(first)
        .fetch_all(&mut self.db)
        .await?;
        Ok(rows.into_iter().map(|(row,)| row).collect())
    }

    /// Those of `carried`, of 32 or 64 hexadecimal digits each, that nothing here has any more, although this cell serves
    /// the merchant. A session whose row is gone has ended, because each of its tokens is checked with a secret in that
    /// row. An API key whose row is gone was replaced long ago. A key that works, was revoked or was replaced lately has
    /// its row.
    pub async fn gone(&mut self, carried: &[(MerchantId, String)]) -> Result<Vec<String>, StoreError> {
        let (merchants, carried): (Vec<_>, Vec<_>) =
            carried.iter().map(|(merchant, key)| (merchant.uuid(), key)).unzip();
        let rows: Vec<(String,)> = sqlx::query_as(
            "select key from (select merchant, key, case length(key) when 32 then key::uuid end as id, \
             case length(key) when 64 then decode(key, 'hex') end as hash \
             from unnest($1::uuid[], $2::text[]) as carried (merchant, key)) as carried \
             where exists (select 1 from merchants m where m.id = merchant and m.home = (select number from cell)) \
             and not exists (select 1 from secrets s where s.hash = carried.hash) \
             and not exists (select 1 from admin_tokens t where t.hash = carried.hash) \
             and not exists (select 1 from admin_tokens t where t.earlier_hash = carried.hash) \
             and not exists (select 1 from sessions s where s.id = carried.id) \
             and not exists (select 1 from merchants m where m.id = carried.id) \
             and not exists (select 1 from api_keys k where k.id = carried.id) \
             and not exists (select 1 from users u where u.id = carried.id) \
             and not exists (select 1 from admin_tokens t where t.id = carried.id) \
             and not exists (select 1 from credentials c where c.client_id = carried.key)",
        )
        .bind(merchants)
        .bind(carried)
        .fetch_all(&mut self.db)
        .await?;
        Ok(rows.into_iter().map(|(row,)| row).collect())
    }

    /// One of these merchants that has no row here.
    pub async fn unknown(&mut self, merchants: &[MerchantId]) -> Result<Option<MerchantId>, StoreError> {
        let merchants: Vec<_> = merchants.iter().map(|merchant| merchant.uuid()).collect();
        let row: Option<(Uuid,)> = sqlx::query_as(
            "select id from unnest($1::uuid[]) as named (id) \
             where not exists (select 1 from merchants m where m.id = named.id) limit 1",
        )
        .bind(merchants)
        .fetch_optional(&mut self.db)
        .await?;
        Ok(row.map(|(id,)| MerchantId::from_uuid(id)))
    }
}
