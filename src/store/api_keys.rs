//! API keys and their settings.

use constcat::concat;

use super::driver::{Connection, Tx};
use super::merchants::IS_HERE;
use super::secrets::{ByOwner, Owner};
use super::{StoreError, like, secrets, touched};
use crate::domain::api_key::{ApiKey, WebhookFormat};
use crate::domain::ids::{ApiKeyId, Id, MerchantId};

const COLUMNS: &str = "id, merchant_id, name, environment, allowed_ips, ip_mode, webhook_format, webhook_url, \
                       webhook_disabled_at, scopes, expires_at, revoked_at, leaked, version, created_at, updated_at";
const SELECT: &str = concat!("select ", COLUMNS, " from api_keys");

pub async fn insert(tx: &mut Tx, key: &ApiKey) -> Result<(), StoreError> {
    const INSERT: &str = concat!(
        "insert into api_keys (",
        COLUMNS,
        ") values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
    );
    let rows = tx
        .query(INSERT)
        .bind(key.id)
        .bind(key.merchant_id)
        .bind(key.name.clone())
        .bind(key.environment)
        .bind(key.allow_list.clone())
        .bind(key.ip_mode)
        .bind(key.webhook_format)
        .bind(key.webhook_url.clone())
        .bind(key.webhook_disabled_at)
        .bind(key.scopes.clone())
        .bind(key.expires_at)
        .bind(key.revoked_at)
        .bind(key.leaked)
        .bind(key.version)
        .bind(key.created_at)
        .bind(key.updated_at)
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
            "update api_keys set name = $3, allowed_ips = $4, ip_mode = $5, webhook_format = $6, webhook_url = $7, \
             webhook_disabled_at = $8, scopes = $9, expires_at = $10, revoked_at = $11, leaked = $12, \
             updated_at = $13, version = version + 1 where id = $1 and version = $2",
        )
        .bind(key.id)
        .bind(key.version)
        .bind(key.name.clone())
        .bind(key.allow_list.clone())
        .bind(key.ip_mode)
        .bind(key.webhook_format)
        .bind(key.webhook_url.clone())
        .bind(key.webhook_disabled_at)
        .bind(key.scopes.clone())
        .bind(key.expires_at)
        .bind(key.revoked_at)
        .bind(key.leaked)
        .bind(key.updated_at)
        .execute()
        .await?;
    touched("api_keys", rows, 1)
}

pub async fn by_id(db: &mut Connection, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
    let found = db.query(concat!(SELECT, " where id = $1")).bind(id).all().await?;
    Ok(with_secrets(db, found).await?.pop())
}

async fn with_secrets(db: &mut Connection, mut keys: Vec<ApiKey>) -> Result<Vec<ApiKey>, StoreError> {
    if !keys.is_empty() {
        let mut secrets = secrets::of_owners(db, keys.iter().map(|key| key.id)).await?;
        take_secrets(&mut keys, &mut secrets);
    }
    Ok(keys)
}

fn take_secrets(keys: &mut [ApiKey], secrets: &mut ByOwner) {
    for key in keys {
        key.secrets = secrets.remove(&key.id.uuid()).unwrap_or_default();
    }
}

/// A page of a merchant's keys, including revoked ones, newest first, starting before `before`.
pub async fn list(
    db: &mut Connection,
    merchant: MerchantId,
    before: Option<ApiKeyId>,
    limit: i64,
) -> Result<Vec<ApiKey>, StoreError> {
    let page = db
        .query(concat!(SELECT, " where merchant_id = $1 and id < $2 order by id desc limit $3"))
        .bind(merchant)
        .bind(before.unwrap_or(Id::max()))
        .bind(limit)
        .all()
        .await?;
    with_secrets(db, page).await
}

const UNREVOKED_FIRST: &str = " order by revoked_at is not null, id desc limit 100";

/// Keys with exactly this name, of one merchant or of all that this cell serves, at most 100. Those that are not
/// revoked come first, then the newest. Reads the whole table, so it is only for the command line.
pub async fn called(
    db: &mut Connection,
    merchant: Option<MerchantId>,
    name: &str,
) -> Result<Vec<ApiKey>, StoreError> {
    const CALLED: &str = concat!(SELECT, " where name = $1 and ", IS_HERE);
    let sql = match merchant {
        Some(_) => concat!(CALLED, " and merchant_id = $2", UNREVOKED_FIRST),
        None => concat!(CALLED, UNREVOKED_FIRST),
    };
    let found = db.query(sql).bind(name.to_owned()).bind_if(merchant).all().await?;
    with_secrets(db, found).await
}

/// A page of a merchant's keys whose name contains this text or that have a secret ending with it.
pub async fn named(
    db: &mut Connection,
    merchant: MerchantId,
    part: &str,
    before: Option<ApiKeyId>,
    limit: i64,
) -> Result<Vec<ApiKey>, StoreError> {
    const NAMED: &str = concat!(
        SELECT,
        " where merchant_id = $1 and id < $2 and (lower(name) like lower($3) escape '!' or id in (\
         select owner_id from secrets where merchant_id = $1 and owner_kind = 'api_key' and hint = $4)) \
         order by id desc limit $5"
    );
    let page = db
        .query(NAMED)
        .bind(merchant)
        .bind(before.unwrap_or(Id::max()))
        .bind(like(part))
        .bind(part.to_owned())
        .bind(limit)
        .all()
        .await?;
    with_secrets(db, page).await
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
    .bind(format)
    .one::<(i64,)>()
    .await
    .map(|(count,)| count)
}
