//! Converts refusals and errors to responses. This is the only place that maps them to status codes.
//!
//! A handler returns a [`Failure`]. [`super::layer::render`] writes its body later, when the request id is
//! known. The format depends on the path: RFC 6749 5.2 with the vendor's envelope for integrators, RFC 9457
//! for the admin API. The framework's own errors are converted the same way, so every error is JSON.

use std::borrow::Cow;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::domain::reason::{ErrorCode, Reason};
use crate::flows::error::{Error, Fault, Refused};
use crate::store::StoreError;

/// How many seconds a caller should wait when the store did not answer.
const RETRY_AFTER_SECS: u32 = 1;

/// Why a request failed. Everything except `reason` may be shown to the caller.
#[derive(Clone, Debug)]
pub struct Failure {
    pub status: StatusCode,
    /// `error` in the integrators' API, `code` in the admin API.
    pub code: &'static str,
    pub description: Cow<'static, str>,
    /// The exact reason, for the exchange record and the log. Never for the caller.
    pub reason: Option<Reason>,
    /// If a 429 has none, [`super::layer::render`] adds it, because it knows the limit.
    pub retry_after_secs: Option<u32>,
    /// The challenge of a 401 if it differs from the path's usual one, or of a 403 if there is one.
    pub challenge: Option<Cow<'static, str>>,
    /// For a 415: the accepted content coding (RFC 9110 15.5.16).
    pub accept_encoding: Option<&'static str>,
}

impl Failure {
    /// Refuses the caller for `reason`. The answer depends only on the kind of error, so it does not reveal
    /// the exact reason.
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

    /// The caller made too many calls in this minute. `retry_after_secs` is the rest of the minute.
    pub fn too_many_calls(retry_after_secs: u32) -> Self {
        Self { retry_after_secs: Some(retry_after_secs), ..Self::refused(Reason::TooManyCalls) }
    }

    /// 400 with a description of the mistake. The description must not contain any value that was sent.
    pub fn invalid_request(description: impl Into<Cow<'static, str>>) -> Self {
        Self { description: description.into(), ..Self::refused(Reason::RequestInvalid) }
    }

    /// A malformed request with another status than 400.
    pub fn invalid_request_as(status: StatusCode, description: &'static str) -> Self {
        Self { status, ..Self::invalid_request(description) }
    }

    /// A bug in this program. `what` goes to the log.
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

    /// The server cannot answer now, for a reason that is not the caller's fault.
    pub fn busy() -> Self {
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

    /// Our own error for a `status` from the framework.
    pub fn of_status(status: StatusCode) -> Self {
        let description = match status {
            StatusCode::NOT_FOUND => "there is nothing at this path",
            StatusCode::METHOD_NOT_ALLOWED => "this path does not accept this method",
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
    /// A refusal of the admin API. All of it may be shown to the caller.
    fn from(refused: Refused) -> Self {
        let (status, code, reason) = match &refused {
            Refused::NotFound => (StatusCode::NOT_FOUND, "not_found", Reason::ObjectUnknown),
            Refused::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", Reason::PermissionMissing),
            Refused::InsufficientPermission => {
                (StatusCode::FORBIDDEN, "insufficient_permission", Reason::PermissionMissing)
            }
            Refused::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid_request", Reason::RequestInvalid),
            Refused::NotLicensed(_) => (StatusCode::CONFLICT, "not_licensed", Reason::Conflict),
            Refused::Conflict(_) => (StatusCode::CONFLICT, "conflict", Reason::Conflict),
            Refused::VersionMismatch => {
                (StatusCode::PRECONDITION_FAILED, "version_mismatch", Reason::Conflict)
            }
        };
        let description = Cow::Owned(refused.to_string());
        Self { code, description, reason: Some(reason), ..Self::of_status(status) }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::refused(reason)
    }
}

impl<R: Into<Self>> From<Error<R>> for Failure {
    fn from(error: Error<R>) -> Self {
        match error {
            Error::Refused(refusal) => refusal.into(),
            Error::Fault(fault) => fault.into(),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(fault: StoreError) -> Self {
        Fault::from(fault).into()
    }
}

impl From<Fault> for Failure {
    /// Logs the error, because this is where it is handled.
    fn from(error: Fault) -> Self {
        if !error.is_temporary() {
            return Self::fault(&error.to_string());
        }
        // The store logs an outage once, and the access log has each call.
        tracing::debug!(%error, "answered 503");
        Self::busy()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
