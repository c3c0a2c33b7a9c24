//! One webhook delivery as it was sent: the body, and the headers of each attempt.
//!
//! The headers are not stored. They are worked out again from the time of the attempt and the secrets that
//! signed then.

use super::Core;
use super::error::{Managed, Refused};
use super::principal::Principal;
use crate::domain::clock::Timestamp;
use crate::domain::delivery::{Attempt, Delivery, SendError};
use crate::domain::destination::WebhookUrl;
use crate::domain::event::WebhookEvent;
use crate::domain::ids::{DeliveryId, MerchantId};
use crate::domain::webhook::{SignedMessage, WebhookSecret};
use crate::store::webhook_secrets::{self, SigningSecret};
use crate::store::{api_keys, delivery_log};

pub struct SentWebhook {
    pub delivery: Delivery,
    pub key_name: String,
    /// Where the key's webhooks go now.
    pub url: Option<String>,
    pub body: String,
    /// Newest first.
    pub attempts: Vec<SentAttempt>,
}

pub struct SentAttempt {
    pub attempt: Attempt,
    /// `None` if nothing was sent, or if the URL or the secrets of that time are gone.
    pub message: Option<SignedMessage>,
    /// The key was changed after this attempt, so its body, URL or signature may have been different.
    pub may_differ: bool,
}

impl Core {
    pub async fn sent_webhook(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        id: DeliveryId,
    ) -> Managed<SentWebhook> {
        self.must_exist(principal, merchant).await?;
        let mut db = self.store.read().await?;
        let found = delivery_log::by_id(&mut db, id).await?;
        let delivery = found.filter(|delivery| delivery.merchant_id == merchant).ok_or(Refused::NotFound)?;
        let key = api_keys::by_id(&mut db, delivery.api_key_id).await?.ok_or(Refused::NotFound)?;
        let secrets = webhook_secrets::all(&mut db, key.id).await?;
        drop(db);
        let event = WebhookEvent {
            id: delivery.event_id,
            merchant_id: delivery.merchant_id,
            event_type: delivery.event_type.clone(),
            data: delivery.data.clone(),
            idempotency_key: None,
            created_at: delivery.created_at,
        };
        let url = key.webhook_url.as_deref().and_then(|url| WebhookUrl::parse(url, self.destinations).ok());
        let attempt = |attempt: &Attempt| {
            let signers = self.signers(&secrets, attempt.at).filter(|signers| !signers.is_empty());
            let was_sent = !is_before_sending(attempt.error);
            let message = url.clone().filter(|_| was_sent).zip(signers).map(|(url, signers)| {
                SignedMessage::new(url, &event, key.webhook_format, &signers, attempt.at.unix_secs())
            });
            SentAttempt { attempt: attempt.clone(), message, may_differ: key.updated_at > attempt.at }
        };
        Ok(SentWebhook {
            attempts: delivery.attempts.iter().rev().map(attempt).collect(),
            body: event.body(key.webhook_format),
            key_name: key.name,
            url: key.webhook_url,
            delivery,
        })
    }

    /// The secrets that signed at a time, newest first. `None` if one of them cannot be opened.
    fn signers(&self, secrets: &[SigningSecret], at: Timestamp) -> Option<Vec<WebhookSecret>> {
        let signed = |one: &&SigningSecret| one.created_at <= at && one.ends_at.is_none_or(|end| at < end);
        secrets.iter().filter(signed).map(|one| self.open_webhook_secret(&one.secret)).collect()
    }
}

/// Whether an attempt failed before there was a connection to send anything on.
const fn is_before_sending(error: Option<SendError>) -> bool {
    match error {
        None | Some(SendError::ConnectionLost | SendError::AnswerMalformed | SendError::TimedOut) => false,
        Some(
            SendError::UrlNotAllowed
            | SendError::NameNotResolved
            | SendError::AddressNotAllowed
            | SendError::ConnectionRefused
            | SendError::ConnectFailed
            | SendError::TlsFailed
            | SendError::TlsNameMismatch
            | SendError::TlsCertificateExpired
            | SendError::TlsUnknownAuthority
            | SendError::TlsProtocol
            | SendError::ProxyUnreachable
            | SendError::ProxyRefused
            | SendError::SecretMissing,
        ) => true,
    }
}
