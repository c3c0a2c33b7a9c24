//! Writes the body of every error, in the format of the path, and the headers that the status needs.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

use crate::flows::failures::Surface;
use crate::http::Shared;
use crate::http::console;
use crate::http::context::RequestContext;
use crate::http::docs;
use crate::http::error::Failure;

const HTML: &str = "text/html; charset=utf-8";

/// The format of errors for a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// RFC 6749 5.2 inside the vendor's envelope.
    Integrator,
    /// RFC 9457.
    Admin,
    /// A page of the console, for clients that ask for HTML.
    Person,
}

/// The kind of client that reads the answer.
pub struct Reader {
    dialect: Dialect,
    is_console: bool,
    is_private: bool,
}

impl Reader {
    pub fn of(request: &Request) -> Self {
        let path = request.uri().path();
        let is_console = console::guard::is_console(path);
        // Browsers may cache the console's own files, which have their own headers for that.
        let is_private = path.starts_with("/api/")
            || path.starts_with("/admin/")
            || (is_console && !path.starts_with("/console/assets/"));
        let dialect = if path.starts_with("/admin/") {
            Dialect::Admin
        } else if is_console && asks_for_html(request.headers()) {
            Dialect::Person
        } else {
            Dialect::Integrator
        };
        Self { dialect, is_console, is_private }
    }
}

impl Reader {
    /// The surface for which a failed attempt of this request was counted.
    const fn surface(&self) -> Surface {
        match self.dialect {
            Dialect::Admin => Surface::Admin,
            _ if self.is_console => Surface::Console,
            _ => Surface::Api,
        }
    }
}

pub fn render(shared: &Shared, context: &RequestContext, reader: &Reader, response: &mut Response) {
    if reader.is_private {
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    }
    if reader.is_console {
        let is_https = shared.tls.is_some() || shared.core.issuer.starts_with("https://");
        console::guard::put_headers(response.headers_mut(), is_https);
    }
    let status = response.status();
    let is_failure = status.is_client_error() || status.is_server_error();
    // If the handler has rendered a page with the error, keep it.
    let is_page = response.headers().get(header::CONTENT_TYPE).is_some_and(|label| label == HTML);
    if is_failure && !is_page {
        let mut failure = match response.extensions().get::<Failure>() {
            Some(failure) => failure.clone(),
            None => Failure::of_status(status),
        };
        if let (StatusCode::TOO_MANY_REQUESTS, Some(reason)) = (failure.status, failure.reason) {
            let wait = || shared.core.limits.retry_after_secs(reader.surface(), reason, context.ip());
            failure.retry_after_secs = Some(failure.retry_after_secs.unwrap_or_else(wait));
        }
        write(response, failure, reader.dialect, context.request_id(), &shared.core.issuer);
    }
}

fn asks_for_html(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accepted| accepted.contains("text/html"))
}

fn write(response: &mut Response, failure: Failure, dialect: Dialect, request_id: &str, issuer: &str) {
    let status = failure.status.as_u16();
    let (content_type, body) = match dialect {
        Dialect::Person => (HTML, console::failure_body(&failure, request_id)),
        Dialect::Integrator => (
            "application/json",
            json!({
                "httpStatus": false,
                "error": failure.code,
                "error_description": failure.description,
                "error_uri": docs::error_uri(issuer, failure.code),
                "request_id": request_id,
                "status": { "statusCode": status, "statusDescription": failure.description },
            })
            .to_string(),
        ),
        Dialect::Admin => (
            "application/problem+json",
            json!({
                "type": "about:blank",
                "title": failure.status.canonical_reason().unwrap_or("Error"),
                "status": status,
                "detail": failure.description,
                "code": failure.code,
                "request_id": request_id,
            })
            .to_string(),
        ),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.remove(header::CONTENT_LENGTH);
    let usual = match (failure.status, dialect) {
        (StatusCode::UNAUTHORIZED, Dialect::Admin) => Some("Bearer realm=\"tollgate\""),
        (StatusCode::UNAUTHORIZED, _) => Some("Basic realm=\"tollgate\", charset=\"UTF-8\""),
        _ => None,
    };
    if let Some(challenge) = failure.challenge.as_deref().or(usual) {
        let challenge = HeaderValue::from_str(challenge).expect("a challenge is printable ASCII");
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(coding) = failure.accept_encoding {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(coding));
    }
    if let Some(secs) = failure.retry_after_secs {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    *response.body_mut() = Body::from(body);
    response.extensions_mut().insert(failure);
}
