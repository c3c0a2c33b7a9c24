//! The events that are recorded: audit events and webhook events.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::FromRow;
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;
use uuid::Uuid;

use super::admin::User;
use super::clock::Timestamp;
use super::entropy::Entropy;
use super::ids::{EventId, MerchantId};
use super::lengths::{OBJECT_ID_BYTES_MAX, cut};
use super::stored::JsonText;
use super::webhook::EventData;

// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize, Deserialize, ToSchema)]
#[schema(as = ActorView)]
pub struct Actor {
    /// `admin_token`, `user`, `client`, `command_line`, `server` or `anonymous`.
    #[sqlx(rename = "actor_kind")]
    #[schema(value_type = String)]
    pub kind: ActorKind,
    // The id of the token, user or credentials. `None` for the server itself and the command line.
    #[sqlx(rename = "actor_id")]
    pub id: Option<String>,
    #[sqlx(rename = "actor_name")]
    pub name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ActorKind {
    AdminToken,
    User,
    Client,
    CommandLine,
    Server,
    Anonymous,
}

impl Actor {
    pub const fn of(kind: ActorKind) -> Self {
        Self { kind, id: None, name: None }
    }

    pub fn user(user: &User) -> Self {
        Self { kind: ActorKind::User, id: Some(user.id.to_string()), name: Some(user.email.clone()) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, EnumString, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    Done,
    Refused,
}

/// What happened, as `object.verb`: the name of an audit event, of a webhook event, or of both.
///
/// The database stores the name as text, because another release may have written a type that this one does not
/// know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum EventType {
    #[strum(serialize = "address.blocked")]
    AddressBlocked,
    #[strum(serialize = "admin_call.refused")]
    AdminCallRefused,
    #[strum(serialize = "admin_token.created")]
    AdminTokenCreated,
    #[strum(serialize = "admin_token.leaked")]
    AdminTokenLeaked,
    #[strum(serialize = "admin_token.revoked")]
    AdminTokenRevoked,
    #[strum(serialize = "admin_token.rotated")]
    AdminTokenRotated,
    #[strum(serialize = "admin_token.too_broad")]
    AdminTokenTooBroad,
    #[strum(serialize = "admin_token.updated")]
    AdminTokenUpdated,
    #[strum(serialize = "api_key.created")]
    ApiKeyCreated,
    #[strum(serialize = "api_key.expired")]
    ApiKeyExpired,
    #[strum(serialize = "api_key.expiring")]
    ApiKeyExpiring,
    #[strum(serialize = "api_key.leaked")]
    ApiKeyLeaked,
    #[strum(serialize = "api_key.restored")]
    ApiKeyRestored,
    #[strum(serialize = "api_key.revoked")]
    ApiKeyRevoked,
    #[strum(serialize = "api_key.rotated")]
    ApiKeyRotated,
    #[strum(serialize = "api_key.secret_ended")]
    ApiKeySecretEnded,
    #[strum(serialize = "api_key.updated")]
    ApiKeyUpdated,
    #[strum(serialize = "audit.sealed")]
    AuditSealed,
    #[strum(serialize = "audit_events.read")]
    AuditEventsRead,
    #[strum(serialize = "credentials.disabled")]
    CredentialsDisabled,
    #[strum(serialize = "credentials.enabled")]
    CredentialsEnabled,
    #[strum(serialize = "credentials.generated")]
    CredentialsGenerated,
    #[strum(serialize = "credentials.leaked")]
    CredentialsLeaked,
    #[strum(serialize = "credentials.secret_ended")]
    CredentialsSecretEnded,
    #[strum(serialize = "credentials.secret_rotated")]
    CredentialsSecretRotated,
    #[strum(serialize = "credentials.updated")]
    CredentialsUpdated,
    #[strum(serialize = "event.handed_in")]
    EventPublished,
    #[strum(serialize = "leak.not_ours")]
    LeakNotOurs,
    #[strum(serialize = "leak.of_another_cell")]
    LeakOfAnotherCell,
    #[strum(serialize = "leak.reported")]
    LeakReported,
    #[strum(serialize = "licence.changed")]
    LicenceChanged,
    #[strum(serialize = "licence.expired")]
    LicenceExpired,
    #[strum(serialize = "licence.expiring")]
    LicenceExpiring,
    #[strum(serialize = "merchant.created")]
    MerchantCreated,
    #[strum(serialize = "merchant.moved")]
    MerchantMoved,
    #[strum(serialize = "merchant.updated")]
    MerchantUpdated,
    #[strum(serialize = "ping")]
    Ping,
    #[strum(serialize = "session.leaked")]
    SessionLeaked,
    #[strum(serialize = "session.replay_detected")]
    SessionReplayDetected,
    #[strum(serialize = "session.revoked")]
    SessionRevoked,
    #[strum(serialize = "token_keys.resealed")]
    TokenKeysResealed,
    #[strum(serialize = "user.created")]
    UserCreated,
    #[strum(serialize = "user.other_sessions_ended")]
    UserOtherSessionsEnded,
    #[strum(serialize = "user.password_set")]
    UserPasswordSet,
    #[strum(serialize = "user.recovery_codes_made")]
    UserRecoveryCodesMade,
    #[strum(serialize = "user.second_factor_removed")]
    UserSecondFactorRemoved,
    #[strum(serialize = "user.second_factor_set")]
    UserSecondFactorSet,
    #[strum(serialize = "user.sign_in_link_made")]
    UserSignInLinkMade,
    #[strum(serialize = "user.signed_in")]
    UserSignedIn,
    #[strum(serialize = "user.signed_out")]
    UserSignedOut,
    #[strum(serialize = "user.updated")]
    UserUpdated,
    #[strum(serialize = "webhook.disabled")]
    WebhookDisabled,
    #[strum(serialize = "webhook.tested")]
    WebhookTested,
    #[strum(serialize = "webhook_delivery.failed_redelivered")]
    WebhookDeliveryFailedRedelivered,
    #[strum(serialize = "webhook_delivery.redelivered")]
    WebhookDeliveryRedelivered,
    #[strum(serialize = "webhook_secret.leaked")]
    WebhookSecretLeaked,
    #[strum(serialize = "webhook_secret.rotated")]
    WebhookSecretRotated,
}

impl EventType {
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What the event tells the merchant, for the OpenAPI document. `None` if it is not sent to webhooks.
    pub const fn told_to_webhooks(self) -> Option<&'static str> {
        Some(match self {
            Self::AddressBlocked => {
                "A call came from an address that is not on the key's allow list. At most one an hour for each network."
            }
            Self::AdminTokenLeaked => "An admin token of the merchant was found in public, and has ended.",
            Self::ApiKeyCreated => "An API key was created.",
            Self::ApiKeyExpired => "An API key has expired.",
            Self::ApiKeyExpiring => "An API key is about to expire.",
            Self::ApiKeyLeaked => "A secret of an API key was found in public, and has ended.",
            Self::ApiKeyRestored => "A revoked API key was restored.",
            Self::ApiKeyRevoked => "An API key was revoked.",
            Self::ApiKeyUpdated => "The settings or secrets of an API key changed.",
            Self::CredentialsDisabled => "Enhanced Security was switched OFF for client credentials.",
            Self::CredentialsEnabled => "Enhanced Security was switched ON for client credentials.",
            Self::CredentialsGenerated => "Client credentials were generated.",
            Self::CredentialsLeaked => "A client secret was found in public, and has ended.",
            Self::CredentialsSecretRotated => "Client credentials have a new secret.",
            Self::CredentialsUpdated => "The settings of client credentials changed.",
            Self::LicenceChanged => "A licence was granted, changed or taken away.",
            Self::LicenceExpired => "A licence has expired.",
            Self::LicenceExpiring => "A licence is about to expire.",
            Self::Ping => "Somebody tries the webhook out.",
            Self::SessionLeaked => "A token was found in public, and its session has ended.",
            Self::SessionReplayDetected => "A refresh token was used twice, and its session has ended.",
            Self::WebhookSecretLeaked => "A signing secret was found in public, and has ended.",
            _ => return None,
        })
    }

    /// The kind of object that an audit event of this type is about.
    fn object_kind(self) -> &'static str {
        match self {
            Self::WebhookDisabled => "api_key",
            _ => self.name().split_once('.').map_or(self.name(), |(object, _)| object),
        }
    }
}

/// One entry of the audit trail: who did what to which object, when, from where, and with what outcome.
#[derive(Clone, Debug, FromRow, Serialize, Deserialize, ToSchema)]
pub struct AuditEvent {
    pub id: EventId,
    pub at: Timestamp,
    /// Null for an event without a merchant.
    pub merchant_id: Option<MerchantId>,
    #[sqlx(flatten)]
    pub actor: Actor,
    // The name of an [`EventType`].
    /// `object.verb`, such as `api_key.revoked`.
    pub action: String,
    pub object_kind: String,
    pub object_id: Option<String>,
    /// `done` or `refused`.
    #[schema(value_type = String)]
    pub outcome: Outcome,
    pub client_ip: Option<String>,
    pub request_id: Option<String>,
    // It never contains a secret.
    #[sqlx(try_from = "JsonText<Value>")]
    #[schema(value_type = Object)]
    pub detail: Value,
}

impl AuditEvent {
    /// The actor is the server itself unless the flow sets another one.
    pub fn new(event_type: EventType, at: Timestamp, entropy: &Entropy) -> Self {
        Self {
            id: EventId::generate(at, entropy),
            at,
            merchant_id: None,
            actor: Actor::of(ActorKind::Server),
            action: event_type.name().to_owned(),
            object_kind: event_type.object_kind().to_owned(),
            object_id: None,
            outcome: Outcome::Done,
            client_ip: None,
            request_id: None,
            detail: json!({}),
        }
    }

    /// The fields of the details that are ids.
    pub fn mentioned(&self) -> impl Iterator<Item = (&str, Uuid)> {
        let fields = self.detail.as_object().into_iter().flatten();
        fields.filter_map(|(field, value)| Some((field.as_str(), value.as_str()?.parse().ok()?)))
    }

    /// The ids of its merchant, of its object, and of what its details mention.
    pub fn ids(&self) -> impl Iterator<Item = Uuid> {
        let object = self.object_id.as_deref().and_then(|id| id.parse().ok());
        let merchant = self.merchant_id.map(MerchantId::uuid);
        merchant.into_iter().chain(object).chain(self.mentioned().map(|(_, id)| id))
    }

    /// Sets the object. The text may come from the caller, so it is cut to a maximum length.
    #[must_use]
    pub fn about(self, object: impl ToString) -> Self {
        let object_id = cut(&object.to_string(), OBJECT_ID_BYTES_MAX).to_owned();
        Self { object_id: Some(object_id), ..self }
    }

    /// The hash that links this event, number `seq`, to the previous one. It covers every field together
    /// with its length, so two different events never have the same encoding.
    pub fn chain_hash(&self, seq: i64, previous: &[u8], detail: &str) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        let text = |value: &Option<String>| value.as_deref().map_or(String::from("-"), |v| format!("+{v}"));
        field(previous);
        field(&seq.to_be_bytes());
        field(self.id.uuid().as_bytes());
        field(&self.at.micros().to_be_bytes());
        field(self.merchant_id.map_or([0; 16], |id| *id.uuid().as_bytes()).as_slice());
        field(<&str>::from(self.actor.kind).as_bytes());
        field(text(&self.actor.id).as_bytes());
        field(text(&self.actor.name).as_bytes());
        field(self.action.as_bytes());
        field(self.object_kind.as_bytes());
        field(text(&self.object_id).as_bytes());
        field(<&str>::from(self.outcome).as_bytes());
        field(text(&self.client_ip).as_bytes());
        field(text(&self.request_id).as_bytes());
        field(detail.as_bytes());
        hasher.finalize().into()
    }
}

/// An event that is sent to the merchant's webhooks. It is stored in the transaction that caused it.
#[derive(Clone, Debug, FromRow)]
pub struct WebhookEvent {
    pub id: EventId,
    pub merchant_id: MerchantId,
    /// The name of an [`EventType`], or a type that the platform published.
    #[sqlx(rename = "type")]
    pub event_type: String,
    pub data: EventData,
    pub idempotency_key: Option<String>,
    pub created_at: Timestamp,
}

impl WebhookEvent {
    pub fn new(
        event_type: EventType,
        merchant_id: MerchantId,
        data: impl Into<EventData>,
        at: Timestamp,
        entropy: &Entropy,
    ) -> Self {
        debug_assert!(event_type.told_to_webhooks().is_some(), "{event_type:?} is missing in the document");
        Self::named(event_type.name(), merchant_id, data, at, entropy)
    }

    /// For a type that is not an [`EventType`].
    pub fn named(
        event_type: impl Into<String>,
        merchant_id: MerchantId,
        data: impl Into<EventData>,
        at: Timestamp,
        entropy: &Entropy,
    ) -> Self {
        Self {
            id: EventId::generate(at, entropy),
            merchant_id,
            event_type: event_type.into(),
            data: data.into(),
            idempotency_key: None,
            created_at: at,
        }
    }
}
