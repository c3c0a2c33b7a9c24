//! The names of objects that are known by their id: keys, users, admin tokens and merchants.

use std::collections::HashMap;

use uuid::Uuid;

use super::StoreError;
use super::columns::Column;
use super::driver::{Connection, Sql};
use crate::domain::ids::MerchantId;

const NAMES: Sql = Sql {
    postgres: "select id, name from api_keys where id = any($1::uuid[]) and (merchant_id = $2 or $2 is null) \
               union all select id, email from users where id = any($1::uuid[]) and (merchant_id = $2 or $2 is null) \
               union all select id, name from admin_tokens where id = any($1::uuid[]) \
               and (merchant_id = $2 or $2 is null) \
               union all select id, name from merchants where id = any($1::uuid[]) and (id = $2 or $2 is null)",
    sqlite: "with wanted (id) as (select unhex(value ->> 0) from jsonb_each($1)) \
             select id, name from api_keys where id in (select id from wanted) and (merchant_id = $2 or $2 is null) \
             union all select id, email from users where id in (select id from wanted) \
             and (merchant_id = $2 or $2 is null) \
             union all select id, name from admin_tokens where id in (select id from wanted) \
             and (merchant_id = $2 or $2 is null) \
             union all select id, name from merchants where id in (select id from wanted) and (id = $2 or $2 is null)",
};

/// The names of the objects with these ids that belong to this merchant, or to anybody if there is none.
pub async fn names(
    db: &mut Connection,
    merchant: Option<MerchantId>,
    ids: impl Iterator<Item = Uuid>,
) -> Result<HashMap<Uuid, String>, StoreError> {
    let columns = vec![Column::Uuid(ids.map(Some).collect())];
    let rows = db.batch(&NAMES, columns).bind(merchant).all::<(Uuid, String)>().await?;
    Ok(rows.into_iter().collect())
}
