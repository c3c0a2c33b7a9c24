//! Finds the merchant of the `X-API-KEY`, and refuses calls without a valid key.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};

use crate::domain::address::ClientAddress;
use crate::domain::reason::Reason;
use crate::flows::admission::Caller;
use crate::http::context::RequestContext;
use crate::http::error::Failure;
use crate::http::{self, Shared};

pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A caller with a key that is valid, from an allowed address and within its limit.
pub struct Keyed(pub Caller);

impl FromRequestParts<Arc<Shared>> for Keyed {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Failure> {
        let context = RequestContext::of(&parts.extensions)?;
        http::admit(shared, &context, &parts.headers).await.map(Self)
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
