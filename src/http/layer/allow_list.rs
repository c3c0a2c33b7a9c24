//! Checks the caller's address against the allow list of its key, and then counts the call for the key's
//! limit. Calls from other addresses are not counted, so an outsider cannot use up the limit.
//!
//! Failed authentications and new sessions are counted elsewhere, where they happen: see
//! [`crate::flows::limits`].

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::domain::access::AddressVerdict;

use crate::domain::reason::Reason;
use crate::flows::admission::Caller;
use crate::http::Shared;
use crate::http::context::RequestContext;
use crate::http::error::Failure;

pub async fn allow_list(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    mut request: Request,
    next: Next,
) -> Response {
    // A call with a service token has no key, so there is no allow list.
    let Some(mut caller) = request.extensions_mut().remove::<Caller>() else {
        return next.run(request).await;
    };
    match admit(&shared, &context, &mut caller).await {
        Ok(()) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    }
}

pub(in crate::http) async fn admit(
    shared: &Shared,
    context: &RequestContext,
    caller: &mut Caller,
) -> Result<(), Failure> {
    let verdict = shared.core.admit_address(caller).await?;
    let ending = caller.ending(shared.core.now());
    context.note(|notes| {
        notes.observed = verdict == AddressVerdict::Observed;
        notes.ending = ending;
    });
    if shared.core.limits.count_call(caller.key_id) {
        Ok(())
    } else {
        Err(Failure::refused(Reason::TooManyCalls))
    }
}
