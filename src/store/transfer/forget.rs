//! Deletes rows that a move leaves behind.

use sqlx::Connection;

use super::End;
use super::tables::FORGET;
use crate::domain::ids::MerchantId;
use crate::store::StoreError;
use crate::store::call_counts::SHORT_SECS;

impl End {
    /// Deletes the merchant's counts in short slots if another cell serves the merchant, which adds its copies of them
    /// to their hour and day. Here, nobody would.
    pub async fn forget_short_counts(&mut self, merchant: MerchantId) -> Result<(), StoreError> {
        sqlx::query(
            "delete from call_counts where merchant_id = $1 and slot_secs = $2 and exists \
             (select 1 from merchants m where m.id = $1 and m.home <> (select number from cell))",
        )
        .bind(merchant)
        .bind(SHORT_SECS)
        .execute(&mut self.db)
        .await?;
        Ok(())
    }

    /// Deletes all rows of the merchant.
    pub async fn forget(&mut self, merchant: MerchantId) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        for delete in FORGET {
            sqlx::query(delete).bind(merchant).execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }
}
