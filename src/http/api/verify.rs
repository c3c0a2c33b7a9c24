//! `/api/verify`: forward authentication for nginx, Traefik, Caddy, Envoy and Apache.
//!
//! Any method, any suffix, no body read. Answers 200, 401 or 403, or 503 when the store is away: nginx
//! makes a 500 of anything else. All identity headers are in every 200, empty where they do not apply,
//! so that a proxy that copies them always overwrites what the client sent. `X-Scopes` alone is not there
//! for a caller who may do everything: an empty one would say the contrary.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;

use crate::domain::reason::{ErrorCode, Reason};
use crate::domain::scope::Scopes;
use crate::domain::secret::PlainSecret;
use crate::flows::admission::Caller;
use crate::flows::introspect::Active;
use crate::http::Shared;
use crate::http::context::RequestContext;
use crate::http::error::Failure;
use crate::http::layer::service_token::bearer;
use crate::http::layer::{allow_list, api_key};

const ACCESS_TOKEN: HeaderName = HeaderName::from_static("access-token");
const X_MERCHANT_ID: HeaderName = HeaderName::from_static("x-merchant-id");
const X_API_KEY_ID: HeaderName = HeaderName::from_static("x-api-key-id");
const X_CLIENT_ID: HeaderName = HeaderName::from_static("x-client-id");
const X_ENVIRONMENT: HeaderName = HeaderName::from_static("x-environment");
const X_TOKEN_EXPIRES: HeaderName = HeaderName::from_static("x-token-expires");
const X_SCOPES: HeaderName = HeaderName::from_static("x-scopes");

/// Decide about a call to another service: forward authentication. Any method, any suffix.
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

/// The same for a resource that needs scopes: one, or several separated by `%20`, all of which are needed.
/// Any method, any suffix behind the scope.
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
    let needed = needed_scopes(request.uri().path());
    match (&needed, &passed.scopes) {
        (Some(needed), Some(scopes)) if needed.is_within(scopes) => Ok(identity(&passed)),
        (Some(_), None) => Ok(identity(&passed)),
        _ => Err(insufficient_scope(needed.as_ref())),
    }
}

/// What the path of a [`verify_scope`] call names: its first segment behind the prefix. The proxy's
/// configuration fixes it; a query or a header is its caller's.
fn needed_scopes(path: &str) -> Option<Scopes> {
    let segment = path.strip_prefix("/api/verify-scope/")?.split('/').next()?;
    percent_decode_str(segment).decode_utf8().ok()?.parse().ok()
}

/// Somebody who passed.
struct Passed {
    caller: Caller,
    active: Option<Active>,
    /// What they may do; `None` is everything.
    scopes: Option<Scopes>,
}

async fn admit(shared: &Shared, context: &RequestContext, headers: &HeaderMap) -> Result<Passed, Failure> {
    let mut caller = api_key::admit(shared, context, headers).await.map_err(as_verify)?;
    allow_list::admit(shared, context, &mut caller).await.map_err(as_verify)?;
    let token = access_token(headers).map_err(|reason| as_verify(Failure::refused(reason)))?;
    let decided = shared.core.verify(&mut caller, token.as_ref().map(PlainSecret::expose)).await;
    let active = decided.map_err(|error| as_verify(error.into()))?;
    if let Some(active) = &active {
        context.note(|notes| notes.client_id = Some(active.client_id.clone()));
    }
    if !shared.core.note_verified_later(&caller) {
        // After the answer: a read must not wait for a write.
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

/// `ACCESS-TOKEN`, else `Authorization: Bearer`.
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
        (X_MERCHANT_ID, caller.record.merchant.id.to_string()),
        (X_API_KEY_ID, caller.key_id.to_string()),
        (X_CLIENT_ID, active.map_or_else(String::new, |active| active.client_id.clone())),
        (X_ENVIRONMENT, environment.to_owned()),
        (X_TOKEN_EXPIRES, active.map_or_else(String::new, |active| active.expires_at.to_rfc3339())),
    ];
    let mut response = StatusCode::OK.into_response();
    for (name, value) in headers {
        let value = HeaderValue::from_str(&value).expect("ids, names and times are plain ASCII");
        response.headers_mut().insert(name, value);
    }
    if let Some(scopes) = scopes {
        let value = HeaderValue::from_str(scopes.as_str()).expect("scopes are printable ASCII");
        response.headers_mut().insert(X_SCOPES, value);
    }
    response
}

/// 403 with the challenge of RFC 6750 3.1. It names the scopes, if the path named any.
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

/// The refusal in the two codes that every proxy passes on: 403 for whom we know but may not pass,
/// 401 for all else. A limit is no exception; the exchange record has its exact reason.
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
        // Who sent nothing is told what to send, and not that it was wrong (RFC 6750 3.1).
        Some(Reason::KeyMissing | Reason::TokenMissing) => "Bearer realm=\"tollgate\"",
        _ => "Bearer realm=\"tollgate\", error=\"invalid_token\"",
    };
    // A 403 asks for nothing: another token would not help.
    failure.challenge = (failure.status == StatusCode::UNAUTHORIZED).then_some(challenge.into());
    failure
}
