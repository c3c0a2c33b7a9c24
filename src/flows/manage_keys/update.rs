//! Changing the settings of an API key.

use serde::Deserialize;
use utoipa::ToSchema;

use super::{check_format, locked, parse_allow_list, save};
use crate::domain::api_key::{ApiKey, IpMode, WebhookFormat};
use crate::domain::clock::Timestamp;
use crate::domain::event::EventType;
use crate::domain::ids::ApiKeyId;
use crate::domain::secret::PlainSecret;
use crate::flows::Core;
use crate::flows::changes::{Versions, must_include, nullable};
use crate::flows::error::{Managed, Refused};
use crate::flows::manage::{Change, check_expiry, check_name};
use crate::flows::manage_webhooks::{enable_webhook, ensure_webhook_secret};
use crate::flows::principal::Principal;

/// Missing fields are not changed. Null removes `webhook_url`, `scopes` or `expires_at`.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyPatch)]
pub struct ApiKeyChanges {
    pub name: Option<String>,
    pub allowed_ips: Option<Vec<String>>,
    pub ip_mode: Option<IpMode>,
    pub webhook_format: Option<WebhookFormat>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub webhook_url: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 64)]
    pub scopes: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Timestamp>)]
    pub expires_at: Option<Option<Timestamp>>,
}

/// A changed key, with a new signing secret if its webhook URL was set and no secret signs.
#[derive(Debug)]
pub struct ChangedApiKey {
    pub object: ApiKey,
    pub webhook_secret: Option<PlainSecret>,
}

impl Core {
    /// Changes settings. They take effect at the next call, on every replica.
    pub async fn update_api_key(
        &self,
        principal: &Principal,
        id: ApiKeyId,
        versions: Versions,
        changes: ApiKeyChanges,
    ) -> Managed<ChangedApiKey> {
        self.change(principal, EventType::ApiKeyUpdated, async |change| {
            update(change, id, versions, changes).await
        })
        .await
    }
}

async fn update(
    change: &mut Change<'_>,
    id: ApiKeyId,
    versions: Versions,
    changes: ApiKeyChanges,
) -> Managed<ChangedApiKey> {
    let (merchant, mut key) = locked(change, id).await?;
    must_include(&versions, key.version)?;
    if key.revoked_at.is_some() {
        return Err(Refused::Conflict("the key is revoked".to_owned()).into());
    }
    if let Some(name) = changes.name {
        check_name("name", &name)?;
        key.name = name;
    }
    if let Some(ranges) = changes.allowed_ips {
        key.allow_list = parse_allow_list(&ranges)?;
    }
    if let Some(mode) = changes.ip_mode {
        key.ip_mode = mode;
    }
    if let Some(format) = changes.webhook_format {
        check_format(&merchant, format)?;
        key.webhook_format = format;
    }
    let mut webhook_secret = None;
    if let Some(url) = changes.webhook_url {
        if url != key.webhook_url {
            // This changes where the key's signed events are sent.
            change.principal.may_handle(key.environment)?;
        }
        if let Some(url) = &url {
            change.core.check_webhook_url(url)?;
        }
        key.webhook_url = url;
        enable_webhook(change, &mut key).await?;
        webhook_secret = ensure_webhook_secret(change, &key).await?;
    }
    if let Some(scopes) = changes.scopes {
        key.scopes = change.core.check_scopes(scopes.as_deref())?;
    }
    if let Some(expires_at) = changes.expires_at {
        check_expiry(expires_at, change.event.at)?;
        key.expires_at = expires_at;
    }
    save(change, EventType::ApiKeyUpdated, &mut key).await?;
    if webhook_secret.is_some() {
        change.event.detail["webhook_secret_made"] = true.into();
    }
    Ok(ChangedApiKey { object: key, webhook_secret })
}
