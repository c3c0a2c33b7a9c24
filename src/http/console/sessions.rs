//! The sessions of clients, with an End button.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::confirm::{ConfirmPage, last_used};
use super::context::MerchantContext;
use super::form::{date_field, filled, time_of};
use super::listing::{carried, next_page};
use super::page::{Page, Screen, html};
use super::words::When;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, SessionId};
use crate::flows::error::Refused;
use crate::http::admin::page::Query;
use crate::http::error::Failure;
use crate::store::sessions::{Filter, Listed};

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionsPage {
    page: Page,
    base: String,
    keys_path: String,
    may_change: bool,
    keys: Vec<(ApiKeyId, String)>,
    key: String,
    client_id: String,
    state: String,
    from: String,
    to: String,
    is_filtered: bool,
    rows: Vec<SessionRow>,
    next: Option<String>,
}

pub(super) struct SessionRow {
    pub(super) id: SessionId,
    pub(super) client_id: String,
    pub(super) key_name: String,
    pub(super) key_path: String,
    pub(super) state: &'static str,
    pub(super) class: &'static str,
    pub(super) is_live: bool,
    pub(super) refreshes: i64,
    pub(super) started: When,
    pub(super) rotated: When,
    pub(super) expires: When,
}

#[derive(Deserialize)]
pub(super) struct SessionPath {
    session: SessionId,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default, deserialize_with = "filled")]
    key: Option<String>,
    #[serde(default, deserialize_with = "filled")]
    client_id: Option<String>,
    #[serde(default, deserialize_with = "filled")]
    state: Option<String>,
    /// Times in UTC, in RFC 3339 or as a date field sends them.
    #[serde(default, deserialize_with = "filled")]
    from: Option<String>,
    #[serde(default, deserialize_with = "filled")]
    to: Option<String>,
    cursor: Option<String>,
    done: Option<String>,
}

pub(super) async fn list(context: MerchantContext, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    let wanted = context.wanted("sessions", asked.cursor)?;
    let (core, principal) = (context.context.core(), &context.context.principal);
    let filter = Filter {
        api_key_id: asked.key.as_deref().and_then(|key| key.parse().ok()),
        client_id: asked.client_id.clone(),
        status: asked.state.as_deref().and_then(|state| state.parse().ok()),
        from: asked.from.as_deref().and_then(time_of),
        to: asked.to.as_deref().and_then(time_of),
    };
    let found = core.sessions(principal, context.id(), &filter, wanted.before, wanted.to_read()).await?;
    let keys = context.key_names(found.iter().map(|session| session.api_key_id)).await?;
    let now = context.context.now;
    let listed = wanted.page(
        found,
        |session| session.id,
        |session| {
            let path = context.path(&format!("/api-keys/{}", session.api_key_id));
            row(&session, keys.of(session.api_key_id), &path, now)
        },
    );
    let carried = carried(&[
        ("key", asked.key.as_deref()),
        ("client_id", asked.client_id.as_deref()),
        ("state", asked.state.as_deref()),
        ("from", asked.from.as_deref()),
        ("to", asked.to.as_deref()),
    ]);
    html(&SessionsPage {
        page: context.page("Sessions", Screen::Sessions).saying(asked.done.as_deref()),
        base: context.path("/sessions"),
        keys_path: context.path("/api-keys"),
        may_change: context.may_change(),
        keys: keys.choices(),
        key: asked.key.unwrap_or_default(),
        client_id: asked.client_id.unwrap_or_default(),
        state: asked.state.unwrap_or_default(),
        from: date_field(filter.from),
        to: date_field(filter.to),
        is_filtered: !carried.is_empty(),
        rows: listed.items,
        next: next_page(&carried, listed.next_cursor.as_deref()),
    })
}

pub(super) fn row(session: &Listed, key_name: String, key_path: &str, now: Timestamp) -> SessionRow {
    let (state, class) = match session.revoked_reason.as_deref() {
        Some("replayed") => ("Ended: refresh token reused", "bad"),
        Some("ended_by_admin") => ("Ended by an administrator", ""),
        _ if session.revoked_at.is_some() => ("Revoked by the client", ""),
        _ if session.epoch != session.credential_epoch => ("Ended: switched OFF", ""),
        _ if session.expires_at <= now => ("Expired", ""),
        _ => ("Active", "good"),
    };
    SessionRow {
        id: session.id,
        client_id: session.client_id.clone(),
        key_name,
        key_path: key_path.to_owned(),
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
            "Its refresh token and all its access tokens stop working immediately. This cannot be undone. \
                      The application can start another session with its Client ID and Client Secret."
                .to_owned(),
        costs: vec![
            ("Client ID", session.client_id.clone()),
            ("Started", last_used(Some(session.started_at), now)),
            ("Last refreshed", last_used((session.generation > 1).then_some(session.rotated_at), now)),
        ],
        hidden: Vec::new(),
        code: None,
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
