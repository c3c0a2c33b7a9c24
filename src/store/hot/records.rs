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
use crate::store::merchants::IS_ELSEWHERE;

/// The record keeps the newest few secrets that ended within this time, so that a refusal can give the exact reason.
/// Others count as unknown, which keeps the record small. A record has no revoked keys: a key of the merchant that is not
/// in it was revoked.
const REMEMBERED: TimeDelta = TimeDelta::days(30);

/// How many of an owner's newest secrets are kept even if they have ended.
const NEWEST: usize = 8;

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

/// A row for each secret of a key or a client, one for each key or client without secrets, and one for each merchant
/// without keys. A client's row has only the id of its key.
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

const IS_KEPT: &str = "(ends_at is null or ends_at > (select since from bounds))";

/// `asked` has a row for each [`Wanted`], with an id or a hash. `bounds` has the time of [`REMEMBERED`]. The first half has
/// the keys, and a row for a merchant without keys; the second half has the clients. Without `materialized`, SQLite walks
/// all merchants for the second half.
const LOAD: &str = concat!(
    ", wanted as (select id from asked where hash is null union \
     select merchant_id from asked join secrets on secrets.hash = asked.hash and owner_kind = 'api_key'), \
     here as materialized (\
     select merchants.id, revision, status, k.active as api_keys_active, k.expires_at as api_keys_expires_at, \
     e.active as enhanced_security_active, e.expires_at as enhanced_security_expires_at, ",
    IS_ELSEWHERE,
    " from wanted join merchants on merchants.id = wanted.id \
     left join licences k on k.merchant_id = merchants.id and k.product = 'api_keys' \
     left join licences e on e.merchant_id = merchants.id and e.product = 'enhanced_security') \
     select here.*, k.id as key_id, environment, allowed_ips, ip_mode, \
     webhook_url is not null and webhook_disabled_at is null as has_webhook, k.scopes as key_scopes, \
     k.expires_at as key_expires_at, null as credential_id, null as client_id, null as enabled, null as epoch, \
     null as client_scopes, s.id as secret_id, hash, number, overlap_secs, first_used_at, ends_at \
     from here left join api_keys k on k.merchant_id = here.id and k.revoked_at is null \
     left join secrets s on s.owner_id = k.id and ",
    IS_KEPT,
    " union all \
     select here.*, k.id, null, null, null, null, null, null, c.id, client_id, enabled, epoch, c.scopes, \
     s.id, hash, number, overlap_secs, first_used_at, ends_at \
     from here join api_keys k on k.merchant_id = here.id and k.revoked_at is null \
     join credentials c on c.api_key_id = k.id left join secrets s on s.owner_id = c.id and ",
    IS_KEPT,
    " order by id, key_id, credential_id, number desc"
);

const RECORDS: Sql = Sql {
    postgres: concat!(
        "with asked as (select * from unnest($1::uuid[], $2::bytea[]) as a (id, hash)), \
         bounds as (select $3::bigint as since)",
        LOAD
    ),
    sqlite: concat!(
        "with asked as (select unhex(value ->> 0) as id, unhex(value ->> 1) as hash from jsonb_each($1)), \
         bounds as (select $2 as since)",
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
    let rows: Vec<Row> = db.batch(&RECORDS, asked).bind(now.minus(REMEMBERED)).all().await?;
    Ok(rows.chunk_by(|a, b| a.id == b.id).map(|rows| (rows[0].id, loaded(rows, now))).collect())
}

/// From the rows of a merchant, which are sorted by key, client, and the age of the secret.
fn loaded(rows: &[Row], now: Timestamp) -> Loaded {
    let merchant = &rows[0];
    if merchant.is_elsewhere {
        return Loaded::Elsewhere;
    }
    Loaded::Here(Arc::new(MerchantRecord {
        id: merchant.id,
        revision: merchant.revision,
        status: merchant.status,
        licences: merchant.licences,
        api_keys: rows.chunk_by(|a, b| a.key_id == b.key_id).filter_map(|rows| key(rows, now)).collect(),
        credentials: rows
            .chunk_by(|a, b| a.credential_id == b.credential_id)
            .filter_map(|rows| client(rows, now))
            .collect(),
    }))
}

fn key(rows: &[Row], now: Timestamp) -> Option<KeyRecord> {
    let row = rows.iter().find(|row| row.credential_id.is_none())?;
    Some(KeyRecord {
        id: row.key_id?,
        environment: row.environment?,
        allow_list: row.allowed_ips.clone()?,
        ip_mode: row.ip_mode?,
        has_webhook: row.has_webhook?,
        scopes: row.key_scopes.clone(),
        expires_at: row.key_expires_at,
        secrets: secrets(rows.iter().filter(|row| row.credential_id.is_none()), now),
    })
}

fn client(rows: &[Row], now: Timestamp) -> Option<ClientRecord> {
    let row = &rows[0];
    Some(ClientRecord {
        id: row.credential_id?,
        client_id: row.client_id.as_deref()?.into(),
        api_key_id: row.key_id?,
        enabled: row.enabled?,
        scopes: row.client_scopes.clone(),
        epoch: row.epoch?,
        secrets: secrets(rows.iter(), now),
    })
}

/// All live secrets of an owner, and those of its newest few that have ended.
fn secrets<'a>(rows: impl Iterator<Item = &'a Row>, now: Timestamp) -> Box<[SecretRecord]> {
    let read = rows.filter_map(secret).enumerate();
    read.filter(|(place, secret)| *place < NEWEST || secret.is_live(now)).map(|(_, secret)| secret).collect()
}

fn secret(row: &Row) -> Option<SecretRecord> {
    Some(SecretRecord {
        id: row.secret_id?,
        hash: row.hash?,
        overlap_secs: row.overlap_secs.map(|secs| u32::try_from(secs).unwrap_or(u32::MAX)),
        first_used_at: row.first_used_at,
        ends_at: row.ends_at,
    })
}
