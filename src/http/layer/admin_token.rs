//! Authenticates the caller by an admin token, and limits the calls per minute of each token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::service_token::bearer;
use crate::domain::admin::AdminToken;
use crate::domain::reason::Reason;
use crate::flows::Core;
use crate::flows::error::{Error, Refused};
use crate::flows::failures::Surface;
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::admin::permissions;
use crate::http::context::RequestContext;
use crate::http::error::Failure;

pub async fn admin_token(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(presented) = bearer(request.headers()) else {
        return unknown(Reason::TokenMissing).into_response();
    };
    let (core, hash) = (&shared.core, presented.hash());
    if let Err(secs) = core.limits.admin_calls.may_call(&hash) {
        return Failure::too_many_calls(secs).into_response();
    }
    let from = context.address().ok().map(|address| address.ip);
    let fits = |token: &AdminToken| token.may_come_from(from);
    let call = context.admin_call(Surface::Admin);
    match core.admit_admin_token(call, &presented, fits).await {
        Ok(token) => {
            if let Err(secs) = core.limits.admin_calls.count(hash) {
                return Failure::too_many_calls(secs).into_response();
            }
            if !permissions::may_call(&token, &request) {
                core.note_refused_call(&token, &call, Reason::PermissionMissing);
                return Failure::from(Refused::InsufficientPermission).into_response();
            }
            let principal = Principal::admin_token(
                &token,
                context.client_ip().to_owned(),
                context.request_id().to_owned(),
            );
            request.extensions_mut().insert(principal);
            let path = core.cell.map(|_| request.uri().path().to_owned());
            let response = next.run(request).await;
            match path {
                Some(path) if response.status() == StatusCode::NOT_FOUND => not_here(core, &path, response),
                _ => response,
            }
        }
        Err(Error::Refused(reason)) if reason != Reason::TooManyFailures => unknown(reason).into_response(),
        Err(error) => Failure::from(error).into_response(),
    }
}

/// Says which cell made the id of the path, if it was another one. The caller knows that from the id itself.
fn not_here(core: &Core, path: &str, response: Response) -> Response {
    let Some((cell, shown)) = core.cell.and_then(|cell| Some((cell, cell.elsewhere_in(path)?))) else {
        return response;
    };
    core.counters.wrong_cell.id.add_one();
    let made_in = shown.map_or("the default cell".to_owned(), |shown| format!("cell {}", shown.number()));
    let mut failure = Failure::from(Refused::NotFound);
    failure.description = format!("not in cell {}: the id was made in {made_in}", cell.id.number()).into();
    failure.into_response()
}

fn unknown(reason: Reason) -> Failure {
    let mut failure = Failure::of_status(StatusCode::UNAUTHORIZED);
    failure.code = "invalid_token";
    failure.reason = Some(reason);
    failure.description = "an admin token is needed: Authorization: Bearer tga_...".into();
    failure
}
