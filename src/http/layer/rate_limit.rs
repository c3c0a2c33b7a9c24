//! Rate limits at the edge: calls per key, and when a caller that was told to slow down may come again.
//!
//! Failed authentications are counted where a secret is looked at and new sessions where one is opened,
//! since only there it is known in time: see [`crate::flows::limits`].

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::domain::access::{ErrorCode, Reason};
use crate::flows::admission::Caller;
use crate::http::Shared;
use crate::http::context::RequestContext;
use crate::http::error::Failure;

/// Counts calls per key. Behind key and allow list: what an outsider tries must not use up what the
/// owner of the key may do.
pub async fn calls(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>().map(|caller| count(&shared, caller)) {
        Some(Err(failure)) => failure.into_response(),
        // A service token comes without a key.
        Some(Ok(())) | None => next.run(request).await,
    }
}

pub(in crate::http) fn count(shared: &Shared, caller: &Caller) -> Result<(), Failure> {
    if shared.core.limits.count_call(caller.key_id) {
        Ok(())
    } else {
        Err(Failure::refused(Reason::TooManyCalls))
    }
}

/// Puts the time that the limit needs into `Retry-After`, whichever layer or handler refused.
pub async fn retry_after(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if let Some(failure) = response.extensions_mut().get_mut::<Failure>()
        && let Some(reason) = failure.reason
        && reason.error() == ErrorCode::SlowDown
    {
        failure.retry_after_secs = Some(shared.core.limits.retry_after_secs(reason, context.ip()));
    }
    response
}
