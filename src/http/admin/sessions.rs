//! Sessions.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::page::{Page, PageQuery, Path, Query, Wanted};
use super::shown::Shown;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MerchantId, SessionId};
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::error::Failure;
use crate::store::sessions::Listed;

#[derive(Serialize, ToSchema)]
#[schema(as = SessionView)]
pub struct SessionState {
    /// False if the session was revoked, has expired, or ended because its credentials were switched OFF.
    active: bool,
}

pub type SessionView = Shown<Listed, SessionState>;

impl SessionView {
    pub fn new(session: Listed, now: Timestamp) -> Self {
        let active = session.revoked_at.is_none()
            && now < session.expires_at
            && session.epoch == session.credential_epoch;
        Self { object: session, worked_out: SessionState { active } }
    }
}

/// List a merchant's sessions, newest first.
#[utoipa::path(get, path = "/admin/v1/merchants/{id}/sessions", tag = "sessions",
    params(("id" = MerchantId, Path), PageQuery), responses((status = 200, body = Page<SessionView>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<MerchantId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<SessionView>>, Failure> {
    let wanted = Wanted::new(&shared.core, format!("sessions of {id}"), page)?;
    let found = shared.core.sessions(&principal, id, wanted.before, wanted.to_read()).await?;
    let now = shared.core.now();
    Ok(Json(wanted.page(found, |session| session.id, |session| SessionView::new(session, now))))
}

/// End a session and all its tokens.
#[utoipa::path(delete, path = "/admin/v1/sessions/{id}", tag = "sessions", params(("id" = SessionId, Path)),
    responses((status = 204)))]
pub async fn end(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<SessionId>,
) -> Result<StatusCode, Failure> {
    shared.core.end_session_by(&principal, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
