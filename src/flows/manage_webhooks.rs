//! Managing webhooks: signing secrets, the delivery log, redelivery, tests, and the events that the platform
//! publishes.

use std::future::Future;

use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Core;
use super::error::{Managed, Refused};
use super::idempotency::Answer as IdempotentAnswer;
use super::manage::Change;
use super::manage_keys::WithSecret;
use super::principal::Principal;
use super::rotation::OVERLAP_SECS_MAX;
use crate::domain::api_key::ApiKey;
use crate::domain::clock::Timestamp;
use crate::domain::delivery::{Answer, Delivery};
use crate::domain::destination::WebhookUrl;
use crate::domain::event::{EventType, WebhookEvent};
use crate::domain::ids::{ApiKeyId, DeliveryId, EventId, MerchantId, SecretId};
use crate::domain::keyring::{Purpose, sealer};
use crate::domain::secret::PlainSecret;
use crate::domain::webhook::{EventData, SignedMessage, WebhookSecret};
use crate::store::api_keys;
use crate::store::deliveries;
use crate::store::delivery_log::{self, Filter};
use crate::store::outbox::{self, Audience};
use crate::store::webhook_secrets::{self, ListedSecret, SealedSecret};

/// The most secrets of a key that sign at the same time. Each adds a signature to the header of every
/// webhook.
const SECRETS_MAX: usize = 4;

/// The most failed deliveries that one call sends again.
pub const RESENT_MAX: i64 = 10_000;

/// An event that one of the platform's services publishes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventToPublish {
    /// Names separated by dots, such as `payment.settled`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// A JSON object. It is sent exactly as written here, except for white space.
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
    /// Publishing the same event again with the same key for the same merchant returns the first one. Another
    /// event with the same key is a conflict.
    pub idempotency_key: Option<String>,
}

/// A rotated signing secret. Older secrets also sign until `previous_ends_at`.
#[derive(Clone, Copy, Debug)]
pub struct RotatedWebhookSecret {
    pub api_key_id: ApiKeyId,
    pub previous_ends_at: Timestamp,
}

impl Core {
    /// Gives a key a new signing secret. Both sign for `overlap_secs`, and then only the new one.
    pub async fn rotate_webhook_secret(
        &self,
        principal: &Principal,
        key: ApiKeyId,
        overlap_secs: i64,
    ) -> Managed<IdempotentAnswer<WithSecret<RotatedWebhookSecret>>> {
        self.create(principal, EventType::WebhookSecretRotated, async |change| {
            rotate(change, key, overlap_secs).await
        })
        .await
    }

    /// The newest signing secrets of a key, without the secrets themselves, newest first.
    pub async fn signing_secrets(&self, principal: &Principal, key: ApiKeyId) -> Managed<Vec<ListedSecret>> {
        let key = self.api_key(principal, key).await?;
        Ok(webhook_secrets::list(&mut self.store.read().await?, key.id).await?)
    }

    /// Publishes an event from the platform's services to all webhooks of the merchant. If the idempotency
    /// key was already used for the same event, returns the id of the first one.
    pub async fn publish_event(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        new: EventToPublish,
    ) -> Managed<EventId> {
        self.change(principal, EventType::EventPublished, async |change| publish(change, merchant, new).await)
            .await
    }

    /// A page of the delivery log, newest first, starting before `before`.
    pub async fn list_deliveries(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        filter: Filter,
        before: Option<DeliveryId>,
        limit: i64,
    ) -> Managed<Vec<Delivery>> {
        self.must_exist(principal, merchant).await?;
        Ok(delivery_log::list(&mut self.store.read().await?, merchant, filter, before, limit).await?)
    }

    /// Sends one delivery again with the same id, whatever its state.
    pub async fn redeliver(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        id: DeliveryId,
    ) -> Managed<Delivery> {
        self.change(principal, EventType::WebhookDeliveryRedelivered, async |change| {
            redeliver(change, merchant, id).await
        })
        .await
    }

    /// How many deliveries [`Core::redeliver_failed`] would send again.
    pub async fn count_failed(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        key: Option<ApiKeyId>,
        since: Timestamp,
    ) -> Managed<i64> {
        self.must_exist(principal, merchant).await?;
        let mut db = self.store.read().await?;
        Ok(delivery_log::count_failed(&mut db, merchant, key, since, RESENT_MAX).await?)
    }

    /// Sends failed deliveries again that were created at `since` or later, of one key or of all: up to
    /// [`RESENT_MAX`], oldest first. Returns how many.
    pub async fn redeliver_failed(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        key: Option<ApiKeyId>,
        since: Timestamp,
    ) -> Managed<u64> {
        self.change(principal, EventType::WebhookDeliveryFailedRedelivered, async |change| {
            principal.may_change(merchant)?;
            change.must_be_here(merchant).await?;
            let now = change.event.at;
            let count =
                delivery_log::redeliver_failed(&mut change.tx, merchant, key, since, now, RESENT_MAX).await?;
            change.event.detail = json!({ "since": since, "api_key_id": key, "deliveries": count });
            Ok(count)
        })
        .await
    }

    /// Sends a `ping` to a key's webhook now, through `send`, and returns the answer. It is recorded in the
    /// audit trail but not in the delivery log, and it is not retried. Only one ping for a key can run at a
    /// time.
    pub async fn test_webhook<F>(
        &self,
        principal: &Principal,
        key: ApiKeyId,
        send: impl FnOnce(SignedMessage) -> F,
    ) -> Managed<Answer>
    where
        F: Future<Output = Answer>,
    {
        let found = self.api_key(principal, key).await?;
        // A refusal here is not recorded, because it costs nothing and may happen thousands of times.
        let _under_way = self.pings.begin(found.id, found.merchant_id)?;
        let message =
            self.change(principal, EventType::WebhookTested, async |change| ping(change, key).await);
        // Finish the transaction first, so that it does not wait for the network.
        Ok(send(message.await?).await)
    }

    /// Checks that the settings allow a webhook URL.
    pub fn check_webhook_url(&self, url: &str) -> Result<(), Refused> {
        WebhookUrl::parse(url, self.destinations)
            .map(drop)
            .map_err(|error| Refused::invalid("webhook_url", error.to_string()))
    }
}

/// Makes a signing secret for a key that has a webhook URL but no secret that signs. `None` if the key needs
/// none. Call this wherever a URL is set, also the same one again, and only there: whoever sets it is shown the
/// secret.
pub(super) async fn ensure_webhook_secret(
    change: &mut Change<'_>,
    key: &ApiKey,
) -> Managed<Option<PlainSecret>> {
    if key.webhook_url.is_none() {
        return Ok(None);
    }
    let (core, now) = (change.core, change.event.at);
    let live = webhook_secrets::live(&mut change.tx, key.id, now).await?;
    let is_lost = |secret: &SealedSecret| sealer(&secret.sealed).is_some_and(|id| core.keyring.is_lost(id));
    if !live.iter().all(is_lost) {
        return Ok(None);
    }
    // The token key that sealed the others is given up, so they sign nothing any more.
    webhook_secrets::end_all(&mut change.tx, key.id, now).await?;
    Ok(Some(add_secret(change, key).await?))
}

/// Enables a key's webhook again after it was disabled, and forgets its failures. Call this wherever the URL
/// is set again. The caller writes `key`.
pub(super) async fn enable_webhook(change: &mut Change<'_>, key: &mut ApiKey) -> Managed<()> {
    key.webhook_disabled_at = None;
    deliveries::note_working(&mut change.tx, key.id).await?;
    Ok(())
}

async fn add_secret(change: &mut Change<'_>, key: &ApiKey) -> Managed<PlainSecret> {
    change.principal.may_handle(key.environment)?;
    let core = change.core;
    let secret = WebhookSecret::generate(&core.entropy);
    let (id, plain) = (SecretId::generate(change.event.at, &core.entropy), secret.to_plain());
    let sealed = change.seal(Purpose::WebhookSecret, id.uuid().as_bytes(), secret.bytes()).await?;
    let kept = SealedSecret { id, sealed };
    webhook_secrets::insert(&mut change.tx, key.id, &kept, plain.hash(), change.event.at).await?;
    Ok(plain)
}

/// The key, if the principal may change it. Also sets its merchant in the audit event.
async fn changeable_key(change: &mut Change<'_>, key: ApiKeyId) -> Managed<ApiKey> {
    change.concerns(None, key);
    let Some(key) = api_keys::by_id(&mut change.tx, key).await? else { return Err(Refused::NotFound.into()) };
    change.principal.may_change(key.merchant_id)?;
    change.must_be_here(key.merchant_id).await?;
    Ok(key)
}

fn no_webhook() -> Refused {
    Refused::Conflict("the key has no webhook URL".to_owned())
}

async fn rotate(
    change: &mut Change<'_>,
    key: ApiKeyId,
    overlap_secs: i64,
) -> Managed<WithSecret<RotatedWebhookSecret>> {
    let key = changeable_key(change, key).await?;
    change.lock_merchant(key.merchant_id).await?;
    if key.webhook_url.is_none() {
        return Err(no_webhook().into());
    }
    if !(0..=OVERLAP_SECS_MAX).contains(&overlap_secs) {
        let detail = format!("must be 0 to {OVERLAP_SECS_MAX}");
        return Err(Refused::invalid("overlap_secs", detail).into());
    }
    let now = change.event.at;
    let previous_ends_at = now.plus(TimeDelta::seconds(overlap_secs));
    webhook_secrets::end_all(&mut change.tx, key.id, previous_ends_at).await?;
    if webhook_secrets::live(&mut change.tx, key.id, now).await?.len() >= SECRETS_MAX {
        let detail = format!("{SECRETS_MAX} secrets sign already; wait until one has ended");
        return Err(Refused::Conflict(detail).into());
    }
    let secret = add_secret(change, &key).await?;
    change.event.detail = json!({ "previous_ends_at": previous_ends_at });
    Ok(WithSecret { object: RotatedWebhookSecret { api_key_id: key.id, previous_ends_at }, secret })
}

async fn publish(change: &mut Change<'_>, merchant: MerchantId, new: EventToPublish) -> Managed<EventId> {
    change.principal.may_see(merchant)?;
    change.principal.must_be_of_platform()?;
    check_event_type(&new.event_type)?;
    if let Some(key) = &new.idempotency_key {
        check_idempotency_key(key)?;
    }
    let data = EventData::parse(&new.data).map_err(|error| Refused::invalid("data", error.to_string()))?;
    change.must_be_here(merchant).await?;
    let event = WebhookEvent {
        // The prefix separates these keys from those that this program uses for its own events.
        idempotency_key: new.idempotency_key.map(|key| format!("platform:{key}")),
        ..WebhookEvent::named(new.event_type, merchant, data, change.event.at, &change.core.entropy)
    };
    let is_new =
        outbox::publish_once(&mut change.tx, &event, Audience::Merchant, &change.core.entropy).await?;
    let id = if is_new { event.id } else { earlier(change, &event).await? };
    change.concerns(Some(merchant), id);
    change.event.detail = json!({ "type": event.event_type, "repeated": !is_new });
    Ok(id)
}

/// The event that was published with the same idempotency key. Refused if it was another event.
async fn earlier(change: &mut Change<'_>, event: &WebhookEvent) -> Managed<EventId> {
    let earlier = outbox::by_idempotency_key(&mut change.tx, event).await?;
    if earlier.event_type == event.event_type && earlier.data == event.data.as_str() {
        return Ok(earlier.id);
    }
    Err(Refused::Conflict("this idempotency_key was used for another event".to_owned()).into())
}

/// Names separated by dots (Standard Webhooks 1.0.0).
fn check_event_type(event_type: &str) -> Result<(), Refused> {
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    if event_type.len() <= 100 && event_type.split('.').all(is_name) {
        return Ok(());
    }
    let detail = "must be names of [A-Za-z0-9_-] separated by full stops, at most 100 characters";
    Err(Refused::invalid("type", detail))
}

fn check_idempotency_key(key: &str) -> Result<(), Refused> {
    if (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Ok(());
    }
    Err(Refused::invalid("idempotency_key", "must have 1 to 255 printable ASCII characters"))
}

async fn redeliver(change: &mut Change<'_>, merchant: MerchantId, id: DeliveryId) -> Managed<Delivery> {
    change.concerns(None, id);
    change.principal.may_change(merchant)?;
    let found = delivery_log::by_id(&mut change.tx, id).await?;
    let Some(delivery) = found.filter(|delivery| delivery.merchant_id == merchant) else {
        return Err(Refused::NotFound.into());
    };
    change.must_be_here(merchant).await?;
    let endpoint = deliveries::endpoint(&mut change.tx, delivery.api_key_id).await?;
    match endpoint {
        Some(endpoint) if endpoint.is_disabled => {
            let detail = "the webhook is disabled; set its URL again first";
            return Err(Refused::Conflict(detail.to_owned()).into());
        }
        Some(endpoint) if endpoint.url.is_some() => {}
        _ => return Err(no_webhook().into()),
    }
    delivery_log::redeliver(&mut change.tx, id, change.event.at).await?;
    change.event.detail = json!({ "event_id": delivery.event_id, "type": delivery.event_type });
    delivery_log::by_id(&mut change.tx, id).await?.ok_or_else(|| Refused::NotFound.into())
}

async fn ping(change: &mut Change<'_>, key: ApiKeyId) -> Managed<SignedMessage> {
    let key = changeable_key(change, key).await?;
    let (core, now) = (change.core, change.event.at);
    let Some(endpoint) = deliveries::endpoint(&mut change.tx, key.id).await? else {
        return Err(Refused::NotFound.into());
    };
    let Some(url) = &endpoint.url else { return Err(no_webhook().into()) };
    let data = json!({ "api_key_id": key.id });
    let event = WebhookEvent::new(EventType::Ping, key.merchant_id, data, now, &core.entropy);
    let secrets = core.webhook_secrets(&mut change.tx, key.id, now).await?;
    core.signed(&endpoint, url, &event, &secrets, now)
        .map_err(|error| Refused::Conflict(format!("nothing can be sent: {}", <&str>::from(error))).into())
}
