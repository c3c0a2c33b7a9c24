//! API keys: what a merchant's integration may do, from which addresses, and the format of its webhooks.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use strum::{EnumString, IntoStaticStr};
use utoipa::ToSchema;

use super::allow_list::AllowList;
use super::clock::Timestamp;
use super::ids::{ApiKeyId, MerchantId};
use super::scope::Scopes;
use super::secret::StoredSecret;

/// How long a revoked key can be restored.
pub const RESTORE_WINDOW: TimeDelta = TimeDelta::minutes(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Environment {
    Sandbox,
    Live,
}

/// What happens to a call from outside the allow list.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum IpMode {
    /// Refuse the call.
    #[default]
    Enforce,
    /// Allow the call and record it, to try out a list before enforcing it.
    Observe,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum WebhookFormat {
    /// JSON on one line.
    #[default]
    SingleJson,
    /// JSON with every field on its own line. Only for the Worldpay Corporate gateway.
    MultipleJson,
}

/// The gateway that unlocks [`WebhookFormat::MultipleJson`].
pub const MULTIPLE_JSON_GATEWAY: &str = "worldpay_corporate";

#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub merchant_id: MerchantId,
    pub name: String,
    pub environment: Environment,
    /// Empty means any address.
    #[sqlx(rename = "allowed_ips")]
    #[serde(rename = "allowed_ips")]
    #[schema(value_type = Vec<String>)]
    pub allow_list: AllowList,
    pub ip_mode: IpMode,
    pub webhook_format: WebhookFormat,
    pub webhook_url: Option<String>,
    /// When the webhook was disabled because deliveries failed; null while it is enabled.
    pub webhook_disabled_at: Option<Timestamp>,
    /// The key's scopes; null means every scope.
    #[schema(value_type = Option<Vec<String>>)]
    pub scopes: Option<Scopes>,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    // The secret was found in public. Such a key can never be restored.
    pub leaked: bool,
    #[serde(skip)]
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Newest first.
    #[sqlx(skip)]
    #[serde(skip)]
    pub secrets: Vec<StoredSecret>,
}

impl ApiKey {
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Whether a revoked key can still be restored.
    pub fn is_restorable(&self, now: Timestamp) -> bool {
        !self.leaked && self.revoked_at.is_some_and(|at| now < at.plus(RESTORE_WINDOW))
    }
}
