//! Merchants and their licences.

use serde_json::json;

use super::Core;
use super::manage::{By, Change, Managed, Refused, Stop, check_name};
use crate::domain::ids::MerchantId;
use crate::domain::licence::{Licence, Product};
use crate::domain::merchant::{Merchant, MerchantStatus};
use crate::store::merchants;

impl Core {
    /// # Errors
    /// A fault of the store, as for all below.
    pub async fn create_merchant(&self, by: &By, name: String, gateway: String) -> Managed<Merchant> {
        let mut change = self.change(by, "merchant.created").await?;
        let result = create(&mut change, by, name, gateway).await;
        change.finish(result).await
    }

    /// Grants, extends or ends a licence. It takes effect at the next call, on every replica.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn put_licence(
        &self,
        by: &By,
        merchant: MerchantId,
        product: Product,
        licence: Licence,
    ) -> Managed<Licence> {
        let mut change = self.change(by, "licence.changed").await?;
        let result = put_licence(&mut change, by, merchant, product, licence).await;
        change.finish(result).await
    }
}

async fn create(change: &mut Change<'_>, by: &By, name: String, gateway: String) -> Result<Merchant, Stop> {
    by.must_be_operator()?;
    check_name("name", &name)?;
    check_name("gateway", &gateway)?;
    let now = change.event.at;
    let merchant = Merchant {
        id: MerchantId::generate(now, &change.core.entropy),
        name,
        gateway,
        status: MerchantStatus::Active,
        revision: 1,
        created_at: now,
        updated_at: now,
    };
    merchants::insert(&mut change.tx, &merchant).await?;
    change.concerns(Some(merchant.id), merchant.id);
    change.event.detail = json!({ "name": merchant.name, "gateway": merchant.gateway });
    Ok(merchant)
}

async fn put_licence(
    change: &mut Change<'_>,
    by: &By,
    merchant: MerchantId,
    product: Product,
    licence: Licence,
) -> Result<Licence, Stop> {
    change.concerns(None, <&str>::from(product));
    by.may_see(merchant)?;
    by.must_be_operator()?;
    let Some(merchant) = merchants::lock(&mut change.tx, merchant).await? else {
        return Err(Refused::NotFound.into());
    };
    let now = change.event.at;
    merchants::put_licence(&mut change.tx, merchant.id, product, licence, now).await?;
    change.concerns(Some(merchant.id), <&str>::from(product));
    change.event.detail = json!({ "active": licence.active, "expires_at": licence.expires_at });
    Ok(licence)
}
