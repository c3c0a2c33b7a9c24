//! Webhooks: the delivery log, redelivery, tests, signing secrets, and events that the platform publishes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json as JsonAnswer};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::{Creation, Json, created, json_bytes};
use super::page::{Page, PageQuery, Path, Query, Wanted};
use crate::domain::clock::Timestamp;
use crate::domain::delivery::{Answer, Delivery, DeliveryState};
use crate::domain::ids::{ApiKeyId, DeliveryId, EventId, MerchantId};
use crate::flows::idempotency::Rendered;
use crate::flows::manage_keys::WithSecret;
use crate::flows::manage_webhooks::{EventToPublish, RotatedWebhookSecret};
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::error::Failure;
use crate::store::delivery_log::Filter;
use crate::store::webhook_secrets::ListedSecret;

/// Which deliveries to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DeliveryQuery {
    api_key_id: Option<ApiKeyId>,
    state: Option<DeliveryState>,
    /// Objects per page, 1 to 200; the default is 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct PublishedEvent {
    id: EventId,
}

/// Which failed deliveries to send again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FailedSince {
    since: Timestamp,
    /// Only deliveries of this key.
    api_key_id: Option<ApiKeyId>,
}

#[derive(Serialize, ToSchema)]
pub struct RedeliveredCount {
    deliveries: u64,
}

/// The answer to a `ping`.
#[derive(Serialize, ToSchema)]
pub struct PingAnswer {
    /// Whether the answer was 2xx.
    delivered: bool,
    status: Option<u16>,
    error: Option<&'static str>,
    latency_us: i64,
    /// The first 1 KiB of the answer's body.
    response: Option<String>,
}

impl From<Answer> for PingAnswer {
    fn from(answer: Answer) -> Self {
        let delivered = answer.is_success();
        let (status, error, response) = match answer.result {
            Ok(received) => (Some(received.status), None, Some(received.text)),
            Err(error) => (None, Some(<&str>::from(error)), None),
        };
        Self { delivered, status, error, latency_us: answer.latency_us, response }
    }
}

/// A rotation of a signing secret.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRotation {
    /// How many seconds the previous secret still signs too; the default is a day.
    #[schema(minimum = 0, maximum = 2_592_000)]
    #[serde(default = "a_day_secs")]
    overlap_secs: i64,
}

const fn a_day_secs() -> i64 {
    24 * 3600
}

#[derive(Serialize, ToSchema)]
pub struct SecretRotated {
    api_key_id: ApiKeyId,
    /// `whsec_` and base64. It is shown only once.
    webhook_secret: String,
    previous_ends_at: Timestamp,
}

impl Rendered for WithSecret<RotatedWebhookSecret> {
    fn body(&self) -> Vec<u8> {
        json_bytes(&SecretRotated {
            api_key_id: self.object.api_key_id,
            webhook_secret: self.secret.expose().to_owned(),
            previous_ends_at: self.object.previous_ends_at,
        })
    }
}

/// List the newest signing secrets of a key, newest first, without the secrets themselves.
#[utoipa::path(get, path = "/admin/v1/api-keys/{id}/webhook-secrets", tag = "webhooks",
    params(("id" = ApiKeyId, Path)), responses((status = 200, body = Page<ListedSecret>)))]
pub async fn list_secrets(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ApiKeyId>,
) -> Result<JsonAnswer<Page<ListedSecret>>, Failure> {
    let items = shared.core.signing_secrets(&principal, id).await?;
    Ok(JsonAnswer(Page { items, next_cursor: None }))
}

/// List a merchant's webhook deliveries with their attempts, newest first.
#[utoipa::path(get, path = "/admin/v1/merchants/{id}/webhook-deliveries", tag = "webhooks",
    params(("id" = MerchantId, Path), DeliveryQuery), responses((status = 200, body = Page<Delivery>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<MerchantId>,
    Query(query): Query<DeliveryQuery>,
) -> Result<JsonAnswer<Page<Delivery>>, Failure> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let wanted = Wanted::new(&shared.core, format!("webhook-deliveries of {id}"), page)?;
    let filter = Filter { api_key: query.api_key_id, state: query.state };
    let found = shared.core.list_deliveries(&principal, id, filter, wanted.before, wanted.to_read()).await?;
    Ok(JsonAnswer(wanted.page(found, |delivery| delivery.id, |delivery| delivery)))
}

/// Send a webhook again now, with the same `webhook-id`.
#[utoipa::path(post, path = "/admin/v1/merchants/{id}/webhook-deliveries/{delivery_id}/redeliver",
    tag = "webhooks", params(("id" = MerchantId, Path), ("delivery_id" = DeliveryId, Path)),
    responses((status = 202, body = Delivery)))]
pub async fn redeliver(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path((id, delivery)): Path<(MerchantId, DeliveryId)>,
) -> Result<Response, Failure> {
    let delivery = shared.core.redeliver(&principal, id, delivery).await?;
    Ok((StatusCode::ACCEPTED, JsonAnswer(delivery)).into_response())
}

/// Send failed webhooks again that were created at or after a time: up to 10,000 in one call, oldest first.
#[utoipa::path(post, path = "/admin/v1/merchants/{id}/webhook-deliveries/redeliver-failed",
    tag = "webhooks", request_body = FailedSince, params(("id" = MerchantId, Path)),
    responses((status = 202, body = RedeliveredCount)))]
pub async fn redeliver_failed(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<MerchantId>,
    Json(body): Json<FailedSince>,
) -> Result<Response, Failure> {
    let deliveries = shared.core.redeliver_failed(&principal, id, body.api_key_id, body.since).await?;
    Ok((StatusCode::ACCEPTED, JsonAnswer(RedeliveredCount { deliveries })).into_response())
}

/// Publish an event to a merchant's webhooks. For the platform's own services.
#[utoipa::path(post, path = "/admin/v1/merchants/{id}/events", tag = "webhooks",
    request_body = EventToPublish, params(("id" = MerchantId, Path)),
    responses((status = 202, body = PublishedEvent)))]
pub async fn publish(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<MerchantId>,
    Json(event): Json<EventToPublish>,
) -> Result<Response, Failure> {
    let id = shared.core.publish_event(&principal, id, event).await?;
    Ok((StatusCode::ACCEPTED, JsonAnswer(PublishedEvent { id })).into_response())
}

/// Send a `ping` to a key's webhook now, and show the answer.
#[utoipa::path(post, path = "/admin/v1/api-keys/{id}/test-webhook", tag = "webhooks",
    params(("id" = ApiKeyId, Path)), responses((status = 200, body = PingAnswer)))]
pub async fn test(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ApiKeyId>,
) -> Result<JsonAnswer<PingAnswer>, Failure> {
    let answer = shared.core.test_webhook(&principal, id, |message| shared.egress.send(message)).await?;
    Ok(JsonAnswer(answer.into()))
}

/// Give a key a new signing secret. Both secrets sign until the overlap ends.
#[utoipa::path(post, path = "/admin/v1/api-keys/{id}/rotate-webhook-secret", tag = "webhooks",
    request_body = SecretRotation, params(("id" = ApiKeyId, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = SecretRotated)))]
pub async fn rotate_secret(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<ApiKeyId>,
    Creation { body, principal }: Creation<SecretRotation>,
) -> Result<Response, Failure> {
    let answer = shared.core.rotate_webhook_secret(&principal, id, body.overlap_secs).await?;
    Ok(created(answer))
}
