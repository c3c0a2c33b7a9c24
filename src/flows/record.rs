//! The record of what was done: audit events, as flows write them.

use serde_json::json;

use super::Core;
use crate::domain::event::{Actor, ActorKind, AuditEvent, Outcome};
use crate::domain::ids::EventId;
use crate::domain::lengths::{OBJECT_ID_BYTES_MAX, cut};

/// An event of now, by the server itself until the flow says otherwise.
pub(super) fn audit_event(core: &Core, action: &str, object_kind: &str, object_id: String) -> AuditEvent {
    let now = core.now();
    AuditEvent {
        id: EventId::generate(now, &core.entropy),
        at: now,
        merchant_id: None,
        actor: Actor::of(ActorKind::Server),
        action: action.to_owned(),
        object_kind: object_kind.to_owned(),
        object_id: Some(cut(&object_id, OBJECT_ID_BYTES_MAX).to_owned()),
        outcome: Outcome::Done,
        client_ip: None,
        request_id: None,
        detail: json!({}),
    }
}
