//! API keys: made, changed, revoked and restored.

use serde_json::{Value, json};

use super::Core;
use super::manage::{By, Change, Managed, Refused, Stop, check_name};
use crate::domain::allow_list::AllowList;
use crate::domain::api_key::{ApiKey, Environment, IpMode, MULTIPLE_JSON_GATEWAY, WebhookFormat};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, MerchantId, SecretId};
use crate::domain::licence::Product;
use crate::domain::merchant::Merchant;
use crate::domain::secret::{PlainSecret, StoredSecret};
use crate::store::outbox::Audience;
use crate::store::{api_keys, merchants};

/// Keys of one merchant that are not revoked. All of them are in its record in memory.
pub const KEYS_MAX: i64 = 200;

/// The settings of a key to be made.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub name: String,
    pub environment: Environment,
    pub allowed_ips: Vec<String>,
    pub ip_mode: IpMode,
    pub webhook_format: WebhookFormat,
    pub webhook_url: Option<String>,
    pub expires_at: Option<Timestamp>,
}

/// An object and the secret that is shown with it, once.
#[derive(Debug)]
pub struct WithSecret<T> {
    pub object: T,
    pub secret: PlainSecret,
}

impl Core {
    /// # Errors
    /// A fault of the store.
    pub async fn create_api_key(
        &self,
        by: &By,
        merchant: MerchantId,
        new: NewApiKey,
    ) -> Managed<WithSecret<ApiKey>> {
        let mut change = self.change(by, "api_key.created").await?;
        let result = create(&mut change, by, merchant, new).await;
        change.finish(result).await
    }
}

async fn create(
    change: &mut Change<'_>,
    by: &By,
    merchant: MerchantId,
    new: NewApiKey,
) -> Result<WithSecret<ApiKey>, Stop> {
    by.may_change(merchant)?;
    let Some(merchant) = merchants::lock(&mut change.tx, merchant).await? else {
        return Err(Refused::NotFound.into());
    };
    change.event.merchant_id = Some(merchant.id);
    let now = change.event.at;
    let licences = merchants::licences(&mut change.tx, merchant.id).await?;
    if !licences.is_good(Product::ApiKeys, now) {
        return Err(Refused::NotLicensed(Product::ApiKeys).into());
    }
    if api_keys::count_live(&mut change.tx, merchant.id).await? >= KEYS_MAX {
        return Err(Refused::Conflict(format!("the merchant has {KEYS_MAX} keys; revoke one first")).into());
    }
    let allow_list = check_settings(&merchant, &new, now)?;
    let entropy = &change.core.entropy;
    let plain = PlainSecret::api_key(entropy);
    let key = ApiKey {
        id: ApiKeyId::generate(now, entropy),
        merchant_id: merchant.id,
        name: new.name,
        environment: new.environment,
        allow_list,
        ip_mode: new.ip_mode,
        webhook_format: new.webhook_format,
        webhook_url: new.webhook_url,
        webhook_disabled_at: None,
        expires_at: new.expires_at,
        revoked_at: None,
        leaked: false,
        version: 1,
        created_at: now,
        updated_at: now,
        secrets: vec![first_secret(change.core, &plain, now)],
    };
    api_keys::insert(&mut change.tx, &key).await?;
    change.concerns(Some(merchant.id), key.id);
    change.event.detail = settings(&key);
    change.publish(merchant.id, "api_key.created", settings(&key), Audience::Key(key.id)).await?;
    Ok(WithSecret { object: key, secret: plain })
}

/// The first secret of a key or of credentials.
pub(super) fn first_secret(core: &Core, plain: &PlainSecret, now: Timestamp) -> StoredSecret {
    StoredSecret {
        id: SecretId::generate(now, &core.entropy),
        hash: plain.hash(),
        hint: plain.hint(),
        overlap_secs: None,
        created_at: now,
        first_used_at: None,
        last_used_at: None,
        last_used_ip: None,
        ends_at: None,
    }
}

fn check_settings(merchant: &Merchant, new: &NewApiKey, now: Timestamp) -> Result<AllowList, Refused> {
    check_name("name", &new.name)?;
    if new.webhook_format == WebhookFormat::MultipleJson && merchant.gateway != MULTIPLE_JSON_GATEWAY {
        return Err(Refused::invalid(
            "webhook_format",
            format!("`multiple_json` is for merchants on the `{MULTIPLE_JSON_GATEWAY}` gateway"),
        ));
    }
    if new.expires_at.is_some_and(|end| end <= now) {
        return Err(Refused::invalid("expires_at", "must be in the future"));
    }
    AllowList::parse(&new.allowed_ips).map_err(|error| Refused::invalid("allowed_ips", error.to_string()))
}

/// The settings of a key, for the audit trail and webhooks.
fn settings(key: &ApiKey) -> Value {
    json!({
        "api_key_id": key.id,
        "name": key.name,
        "environment": key.environment,
        "allowed_ips": key.allow_list.to_strings(),
        "ip_mode": key.ip_mode,
        "webhook_format": key.webhook_format,
        "webhook_url": key.webhook_url,
        "expires_at": key.expires_at,
    })
}
