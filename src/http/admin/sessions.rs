//! Sessions.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::page::{Page, PageQuery, Path, Query, Wanted};
use super::shown::Shown;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, MerchantId, SessionId};
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::error::Failure;
use crate::store::sessions::{Filter, Listed, Status};

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

/// Which sessions to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SessionQuery {
    api_key_id: Option<ApiKeyId>,
    /// A client id, or its first characters.
    client_id: Option<String>,
    #[param(inline)]
    status: Option<Status>,
    /// Started at or after this time.
    from: Option<Timestamp>,
    /// Started before this time.
    to: Option<Timestamp>,
    /// Objects per page, 1 to 200; the default is 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

/// List a merchant's sessions, newest first.
#[utoipa::path(get, path = "/admin/v1/merchants/{id}/sessions", tag = "sessions",
    params(("id" = MerchantId, Path), SessionQuery), responses((status = 200, body = Page<SessionView>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<MerchantId>,
    Query(query): Query<SessionQuery>,
) -> Result<Json<Page<SessionView>>, Failure> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let wanted = Wanted::new(&shared.core, format!("sessions of {id}"), page)?;
    let filter = Filter {
        api_key_id: query.api_key_id,
        client_id: query.client_id,
        status: query.status,
        from: query.from,
        to: query.to,
    };
    let found = shared.core.sessions(&principal, id, &filter, wanted.before, wanted.to_read()).await?;
    let now = shared.core.now();
    Ok(Json(wanted.page(found, |session| session.id, |session| SessionView::new(session, now))))
}

/// Show a session.
#[utoipa::path(get, path = "/admin/v1/sessions/{id}", tag = "sessions", params(("id" = SessionId, Path)),
    responses((status = 200, body = SessionView)))]
pub async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<SessionId>,
) -> Result<Json<SessionView>, Failure> {
    let session = shared.core.session(&principal, id).await?;
    Ok(Json(SessionView::new(session, shared.core.now())))
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
