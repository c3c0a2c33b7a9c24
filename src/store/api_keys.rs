//! API keys and their settings.

use super::driver::{Connection, Tx};
use super::secrets::{ByOwner, Owner};
use super::{StoreError, like, parse_name, secrets, touched};
use crate::domain::allow_list::AllowList;
use crate::domain::api_key::{ApiKey, WebhookFormat};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, MerchantId};
use crate::domain::scope::Scopes;

#[derive(sqlx::FromRow)]
struct ApiKeyRow {
    id: ApiKeyId,
    merchant_id: MerchantId,
    name: String,
    environment: String,
    allowed_ips: String,
    ip_mode: String,
    webhook_format: String,
    webhook_url: Option<String>,
    webhook_disabled_at: Option<Timestamp>,
    scopes: Option<Scopes>,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    leaked: bool,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl TryFrom<ApiKeyRow> for ApiKey {
    type Error = StoreError;
    fn try_from(row: ApiKeyRow) -> Result<Self, StoreError> {
        let impossible = |what: String| StoreError::Impossible { table: "api_keys", what };
        let ranges: Vec<String> = serde_json::from_str(&row.allowed_ips)
            .map_err(|error| impossible(format!("allowed_ips of {}: {error}", row.id)))?;
        let allow_list = AllowList::parse(&ranges)
            .map_err(|error| impossible(format!("allowed_ips of {}: {error}", row.id)))?;
        Ok(Self {
            id: row.id,
            merchant_id: row.merchant_id,
            name: row.name,
            environment: parse_name("api_keys", &row.environment)?,
            allow_list,
            ip_mode: parse_name("api_keys", &row.ip_mode)?,
            webhook_format: parse_name("api_keys", &row.webhook_format)?,
            webhook_url: row.webhook_url,
            webhook_disabled_at: row.webhook_disabled_at,
            scopes: row.scopes,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            leaked: row.leaked,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            secrets: Vec::new(),
        })
    }
}

fn allowed_ips_json(key: &ApiKey) -> String {
    serde_json::Value::from(key.allow_list.to_strings()).to_string()
}

pub async fn insert(tx: &mut Tx, key: &ApiKey) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "insert into api_keys (id, merchant_id, name, environment, allowed_ips, ip_mode, webhook_format, \
             webhook_url, expires_at, leaked, version, created_at, updated_at, scopes) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, false, $10, $11, $12, $13)",
        )
        .bind(key.id)
        .bind(key.merchant_id)
        .bind(key.name.clone())
        .bind(<&str>::from(key.environment))
        .bind(allowed_ips_json(key))
        .bind(<&str>::from(key.ip_mode))
        .bind(<&str>::from(key.webhook_format))
        .bind(key.webhook_url.clone())
        .bind(key.expires_at)
        .bind(key.version)
        .bind(key.created_at)
        .bind(key.updated_at)
        .bind(key.scopes.clone())
        .execute()
        .await?;
    touched("api_keys", rows, 1)?;
    for secret in &key.secrets {
        secrets::insert(tx, key.merchant_id, Owner::ApiKey(key.id), secret).await?;
    }
    Ok(())
}

/// Writes all settings of a key, and raises its version.
pub async fn update(tx: &mut Tx, key: &ApiKey) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "update api_keys set name = $2, allowed_ips = $3, ip_mode = $4, webhook_format = $5, \
             webhook_url = $6, webhook_disabled_at = $7, expires_at = $8, revoked_at = $9, leaked = $10, \
             updated_at = $11, scopes = $13, version = version + 1 where id = $1 and version = $12",
        )
        .bind(key.id)
        .bind(key.name.clone())
        .bind(allowed_ips_json(key))
        .bind(<&str>::from(key.ip_mode))
        .bind(<&str>::from(key.webhook_format))
        .bind(key.webhook_url.clone())
        .bind(key.webhook_disabled_at)
        .bind(key.expires_at)
        .bind(key.revoked_at)
        .bind(key.leaked)
        .bind(key.updated_at)
        .bind(key.version)
        .bind(key.scopes.clone())
        .execute()
        .await?;
    touched("api_keys", rows, 1)
}

pub async fn by_id(db: &mut Connection, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
    let row = db
        .query(
            "select id, merchant_id, name, environment, allowed_ips, ip_mode, webhook_format, webhook_url, \
             webhook_disabled_at, scopes, expires_at, revoked_at, leaked, version, created_at, updated_at \
             from api_keys where id = $1",
        )
        .bind(id)
        .optional::<ApiKeyRow>()
        .await?;
    Ok(with_secrets(db, row.into_iter().collect()).await?.pop())
}

async fn with_secrets(db: &mut Connection, rows: Vec<ApiKeyRow>) -> Result<Vec<ApiKey>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut secrets = secrets::of_owners(db, rows.iter().map(|row| row.id)).await?;
    rows.into_iter().map(|row| of_row(row, &mut secrets)).collect()
}

fn of_row(row: ApiKeyRow, secrets: &mut ByOwner) -> Result<ApiKey, StoreError> {
    let secrets = secrets.remove(&row.id.uuid()).unwrap_or_default();
    Ok(ApiKey { secrets, ..row.try_into()? })
}

/// A page of a merchant's keys, including revoked ones, newest first, starting before `before`.
pub async fn list(
    db: &mut Connection,
    merchant: MerchantId,
    before: Option<ApiKeyId>,
    limit: i64,
) -> Result<Vec<ApiKey>, StoreError> {
    let rows = db
        .query(
            "select id, merchant_id, name, environment, allowed_ips, ip_mode, webhook_format, webhook_url, \
             webhook_disabled_at, scopes, expires_at, revoked_at, leaked, version, created_at, updated_at \
             from api_keys where merchant_id = $1 and (id < $2 or $2 is null) order by id desc limit $3",
        )
        .bind(merchant)
        .bind(before)
        .bind(limit)
        .all()
        .await?;
    with_secrets(db, rows).await
}

/// A page of a merchant's keys whose name contains this text or that have a secret ending with it.
pub async fn named(
    db: &mut Connection,
    merchant: MerchantId,
    part: &str,
    before: Option<ApiKeyId>,
    limit: i64,
) -> Result<Vec<ApiKey>, StoreError> {
    let rows = db
        .query(
            "select id, merchant_id, name, environment, allowed_ips, ip_mode, webhook_format, webhook_url, \
             webhook_disabled_at, scopes, expires_at, revoked_at, leaked, version, created_at, updated_at \
             from api_keys where merchant_id = $1 and (lower(name) like $2 escape '!' or id in (\
             select owner_id from secrets where merchant_id = $1 and owner_kind = 'api_key' and hint = $3)) \
             and (id < $4 or $4 is null) order by id desc limit $5",
        )
        .bind(merchant)
        .bind(like(part))
        .bind(part.to_owned())
        .bind(before)
        .bind(limit)
        .all()
        .await?;
    with_secrets(db, rows).await
}

/// How many keys of a merchant are not revoked.
pub async fn count_live(db: &mut Connection, merchant: MerchantId) -> Result<i64, StoreError> {
    db.query("select count(*) from api_keys where merchant_id = $1 and revoked_at is null")
        .bind(merchant)
        .one::<(i64,)>()
        .await
        .map(|(count,)| count)
}

/// How many keys of a merchant use this webhook format and are not revoked.
pub async fn count_live_with_format(
    db: &mut Connection,
    merchant: MerchantId,
    format: WebhookFormat,
) -> Result<i64, StoreError> {
    db.query(
        "select count(*) from api_keys where merchant_id = $1 and revoked_at is null and webhook_format = $2",
    )
    .bind(merchant)
    .bind(<&str>::from(format))
    .one::<(i64,)>()
    .await
    .map(|(count,)| count)
}

/// The keys of a merchant that are not revoked. Moves their secrets out of `secrets`.
pub(super) async fn of_merchant(
    db: &mut Connection,
    merchant: MerchantId,
    secrets: &mut ByOwner,
) -> Result<Vec<ApiKey>, StoreError> {
    let rows = db
        .query(
            "select id, merchant_id, name, environment, allowed_ips, ip_mode, webhook_format, webhook_url, \
             webhook_disabled_at, scopes, expires_at, revoked_at, leaked, version, created_at, updated_at \
             from api_keys where merchant_id = $1 and revoked_at is null order by id",
        )
        .bind(merchant)
        .all()
        .await?;
    rows.into_iter().map(|row| of_row(row, secrets)).collect()
}
