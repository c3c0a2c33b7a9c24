//! API keys.

use std::borrow::Borrow;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{Creation, IfMatch, Json, created, json_bytes, versioned};
use super::page::{Page, PageQuery, Path, Query, Wanted};
use super::secrets::{self, Rotation, SecretView};
use super::shown::Shown;
use crate::domain::api_key::ApiKey;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, MerchantId, SecretId};
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
#[schema(as = ApiKeyView)]
pub struct KeyState {
    /// The last characters of the newest secret.
    key_hint: String,
    status: KeyStatus,
    /// Newest first.
    secrets: Vec<SecretView>,
    last_used_at: Option<Timestamp>,
    last_used_ip: Option<String>,
}

pub type ApiKeyView<K = ApiKey> = Shown<K, KeyState>;

impl<K: Borrow<ApiKey>> ApiKeyView<K> {
    pub fn new(object: K, now: Timestamp) -> Self {
        let key = object.borrow();
        let latest = key.secrets.iter().max_by_key(|secret| secret.last_used_at);
        let worked_out = KeyState {
            key_hint: key.secrets.first().map(|secret| secret.hint.clone()).unwrap_or_default(),
            status: match key.revoked_at {
                Some(_) => KeyStatus::Revoked,
                None if key.is_expired(now) => KeyStatus::Expired,
                None => KeyStatus::Active,
            },
            secrets: secrets::views(&key.secrets, now),
            last_used_at: latest.and_then(|secret| secret.last_used_at),
            last_used_ip: latest.and_then(|secret| secret.last_used_ip.clone()),
        };
        Self { object, worked_out }
    }
}

/// A key with its secret, which is shown only once.
#[derive(Serialize, ToSchema)]
pub struct ApiKeyCreated {
    /// The `X-API-KEY`: 64 hex characters, after the three digits of the cell if there is one.
    key: String,
    /// The secret that verifies webhooks: `whsec_` and base64. Present only if the key has a webhook URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_secret: Option<String>,
    #[serde(flatten)]
    api_key: ApiKeyView,
}

/// The key after the change.
#[derive(Serialize, ToSchema)]
pub struct ApiKeyChanged {
    /// The secret that verifies webhooks. Present only when the webhook URL is set and no secret signs yet, or
    /// none signs any more; shown only once.
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
            api_key: ApiKeyView::new(self.object.clone(), self.object.updated_at),
        })
    }
}

impl Rendered for WithSecret<ApiKey> {
    fn body(&self) -> Vec<u8> {
        json_bytes(&ApiKeyCreated {
            key: self.secret.expose().to_owned(),
            webhook_secret: None,
            // Use the time of the rotation, because a repeated answer must say the same.
            api_key: ApiKeyView::new(self.object.clone(), self.object.updated_at),
        })
    }
}

#[derive(Serialize, ToSchema)]
pub struct SuggestedIps {
    items: Vec<SuggestedRange>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FoundKey {
    /// The secret that was found, of any kind.
    key: String,
}

/// Make an API key.
#[utoipa::path(post, path = "/admin/v1/merchants/{id}/api-keys", tag = "api keys", request_body = NewApiKey,
    params(("id" = MerchantId, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = ApiKeyCreated)))]
pub async fn create(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<MerchantId>,
    Creation { body, principal }: Creation<NewApiKey>,
) -> Result<Response, Failure> {
    let answer = shared.core.create_api_key(&principal, id, body).await?;
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
    Ok(axum::Json(wanted.page(found, |key| key.id, |key| ApiKeyView::new(key, now))))
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
#[utoipa::path(patch, path = "/admin/v1/api-keys/{id}", tag = "api keys", request_body = ApiKeyChanges,
    params(("id" = ApiKeyId, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = ApiKeyChanged)))]
pub async fn update(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ApiKeyId>,
    IfMatch(versions): IfMatch,
    Json(changes): Json<ApiKeyChanges>,
) -> Result<Response, Failure> {
    let changed = shared.core.update_api_key(&principal, id, versions, changes).await?;
    let version = changed.object.version;
    let view = ApiKeyChanged {
        webhook_secret: changed.webhook_secret.map(|secret| secret.expose().to_owned()),
        api_key: ApiKeyView::new(changed.object, shared.core.now()),
    };
    Ok(versioned(version, view))
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
///
/// Only the newest 50,000 calls of the merchant count.
#[utoipa::path(get, path = "/admin/v1/api-keys/{id}/suggested-ips", tag = "api keys",
    params(("id" = ApiKeyId, Path)), responses((status = 200, body = SuggestedIps)))]
pub async fn suggested_ips(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ApiKeyId>,
) -> Result<axum::Json<SuggestedIps>, Failure> {
    Ok(axum::Json(SuggestedIps { items: shared.core.suggested_ips(&principal, id).await? }))
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
