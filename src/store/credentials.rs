//! Client credentials and their Enhanced Security switch.

use std::collections::HashMap;

use constcat::concat;

use super::columns::Column;
use super::driver::{Connection, Sql, Tx};
use super::secrets::{ByOwner, Owner};
use super::{StoreError, secrets, touched};
use crate::domain::credential::Credential;
use crate::domain::ids::{ApiKeyId, CredentialId};

const COLUMNS: &str =
    "id, merchant_id, api_key_id, client_id, enabled, scopes, epoch, version, created_at, updated_at";
const SELECT: &str = concat!("select ", COLUMNS, " from credentials");

pub async fn insert(tx: &mut Tx, credential: &Credential) -> Result<(), StoreError> {
    const INSERT: &str =
        concat!("insert into credentials (", COLUMNS, ") values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)");
    let rows = tx
        .query(INSERT)
        .bind(credential.id)
        .bind(credential.merchant_id)
        .bind(credential.api_key_id)
        .bind(credential.client_id.clone())
        .bind(credential.enabled)
        .bind(credential.scopes.clone())
        .bind(credential.epoch)
        .bind(credential.version)
        .bind(credential.created_at)
        .bind(credential.updated_at)
        .execute()
        .await?;
    touched("credentials", rows, 1)?;
    for secret in &credential.secrets {
        secrets::insert(tx, credential.merchant_id, Owner::Credential(credential.id), secret).await?;
    }
    Ok(())
}

/// Writes the switch, the epoch and the scopes, and raises the version.
pub async fn update(tx: &mut Tx, credential: &Credential) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "update credentials set enabled = $2, epoch = $3, updated_at = $4, scopes = $6, \
             version = version + 1 where id = $1 and version = $5",
        )
        .bind(credential.id)
        .bind(credential.enabled)
        .bind(credential.epoch)
        .bind(credential.updated_at)
        .bind(credential.version)
        .bind(credential.scopes.clone())
        .execute()
        .await?;
    touched("credentials", rows, 1)
}

pub async fn by_client_id(db: &mut Connection, client_id: &str) -> Result<Option<Credential>, StoreError> {
    let found = db.query(concat!(SELECT, " where client_id = $1")).bind(client_id.to_owned()).all().await?;
    Ok(with_secrets(db, found).await?.pop())
}

async fn with_secrets(
    db: &mut Connection,
    mut credentials: Vec<Credential>,
) -> Result<Vec<Credential>, StoreError> {
    if !credentials.is_empty() {
        let mut secrets = secrets::of_owners(db, credentials.iter().map(|one| one.id)).await?;
        take_secrets(&mut credentials, &mut secrets);
    }
    Ok(credentials)
}

fn take_secrets(credentials: &mut [Credential], secrets: &mut ByOwner) {
    for credential in credentials {
        credential.secrets = secrets.remove(&credential.id.uuid()).unwrap_or_default();
    }
}

/// How many credentials a key has, and whether any of them is switched ON.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clients {
    pub count: i64,
    pub is_on: bool,
}

const CLIENTS: Sql = Sql {
    postgres: "select api_key_id, count(*) as count, bool_or(enabled) as is_on from credentials \
               where api_key_id = any($1::uuid[]) group by api_key_id",
    sqlite: "select api_key_id, count(*) as count, max(enabled) as is_on from credentials \
             where api_key_id in (select unhex(value ->> 0) from jsonb_each($1)) group by api_key_id",
};

/// The same for several keys. Keys without credentials are not in the map.
pub async fn clients_of(
    db: &mut Connection,
    keys: impl Iterator<Item = ApiKeyId>,
) -> Result<HashMap<ApiKeyId, Clients>, StoreError> {
    let rows = db.batch(&CLIENTS, vec![Column::ids(keys)]).all::<(ApiKeyId, i64, bool)>().await?;
    Ok(rows.into_iter().map(|(key, count, is_on)| (key, Clients { count, is_on })).collect())
}

/// The client id of credentials, and their key.
pub async fn client_of(db: &mut Connection, id: CredentialId) -> Result<(String, ApiKeyId), StoreError> {
    db.query("select client_id, api_key_id from credentials where id = $1").bind(id).one().await
}

/// All credentials of a key, newest first.
pub async fn of_api_key(db: &mut Connection, key: ApiKeyId) -> Result<Vec<Credential>, StoreError> {
    let found = db.query(concat!(SELECT, " where api_key_id = $1 order by id desc")).bind(key).all().await?;
    with_secrets(db, found).await
}

/// Ends all sessions of a key's credentials, as if each were switched OFF.
pub async fn end_sessions_of_key(tx: &mut Tx, key: ApiKeyId) -> Result<u64, StoreError> {
    tx.query("update credentials set epoch = epoch + 1 where api_key_id = $1").bind(key).execute().await
}
