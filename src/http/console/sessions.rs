//! The sessions of clients, with an End button.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::confirm::{ConfirmPage, last_used};
use super::context::MerchantContext;
use super::listing::Listing;
use super::page::{Page, Screen, html};
use super::words::When;
use crate::domain::clock::Timestamp;
use crate::domain::ids::SessionId;
use crate::flows::error::Refused;
use crate::http::admin::page::Query;
use crate::http::error::Failure;
use crate::store::sessions::Listed;

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionsPage {
    page: Page,
    base: String,
    keys: String,
    may_change: bool,
    rows: Vec<Row>,
    next_cursor: Option<String>,
}

struct Row {
    id: SessionId,
    client_id: String,
    state: &'static str,
    class: &'static str,
    is_live: bool,
    refreshes: i64,
    started: When,
    rotated: When,
    expires: When,
}

#[derive(Deserialize)]
pub(super) struct SessionPath {
    session: SessionId,
}

pub(super) async fn list(
    context: MerchantContext,
    Query(query): Query<Listing>,
) -> Result<Response, Failure> {
    let wanted = context.wanted("sessions", query.cursor)?;
    let core = context.context.core();
    let found =
        core.sessions(&context.context.principal, context.id(), wanted.before, wanted.to_read()).await?;
    let now = context.context.now;
    let listed = wanted.page(found, |session| session.id, |session| row(&session, now));
    html(&SessionsPage {
        page: context.page("Sessions", Screen::Sessions).saying(query.done.as_deref()),
        base: context.path("/sessions"),
        keys: context.path("/api-keys"),
        may_change: context.may_change(),
        rows: listed.items,
        next_cursor: listed.next_cursor,
    })
}

fn row(session: &Listed, now: Timestamp) -> Row {
    let (state, class) = match session.revoked_reason.as_deref() {
        Some("replayed") => ("Ended: a token was replayed", "bad"),
        Some("ended_by_admin") => ("Ended by an administrator", ""),
        _ if session.revoked_at.is_some() => ("Revoked by the client", ""),
        _ if session.expires_at <= now => ("Expired", ""),
        _ if session.epoch != session.credential_epoch => ("Ended: switched OFF", ""),
        _ => ("Active", "good"),
    };
    Row {
        id: session.id,
        client_id: session.client_id.clone(),
        state,
        class,
        is_live: state == "Active",
        refreshes: session.generation - 1,
        started: When(session.started_at),
        rotated: When(session.rotated_at),
        expires: When(session.expires_at),
    }
}

pub(super) async fn confirm_end(
    context: MerchantContext,
    Path(path): Path<SessionPath>,
) -> Result<Response, Failure> {
    let session = context.context.core().session(&context.context.principal, path.session).await?;
    if session.merchant_id != context.id() {
        return Err(Refused::NotFound.into());
    }
    let now = context.context.now;
    html(&ConfirmPage {
        page: context.page("End a session", Screen::Sessions),
        heading: "End this session?".to_owned(),
        consequence:
            "Its refresh token and every access token of it stop working at once. This cannot be undone. \
                      The application can start another session with its Client ID and Client Secret."
                .to_owned(),
        costs: vec![
            ("Client ID", session.client_id.clone()),
            ("Started", last_used(Some(session.started_at), now)),
            ("Last refreshed", last_used((session.generation > 1).then_some(session.rotated_at), now)),
        ],
        hidden: Vec::new(),
        button: "End this session",
        action: context.path(&format!("/sessions/{}/end", session.id)),
        back: context.path("/sessions"),
    })
}

pub(super) async fn end(
    context: MerchantContext,
    Path(path): Path<SessionPath>,
) -> Result<Response, Failure> {
    context.context.core().end_session_by(&context.context.principal, path.session).await?;
    Ok(Redirect::to(&context.path("/sessions?done=session-ended")).into_response())
}
