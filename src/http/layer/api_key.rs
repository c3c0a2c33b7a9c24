//! Finds the merchant of the `X-API-KEY`, and refuses calls without a valid key.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::domain::address::ClientAddress;
use crate::domain::reason::Reason;
use crate::flows::admission::Caller;
use crate::http::Shared;
use crate::http::context::RequestContext;
use crate::http::error::Failure;
use crate::http::layer::service_token::Service;

pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

pub async fn api_key(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    mut request: Request,
    next: Next,
) -> Response {
    if request.extensions().get::<Service>().is_some() {
        return next.run(request).await;
    }
    match admit(&shared, &context, request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    }
}

pub(in crate::http) async fn admit(
    shared: &Shared,
    context: &RequestContext,
    headers: &HeaderMap,
) -> Result<Caller, Failure> {
    let mut values = headers.get_all(X_API_KEY).iter();
    let key = values.next().ok_or_else(|| Failure::refused(Reason::KeyMissing))?;
    if values.next().is_some() {
        return Err(Failure::refused(Reason::KeyRepeated));
    }
    // Look the key up even if the address is unknown, so that its owner sees the refusal.
    let address = context.address().cloned();
    let known = address.clone().unwrap_or_else(|_| ClientAddress::direct(context.ip()));
    let note = |owner| context.note(|notes| notes.owner = Some(owner));
    let caller = shared.core.admit_key(key.as_bytes(), known, context.ip(), note).await?;
    address.map_err(|_| Failure::refused(Reason::AddressUnreadable))?;
    Ok(caller)
}
