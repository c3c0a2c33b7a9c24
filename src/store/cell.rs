//! The cell that the database belongs to.

use super::StoreError;
use super::driver::{Connection, Tx};
use crate::domain::cell::CellId;

/// `None` without cells.
pub async fn read(db: &mut Connection) -> Result<Option<CellId>, StoreError> {
    let Some((number,)) = db.query("select number from cell where id = 1").optional::<(i64,)>().await? else {
        return Ok(None);
    };
    let cell = u16::try_from(number).ok().and_then(CellId::new);
    cell.map(Some).ok_or_else(|| StoreError::Impossible { table: "cell", what: format!("number {number}") })
}

/// Gives the database to a cell, unless it has one already.
pub async fn claim(tx: &mut Tx, cell: CellId) -> Result<(), StoreError> {
    tx.query("insert into cell (id, number) values (1, $1) on conflict (id) do nothing")
        .bind(i64::from(cell.number()))
        .execute()
        .await?;
    Ok(())
}

/// Whether the database has merchants.
pub async fn has_merchants(db: &mut Connection) -> Result<bool, StoreError> {
    Ok(db.query("select 1 from merchants limit 1").optional::<(i32,)>().await?.is_some())
}
