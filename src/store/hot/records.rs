//! Loads the records of many merchants, by their ids or by one of their API keys, in one statement.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::TimeDelta;
use constcat::concat;

use crate::domain::allow_list::AllowList;
use crate::domain::api_key::{Environment, IpMode};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, CredentialId, MerchantId, SecretId};
use crate::domain::licence::{Licences, StoredLicences};
use crate::domain::merchant::MerchantStatus;
use crate::domain::record::{ClientRecord, KeyRecord, MerchantRecord, SecretRecord};
use crate::domain::scope::Scopes;
use crate::domain::secret::SecretHash;
use crate::store::StoreError;
use crate::store::columns::Column;
use crate::store::driver::{Connection, Sql};
use crate::store::merchants::{IS_ELSEWHERE, LICENCES};

/// The record keeps the newest few secrets that were replaced within this time, so that a refusal can give the exact
/// reason. Others count as unknown, which keeps the record small. It does not contain revoked keys. So a key that
/// belongs to the merchant but is not in the record was revoked.
const REMEMBERED: TimeDelta = TimeDelta::days(30);

/// How many of an owner's newest secrets are read even if they have ended.
const NEWEST: i64 = 8;

/// The merchant to load: this one, or the one whose API key has this hash.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    Merchant(MerchantId),
    OwnerOf(SecretHash),
}

/// A merchant's record, or that another cell serves it.
#[derive(Clone, Debug)]
pub enum Loaded {
    Here(Arc<MerchantRecord>),
    Elsewhere,
}

impl Loaded {
    pub fn here(&self) -> Option<&MerchantRecord> {
        match self {
            Self::Here(record) => Some(record),
            Self::Elsewhere => None,
        }
    }
}

/// A row for each secret of a key or a client, and one for each key or client without secrets, and for each merchant
/// without keys. The rows of a key's clients repeat the columns of the key.
#[derive(sqlx::FromRow)]
struct Row {
    id: MerchantId,
    revision: i64,
    status: MerchantStatus,
    #[sqlx(flatten, try_from = "StoredLicences")]
    licences: Licences,
    is_elsewhere: bool,
    key_id: Option<ApiKeyId>,
    environment: Option<Environment>,
    allowed_ips: Option<AllowList>,
    ip_mode: Option<IpMode>,
    has_webhook: Option<bool>,
    key_scopes: Option<Scopes>,
    key_expires_at: Option<Timestamp>,
    credential_id: Option<CredentialId>,
    client_id: Option<String>,
    enabled: Option<bool>,
    epoch: Option<i64>,
    client_scopes: Option<Scopes>,
    secret_id: Option<SecretId>,
    hash: Option<SecretHash>,
    overlap_secs: Option<i64>,
    first_used_at: Option<Timestamp>,
    ends_at: Option<Timestamp>,
}

const SECRET: &str =
    "select owner_id, secrets.id as secret_id, hash, number, overlap_secs, first_used_at, ends_at";

/// `asked` has a row for each [`Wanted`], with an id or a hash, and `bounds` has the times and [`NEWEST`]. The two halves of `kept` each have an index: of live
/// secrets by merchant, and of the newest ones by owner.
const LOAD: &str = concat!(
    ", wanted as (select id from asked where hash is null union \
     select merchant_id from asked join secrets on secrets.hash = asked.hash and owner_kind = 'api_key'), \
     owners as (\
     select merchant_id, k.id as owner_id, k.id as key_id, environment, allowed_ips, ip_mode, \
     webhook_url is not null and webhook_disabled_at is null as has_webhook, k.scopes as key_scopes, \
     expires_at as key_expires_at, null as credential_id, null as client_id, null as enabled, null as epoch, \
     null as client_scopes \
     from wanted join api_keys k on k.merchant_id = wanted.id where revoked_at is null union all \
     select k.merchant_id, c.id, k.id, environment, allowed_ips, ip_mode, \
     webhook_url is not null and webhook_disabled_at is null, k.scopes, expires_at, c.id, client_id, enabled, epoch, \
     c.scopes \
     from wanted join api_keys k on k.merchant_id = wanted.id join credentials c on c.api_key_id = k.id \
     where revoked_at is null), \
     kept as (",
    SECRET,
    " from wanted join secrets on merchant_id = wanted.id where ends_at is null or ends_at > (select now from bounds) union all ",
    SECRET,
    " from owners join secrets using (owner_id) where number > \
     (select max(number) from secrets as newest where newest.owner_id = owners.owner_id) - (select newest from bounds) \
     and ends_at > (select since from bounds) and ends_at <= (select now from bounds)) \
     select merchants.id, revision, status, ",
    LICENCES,
    ", ",
    IS_ELSEWHERE,
    ", key_id, environment, allowed_ips, ip_mode, has_webhook, key_scopes, key_expires_at, credential_id, client_id, \
     enabled, epoch, client_scopes, secret_id, hash, overlap_secs, first_used_at, ends_at \
     from wanted join merchants on merchants.id = wanted.id \
     left join owners on owners.merchant_id = merchants.id left join kept on kept.owner_id = owners.owner_id \
     order by merchants.id, key_id, credential_id, number desc"
);

const RECORDS: Sql = Sql {
    postgres: concat!(
        "with asked as (select * from unnest($1::uuid[], $2::bytea[]) as a (id, hash)), \
         bounds as (select $3::bigint as since, $4::bigint as now, $5::bigint as newest)",
        LOAD
    ),
    sqlite: concat!(
        "with asked as (select unhex(value ->> 0) as id, unhex(value ->> 1) as hash from jsonb_each($1)), \
         bounds as (select $2 as since, $3 as now, $4 as newest)",
        LOAD
    ),
};

/// The records of some merchants, by their ids, each of one revision.
pub async fn load(
    db: &mut Connection,
    wanted: &[Wanted],
    now: Timestamp,
) -> Result<HashMap<MerchantId, Loaded>, StoreError> {
    let ids = wanted.iter().map(|wanted| match wanted {
        Wanted::Merchant(id) => Some(*id),
        Wanted::OwnerOf(_) => None,
    });
    let hashes = wanted.iter().map(|wanted| match wanted {
        Wanted::Merchant(_) => None,
        Wanted::OwnerOf(hash) => Some(hash.bytes().as_slice()),
    });
    let asked = vec![Column::maybe_ids(ids), Column::Bytes(hashes.collect())];
    let rows: Vec<Row> =
        db.batch(&RECORDS, asked).bind(now.minus(REMEMBERED)).bind(now).bind(NEWEST).all().await?;
    Ok(rows.chunk_by(|a, b| a.id == b.id).map(|rows| (rows[0].id, loaded(rows))).collect())
}

/// From the rows of a merchant, which are sorted by key, client, and the age of the secret.
fn loaded(rows: &[Row]) -> Loaded {
    let merchant = &rows[0];
    if merchant.is_elsewhere {
        return Loaded::Elsewhere;
    }
    Loaded::Here(Arc::new(MerchantRecord {
        id: merchant.id,
        revision: merchant.revision,
        status: merchant.status,
        licences: merchant.licences,
        api_keys: rows.chunk_by(|a, b| a.key_id == b.key_id).filter_map(key).collect(),
        credentials: rows.chunk_by(|a, b| a.credential_id == b.credential_id).filter_map(client).collect(),
    }))
}

fn key(rows: &[Row]) -> Option<KeyRecord> {
    let row = &rows[0];
    Some(KeyRecord {
        id: row.key_id?,
        environment: row.environment?,
        allow_list: row.allowed_ips.clone()?,
        ip_mode: row.ip_mode?,
        has_webhook: row.has_webhook?,
        scopes: row.key_scopes.clone(),
        expires_at: row.key_expires_at,
        secrets: rows.iter().filter(|row| row.credential_id.is_none()).filter_map(secret).collect(),
    })
}

fn client(rows: &[Row]) -> Option<ClientRecord> {
    let row = &rows[0];
    Some(ClientRecord {
        id: row.credential_id?,
        client_id: row.client_id.as_deref()?.into(),
        api_key_id: row.key_id?,
        enabled: row.enabled?,
        scopes: row.client_scopes.clone(),
        epoch: row.epoch?,
        secrets: rows.iter().filter_map(secret).collect(),
    })
}

fn secret(row: &Row) -> Option<SecretRecord> {
    Some(SecretRecord {
        id: row.secret_id?,
        hash: row.hash?,
        overlap_secs: row.overlap_secs,
        first_used_at: row.first_used_at,
        ends_at: row.ends_at,
    })
}
