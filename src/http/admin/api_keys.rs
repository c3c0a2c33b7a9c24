//! API keys.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{Creation, IfMatch, Json, created, json_bytes, nullable, versioned};
use super::page::{Page, PageQuery, Path, Query, Wanted};
use super::secrets::{self, Rotation, SecretView};
use crate::domain::api_key::{ApiKey, Environment, IpMode, WebhookFormat};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, MerchantId, SecretId};
use crate::domain::scope::Scopes;
use crate::domain::secret::PlainSecret;
use crate::flows::idempotency::Rendered;
use crate::flows::manage_keys::{ApiKeyChanges, MadeApiKey, NewApiKey, WithSecret};
use crate::flows::principal::Principal;
use crate::flows::queries::SuggestedRange;
use crate::http::Shared;
use crate::http::error::Failure;

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyStatus {
    Active,
    Expired,
    Revoked,
}

#[derive(Serialize, ToSchema)]
pub struct ApiKeyView {
    id: ApiKeyId,
    merchant_id: MerchantId,
    name: String,
    /// The last characters of the newest secret.
    key_hint: String,
    status: KeyStatus,
    environment: Environment,
    /// Empty means any address.
    allowed_ips: Vec<String>,
    ip_mode: IpMode,
    webhook_format: WebhookFormat,
    webhook_url: Option<String>,
    /// When the webhook was disabled because deliveries failed; null while it is enabled.
    webhook_disabled_at: Option<Timestamp>,
    /// The key's scopes; null means every scope.
    scopes: Option<Vec<String>>,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    leaked: bool,
    /// Newest first.
    secrets: Vec<SecretView>,
    last_used_at: Option<Timestamp>,
    last_used_ip: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl ApiKeyView {
    pub fn new(key: &ApiKey, now: Timestamp) -> Self {
        let latest = key.secrets.iter().max_by_key(|secret| secret.last_used_at);
        Self {
            id: key.id,
            merchant_id: key.merchant_id,
            name: key.name.clone(),
            key_hint: key.secrets.first().map(|secret| secret.hint.clone()).unwrap_or_default(),
            status: match key.revoked_at {
                Some(_) => KeyStatus::Revoked,
                None if key.is_expired(now) => KeyStatus::Expired,
                None => KeyStatus::Active,
            },
            environment: key.environment,
            allowed_ips: key.allow_list.to_strings(),
            ip_mode: key.ip_mode,
            webhook_format: key.webhook_format,
            webhook_url: key.webhook_url.clone(),
            webhook_disabled_at: key.webhook_disabled_at,
            scopes: key.scopes.as_ref().map(Scopes::to_strings),
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            leaked: key.leaked,
            secrets: secrets::views(&key.secrets, now),
            last_used_at: latest.and_then(|secret| secret.last_used_at),
            last_used_ip: latest.and_then(|secret| secret.last_used_ip.clone()),
            created_at: key.created_at,
            updated_at: key.updated_at,
        }
    }
}

/// A key with its secret, which is shown only once.
#[derive(Serialize, ToSchema)]
pub struct ApiKeyCreated {
    /// The `X-API-KEY`: 64 hex characters.
    key: String,
    /// The secret that verifies webhooks: `whsec_` and base64. Present only when the first webhook URL is
    /// set.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_secret: Option<String>,
    #[serde(flatten)]
    api_key: ApiKeyView,
}

/// The key after the change.
#[derive(Serialize, ToSchema)]
pub struct ApiKeyChanged {
    /// The secret that verifies webhooks. Present only when the first webhook URL is set; shown only once.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_secret: Option<String>,
    #[serde(flatten)]
    api_key: ApiKeyView,
}

impl Rendered for MadeApiKey {
    fn body(&self) -> Vec<u8> {
        json_bytes(&ApiKeyCreated {
            key: self.secret.expose().to_owned(),
            webhook_secret: self.webhook_secret.as_ref().map(|secret| secret.expose().to_owned()),
            api_key: ApiKeyView::new(&self.object, self.object.updated_at),
        })
    }
}

impl Rendered for WithSecret<ApiKey> {
    fn body(&self) -> Vec<u8> {
        json_bytes(&ApiKeyCreated {
            key: self.secret.expose().to_owned(),
            webhook_secret: None,
            // Use the time of the rotation, because a repeated answer must say the same.
            api_key: ApiKeyView::new(&self.object, self.object.updated_at),
        })
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    name: String,
    environment: Environment,
    /// Addresses and CIDR ranges, at most 100; empty means any address.
    #[serde(default)]
    allowed_ips: Vec<String>,
    #[serde(default = "enforce")]
    ip_mode: IpMode,
    /// `multiple_json` is only for merchants on the `worldpay_corporate` gateway.
    #[serde(default = "single_json")]
    webhook_format: WebhookFormat,
    webhook_url: Option<String>,
    /// The key's scopes: 1 to 64 names (RFC 6749 3.3); null means every scope.
    #[schema(min_items = 1, max_items = 64)]
    scopes: Option<Vec<String>>,
    expires_at: Option<Timestamp>,
}

const fn enforce() -> IpMode {
    IpMode::Enforce
}

const fn single_json() -> WebhookFormat {
    WebhookFormat::SingleJson
}

/// Missing fields are not changed. Null removes `webhook_url`, `scopes` or `expires_at`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyPatch {
    name: Option<String>,
    allowed_ips: Option<Vec<String>>,
    ip_mode: Option<IpMode>,
    webhook_format: Option<WebhookFormat>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    webhook_url: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 64)]
    scopes: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Timestamp>)]
    expires_at: Option<Option<Timestamp>>,
}

#[derive(Serialize, ToSchema)]
pub struct SuggestedIps {
    items: Vec<SuggestedIp>,
}

#[derive(Serialize, ToSchema)]
pub struct SuggestedIp {
    cidr: String,
    calls: i64,
    first_seen_at: Timestamp,
    last_seen_at: Timestamp,
}

impl From<SuggestedRange> for SuggestedIp {
    fn from(range: SuggestedRange) -> Self {
        Self {
            cidr: range.cidr.to_string(),
            calls: range.calls,
            first_seen_at: range.first_seen_at,
            last_seen_at: range.last_seen_at,
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FoundKey {
    /// The secret that was found, of any kind.
    key: String,
}

/// Make an API key.
#[utoipa::path(post, path = "/admin/v1/merchants/{id}/api-keys", tag = "api keys", request_body = NewKey,
    params(("id" = MerchantId, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = ApiKeyCreated)))]
pub async fn create(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<MerchantId>,
    Creation { body, principal }: Creation<NewKey>,
) -> Result<Response, Failure> {
    let new = NewApiKey {
        name: body.name,
        environment: body.environment,
        allowed_ips: body.allowed_ips,
        ip_mode: body.ip_mode,
        webhook_format: body.webhook_format,
        webhook_url: body.webhook_url,
        scopes: body.scopes,
        expires_at: body.expires_at,
    };
    let answer = shared.core.create_api_key(&principal, id, new).await?;
    Ok(created(answer))
}

/// List a merchant's keys, including revoked ones, newest first.
#[utoipa::path(get, path = "/admin/v1/merchants/{id}/api-keys", tag = "api keys",
    params(("id" = MerchantId, Path), PageQuery), responses((status = 200, body = Page<ApiKeyView>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<MerchantId>,
    Query(page): Query<PageQuery>,
) -> Result<axum::Json<Page<ApiKeyView>>, Failure> {
    let wanted = Wanted::new(&shared.core, format!("api-keys of {id}"), page)?;
    let found = shared.core.api_keys(&principal, id, wanted.before, wanted.to_read()).await?;
    let now = shared.core.now();
    Ok(axum::Json(wanted.page(found, |key| key.id, |key| ApiKeyView::new(&key, now))))
}

/// Show a key.
#[utoipa::path(get, path = "/admin/v1/api-keys/{id}", tag = "api keys", params(("id" = ApiKeyId, Path)),
    responses((status = 200, body = ApiKeyView)))]
pub async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ApiKeyId>,
) -> Result<Response, Failure> {
    let key = shared.core.api_key(&principal, id).await?;
    Ok(versioned(key.version, ApiKeyView::new(&key, shared.core.now())))
}

/// Change a key's settings. The change takes effect at the next call.
#[utoipa::path(patch, path = "/admin/v1/api-keys/{id}", tag = "api keys", request_body = KeyPatch,
    params(("id" = ApiKeyId, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = ApiKeyChanged)))]
pub async fn update(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ApiKeyId>,
    IfMatch(version): IfMatch,
    Json(patch): Json<KeyPatch>,
) -> Result<Response, Failure> {
    let changes = ApiKeyChanges {
        name: patch.name,
        allowed_ips: patch.allowed_ips,
        ip_mode: patch.ip_mode,
        webhook_format: patch.webhook_format,
        webhook_url: patch.webhook_url,
        scopes: patch.scopes,
        expires_at: patch.expires_at,
    };
    let changed = shared.core.update_api_key(&principal, id, version, changes).await?;
    let view = ApiKeyChanged {
        webhook_secret: changed.webhook_secret.map(|secret| secret.expose().to_owned()),
        api_key: ApiKeyView::new(&changed.object, shared.core.now()),
    };
    Ok(versioned(changed.object.version, view))
}

/// Revoke a key at once. It can be restored within 60 minutes.
#[utoipa::path(delete, path = "/admin/v1/api-keys/{id}", tag = "api keys", params(("id" = ApiKeyId, Path)),
    responses((status = 204)))]
pub async fn revoke(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ApiKeyId>,
) -> Result<StatusCode, Failure> {
    shared.core.revoke_api_key(&principal, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Restore a key that was revoked within the last 60 minutes, unless it leaked.
#[utoipa::path(post, path = "/admin/v1/api-keys/{id}/restore", tag = "api keys",
    params(("id" = ApiKeyId, Path)), responses((status = 200, body = ApiKeyView)))]
pub async fn restore(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ApiKeyId>,
) -> Result<Response, Failure> {
    let key = shared.core.restore_api_key(&principal, id).await?;
    Ok(versioned(key.version, ApiKeyView::new(&key, shared.core.now())))
}

/// Give a key a new secret. Its id, settings, credentials and sessions stay the same.
#[utoipa::path(post, path = "/admin/v1/api-keys/{id}/rotate", tag = "api keys", request_body = Rotation,
    params(("id" = ApiKeyId, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = ApiKeyCreated)))]
pub async fn rotate(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<ApiKeyId>,
    Creation { body, principal }: Creation<Rotation>,
) -> Result<Response, Failure> {
    let answer = shared.core.rotate_api_key(&principal, id, body.overlap_secs).await?;
    Ok(created(answer))
}

/// End an older secret of a key at once.
#[utoipa::path(delete, path = "/admin/v1/api-keys/{id}/secrets/{secret_id}", tag = "api keys",
    params(("id" = ApiKeyId, Path), ("secret_id" = SecretId, Path)), responses((status = 204)))]
pub async fn end_secret(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path((id, secret)): Path<(ApiKeyId, SecretId)>,
) -> Result<StatusCode, Failure> {
    shared.core.end_api_key_secret(&principal, id, secret).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Propose an allow list from the addresses of a key's successful calls.
#[utoipa::path(get, path = "/admin/v1/api-keys/{id}/suggested-ips", tag = "api keys",
    params(("id" = ApiKeyId, Path)), responses((status = 200, body = SuggestedIps)))]
pub async fn suggested_ips(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ApiKeyId>,
) -> Result<axum::Json<SuggestedIps>, Failure> {
    let ranges = shared.core.suggested_ips(&principal, id).await?;
    Ok(axum::Json(SuggestedIps { items: ranges.into_iter().map(Into::into).collect() }))
}

/// Report a secret that was found in public.
///
/// It can be an API key, client secret, token, webhook secret or admin token. If it is one of ours, it ends
/// at once, and nothing else ends with it, except the session of a token. The answer is the same in every
/// case.
#[utoipa::path(post, path = "/admin/v1/leaked-keys", tag = "api keys", request_body = FoundKey,
    responses((status = 202)))]
pub async fn report_leaked(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Json(found): Json<FoundKey>,
) -> Result<StatusCode, Failure> {
    shared.core.report_leak(&principal, &PlainSecret::new(found.key)).await?;
    Ok(StatusCode::ACCEPTED)
}
