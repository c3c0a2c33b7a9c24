//! Shared by all management flows: a change, and recording it or its refusal.
//!
//! A change is one transaction with its audit event and its webhook event. A refused change is rolled back,
//! and the refusal is recorded in the audit trail.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::Core;
use super::error::{Error, Managed, Refused};
use super::principal::Principal;
use crate::domain::clock::Timestamp;
use crate::domain::event::{AuditEvent, EventType, Outcome, WebhookEvent};
use crate::domain::ids::MerchantId;
use crate::domain::lengths::{OBJECT_ID_BYTES_MAX, cut};
use crate::domain::licence::Product;
use crate::domain::merchant::Merchant;
use crate::store::outbox::Audience;
use crate::store::{StoreError, Tx, audit, merchants, outbox};

/// A change in progress: its transaction and its audit event.
pub(super) struct Change<'a> {
    pub(super) core: &'a Core,
    pub(super) principal: &'a Principal,
    pub(super) tx: Tx,
    pub(super) event: AuditEvent,
}

impl Core {
    /// Makes a change. Everything that `work` does is committed together with its audit event and its webhook
    /// event. If `work` refuses, all of it is rolled back and the refusal is recorded.
    pub(super) async fn change<T>(
        &self,
        principal: &Principal,
        event_type: EventType,
        work: impl AsyncFnOnce(&mut Change<'_>) -> Managed<T>,
    ) -> Managed<T> {
        let event = self.event_by(principal, event_type);
        let mut change = Change { core: self, principal, tx: self.store.begin().await?, event };
        let result = work(&mut change).await;
        let Change { mut tx, event, .. } = change;
        match result {
            Ok(done) => {
                audit::append(&mut tx, &event).await?;
                tx.commit().await?;
                Ok(done)
            }
            Err(Error::Refused(refused)) => {
                // End this transaction before the next one begins, because SQLite has only one writer.
                drop(tx);
                self.refused(event, refused).await
            }
            fault => fault,
        }
    }

    /// Runs checks before a change or a query, without a transaction. A refusal is recorded as `event`.
    pub(super) async fn on_record<T>(
        &self,
        event: &AuditEvent,
        attempt: impl Future<Output = Managed<T>>,
    ) -> Managed<T> {
        match attempt.await {
            Err(Error::Refused(refused)) => self.refused(event.clone(), refused).await,
            result => result,
        }
    }

    /// An audit event for an action of `principal`, before its object is known.
    pub(super) fn event_by(&self, principal: &Principal, event_type: EventType) -> AuditEvent {
        AuditEvent {
            actor: principal.actor.clone(),
            client_ip: principal.client_ip.clone(),
            request_id: principal.request_id.clone(),
            merchant_id: principal.merchant_id,
            ..self.audit_event(event_type)
        }
    }

    /// A new audit event with the current time. The actor is the server itself unless the flow sets another
    /// one.
    pub(super) fn audit_event(&self, event_type: EventType) -> AuditEvent {
        AuditEvent::new(event_type, self.now(), &self.entropy)
    }

    async fn refused<T>(&self, mut event: AuditEvent, refused: Refused) -> Managed<T> {
        event.outcome = Outcome::Refused;
        event.detail = json!({ "refused": refused.to_string() });
        self.store.record(event).await?;
        Err(refused.into())
    }
}

impl Core {
    /// Checks that the merchant exists, that this cell serves it, and that the principal may see it. What belongs to a
    /// merchant that another cell serves gets the same answer as the merchant itself.
    pub(super) async fn must_exist(&self, principal: &Principal, merchant: MerchantId) -> Managed<()> {
        principal.may_see(merchant)?;
        let found = merchants::by_id(&mut self.store.read().await?, merchant).await?;
        Ok(found.map(drop).ok_or(Refused::NotFound)?)
    }
}

impl Change<'_> {
    /// Raises the merchant's revision and locks its row, so that changes to a merchant happen one after the
    /// other.
    pub(super) async fn lock_merchant(&mut self, id: MerchantId) -> Managed<Merchant> {
        if !merchants::lock(&mut self.tx, id).await? {
            return Err(Refused::NotFound.into());
        }
        self.must_be_here(id).await
    }

    /// The merchant, without its lock. Enough for a change that affects no decision. A move to another cell waits for
    /// changes that have begun.
    pub(super) async fn must_be_here(&mut self, id: MerchantId) -> Managed<Merchant> {
        let merchant = merchants::by_id(&mut self.tx, id).await?.ok_or(Refused::NotFound)?;
        self.event.merchant_id = Some(id);
        Ok(merchant)
    }

    pub(super) fn must_be_licensed(&self, merchant: &Merchant, product: Product) -> Result<(), Refused> {
        if merchant.licences.is_good(product, self.event.at) {
            Ok(())
        } else {
            Err(Refused::NotLicensed(product))
        }
    }

    /// Sets the object and its merchant in the audit event.
    pub(super) fn concerns(&mut self, merchant: Option<MerchantId>, object: impl ToString) {
        self.event.merchant_id = merchant.or(self.event.merchant_id);
        self.event.object_id = Some(cut(&object.to_string(), OBJECT_ID_BYTES_MAX).to_owned());
    }

    /// Publishes an event about the change to webhooks.
    pub(super) async fn publish(
        &mut self,
        merchant: MerchantId,
        event_type: EventType,
        data: Value,
        audience: Audience,
    ) -> Result<(), StoreError> {
        let entropy = &self.core.entropy;
        let event = WebhookEvent::new(event_type, merchant, data, self.event.at, entropy);
        outbox::publish(&mut self.tx, &event, audience, entropy).await
    }
}

/// Characters that are invisible or change the direction of text. With them, different names could look the
/// same.
pub(super) const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Longer than anything here needs to last, and a date that every program can read.
const EXPIRY_MAX: TimeDelta = TimeDelta::days(100 * 365);

/// Checks that an expiry is between now and a hundred years from now.
pub fn check_expiry(expires_at: Option<Timestamp>, now: Timestamp) -> Result<(), Refused> {
    match expires_at {
        Some(end) if end <= now => Err(Refused::invalid("expires_at", "must be in the future")),
        Some(end) if end > now.plus(EXPIRY_MAX) => {
            Err(Refused::invalid("expires_at", "must be within a hundred years"))
        }
        _ => Ok(()),
    }
}

/// Checks a name: 1 to 200 characters, without control or invisible characters.
pub fn check_name(field: &'static str, name: &str) -> Result<(), Refused> {
    if name.trim().is_empty() {
        Err(Refused::invalid(field, "must not be empty"))
    } else if name.chars().count() > 200 {
        Err(Refused::invalid(field, "must have at most 200 characters"))
    } else if name.chars().any(char::is_control) {
        Err(Refused::invalid(field, "must not contain control characters"))
    } else if name.chars().any(is_invisible) {
        Err(Refused::invalid(
            field,
            "must not contain invisible characters or characters that change the text direction",
        ))
    } else {
        Ok(())
    }
}
