//! Lets the platform's own services in by a service token, in place of an API key.
//!
//! It comes as `Authorization: Bearer`, or as HTTP Basic with the token's id and the token, because
//! that is all that stock resource servers can send.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::domain::access::Reason;
use crate::domain::admin::{AdminToken, Permission};
use crate::domain::secret::{ADMIN_TOKEN_PREFIX, PlainSecret};
use crate::flows::failures::Surface;
use crate::http::Shared;
use crate::http::basic;
use crate::http::context::RequestContext;
use crate::http::error::Failure;

/// A service that was let in.
#[derive(Clone)]
pub struct Service(pub AdminToken);

pub async fn service_token(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    mut request: Request,
    next: Next,
) -> Response {
    match admit(&shared, &context, request.headers()).await {
        Ok(Some(service)) => {
            request.extensions_mut().insert(service);
            next.run(request).await
        }
        Ok(None) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

/// `None` when what was sent is not an admin token at all, but a client's own credentials, say.
async fn admit(
    shared: &Shared,
    context: &RequestContext,
    headers: &HeaderMap,
) -> Result<Option<Service>, Failure> {
    let (id, presented) = match (bearer(headers), basic::credentials(headers)) {
        (Some(token), _) => (None, token),
        (None, Ok(Some((id, token)))) => (Some(id), token),
        (None, _) => return Ok(None),
    };
    if !presented.expose().starts_with(ADMIN_TOKEN_PREFIX) {
        return Ok(None);
    }
    let is_bearer = id.is_none();
    let fits = |token: &AdminToken| {
        id.as_ref().is_none_or(|id| *id == token.id.to_string())
            && token.permissions.contains(&Permission::Introspect)
    };
    let decided = shared.core.admit_admin_token(Surface::Api, context.ip(), &presented, fits).await?;
    Ok(Some(Service(decided.map_err(|reason| refused(reason, is_bearer))?)))
}

/// Whoever came by Bearer is answered as RFC 6750 3 has it (RFC 7662 2.3).
fn refused(reason: Reason, is_bearer: bool) -> Failure {
    let mut failure = Failure::refused(reason);
    failure.challenge = is_bearer.then_some("Bearer realm=\"tollgate\", error=\"invalid_token\"".into());
    failure
}

/// The token of the one `Authorization: Bearer` header (RFC 6750 2.1).
pub(in crate::http) fn bearer(headers: &HeaderMap) -> Option<PlainSecret> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| PlainSecret::new(token.trim().to_owned()))
}
