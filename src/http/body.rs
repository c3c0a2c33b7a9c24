//! Reads request bodies within limits, and checks their headers before they are parsed.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::error::Failure;
use super::unfinished::Ended;
use crate::domain::parameters::{self, is_token};

/// How long a body may take to arrive. A body is only a few packets, so a slower client does it on purpose.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// 415 if the body is compressed, 413 if it is larger, 408 if it takes too long, 400 if it is cut off, 503 if the
/// server has no memory to go on waiting for it.
pub async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Failure> {
    must_not_be_coded(headers)?;
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Failure::invalid_request_as(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"))
        }
        Ok(Err(error)) if was_ended(error.as_ref()) => Err(Failure::busy()),
        Ok(Err(_)) => Err(Failure::invalid_request("the body is incomplete")),
        Err(_) => {
            Err(Failure::invalid_request_as(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive"))
        }
    }
}

fn was_ended(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<Ended>())
}

/// Bodies are small, so we do not support compression. `utf-8` is not a content coding, but some clients send
/// it for a plain body.
fn must_not_be_coded(headers: &HeaderMap) -> Result<(), Failure> {
    let is_none = |coding: &[u8]| {
        let coding = coding.trim_ascii();
        coding.is_empty() || coding.eq_ignore_ascii_case(b"identity") || coding.eq_ignore_ascii_case(b"utf-8")
    };
    let mut lines = headers.get_all(header::CONTENT_ENCODING).iter();
    if lines.all(|line| line.as_bytes().split(|byte| *byte == b',').all(is_none)) {
        return Ok(());
    }
    let what = "Content-Encoding: send the body as it is, without compression";
    let mut failure = Failure::invalid_request_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, what);
    failure.accept_encoding = Some("identity");
    Err(failure)
}

/// The media type without its parameters, in lower case.
pub fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase()
}

/// The boundary of a multipart body.
///
/// # Errors
/// 400 if the header is malformed, or has no boundary or two. Parsers differ in which of two boundaries they
/// use, so a sender could hide fields from another parser.
pub fn boundary(content_type: &str) -> Result<String, Failure> {
    let parameters = content_type.split_once(';').map_or("", |(_, parameters)| parameters);
    let Some((parameters, "")) = parameters::read(parameters, is_bare_boundary) else {
        return Err(Failure::invalid_request("Content-Type: malformed"));
    };
    let mut named = parameters.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case("boundary"));
    match (named.next(), named.next()) {
        (Some((_, boundary)), None) if !boundary.is_empty() => Ok(boundary.into_owned()),
        _ => Err(Failure::invalid_request("Content-Type: must have exactly one boundary")),
    }
}

/// A boundary with one of these characters should be quoted (RFC 2046 5.1.1). Many clients do not quote it,
/// and PHP accepts that.
const fn is_bare_boundary(byte: u8) -> bool {
    is_token(byte)
        || matches!(byte, b'=' | b'/' | b':' | b'?' | b'(' | b')' | b'@' | b'<' | b'>' | b'[' | b']')
}

/// Refuses a byte order mark with a message that names it, because it is invisible in a text editor.
pub fn must_have_no_mark(body: &[u8]) -> Result<(), Failure> {
    if body.starts_with(BYTE_ORDER_MARK) {
        return Err(Failure::invalid_request("the body begins with a byte order mark (BOM): remove it"));
    }
    Ok(())
}
