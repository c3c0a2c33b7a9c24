//! Delivering webhooks: claims and signs deliveries that are due, and records the answers.
//! [`crate::jobs::deliver`] does the sending.
//!
//! Delivery is at least once. Only a recorded answer finishes a delivery. If no answer is recorded, the claim
//! lapses, and the same event is sent again with the same id.

use chrono::TimeDelta;
use serde_json::json;

use super::Core;
use super::error::Fault;
use crate::domain::clock::Timestamp;
use crate::domain::delivery::{Answer, Attempt, DeliveryState, Received, Round, SendError, Verdict};
use crate::domain::delivery::{is_hopeless, judge};
use crate::domain::destination::WebhookUrl;
use crate::domain::event::{EventType, WebhookEvent};
use crate::domain::ids::{ApiKeyId, DeliveryId, MerchantId};
use crate::domain::keyring::Purpose;
use crate::domain::webhook::{SignedMessage, WebhookSecret};
use crate::store::deliveries::{self, Counted, Endpoint};
use crate::store::webhook_secrets::{self, SealedSecret};
use crate::store::{Connection, StoreError, Tx, audit, merchants};

/// How long a claim lasts. This is much longer than an attempt can take, so another sender takes a delivery
/// over only if its sender is gone.
pub const CLAIM: TimeDelta = TimeDelta::seconds(90);

/// The most concurrent deliveries to a working endpoint, in one process.
pub const PER_ENDPOINT_MAX: i64 = 8;

/// The same for an endpoint whose last delivery failed: one attempt at a time until it works again.
const PER_FAILING_ENDPOINT_MAX: i64 = 1;

/// A claimed delivery, to be attempted now.
pub struct Claimed {
    pub claim: Claim,
    /// The message, or why nothing can be sent.
    pub message: Result<SignedMessage, SendError>,
}

/// The claim on a delivery, which is needed to record the attempt.
pub struct Claim {
    pub delivery: DeliveryId,
    pub api_key_id: ApiKeyId,
    merchant_id: MerchantId,
    endpoint_url: String,
    failing_since: Option<Timestamp>,
    at: Timestamp,
    until: Timestamp,
}

impl Core {
    /// The keys with deliveries that are due, and their merchants.
    pub async fn due_endpoints(&self) -> Result<Vec<(MerchantId, ApiKeyId)>, StoreError> {
        deliveries::due_endpoints(&mut self.store.read().await?, self.now()).await
    }

    /// Claims deliveries that are due for one endpoint, up to `limit` and to the endpoint's own maximum.
    pub async fn claim_deliveries(&self, key: ApiKeyId, limit: i64) -> Result<Vec<Claimed>, Fault> {
        let now = self.now();
        let until = now.plus(CLAIM);
        let mut db = self.store.write().await?;
        let Some(endpoint) = deliveries::endpoint(&mut db, key).await? else { return Ok(Vec::new()) };
        let Some(url) = endpoint.url.clone().filter(|_| !endpoint.is_disabled) else {
            // The webhook was removed or disabled after the event.
            deliveries::fail_pending(&mut db, key, now).await?;
            return Ok(Vec::new());
        };
        let bearable =
            if endpoint.failing_since.is_some() { PER_FAILING_ENDPOINT_MAX } else { PER_ENDPOINT_MAX };
        let rows = deliveries::claim(&mut db, key, now, until, limit.min(bearable)).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let secrets = self.webhook_secrets(&mut db, key, now).await?;
        let mut claimed = Vec::with_capacity(rows.len());
        for (delivery, event) in rows {
            let event = deliveries::event(&mut db, event).await?;
            let claim = Claim {
                delivery,
                api_key_id: key,
                merchant_id: endpoint.merchant_id,
                endpoint_url: url.clone(),
                failing_since: endpoint.failing_since,
                at: now,
                until,
            };
            claimed.push(Claimed { claim, message: self.signed(&endpoint, &url, &event, &secrets, now) });
        }
        Ok(claimed)
    }

    /// Signs an event for an endpoint at `now`.
    pub(super) fn signed(
        &self,
        endpoint: &Endpoint,
        url: &str,
        event: &WebhookEvent,
        secrets: &[WebhookSecret],
        now: Timestamp,
    ) -> Result<SignedMessage, SendError> {
        if secrets.is_empty() {
            return Err(SendError::SecretMissing);
        }
        // Check the URL again, because the settings may have become stricter since it was set.
        let url = WebhookUrl::parse(url, self.destinations).map_err(|_| SendError::UrlNotAllowed)?;
        Ok(SignedMessage::new(url, event, endpoint.format, secrets, now.unix_secs()))
    }

    /// The secrets of a key that sign now, newest first. A secret whose server key is lost is left out and
    /// logged.
    pub(super) async fn webhook_secrets(
        &self,
        db: &mut Connection,
        key: ApiKeyId,
        now: Timestamp,
    ) -> Result<Vec<WebhookSecret>, Fault> {
        let sealed = webhook_secrets::live(db, key, now).await?;
        if let Some(key) = sealed.iter().find_map(|secret| self.keyring.missing_for(&secret.sealed)) {
            return Err(self.key_missing(key));
        }
        Ok(sealed.iter().filter_map(|secret| self.open_webhook_secret(secret)).collect())
    }

    pub(super) fn open_webhook_secret(&self, secret: &SealedSecret) -> Option<WebhookSecret> {
        let opened = self.keyring.open(Purpose::WebhookSecret, secret.id.uuid().as_bytes(), &secret.sealed);
        if opened.is_none() {
            tracing::error!(secret = %secret.id, "a webhook secret cannot be opened with the current token keys");
        }
        opened.map(WebhookSecret::from_bytes)
    }

    /// Records the answer to an attempt and its consequences. After an error, the delivery is due again when
    /// its claim lapses.
    pub async fn record_attempt(&self, claim: &Claim, answer: &Answer) -> Result<(), StoreError> {
        let now = self.now();
        let is_hopeless = is_hopeless(claim.failing_since, now);
        let mut tx = self.store.begin().await?;
        if answer.is_gone() || (is_hopeless && !answer.is_success()) {
            // This may disable the endpoint, and every change to a merchant begins with its lock.
            merchants::lock(&mut tx, claim.merchant_id).await?;
        }
        let counted = deliveries::count_attempt(&mut tx, claim.delivery, claim.at).await?;
        let round = Round { tries: counted.tries, began_at: counted.began_at };
        let verdict = judge(answer, round, now, u16::from_be_bytes(self.entropy.bytes()));
        deliveries::insert_attempt(&mut tx, claim.delivery, &attempt(counted.number, claim.at, answer))
            .await?;
        self.conclude(&mut tx, claim, &counted, verdict, now).await?;
        let disables = match verdict {
            Verdict::Gone => Some("gone"),
            // Disable it only after a whole round without success. If nothing was sent for a week, the
            // endpoint has not failed all that time.
            Verdict::GiveUp if is_hopeless => Some("failing_for_a_week"),
            _ => None,
        };
        if let Some(reason) = disables {
            self.disable_endpoint(&mut tx, claim, reason, now).await?;
        }
        tx.commit().await?;
        self.note_health(claim, answer, verdict, now).await
    }

    /// Updates the delivery. If another sender took over after the claim lapsed, or the endpoint was
    /// disabled, only a success still counts.
    async fn conclude(
        &self,
        tx: &mut Tx,
        claim: &Claim,
        counted: &Counted,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let id = claim.delivery;
        let is_ours = counted.state == DeliveryState::Pending && counted.next_attempt_at == claim.until;
        match verdict {
            Verdict::Delivered if counted.state == DeliveryState::Delivered => Ok(()),
            Verdict::Delivered => deliveries::finish(tx, id, DeliveryState::Delivered, now).await,
            _ if !is_ours => Ok(()),
            Verdict::RetryAt(at) => deliveries::retry_at(tx, id, at).await,
            Verdict::GiveUp | Verdict::Gone => deliveries::finish(tx, id, DeliveryState::Failed, now).await,
        }
    }

    /// Notes whether the endpoint works, if that has changed. This is outside the transaction: if it is lost,
    /// the next attempt notes it.
    async fn note_health(
        &self,
        claim: &Claim,
        answer: &Answer,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        match (verdict, claim.failing_since) {
            (Verdict::Delivered, Some(_)) => {
                deliveries::note_working(&mut self.store.write().await?, claim.api_key_id).await
            }
            (Verdict::RetryAt(_) | Verdict::GiveUp, None) => {
                let status = answer.result.as_ref().ok().map(|received| received.status);
                let error = answer.result.as_ref().err().map(|error| <&str>::from(*error));
                tracing::info!(api_key = %claim.api_key_id, status, error, "webhook endpoint fails");
                deliveries::note_failing(&mut self.store.write().await?, claim.api_key_id, now).await
            }
            _ => Ok(()),
        }
    }

    /// Disables an endpoint, gives up its pending deliveries, and records this in the audit trail.
    async fn disable_endpoint(
        &self,
        tx: &mut Tx,
        claim: &Claim,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let key = claim.api_key_id;
        if !deliveries::disable_endpoint(tx, key, &claim.endpoint_url, now).await? {
            return Ok(());
        }
        let given_up = deliveries::fail_pending(tx, key, now).await?;
        let mut event = self.audit_event(EventType::WebhookDisabled).about(key);
        event.merchant_id = Some(claim.merchant_id);
        event.detail = json!({ "reason": reason, "deliveries_given_up": given_up });
        tracing::warn!(api_key = %key, reason, given_up, "webhook endpoint disabled");
        audit::append(tx, &event).await
    }
}

fn attempt(number: i64, at: Timestamp, answer: &Answer) -> Attempt {
    let (status, error, response) = match &answer.result {
        Ok(Received { status, text, .. }) => (Some(*status), None, text.clone()),
        Err(error) => (None, Some(*error), String::new()),
    };
    Attempt { number, at, status, error, latency_us: answer.latency_us, response }
}
