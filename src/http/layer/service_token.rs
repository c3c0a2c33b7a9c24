//! Authenticates the platform's own services by a service token instead of an API key.
//!
//! The token comes as `Authorization: Bearer`, or as client credentials in HTTP Basic or in the body, because
//! standard resource servers can send only those. The client id is then the token's id, and the client secret
//! is the token.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};

use crate::domain::admin::{AdminToken, Permission, Role};
use crate::domain::reason::Reason;
use crate::domain::secret::{ADMIN_TOKEN_PREFIX, PlainSecret};
use crate::flows::admission::Caller;
use crate::flows::error::Error;
use crate::flows::failures::Surface;
use crate::http::basic::{self, Authorization};
use crate::http::body;
use crate::http::context::RequestContext;
use crate::http::error::Failure;
use crate::http::form::{self, Fields};
use crate::http::layer::api_key::X_API_KEY;
use crate::http::{self, Shared};

/// A call about a token: the caller and the body.
pub struct Asking {
    pub asker: Asker,
    pub authorization: Authorization,
    pub fields: Fields,
}

/// An authenticated caller.
pub enum Asker {
    Client(Caller),
    Service(AdminToken),
}

impl FromRequest<Arc<Shared>> for Asking {
    type Rejection = Failure;

    async fn from_request(mut request: Request, shared: &Arc<Shared>) -> Result<Self, Failure> {
        let context = RequestContext::of(request.extensions())?;
        let presented = match in_headers(request.headers()) {
            None if may_be_in_body(request.headers()) => in_body(&mut request).await,
            presented => presented,
        };
        let asker = match presented {
            Some(presented) => Asker::Service(admit(shared, &context, presented).await?),
            None => Asker::Client(http::admit(shared, &context, request.headers()).await?),
        };
        let authorization = Authorization::of(request.headers());
        let limit = match asker {
            Asker::Client(_) => form::BODY_BYTES_MAX,
            Asker::Service(_) => form::BODY_OF_SERVICE_BYTES_MAX,
        };
        Ok(Self { asker, authorization, fields: Fields::of(request, limit).await? })
    }
}

/// A presented admin token.
struct Presented {
    /// `None` for a Bearer token.
    id: Option<String>,
    token: PlainSecret,
}

impl Presented {
    /// `None` if it is not an admin token but, for example, a client secret.
    fn new(id: Option<String>, token: PlainSecret) -> Option<Self> {
        token.expose().starts_with(ADMIN_TOKEN_PREFIX).then_some(Self { id, token })
    }
}

fn in_headers(headers: &HeaderMap) -> Option<Presented> {
    match (bearer(headers), basic::credentials(headers)) {
        (Some(token), _) => Presented::new(None, token),
        (None, Ok(Some((id, token)))) => Presented::new(Some(id), token),
        (None, _) => None,
    }
}

/// Whether credentials can only be in the body. Calls of clients have a key, so their bodies are not read
/// here.
fn may_be_in_body(headers: &HeaderMap) -> bool {
    !headers.contains_key(X_API_KEY)
        && bearer(headers).is_none()
        && matches!(basic::credentials(headers), Ok(None))
}

/// Reads the token from the body, and keeps the body for the handler. `None` if the body cannot be read.
/// Without a key, the caller then counts as not authenticated.
async fn in_body(request: &mut Request) -> Option<Presented> {
    let body = std::mem::take(request.body_mut());
    let bytes = body::read(request.headers(), body, form::BODY_OF_SERVICE_BYTES_MAX).await.ok()?;
    *request.body_mut() = Body::from(bytes.clone());
    let mut fields = form::labelled(request.headers(), bytes).await.ok()?;
    let token = fields.take_secret("client_secret")?;
    Presented::new(Some(fields.get("client_id")?.to_owned()), token)
}

async fn admit(
    shared: &Shared,
    context: &RequestContext,
    presented: Presented,
) -> Result<AdminToken, Failure> {
    let Presented { id, token } = presented;
    let is_bearer = id.is_none();
    if token.expose().contains('\0') || id.as_ref().is_some_and(|id| id.contains('\0')) {
        let attempt = async { Err(Reason::NulCharacter.into()) };
        return Ok(shared.core.guard(Surface::Api, context.ip(), attempt).await?);
    }
    let from = context.address().ok().map(|address| address.ip);
    // The handlers check which calls the token may make.
    let fits = |token: &AdminToken| {
        id.as_ref().is_none_or(|id| *id == token.id.to_string())
            && (token.role == Role::Service || token.has(Permission::Introspect))
            && token.may_come_from(from)
    };
    match shared.core.admit_admin_token(context.admin_call(Surface::Api), &token, fits).await {
        Err(Error::Refused(reason)) => Err(refused(reason, is_bearer)),
        admitted => Ok(admitted?),
    }
}

/// A refused Bearer token gets the challenge of RFC 6750 3 (RFC 7662 2.3).
fn refused(reason: Reason, is_bearer: bool) -> Failure {
    let mut failure = Failure::refused(reason);
    failure.challenge = is_bearer.then_some("Bearer realm=\"tollgate\", error=\"invalid_token\"".into());
    failure
}

/// The token in `Authorization: Bearer` (RFC 6750 2.1). `None` if the header is there twice.
pub(in crate::http) fn bearer(headers: &HeaderMap) -> Option<PlainSecret> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| PlainSecret::new(token.trim().to_owned()))
}
