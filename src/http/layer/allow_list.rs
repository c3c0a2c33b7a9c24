//! Holds the caller's address against the allow list of its key.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::domain::access::AddressVerdict;
use crate::flows::admission::Caller;
use crate::http::Shared;
use crate::http::context::RequestContext;
use crate::http::error::Failure;

pub async fn allow_list(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    Extension(mut caller): Extension<Caller>,
    mut request: Request,
    next: Next,
) -> Response {
    match admit(&shared, &context, &mut caller).await {
        Ok(()) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    }
}

async fn admit(shared: &Shared, context: &RequestContext, caller: &mut Caller) -> Result<(), Failure> {
    let verdict = shared.core.admit_address(caller).await?.map_err(Failure::refused)?;
    context.note(|notes| notes.observed = verdict == AddressVerdict::Observed);
    if let Some(secret) = caller.key_secret() {
        shared.core.note_use(caller.record.merchant.id, secret, &caller.address).await?;
    }
    Ok(())
}
