//! Delivering webhooks, apart from the sending: what is due is claimed and signed, and what came of
//! it recorded. The network is the caller's ([`crate::jobs::deliver`]).
//!
//! At least once: a delivery is finished only by the record of an answer, and a claim without a record
//! lapses. Whoever sends after that sends the same event under the same id.

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

/// How long a sender has a delivery to itself. Much longer than an attempt can take, so that only one
/// whose sender is gone is taken up by another.
pub const CLAIM: TimeDelta = TimeDelta::seconds(90);

/// Deliveries of an endpoint that works which are under way at once, in one process.
pub const PER_ENDPOINT_MAX: i64 = 8;

/// The same of an endpoint that failed last: one probe, until it works again.
const PER_FAILING_ENDPOINT_MAX: i64 = 1;

/// A delivery to be attempted now, by whoever claimed it.
pub struct Claimed {
    pub claim: Claim,
    /// What to send, or why nothing can be sent.
    pub message: Result<SignedMessage, SendError>,
}

/// What the record of an attempt needs to know of it.
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
    /// The keys whose webhooks have something due, each with its merchant.
    pub async fn due_endpoints(&self) -> Result<Vec<(MerchantId, ApiKeyId)>, StoreError> {
        deliveries::due_endpoints(&mut self.store.read().await?, self.now()).await
    }

    /// Claims what is due for one endpoint, up to `limit` and to what the endpoint can bear.
    pub async fn claim_deliveries(&self, key: ApiKeyId, limit: i64) -> Result<Vec<Claimed>, Fault> {
        let now = self.now();
        let until = now.plus(CLAIM);
        let mut db = self.store.write().await?;
        let Some(endpoint) = deliveries::endpoint(&mut db, key).await? else { return Ok(Vec::new()) };
        let Some(url) = endpoint.url.clone().filter(|_| !endpoint.is_disabled) else {
            // The webhook was taken away after the event: there is nowhere to send it.
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

    /// Signs an event for an endpoint, as of `now`.
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
        // Checked again: the settings may have become stricter since the URL was set.
        let url = WebhookUrl::parse(url, self.destinations).map_err(|_| SendError::UrlNotAllowed)?;
        Ok(SignedMessage::new(url, event, endpoint.format, secrets, now.unix_secs()))
    }

    /// The secrets of a key that sign now, newest first. One whose server key is lost is left out, and the
    /// log told.
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
            tracing::error!(secret = %secret.id, "a webhook secret cannot be opened with the token keys given");
        }
        opened.map(WebhookSecret::from_bytes)
    }

    /// Records what came of an attempt, and what follows from it.
    ///
    /// # Errors
    /// A fault of the store. The delivery is then due again when its claim lapses.
    pub async fn record_attempt(&self, claim: &Claim, answer: &Answer) -> Result<(), StoreError> {
        let now = self.now();
        let is_hopeless = is_hopeless(claim.failing_since, now);
        let mut tx = self.store.begin().await?;
        if answer.is_gone() || (is_hopeless && !answer.is_success()) {
            // First of all, as in every change to a merchant: this may disable the endpoint.
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
            // Only a whole round without success says enough: an endpoint that nothing was sent to for a
            // week has not failed all that time.
            Verdict::GiveUp if is_hopeless => Some("failing_for_a_week"),
            _ => None,
        };
        if let Some(reason) = disables {
            self.disable_endpoint(&mut tx, claim, reason, now).await?;
        }
        tx.commit().await?;
        self.note_health(claim, answer, verdict, now).await
    }

    /// Moves the delivery on. Another sender may have taken over after the claim lapsed, or the
    /// endpoint have been disabled: then only a success still counts.
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

    /// Outside the transaction and only where it changes something: it may be lost, and come with the
    /// next attempt.
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

    /// Switches an endpoint off, gives up what is pending for it and says so in the audit trail.
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
