//! Sends the head of the audit trail to the operators' receiver. The head is then kept in a place that
//! somebody who can write to the database cannot change.
//!
//! The head is sent within a minute if the trail has grown, and every hour if it has not. So a receiver that
//! gets nothing knows that something is wrong. Each replica sends it. A head that does not arrive is not
//! queued, because the next head covers it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;

use super::egress::Egress;
use crate::config;
use crate::domain::api_key::WebhookFormat;
use crate::domain::clock::Timestamp;
use crate::domain::delivery::Answer;
use crate::domain::destination::{DestinationRules, WebhookUrl};
use crate::domain::event::WebhookEvent;
use crate::domain::ids::MerchantId;
use crate::domain::webhook::{SignedMessage, WebhookSecret};
use crate::flows::SharedCore;
use crate::store::StoreError;
use crate::store::audit_head::Head;

const INTERVAL: Duration = Duration::from_secs(60);

/// A head that has not changed is sent again after this long.
const REPEAT_AFTER: TimeDelta = TimeDelta::hours(1);

pub struct HeadReporter {
    core: SharedCore,
    egress: Egress,
    url: WebhookUrl,
    secret: WebhookSecret,
    /// The head that the receiver has, and when it was sent.
    told: Mutex<Option<(Head, Timestamp)>>,
}

impl HeadReporter {
    /// `None` if the settings name no receiver.
    pub fn new(core: SharedCore, settings: &config::Webhooks) -> Option<Arc<Self>> {
        let (url, secret) = (settings.operator_url.clone()?, settings.operator_secret.clone()?);
        let egress = Egress::new(DestinationRules::OPEN).through(settings.proxy.clone());
        Some(Arc::new(Self { core, egress, url, secret, told: Mutex::default() }))
    }

    /// Sends the head if it is due. Returns the receiver's answer, or `None` if nothing was due.
    pub async fn tick(&self) -> Result<Option<Answer>, StoreError> {
        let head = self.core.audit_head().await?;
        let now = self.core.now();
        let is_known = |(told, at): &(Head, Timestamp)| *told == head && now.since(*at) < REPEAT_AFTER;
        if self.told().as_ref().is_some_and(is_known) {
            return Ok(None);
        }
        let answer = self.egress.send(self.message(&head, now)).await;
        if answer.is_success() {
            *self.told() = Some((head, now));
        }
        Ok(Some(answer))
    }

    /// Runs until it is aborted.
    pub async fn run(self: Arc<Self>) {
        loop {
            match self.tick().await {
                Ok(Some(answer)) if !answer.is_success() => {
                    let status = answer.result.as_ref().ok().map(|received| received.status);
                    let error = answer.result.as_ref().err().map(|error| <&str>::from(*error));
                    tracing::warn!(status, error, "the operators' receiver did not accept the audit head");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the audit head could not be read"),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// The data has the format that `tollgate audit verify --head` reads.
    fn message(&self, head: &Head, now: Timestamp) -> SignedMessage {
        let data = json!({ "seq": head.seq, "hash": hex::encode(&head.hash) });
        // The event belongs to the platform. A merchant's id is not sent.
        let event = WebhookEvent::named("audit.head", MerchantId::nil(), data, now, &self.core.entropy);
        let (url, secrets) = (self.url.clone(), [self.secret.clone()]);
        SignedMessage::new(url, &event, WebhookFormat::SingleJson, &secrets, now.unix_secs())
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Option<(Head, Timestamp)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
