//! `/api/verify`: forward authentication for nginx, Traefik, Caddy, Envoy and Apache.
//!
//! Takes any method and any suffix, and does not read the body. The answer is 200, 401 or 403, or 503 if the
//! store does not answer: nginx turns any other status into a 500.
//!
//! Every 200 has all identity headers, empty if they do not apply. A proxy that copies them then always
//! overwrites what the client sent. The exception is `X-Scopes`, which is missing if the caller has every
//! scope, because an empty one would mean no scope.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::domain::reason::{ErrorCode, Reason};
use crate::domain::scope::Scopes;
use crate::domain::secret::PlainSecret;
use crate::flows::admission::Caller;
use crate::flows::introspect::Active;
use crate::http::context::RequestContext;
use crate::http::error::Failure;
use crate::http::layer::service_token::bearer;
use crate::http::{self, Shared};

const ACCESS_TOKEN: HeaderName = HeaderName::from_static("access-token");
const X_MERCHANT_ID: HeaderName = HeaderName::from_static("x-merchant-id");
const X_API_KEY_ID: HeaderName = HeaderName::from_static("x-api-key-id");
const X_CLIENT_ID: HeaderName = HeaderName::from_static("x-client-id");
const X_ENVIRONMENT: HeaderName = HeaderName::from_static("x-environment");
const X_TOKEN_EXPIRES: HeaderName = HeaderName::from_static("x-token-expires");
const X_SCOPES: HeaderName = HeaderName::from_static("x-scopes");

/// Forward authentication: decide about a call to another service. Any method, any suffix.
#[utoipa::path(get, path = "/api/verify", tag = "tokens", security(("api_key" = [])),
    params(("ACCESS-TOKEN" = Option<String>, Header)),
    responses((status = 200, headers(("X-Merchant-Id" = String), ("X-Api-Key-Id" = String),
        ("X-Client-Id" = String), ("X-Environment" = String), ("X-Token-Expires" = String),
        ("X-Scopes" = String)))))]
pub async fn verify(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Failure> {
    Ok(identity(&admit(&shared, &context, request.headers()).await?))
}

/// Forward authentication for a resource that needs scopes.
///
/// The path has one scope, or several separated by `%20`. The caller needs all of them. Any method, any
/// suffix after the scopes.
#[utoipa::path(get, path = "/api/verify-scope/{scope}", tag = "tokens", security(("api_key" = [])),
    params(("scope" = String, Path), ("ACCESS-TOKEN" = Option<String>, Header)),
    responses((status = 200, headers(("X-Merchant-Id" = String), ("X-Api-Key-Id" = String),
        ("X-Client-Id" = String), ("X-Environment" = String), ("X-Token-Expires" = String),
        ("X-Scopes" = String)))))]
pub async fn verify_scope(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Failure> {
    let passed = admit(&shared, &context, request.headers()).await?;
    let needed = Scopes::of_verify_path(request.uri().path());
    match (&needed, &passed.scopes) {
        (Some(needed), Some(scopes)) if needed.is_within(scopes) => Ok(identity(&passed)),
        (Some(_), None) => Ok(identity(&passed)),
        _ => Err(insufficient_scope(needed.as_ref())),
    }
}

/// A caller who was admitted.
struct Passed {
    caller: Caller,
    active: Option<Active>,
    /// The caller's scopes. `None` means every scope.
    scopes: Option<Scopes>,
}

async fn admit(shared: &Shared, context: &RequestContext, headers: &HeaderMap) -> Result<Passed, Failure> {
    let mut caller = http::admit(shared, context, headers).await.map_err(as_verify)?;
    let token = access_token(headers).map_err(|reason| as_verify(Failure::refused(reason)))?;
    let decided = shared.core.verify(&mut caller, token.as_ref().map(PlainSecret::expose)).await;
    let active = decided.map_err(|error| as_verify(error.into()))?;
    if let Some(active) = &active {
        context.note(|notes| notes.client_id = Some(active.client_id.clone()));
    }
    if !shared.core.note_verified_later(&caller) {
        // Write this after the answer, because verifying must not wait for a write.
        let (core, caller) = (Arc::clone(&shared.core), caller.clone());
        shared.tasks.spawn(async move {
            if let Err(error) = core.note_verified(&caller).await {
                tracing::warn!(%error, "a key's use was not recorded");
            }
        });
    }
    let scopes = match &active {
        Some(active) => active.scopes.clone(),
        None => caller.key().and_then(|key| key.scopes.clone()),
    };
    Ok(Passed { caller, active, scopes })
}

/// The token in `ACCESS-TOKEN`, or else in `Authorization: Bearer`.
fn access_token(headers: &HeaderMap) -> Result<Option<PlainSecret>, Reason> {
    let mut values = headers.get_all(ACCESS_TOKEN).iter();
    let Some(value) = values.next() else { return Ok(bearer(headers)) };
    if values.next().is_some() {
        return Err(Reason::TokenUnknown);
    }
    let token = value.to_str().map_err(|_| Reason::TokenUnknown)?;
    Ok(Some(PlainSecret::new(token.to_owned())))
}

fn identity(Passed { caller, active, scopes }: &Passed) -> Response {
    let active = active.as_ref();
    let environment = caller.key().map_or("", |key| key.environment.into());
    let headers = [
        (X_MERCHANT_ID, caller.record.id.to_string()),
        (X_API_KEY_ID, caller.key_id.to_string()),
        (X_CLIENT_ID, active.map_or_else(String::new, |active| active.client_id.clone())),
        (X_ENVIRONMENT, environment.to_owned()),
        (X_TOKEN_EXPIRES, active.map_or_else(String::new, |active| active.expires_at.to_rfc3339())),
    ];
    let mut response = StatusCode::OK.into_response();
    // Room for these, and for the headers that every answer gets later.
    response.headers_mut().reserve(2 * headers.len());
    for (name, value) in headers {
        let value = HeaderValue::try_from(value).expect("ids, names and times are plain ASCII");
        response.headers_mut().insert(name, value);
    }
    if let Some(scopes) = scopes {
        let value = HeaderValue::from_str(scopes.as_str()).expect("scopes are printable ASCII");
        response.headers_mut().insert(X_SCOPES, value);
    }
    response
}

/// 403 with the challenge of RFC 6750 3.1. It lists the needed scopes if the path has any.
fn insufficient_scope(needed: Option<&Scopes>) -> Failure {
    let named = needed.map(|needed| format!(", scope=\"{needed}\"")).unwrap_or_default();
    let challenge = format!("Bearer realm=\"tollgate\", error=\"insufficient_scope\"{named}");
    Failure { challenge: Some(challenge.into()), ..Failure::refused(Reason::ScopeInsufficient) }
}

/// Whether a path asks for forward authentication.
pub fn is_verify(path: &str) -> bool {
    let rest = path.strip_prefix("/api/verify-scope").or_else(|| path.strip_prefix("/api/verify"));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Converts a refusal to one of the two statuses that every proxy passes on: 403 if we know the caller, 401
/// otherwise. This includes refusals because of a limit. The exchange record has the exact reason.
pub(in crate::http) fn as_verify(mut failure: Failure) -> Failure {
    if failure.status.is_server_error() {
        return failure;
    }
    let error = failure.reason.map(Reason::error);
    failure.status = match (error, failure.reason) {
        (Some(ErrorCode::UnauthorizedClient), _) | (_, Some(Reason::TooManyCalls)) => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    if error == Some(ErrorCode::SlowDown) {
        let code = match failure.status {
            StatusCode::FORBIDDEN => ErrorCode::UnauthorizedClient,
            _ => ErrorCode::InvalidClient,
        };
        failure.code = code.into();
    }
    if error == Some(ErrorCode::InvalidGrant) {
        failure.description = "an access token is needed, and must be active and of this key's client".into();
    }
    let challenge = match failure.reason {
        // A caller that sent no credentials gets a challenge without an error (RFC 6750 3.1).
        Some(Reason::KeyMissing | Reason::TokenMissing) => "Bearer realm=\"tollgate\"",
        _ => "Bearer realm=\"tollgate\", error=\"invalid_token\"",
    };
    // A 403 has no challenge, because another token would not help.
    failure.challenge = (failure.status == StatusCode::UNAUTHORIZED).then_some(challenge.into());
    failure
}
