//! What every management flow shares: a change, and the record of it or of its refusal.
//!
//! A change is one transaction with its audit event and its webhook event. A refused change is rolled
//! back and the refusal recorded: who tried what is as much on record as who did.

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

/// A change under way: its transaction, and the audit event that will tell of it.
pub(super) struct Change<'a> {
    pub(super) core: &'a Core,
    pub(super) principal: &'a Principal,
    pub(super) tx: Tx,
    pub(super) event: AuditEvent,
}

impl Core {
    /// Makes a change: all that `work` does, its audit event and its webhook event are committed together. If
    /// `work` refuses, all of it is rolled back and the refusal recorded.
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
                // Ended before the next begins: SQLite has one writer.
                drop(tx);
                self.refused(event, refused).await
            }
            fault => fault,
        }
    }

    /// Runs what comes before a change or a reading, without a transaction. A refusal is recorded as `event`.
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

    /// The audit event of something that `principal` does or tries, before it is known to which object.
    pub(super) fn event_by(&self, principal: &Principal, event_type: EventType) -> AuditEvent {
        AuditEvent {
            actor: principal.actor.clone(),
            client_ip: principal.client_ip.clone(),
            request_id: principal.request_id.clone(),
            merchant_id: principal.merchant_id,
            ..self.audit_event(event_type)
        }
    }

    /// An event of now, by the server itself until the flow says otherwise.
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
    /// Whether the actor may see a merchant that exists.
    pub(super) async fn must_exist(&self, principal: &Principal, merchant: MerchantId) -> Managed<()> {
        principal.may_see(merchant)?;
        let found = merchants::by_id(&mut self.store.read().await?, merchant).await?;
        Ok(found.map(drop).ok_or(Refused::NotFound)?)
    }
}

impl Change<'_> {
    /// Raises the merchant's revision and holds its row: changes to one merchant come one by one.
    pub(super) async fn lock_merchant(&mut self, id: MerchantId) -> Managed<Merchant> {
        let merchant = merchants::lock(&mut self.tx, id).await?.ok_or(Refused::NotFound)?;
        self.event.merchant_id = Some(id);
        Ok(merchant)
    }

    pub(super) async fn must_be_licensed(&mut self, id: MerchantId, product: Product) -> Managed<()> {
        let licences = merchants::licences(&mut self.tx, id).await?;
        if licences.is_good(product, self.event.at) {
            Ok(())
        } else {
            Err(Refused::NotLicensed(product).into())
        }
    }

    /// Names the object and its merchant in the audit event.
    pub(super) fn concerns(&mut self, merchant: Option<MerchantId>, object: impl ToString) {
        self.event.merchant_id = merchant.or(self.event.merchant_id);
        self.event.object_id = Some(cut(&object.to_string(), OBJECT_ID_BYTES_MAX).to_owned());
    }

    /// Tells webhooks of the change.
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

/// Characters that are not seen, or turn the text around them: names that look alike would not be.
pub(super) const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Longer than anything here lasts, and within what every program can read as a date.
const EXPIRY_MAX: TimeDelta = TimeDelta::days(100 * 365);

/// Holds an end to a time between now and a hundred years from now.
pub(super) fn check_expiry(expires_at: Option<Timestamp>, now: Timestamp) -> Result<(), Refused> {
    match expires_at {
        Some(end) if end <= now => Err(Refused::invalid("expires_at", "must be in the future")),
        Some(end) if end > now.plus(EXPIRY_MAX) => {
            Err(Refused::invalid("expires_at", "must be within a hundred years"))
        }
        _ => Ok(()),
    }
}

/// Holds a name to what can be shown: 1 to 200 characters, no control or invisible characters.
pub(super) fn check_name(field: &'static str, name: &str) -> Result<(), Refused> {
    if name.trim().is_empty() {
        Err(Refused::invalid(field, "must not be empty"))
    } else if name.chars().count() > 200 {
        Err(Refused::invalid(field, "must have at most 200 characters"))
    } else if name.chars().any(char::is_control) {
        Err(Refused::invalid(field, "must not contain control characters"))
    } else if name.chars().any(is_invisible) {
        Err(Refused::invalid(field, "must not contain invisible or text-turning characters"))
    } else {
        Ok(())
    }
}
