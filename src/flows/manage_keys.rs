//! Managing API keys: making, revoking, restoring and rotating them. `update` changes their settings.

mod update;

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Core;
use super::error::{Managed, Refused};
use super::idempotency::Answer;
use super::manage::{Change, check_expiry, check_name};
use super::manage_webhooks::ensure_webhook_secret;
use super::principal::Principal;
use super::rotation;
use crate::domain::allow_list::AllowList;
use crate::domain::api_key::{ApiKey, Environment, IpMode, MULTIPLE_JSON_GATEWAY, WebhookFormat};
use crate::domain::clock::Timestamp;
use crate::domain::event::EventType;
use crate::domain::ids::{ApiKeyId, MerchantId, SecretId};
use crate::domain::licence::Product;
use crate::domain::merchant::Merchant;
use crate::domain::scope::Scopes;
use crate::domain::secret::PlainSecret;
use crate::store::outbox::Audience;
use crate::store::secrets::Owner;
use crate::store::{api_keys, credentials};

pub use update::{ApiKeyChanges, ChangedApiKey};

/// The most keys of one merchant that are not revoked. All of them are in the cached record.
pub const KEYS_MAX: i64 = 200;

#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewKey)]
pub struct NewApiKey {
    pub name: String,
    pub environment: Environment,
    /// Addresses and CIDR ranges, at most 100; empty means any address.
    #[serde(default)]
    pub allowed_ips: Vec<String>,
    #[serde(default)]
    pub ip_mode: IpMode,
    /// `multiple_json` is only for merchants on the `worldpay_corporate` gateway.
    #[serde(default)]
    pub webhook_format: WebhookFormat,
    pub webhook_url: Option<String>,
    /// The key's scopes: 1 to 64 names (RFC 6749 3.3); null means every scope.
    #[schema(min_items = 1, max_items = 64)]
    pub scopes: Option<Vec<String>>,
    pub expires_at: Option<Timestamp>,
}

impl NewApiKey {
    /// A key without any limits and without a webhook.
    pub fn named(name: impl Into<String>, environment: Environment) -> Self {
        Self {
            name: name.into(),
            environment,
            allowed_ips: Vec::new(),
            ip_mode: IpMode::default(),
            webhook_format: WebhookFormat::default(),
            webhook_url: None,
            scopes: None,
            expires_at: None,
        }
    }
}

/// A new key. Its secrets are shown once.
#[derive(Debug)]
pub struct MadeApiKey {
    pub object: ApiKey,
    pub secret: PlainSecret,
    /// Set if the key has a webhook URL.
    pub webhook_secret: Option<PlainSecret>,
}

/// An object and its new secret, which is shown once.
#[derive(Debug)]
pub struct WithSecret<T> {
    pub object: T,
    pub secret: PlainSecret,
}

impl Core {
    pub async fn create_api_key(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        new: NewApiKey,
    ) -> Managed<Answer<MadeApiKey>> {
        self.create(principal, EventType::ApiKeyCreated, async |change| create(change, merchant, new).await)
            .await
    }

    pub async fn api_key(&self, principal: &Principal, id: ApiKeyId) -> Managed<ApiKey> {
        let found = api_keys::by_id(&mut self.store.read().await?, id).await?.ok_or(Refused::NotFound)?;
        self.must_exist(principal, found.merchant_id).await?;
        Ok(found)
    }

    /// A merchant's keys, including revoked ones, newest first.
    pub async fn api_keys(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        before: Option<ApiKeyId>,
        limit: i64,
    ) -> Managed<Vec<ApiKey>> {
        self.must_exist(principal, merchant).await?;
        Ok(api_keys::list(&mut self.store.read().await?, merchant, before, limit).await?)
    }

    /// The same, but only keys whose name contains this text or that have a secret ending with it.
    pub async fn api_keys_named(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        part: &str,
        before: Option<ApiKeyId>,
        limit: i64,
    ) -> Managed<Vec<ApiKey>> {
        self.must_exist(principal, merchant).await?;
        Ok(api_keys::named(&mut self.store.read().await?, merchant, part, before, limit).await?)
    }

    /// All keys with exactly this name, of one merchant or of all, including revoked ones. Only for operators.
    pub async fn api_keys_called(
        &self,
        principal: &Principal,
        merchant: Option<MerchantId>,
        name: &str,
    ) -> Managed<Vec<ApiKey>> {
        principal.must_be_operator()?;
        Ok(api_keys::called(&mut self.store.read().await?, merchant, name).await?)
    }

    /// Revokes a key at once. It can be restored within [`crate::domain::api_key::RESTORE_WINDOW`].
    pub async fn revoke_api_key(&self, principal: &Principal, id: ApiKeyId) -> Managed<ApiKey> {
        self.change(principal, EventType::ApiKeyRevoked, async |change| {
            let (_, mut key) = locked(change, id).await?;
            if key.revoked_at.is_none() {
                key.revoked_at = Some(change.event.at);
                save(change, EventType::ApiKeyRevoked, &mut key).await?;
            }
            Ok(key)
        })
        .await
    }

    pub async fn restore_api_key(&self, principal: &Principal, id: ApiKeyId) -> Managed<ApiKey> {
        self.change(principal, EventType::ApiKeyRestored, async |change| {
            let (_, mut key) = locked(change, id).await?;
            if key.revoked_at.is_none() {
                return Ok(key);
            }
            if !key.is_restorable(change.event.at) {
                let why = if key.leaked {
                    "the key was found in public"
                } else {
                    "a key can be restored within 60 minutes of its revocation"
                };
                return Err(Refused::Conflict(why.to_owned()).into());
            }
            must_have_room(change, key.merchant_id).await?;
            // The key works again, but its earlier sessions stay ended.
            credentials::end_sessions_of_key(&mut change.tx, key.id).await?;
            key.revoked_at = None;
            save(change, EventType::ApiKeyRestored, &mut key).await?;
            Ok(key)
        })
        .await
    }

    /// Gives a key a new secret. Older secrets end `overlap_secs` after its first use.
    pub async fn rotate_api_key(
        &self,
        principal: &Principal,
        id: ApiKeyId,
        overlap_secs: i64,
    ) -> Managed<Answer<WithSecret<ApiKey>>> {
        self.create(principal, EventType::ApiKeyRotated, async |change| {
            let (merchant, mut key) = locked(change, id).await?;
            if key.revoked_at.is_some() {
                return Err(Refused::Conflict("the key is revoked".to_owned()).into());
            }
            principal.may_handle(key.environment)?;
            change.must_be_licensed(&merchant, Product::ApiKeys)?;
            let plain = PlainSecret::api_key(&self.entropy);
            let (merchant, owner) = (merchant.id, Owner::ApiKey(key.id));
            rotation::add_secret(change, merchant, owner, &mut key.secrets, &plain, overlap_secs).await?;
            change.event.detail = json!({ "overlap_secs": overlap_secs });
            let data = json!({ "api_key_id": key.id, "overlap_secs": overlap_secs });
            change.publish(merchant, EventType::ApiKeyUpdated, data, Audience::Key(key.id)).await?;
            Ok(WithSecret { object: key, secret: plain })
        })
        .await
    }

    /// Ends an older secret of a key now, instead of at the end of its overlap.
    pub async fn end_api_key_secret(
        &self,
        principal: &Principal,
        id: ApiKeyId,
        secret: SecretId,
    ) -> Managed<ApiKey> {
        self.change(principal, EventType::ApiKeySecretEnded, async |change| {
            let (_, mut key) = locked(change, id).await?;
            rotation::end_secret(change, Owner::ApiKey(key.id), &mut key.secrets, secret).await?;
            Ok(key)
        })
        .await
    }
}

/// Checks that the principal may change the key, locks its merchant, and reads the key again.
async fn locked(change: &mut Change<'_>, id: ApiKeyId) -> Managed<(Merchant, ApiKey)> {
    change.concerns(None, id);
    let found = api_keys::by_id(&mut change.tx, id).await?.ok_or(Refused::NotFound)?;
    change.principal.may_change(found.merchant_id)?;
    let merchant = change.lock_merchant(found.merchant_id).await?;
    let key = api_keys::by_id(&mut change.tx, id).await?.ok_or(Refused::NotFound)?;
    Ok((merchant, key))
}

/// Writes a changed key and publishes the change.
async fn save(change: &mut Change<'_>, event_type: EventType, key: &mut ApiKey) -> Managed<()> {
    key.updated_at = change.event.at;
    api_keys::update(&mut change.tx, key).await?;
    key.version += 1;
    change.event.detail = settings(key);
    change.publish(key.merchant_id, event_type, settings(key), Audience::Key(key.id)).await?;
    Ok(())
}

/// Checks the limit on keys. There is one because every replica keeps all keys in memory.
async fn must_have_room(change: &mut Change<'_>, merchant: MerchantId) -> Managed<()> {
    if api_keys::count_live(&mut change.tx, merchant).await? >= KEYS_MAX {
        return Err(Refused::Conflict(format!("the merchant has {KEYS_MAX} keys; revoke one first")).into());
    }
    Ok(())
}

async fn create(change: &mut Change<'_>, merchant: MerchantId, new: NewApiKey) -> Managed<MadeApiKey> {
    change.principal.may_change(merchant)?;
    change.principal.may_handle(new.environment)?;
    let merchant = change.lock_merchant(merchant).await?;
    let now = change.event.at;
    change.must_be_licensed(&merchant, Product::ApiKeys)?;
    must_have_room(change, merchant.id).await?;
    check_name("name", &new.name)?;
    check_format(&merchant, new.webhook_format)?;
    check_expiry(new.expires_at, now)?;
    if let Some(url) = &new.webhook_url {
        change.core.check_webhook_url(url)?;
    }
    let entropy = &change.core.entropy;
    let plain = PlainSecret::api_key(entropy);
    let key = ApiKey {
        id: ApiKeyId::generate(now, entropy),
        merchant_id: merchant.id,
        name: new.name,
        environment: new.environment,
        allow_list: parse_allow_list(&new.allowed_ips)?,
        ip_mode: new.ip_mode,
        webhook_format: new.webhook_format,
        webhook_url: new.webhook_url,
        webhook_disabled_at: None,
        scopes: change.core.check_scopes(new.scopes.as_deref())?,
        expires_at: new.expires_at,
        revoked_at: None,
        leaked: false,
        version: 1,
        created_at: now,
        updated_at: now,
        secrets: vec![rotation::first_secret(change.core, &plain, now)],
    };
    api_keys::insert(&mut change.tx, &key).await?;
    let webhook_secret = ensure_webhook_secret(change, &key).await?;
    change.concerns(Some(merchant.id), key.id);
    change.event.detail = settings(&key);
    change.publish(merchant.id, EventType::ApiKeyCreated, settings(&key), Audience::Key(key.id)).await?;
    Ok(MadeApiKey { object: key, secret: plain, webhook_secret })
}

pub fn parse_allow_list(ranges: &[String]) -> Result<AllowList, Refused> {
    AllowList::parse(ranges).map_err(|error| Refused::invalid("allowed_ips", error.to_string()))
}

fn check_format(merchant: &Merchant, format: WebhookFormat) -> Result<(), Refused> {
    if format == WebhookFormat::MultipleJson && merchant.gateway != MULTIPLE_JSON_GATEWAY {
        return Err(Refused::invalid(
            "webhook_format",
            format!("`multiple_json` is for merchants on the `{MULTIPLE_JSON_GATEWAY}` gateway"),
        ));
    }
    Ok(())
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
        "scopes": key.scopes.as_ref().map(Scopes::to_strings),
        "expires_at": key.expires_at,
    })
}
