//! What every management flow shares: a change, and the record of it or of its refusal.
//!
//! A change is one transaction with its audit event and its webhook event. A refused change is rolled
//! back and the refusal recorded: who tried what is as much on record as who did.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::Core;
use super::error::Refused;
use super::principal::Principal;
use super::record::audit_event;
use crate::domain::clock::Timestamp;
use crate::domain::event::{AuditEvent, Outcome, WebhookEvent};
use crate::domain::ids::{EventId, MerchantId};
use crate::domain::lengths::{OBJECT_ID_BYTES_MAX, cut};
use crate::domain::licence::Product;
use crate::domain::merchant::Merchant;
use crate::store::outbox::Audience;
use crate::store::{StoreError, Tx, audit, merchants, outbox};

/// How the inside of a change ends early. Here a refusal undoes everything and is then recorded by
/// [`Change::finish`], so it may travel by `?`; in the token flows it may not.
pub(super) enum Stop {
    Refused(Refused),
    Fault(StoreError),
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<StoreError> for Stop {
    fn from(fault: StoreError) -> Self {
        Self::Fault(fault)
    }
}

/// What a management flow returns.
pub type Managed<T> = Result<Result<T, Refused>, StoreError>;

/// A change under way: its transaction, and the audit event that will tell of it.
pub(super) struct Change<'a> {
    pub(super) core: &'a Core,
    pub(super) tx: Tx,
    pub(super) event: AuditEvent,
}

impl Core {
    /// Begins the change `action`, such as `api_key.created`.
    pub(super) async fn change(&self, principal: &Principal, action: &str) -> Result<Change<'_>, StoreError> {
        Ok(Change { core: self, event: self.event_by(principal, action), tx: self.store.begin().await? })
    }

    /// The audit event of something that `principal` does or tries, before it is known to which object.
    pub(super) fn event_by(&self, principal: &Principal, action: &str) -> AuditEvent {
        let object_kind = action.split_once('.').map_or(action, |(object, _)| object);
        let mut event = audit_event(self, action, object_kind, String::new());
        event.object_id = None;
        event.actor = principal.actor.clone();
        event.client_ip.clone_from(&principal.client_ip);
        event.request_id.clone_from(&principal.request_id);
        event.merchant_id = principal.merchant_id;
        event
    }

    /// Records that what `event` tells of was refused.
    pub(super) async fn refused<T>(&self, mut event: AuditEvent, refused: Refused) -> Managed<T> {
        event.outcome = Outcome::Refused;
        event.detail = json!({ "refused": refused.to_string() });
        self.store.record(event).await?;
        Ok(Err(refused))
    }
}

impl Core {
    /// Whether the actor may see a merchant that exists.
    pub(super) async fn must_exist(&self, principal: &Principal, merchant: MerchantId) -> Managed<()> {
        if let Err(refused) = principal.may_see(merchant) {
            return Ok(Err(refused));
        }
        let found = merchants::by_id(&mut self.store.read().await?, merchant).await?;
        Ok(found.map(drop).ok_or(Refused::NotFound))
    }
}

impl Change<'_> {
    /// Raises the merchant's revision and holds its row: changes to one merchant come one by one.
    pub(super) async fn lock_merchant(&mut self, id: MerchantId) -> Result<Merchant, Stop> {
        let merchant = merchants::lock(&mut self.tx, id).await?.ok_or(Refused::NotFound)?;
        self.event.merchant_id = Some(id);
        Ok(merchant)
    }

    pub(super) async fn must_be_licensed(&mut self, id: MerchantId, product: Product) -> Result<(), Stop> {
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
        event_type: &str,
        data: Value,
        audience: Audience,
    ) -> Result<(), StoreError> {
        let event = WebhookEvent {
            id: EventId::generate(self.event.at, &self.core.entropy),
            merchant_id: merchant,
            event_type: event_type.to_owned(),
            data: data.into(),
            idempotency_key: None,
            created_at: self.event.at,
        };
        outbox::publish(&mut self.tx, &event, audience, &self.core.entropy).await
    }

    /// Commits the change with its audit event, or rolls it back and records the refusal alone.
    pub(super) async fn finish<T>(mut self, result: Result<T, Stop>) -> Managed<T> {
        match result {
            Ok(done) => {
                audit::append(&mut self.tx, &self.event).await?;
                self.tx.commit().await?;
                Ok(Ok(done))
            }
            Err(Stop::Fault(fault)) => Err(fault),
            Err(Stop::Refused(refused)) => {
                // Ended before the next begins: SQLite has one writer.
                drop(self.tx);
                self.core.refused(self.event, refused).await
            }
        }
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
