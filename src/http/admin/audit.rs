//! The audit trail.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::page::{Page, PageQuery, Path, Query, Wanted};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{EventId, MerchantId};
use crate::flows::manage::By;
use crate::http::Shared;
use crate::http::error::Failure;
use crate::store::audit::Chained;

#[derive(Serialize, ToSchema)]
pub struct AuditEventView {
    id: EventId,
    /// Its place in the hash chain.
    seq: i64,
    at: Timestamp,
    actor: ActorView,
    /// `object.verb`, such as `api_key.revoked`.
    action: String,
    object_kind: String,
    object_id: Option<String>,
    /// `done` or `refused`.
    outcome: &'static str,
    client_ip: Option<String>,
    request_id: Option<String>,
    #[schema(value_type = Object)]
    detail: serde_json::Value,
    /// SHA-256 over this event and the one before, hex.
    hash: String,
}

#[derive(Serialize, ToSchema)]
pub struct ActorView {
    /// `admin_token`, `user`, `client`, `command_line`, `server` or `anonymous`.
    kind: &'static str,
    id: Option<String>,
    name: Option<String>,
}

impl From<Chained> for AuditEventView {
    fn from(chained: Chained) -> Self {
        let event = chained.event;
        Self {
            id: event.id,
            seq: chained.seq,
            at: event.at,
            actor: ActorView { kind: event.actor.kind.into(), id: event.actor.id, name: event.actor.name },
            action: event.action,
            object_kind: event.object_kind,
            object_id: event.object_id,
            outcome: event.outcome.into(),
            client_ip: event.client_ip,
            request_id: event.request_id,
            detail: event.detail,
            hash: hex::encode(chained.hash),
        }
    }
}

/// List what was changed at a merchant, by whom and from where, newest first. Reading is on record too.
#[utoipa::path(get, path = "/admin/v1/merchants/{id}/audit-events", tag = "audit",
    params(("id" = MerchantId, Path), PageQuery), responses((status = 200, body = Page<AuditEventView>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(by): Extension<By>,
    Path(id): Path<MerchantId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<AuditEventView>>, Failure> {
    let wanted = Wanted::new(&shared.core, format!("audit-events of {id}"), page)?;
    let found = shared.core.audit_events(&by, id, wanted.before, wanted.to_read()).await??;
    Ok(Json(wanted.page(found, |chained| chained.seq, AuditEventView::from)))
}
