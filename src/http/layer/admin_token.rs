//! Lets in whoever comes with a live admin token, and says who that is.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::service_token::bearer;
use crate::domain::access::Reason;
use crate::flows::manage::By;
use crate::http::Shared;
use crate::http::context::RequestContext;
use crate::http::error::Failure;

pub async fn admin_token(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(presented) = bearer(request.headers()) else { return unknown().into_response() };
    let attempt = async { Ok(shared.core.admin_token(&presented).await?.ok_or(Reason::ServiceTokenUnknown)) };
    match shared.core.guard(context.ip(), attempt).await {
        Ok(Ok(token)) => {
            let by = By::admin_token(&token, context.ip().to_string(), context.request_id().to_owned());
            request.extensions_mut().insert(by);
            next.run(request).await
        }
        Ok(Err(Reason::TooManyFailures)) => Failure::refused(Reason::TooManyFailures).into_response(),
        Ok(Err(_)) => unknown().into_response(),
        Err(error) => Failure::from(error).into_response(),
    }
}

fn unknown() -> Failure {
    let mut failure = Failure::of_status(StatusCode::UNAUTHORIZED);
    failure.code = "invalid_token";
    failure.description = "an admin token is needed: Authorization: Bearer tga_...".into();
    failure
}
