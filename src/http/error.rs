//! Refusals and faults as responses: the only place that knows status codes.
//!
//! A handler returns a [`Failure`]; [`super::layer::render`] writes its body once the request id is at
//! hand, in the dialect of the path: RFC 6749 5.2 with the vendor's envelope for integrators, RFC 9457
//! for the admin API. The framework's own errors go the same way, so no path answers anything but JSON.

use std::borrow::Cow;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::domain::reason::{ErrorCode, Reason};
use crate::flows::error::Refused;
use crate::store::StoreError;

/// Seconds after which a caller may try again when the store did not answer.
const RETRY_AFTER_SECS: u32 = 1;

/// Why a request got no success. What is in it may be told to the caller, the reason apart.
#[derive(Clone, Debug)]
pub struct Failure {
    pub status: StatusCode,
    /// The `error` of the integrators' API, the `code` of the admin API.
    pub code: &'static str,
    pub description: Cow<'static, str>,
    /// Exactly why; for the exchange record and the log, never for the caller.
    pub reason: Option<Reason>,
    /// Of a 429 without one it is put in by [`super::layer::render`], which knows the limit.
    pub retry_after_secs: Option<u32>,
    /// What is asked for: of a 401 where it is not the usual of its path, of a 403 where there is something.
    pub challenge: Option<Cow<'static, str>>,
    /// Of a 415: in which coding the body is wanted (RFC 9110 15.5.16).
    pub accept_encoding: Option<&'static str>,
}

impl Failure {
    /// The caller is refused for `reason`. What an outsider is told depends on the kind of error alone.
    pub fn refused(reason: Reason) -> Self {
        let code = reason.error();
        let (status, description) = match code {
            ErrorCode::InvalidClient => (
                StatusCode::UNAUTHORIZED,
                "the API key, its use from this address, or the client credentials were not accepted",
            ),
            ErrorCode::InvalidGrant => (
                StatusCode::BAD_REQUEST,
                "the refresh token is unknown, expired, revoked, used before, or of another client",
            ),
            ErrorCode::UnauthorizedClient => (
                StatusCode::BAD_REQUEST,
                "Enhanced Security is switched OFF for this client, or not licensed",
            ),
            ErrorCode::UnsupportedGrantType => {
                (StatusCode::BAD_REQUEST, "grant_type must be client_credentials or refresh_token")
            }
            ErrorCode::InvalidScope => (
                StatusCode::BAD_REQUEST,
                "the scope is malformed, unknown, more than this client may have, or not that of the session",
            ),
            ErrorCode::InsufficientScope => {
                (StatusCode::FORBIDDEN, "a scope is needed that this key or token does not have")
            }
            ErrorCode::SlowDown => (StatusCode::TOO_MANY_REQUESTS, "too many calls; wait and try again"),
            ErrorCode::InvalidRequest if matches!(reason, Reason::NulCharacter) => {
                (StatusCode::BAD_REQUEST, "a field has a NUL character in it")
            }
            ErrorCode::InvalidRequest => (StatusCode::BAD_REQUEST, "the request is malformed"),
            ErrorCode::TemporarilyUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "the service cannot answer now; try again")
            }
            ErrorCode::ServerError => (StatusCode::INTERNAL_SERVER_ERROR, "an internal error"),
        };
        Self {
            status,
            code: code.into(),
            description: Cow::Borrowed(description),
            reason: Some(reason),
            retry_after_secs: None,
            challenge: None,
            accept_encoding: None,
        }
    }

    /// The caller made more calls in this minute than it may, and knows when the minute is over.
    pub fn too_many_calls(retry_after_secs: u32) -> Self {
        Self { retry_after_secs: Some(retry_after_secs), ..Self::refused(Reason::TooManyCalls) }
    }

    /// 400 with a description that names what is wrong. It must hold nothing that was sent as a value.
    pub fn invalid_request(description: impl Into<Cow<'static, str>>) -> Self {
        Self { description: description.into(), ..Self::refused(Reason::RequestInvalid) }
    }

    /// A malformed request with a status of its own.
    pub fn invalid_request_as(status: StatusCode, description: &'static str) -> Self {
        Self { status, ..Self::invalid_request(description) }
    }

    /// A fault of this program. `what` goes to the log.
    pub fn fault(what: &str) -> Self {
        tracing::error!(what, "internal error");
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: ErrorCode::ServerError.into(),
            description: Cow::Borrowed("an internal error"),
            reason: None,
            retry_after_secs: None,
            challenge: None,
            accept_encoding: None,
        }
    }

    /// What the framework answered with `status`, put into our words.
    pub fn of_status(status: StatusCode) -> Self {
        let description = match status {
            StatusCode::NOT_FOUND => "there is nothing at this path",
            StatusCode::METHOD_NOT_ALLOWED => "this path does not take that method",
            StatusCode::REQUEST_TIMEOUT => "the request took too long to arrive",
            StatusCode::PAYLOAD_TOO_LARGE => "the body is too large",
            StatusCode::URI_TOO_LONG => "the path and query are longer than 8 KiB",
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                "the request's head is longer than 32 KiB or has more than 200 fields"
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "that content type is not accepted here",
            _ if status.is_server_error() => "an internal error",
            _ => "the request is malformed",
        };
        let code = if status.is_server_error() { ErrorCode::ServerError } else { ErrorCode::InvalidRequest };
        Self {
            status,
            code: code.into(),
            description: Cow::Borrowed(description),
            reason: None,
            retry_after_secs: None,
            challenge: None,
            accept_encoding: None,
        }
    }
}

impl From<Refused> for Failure {
    /// A refusal of the admin API: all of it may be told to whoever called.
    fn from(refused: Refused) -> Self {
        let (status, code) = match &refused {
            Refused::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Refused::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Refused::InsufficientPermission => (StatusCode::FORBIDDEN, "insufficient_permission"),
            Refused::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid_request"),
            Refused::NotLicensed(_) => (StatusCode::CONFLICT, "not_licensed"),
            Refused::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Refused::VersionMismatch => (StatusCode::PRECONDITION_FAILED, "version_mismatch"),
        };
        let description = Cow::Owned(refused.to_string());
        Self { code, description, ..Self::of_status(status) }
    }
}

impl From<StoreError> for Failure {
    /// Logged once, here, where it is handled.
    fn from(error: StoreError) -> Self {
        if !error.is_temporary() {
            return Self::fault(&error.to_string());
        }
        // An outage is told of by the store, once. The access log has each call.
        tracing::debug!(%error, "answered 503");
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: ErrorCode::TemporarilyUnavailable.into(),
            description: Cow::Borrowed("the service cannot answer now; try again"),
            reason: None,
            retry_after_secs: Some(RETRY_AFTER_SECS),
            challenge: None,
            accept_encoding: None,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
