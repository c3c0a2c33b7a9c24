//! What every management flow shares: who acts, how it is refused, and the record of it.
//!
//! A change is one transaction with its audit event and its webhook event. A refused change is rolled
//! back and the refusal recorded: who tried what is as much on record as who did.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::Core;
use super::record::audit_event;
use super::sign_in::Origin;
use crate::domain::admin::{AdminToken, Role, User};
use crate::domain::api_key::Environment;
use crate::domain::clock::Timestamp;
use crate::domain::credential::Credential;
use crate::domain::event::{Actor, ActorKind, AuditEvent, Outcome, WebhookEvent};
use crate::domain::ids::{EventId, MerchantId};
use crate::domain::lengths::{OBJECT_ID_BYTES_MAX, cut};
use crate::domain::licence::Product;
use crate::domain::merchant::Merchant;
use crate::store::outbox::Audience;
use crate::store::{StoreError, Tx, audit, merchants, outbox};

/// Who acts, and from where.
#[derive(Clone, Debug)]
pub struct Principal {
    pub actor: Actor,
    pub role: Role,
    /// The one merchant that a merchant role may see.
    pub merchant_id: Option<MerchantId>,
    /// A user of the console without the second factor that live keys ask for here.
    pub lacks_second_factor: bool,
    pub client_ip: Option<String>,
    pub request_id: Option<String>,
}

impl Principal {
    /// Whoever can run the program beside the database.
    pub const fn command_line() -> Self {
        Self {
            actor: Actor::of(ActorKind::CommandLine),
            role: Role::Operator,
            merchant_id: None,
            lacks_second_factor: false,
            client_ip: None,
            request_id: None,
        }
    }

    pub fn admin_token(token: &AdminToken, client_ip: String, request_id: String) -> Self {
        Self {
            actor: Actor {
                kind: ActorKind::AdminToken,
                id: Some(token.id.to_string()),
                name: Some(token.name.clone()),
            },
            role: token.role,
            merchant_id: token.merchant_id,
            lacks_second_factor: false,
            client_ip: Some(client_ip),
            request_id: Some(request_id),
        }
    }

    pub fn user(user: &User, lacks_second_factor: bool, origin: Origin) -> Self {
        Self {
            actor: Actor::user(user),
            role: user.role,
            merchant_id: user.merchant_id,
            lacks_second_factor,
            client_ip: Some(origin.client_ip.to_string()),
            request_id: Some(origin.request_id),
        }
    }

    /// An integration that acts on its own credentials.
    pub fn client(credential: &Credential, client_ip: String, request_id: String) -> Self {
        Self {
            actor: Actor { kind: ActorKind::Client, id: Some(credential.client_id.clone()), name: None },
            role: Role::MerchantAdmin,
            merchant_id: Some(credential.merchant_id),
            lacks_second_factor: false,
            client_ip: Some(client_ip),
            request_id: Some(request_id),
        }
    }

    /// # Errors
    /// [`Refused::Forbidden`] for a live key, where that takes a second factor and the user has none.
    pub fn may_handle(&self, environment: Environment) -> Result<(), Refused> {
        if self.lacks_second_factor && environment == Environment::Live {
            return Err(Refused::Forbidden("live keys need a second factor: set one up under Your account"));
        }
        Ok(())
    }

    /// # Errors
    /// [`Refused::NotFound`] for another merchant: its objects do not exist for this actor.
    pub fn may_see(&self, merchant: MerchantId) -> Result<(), Refused> {
        match self.role {
            Role::Operator => Ok(()),
            Role::Service if self.merchant_id.is_none() => Ok(()),
            Role::MerchantAdmin | Role::MerchantViewer | Role::Service => {
                if self.merchant_id == Some(merchant) { Ok(()) } else { Err(Refused::NotFound) }
            }
        }
    }

    /// # Errors
    /// [`Refused::NotFound`] for another merchant, [`Refused::Forbidden`] for a viewer.
    pub fn may_change(&self, merchant: MerchantId) -> Result<(), Refused> {
        self.may_see(merchant)?;
        if self.role == Role::MerchantViewer {
            return Err(Refused::Forbidden("this role may only look"));
        }
        Ok(())
    }

    /// For what the platform does: operators, and service tokens with the permission for the call, without
    /// which none gets this far.
    ///
    /// # Errors
    /// [`Refused::Forbidden`] for the merchant roles.
    pub fn must_be_of_platform(&self) -> Result<(), Refused> {
        if self.role == Role::Service { Ok(()) } else { self.must_be_operator() }
    }

    /// # Errors
    /// [`Refused::Forbidden`] for everybody but operators.
    pub fn must_be_operator(&self) -> Result<(), Refused> {
        if self.role == Role::Operator { Ok(()) } else { Err(Refused::Forbidden("for operators only")) }
    }
}

/// Why a management call was refused; all of it may be told to whoever made the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("there is no such object")]
    NotFound,
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("the token lacks the permission for this")]
    InsufficientPermission,
    #[error("{field}: {detail}")]
    Invalid { field: &'static str, detail: String },
    #[error("the merchant has no active licence for `{}`", <&str>::from(*.0))]
    NotLicensed(Product),
    #[error("{0}")]
    Conflict(String),
    #[error("the object was changed by somebody else; read it again")]
    VersionMismatch,
}

impl Refused {
    pub(super) fn invalid(field: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid { field, detail: detail.into() }
    }
}

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
