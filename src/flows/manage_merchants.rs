//! Merchants and their licences.

use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Core;
use super::changes::{Versions, must_include};
use super::error::{Managed, Refused};
use super::idempotency::Answer;
use super::manage::{Change, check_expiry, check_name};
use super::principal::Principal;
use crate::domain::api_key::{MULTIPLE_JSON_GATEWAY, WebhookFormat};
use crate::domain::event::EventType;
use crate::domain::ids::MerchantId;
use crate::domain::licence::{Licence, Licences, Product};
use crate::domain::merchant::{Merchant, MerchantStatus};
use crate::store::{StoreError, api_keys, merchants};

#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMerchant {
    pub name: String,
    /// Any name; `worldpay_corporate` allows `multiple_json`.
    pub gateway: String,
}

/// Missing fields are not changed.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MerchantPatch)]
pub struct MerchantChanges {
    pub name: Option<String>,
    pub gateway: Option<String>,
    pub status: Option<MerchantStatus>,
}

impl Core {
    pub async fn create_merchant(
        &self,
        principal: &Principal,
        new: NewMerchant,
    ) -> Managed<Answer<Merchant>> {
        self.create(principal, EventType::MerchantCreated, async |change| create(change, new).await).await
    }

    pub async fn merchant(&self, principal: &Principal, id: MerchantId) -> Managed<Merchant> {
        principal.may_see(id)?;
        let mut db = self.store.read().await?;
        Ok(merchants::by_id(&mut db, id).await?.ok_or(Refused::NotFound)?)
    }

    /// The merchants that the principal may see, newest first. With `part`, those whose name contains it.
    pub async fn merchants(
        &self,
        principal: &Principal,
        part: Option<&str>,
        before: Option<MerchantId>,
        limit: i64,
    ) -> Result<Vec<Merchant>, StoreError> {
        let mut db = self.store.read().await?;
        let Some(own) = principal.merchant_id else {
            return match part {
                Some(part) => merchants::named(&mut db, part, before, limit).await,
                None => merchants::list(&mut db, before, limit).await,
            };
        };
        let found =
            merchants::by_id(&mut db, own).await?.filter(|_| before.is_none_or(|before| own < before));
        let is_named =
            |one: &Merchant| part.is_none_or(|part| one.name.to_lowercase().contains(&part.to_lowercase()));
        Ok(found.into_iter().filter(is_named).collect())
    }

    /// Merchants with exactly this name. Only for operators.
    pub async fn merchants_called(&self, principal: &Principal, name: &str) -> Managed<Vec<Merchant>> {
        principal.must_be_operator()?;
        Ok(merchants::called(&mut self.store.read().await?, name).await?)
    }

    /// Renames, suspends or reinstates a merchant.
    pub async fn update_merchant(
        &self,
        principal: &Principal,
        id: MerchantId,
        versions: Versions,
        changes: MerchantChanges,
    ) -> Managed<Merchant> {
        self.change(principal, EventType::MerchantUpdated, async |change| {
            update(change, id, versions, changes).await
        })
        .await
    }

    /// Grants, extends or ends a licence. It takes effect at the next call, on every replica.
    pub async fn put_licence(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        product: Product,
        licence: Licence,
    ) -> Managed<Licence> {
        self.change(principal, EventType::LicenceChanged, async |change| {
            change.concerns(None, <&str>::from(product));
            principal.may_see(merchant)?;
            principal.must_be_of_platform()?;
            change.lock_merchant(merchant).await?;
            let now = change.event.at;
            // An expiry in the past is allowed here, to record a licence that has already ended.
            check_expiry(licence.expires_at.filter(|end| now < *end), now)?;
            merchants::put_licence(&mut change.tx, merchant, product, licence, now).await?;
            change.event.detail = json!({ "active": licence.active, "expires_at": licence.expires_at });
            Ok(licence)
        })
        .await
    }
}

async fn create(change: &mut Change<'_>, new: NewMerchant) -> Managed<Merchant> {
    change.principal.must_be_of_platform()?;
    if change.principal.merchant_id.is_some() {
        // A service token of one merchant could not see the new merchant.
        return Err(Refused::InsufficientPermission.into());
    }
    let NewMerchant { name, gateway } = new;
    check_name("name", &name)?;
    check_name("gateway", &gateway)?;
    let now = change.event.at;
    let merchant = Merchant {
        id: MerchantId::generate(now, &change.core.entropy),
        name,
        gateway,
        status: MerchantStatus::Active,
        licences: Licences::default(),
        revision: 1,
        is_elsewhere: false,
        created_at: now,
        updated_at: now,
    };
    merchants::insert(&mut change.tx, &merchant).await?;
    change.concerns(Some(merchant.id), merchant.id);
    change.event.detail = json!({ "name": merchant.name, "gateway": merchant.gateway });
    Ok(merchant)
}

async fn update(
    change: &mut Change<'_>,
    id: MerchantId,
    versions: Versions,
    changes: MerchantChanges,
) -> Managed<Merchant> {
    change.concerns(None, id);
    change.principal.may_see(id)?;
    change.principal.must_be_of_platform()?;
    let mut merchant = change.lock_merchant(id).await?;
    must_include(&versions, merchant.version())?;
    if let Some(name) = changes.name {
        check_name("name", &name)?;
        merchant.name = name;
    }
    if let Some(gateway) = changes.gateway {
        check_name("gateway", &gateway)?;
        if gateway != MULTIPLE_JSON_GATEWAY {
            must_not_use_multiple_json(change, id).await?;
        }
        merchant.gateway = gateway;
    }
    if let Some(status) = changes.status {
        merchant.status = status;
    }
    merchant.updated_at = change.event.at;
    merchants::update(&mut change.tx, &merchant).await?;
    change.event.detail =
        json!({ "name": merchant.name, "gateway": merchant.gateway, "status": merchant.status });
    Ok(merchant)
}

/// The merchant's keys must not keep `multiple_json` if its new gateway does not allow it.
async fn must_not_use_multiple_json(change: &mut Change<'_>, id: MerchantId) -> Managed<()> {
    let count = api_keys::count_live_with_format(&mut change.tx, id, WebhookFormat::MultipleJson).await?;
    if count == 0 {
        return Ok(());
    }
    Err(Refused::Conflict(format!("{count} API keys use `multiple_json`; change them first")).into())
}
