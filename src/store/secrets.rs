//! The secrets of API keys and client credentials: hashes, rotation and use.

use std::collections::HashMap;
use std::net::IpAddr;

use constcat::concat;
use uuid::Uuid;

use super::columns::Column;
use super::driver::{Connection, Sql, Tx};
use super::{StoreError, touched};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, CredentialId, Id, MerchantId, SecretId};
use crate::domain::record::KeyOwner;
use crate::domain::secret::{SecretHash, StoredSecret};

/// The owner of a secret.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    ApiKey(ApiKeyId),
    Credential(CredentialId),
}

impl Owner {
    const fn kind(self) -> &'static str {
        match self {
            Self::ApiKey(_) => "api_key",
            Self::Credential(_) => "credential",
        }
    }

    const fn id(self) -> Uuid {
        match self {
            Self::ApiKey(id) => id.uuid(),
            Self::Credential(id) => id.uuid(),
        }
    }
}

/// Secrets by the id of their owner.
pub type ByOwner = HashMap<Uuid, Vec<StoredSecret>>;

#[derive(sqlx::FromRow)]
struct Owned {
    owner_id: Uuid,
    #[sqlx(flatten)]
    secret: StoredSecret,
}

const COLUMNS: &str = "secrets.id, owner_id, number, hash, hint, overlap_secs, created_at, first_used_at, last_used_at, \
                       last_used_ip, ends_at";
const SELECT: &str = concat!("select ", COLUMNS, " from secrets");

pub async fn insert(
    tx: &mut Tx,
    merchant: MerchantId,
    owner: Owner,
    secret: &StoredSecret,
) -> Result<(), StoreError> {
    let rows = tx
        .query(
            "insert into secrets (id, merchant_id, owner_kind, owner_id, number, hash, hint, overlap_secs, \
             created_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(secret.id)
        .bind(merchant)
        .bind(owner.kind())
        .bind(owner.id())
        .bind(secret.number)
        .bind(secret.hash)
        .bind(secret.hint.clone())
        .bind(secret.overlap_secs)
        .bind(secret.created_at)
        .execute()
        .await?;
    touched("secrets", rows, 1)
}

/// How many of an owner's newest secrets are shown even if they have ended.
const SHOWN: i64 = 20;

/// A secret that is live now was already live when the newest one was made, so the statement needs no current
/// time.
const AND_SHOWN: &str =
    "where ends_at is null or ends_at > newest_at or number + $2 > newest order by number desc";

const OF_OWNERS: Sql = Sql {
    postgres: concat!(
        SELECT,
        " join (select owner_id, max(number) as newest, max(created_at) as newest_at from secrets \
         where owner_id = any($1::uuid[]) group by owner_id) as owners using (owner_id) ",
        AND_SHOWN
    ),
    sqlite: concat!(
        SELECT,
        " join (select owner_id, max(number) as newest, max(created_at) as newest_at from secrets \
         where owner_id in (select unhex(value ->> 0) from jsonb_each($1)) group by owner_id) as owners \
         using (owner_id) ",
        AND_SHOWN
    ),
};

/// The secrets of keys or credentials, newest first: all live ones, and the newest [`SHOWN`].
pub(super) async fn of_owners<T>(
    db: &mut Connection,
    owners: impl Iterator<Item = Id<T>>,
) -> Result<ByOwner, StoreError> {
    Ok(by_owner(db.batch(&OF_OWNERS, vec![Column::ids(owners)]).bind(SHOWN).all().await?))
}

fn by_owner(rows: Vec<Owned>) -> ByOwner {
    let mut by_owner = ByOwner::new();
    for row in rows {
        by_owner.entry(row.owner_id).or_default().push(row.secret);
    }
    by_owner
}

const OWNERS_OF_HASHES: Sql = Sql {
    postgres: "select hash, merchant_id, owner_id from secrets \
               where hash = any($1::bytea[]) and owner_kind = 'api_key'",
    sqlite: "select hash, merchant_id, owner_id from secrets \
             where hash in (select unhex(value ->> 0) from jsonb_each($1)) and owner_kind = 'api_key'",
};

/// The owners of API keys, by their hashes.
pub async fn owners_of_api_keys(
    db: &mut Connection,
    hashes: &[SecretHash],
) -> Result<HashMap<SecretHash, KeyOwner>, StoreError> {
    let hashes = vec![Column::bytes(hashes.iter().map(|hash| hash.bytes().as_slice()))];
    let rows = db.batch(&OWNERS_OF_HASHES, hashes).all().await?;
    Ok(rows.into_iter().map(owned).collect())
}

const fn owned(
    (hash, merchant_id, api_key_id): (SecretHash, MerchantId, ApiKeyId),
) -> (SecretHash, KeyOwner) {
    (hash, KeyOwner { merchant_id, api_key_id })
}

/// Hashes of live API keys with ids after `after`, newest first, with their owners.
pub async fn hashes_of_api_keys(
    db: &mut Connection,
    after: SecretId,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<(SecretHash, KeyOwner)>, StoreError> {
    let rows = db
        .query(
            "select hash, merchant_id, owner_id from secrets where id > $1 and owner_kind = 'api_key' \
             and (ends_at is null or ends_at > $2) order by id desc limit $3",
        )
        .bind(after)
        .bind(now)
        .bind(limit)
        .all()
        .await?;
    Ok(rows.into_iter().map(owned).collect())
}

/// A live secret that was found by its hash.
pub struct LiveSecret {
    pub id: SecretId,
    pub merchant: MerchantId,
    pub owner: Owner,
    pub hint: String,
}

pub async fn live_by_hash(
    db: &mut Connection,
    hash: SecretHash,
    now: Timestamp,
) -> Result<Option<LiveSecret>, StoreError> {
    let row = db
        .query(
            "select id, merchant_id, owner_kind, owner_id, hint from secrets \
             where hash = $1 and (ends_at is null or ends_at > $2)",
        )
        .bind(hash)
        .bind(now)
        .optional::<(SecretId, MerchantId, String, Uuid, String)>()
        .await?;
    Ok(row.map(|(id, merchant, kind, owner, hint)| {
        let owner = match &*kind {
            "api_key" => Owner::ApiKey(ApiKeyId::from_uuid(owner)),
            _ => Owner::Credential(CredentialId::from_uuid(owner)),
        };
        LiveSecret { id, merchant, owner, hint }
    }))
}

/// Records the first use of a secret. `false` if it was already used.
pub async fn note_first_use(tx: &mut Tx, id: SecretId, now: Timestamp) -> Result<bool, StoreError> {
    let rows = tx
        .query("update secrets set first_used_at = $2 where id = $1 and first_used_at is null")
        .bind(id)
        .bind(now)
        .execute()
        .await?;
    Ok(rows == 1)
}

/// Ends all older secrets of the same owner at `ends_at`, unless they end earlier anyway.
pub async fn end_predecessors(tx: &mut Tx, of: SecretId, ends_at: Timestamp) -> Result<u64, StoreError> {
    tx.query(
        "update secrets set ends_at = $2 \
         where owner_id = (select owner_id from secrets where id = $1) \
         and number < (select number from secrets where id = $1) \
         and (ends_at is null or ends_at > $2)",
    )
    .bind(of)
    .bind(ends_at)
    .execute()
    .await
}

/// The latest use of a secret.
#[derive(Clone, Debug)]
pub struct Use {
    pub secret: SecretId,
    pub at: Timestamp,
    pub ip: IpAddr,
}

const NOTE_USES: Sql = Sql {
    postgres: "update secrets set last_used_at = c.at, last_used_ip = c.ip, \
               first_used_at = coalesce(secrets.first_used_at, c.at) \
               from unnest($1::uuid[], $2::bigint[], $3::text[]) as c (id, at, ip) \
               where secrets.id = c.id and (secrets.last_used_at is null or secrets.last_used_at < c.at)",
    sqlite: "update secrets set last_used_at = c.at, last_used_ip = c.ip, \
             first_used_at = coalesce(first_used_at, c.at) \
             from (select unhex(value ->> 0) as id, value ->> 1 as at, value ->> 2 as ip from jsonb_each($1)) as c \
             where secrets.id = c.id and (last_used_at is null or last_used_at < c.at)",
};

/// Writes last-used times. They do not affect any decision, so the revision does not change.
pub async fn note_uses(db: &mut Connection, mut uses: Vec<Use>) -> Result<(), StoreError> {
    uses.sort_by_key(|used| used.secret);
    let columns = vec![
        Column::ids(uses.iter().map(|used| used.secret)),
        Column::times(uses.iter().map(|used| used.at)),
        Column::text(uses.iter().map(|used| Some(used.ip.to_string()))),
    ];
    db.batch(&NOTE_USES, columns).execute().await?;
    Ok(())
}

/// Removes ended secrets that are no longer shown, now that the owner has one with the number `newest`. Otherwise a
/// client that rotates all day would make its record slower to load for good.
pub async fn forget_ended(tx: &mut Tx, owner: Owner, newest: i64, now: Timestamp) -> Result<(), StoreError> {
    tx.query("delete from secrets where owner_id = $1 and number <= $2 and ends_at <= $3")
        .bind(owner.id())
        .bind(newest - SHOWN)
        .bind(now)
        .execute()
        .await?;
    Ok(())
}

/// Ends one secret now. `false` if it is not an older secret of that owner, or has already ended.
pub async fn end(tx: &mut Tx, owner: Owner, id: SecretId, now: Timestamp) -> Result<bool, StoreError> {
    let rows = tx
        .query(
            "update secrets set ends_at = $3 where id = $1 and owner_id = $2 \
             and (ends_at is null or ends_at > $3)",
        )
        .bind(id)
        .bind(owner.id())
        .bind(now)
        .execute()
        .await?;
    Ok(rows == 1)
}
