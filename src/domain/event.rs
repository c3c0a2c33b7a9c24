//! The events that are recorded: audit events and webhook events.

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use strum::{EnumString, IntoStaticStr};
use utoipa::ToSchema;

use super::admin::User;
use super::clock::Timestamp;
use super::ids::{EventId, MerchantId};
use super::webhook::EventData;

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub kind: ActorKind,
    /// The id of the token, user or credentials. `None` for the server itself and the command line.
    pub id: Option<String>,
    pub name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, EnumString)]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, IntoStaticStr, EnumString, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    Done,
    Refused,
}

/// One entry of the audit trail: who did what to which object, when, from where, and with what outcome.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    pub id: EventId,
    pub at: Timestamp,
    pub merchant_id: Option<MerchantId>,
    pub actor: Actor,
    /// `object.verb`, such as `api_key.revoked`.
    pub action: String,
    pub object_kind: String,
    pub object_id: Option<String>,
    pub outcome: Outcome,
    pub client_ip: Option<String>,
    pub request_id: Option<String>,
    /// A JSON object. It never contains a secret.
    pub detail: Value,
}

impl AuditEvent {
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
#[derive(Clone, Debug)]
pub struct WebhookEvent {
    pub id: EventId,
    pub merchant_id: MerchantId,
    /// `object.verb`, such as `session.replay_detected`, or a type that the platform published.
    pub event_type: String,
    pub data: EventData,
    pub idempotency_key: Option<String>,
    pub created_at: Timestamp,
}
