//! Replaces the answers that hyper writes by itself.
//!
//! A head that is too large or not HTTP never reaches a service. hyper writes its own answer, without a body
//! or a request id, and closes the connection. This cannot be configured. So we recognise that answer before
//! it is sent and replace it with our usual error: JSON, a request id, a line in the log, and 401 for forward
//! authentication.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri, Version, header};
use axum::response::Response;
use futures_util::FutureExt;
use http_body_util::BodyExt;

use super::context::Peer;
use super::front::Front;
use super::head::{self, Refused, TARGET_BYTES_MAX};

/// hyper's own answers are shorter than this.
const AUTOMATIC_BYTES_MAX: usize = 256;

/// How much of a request line we keep: enough for the method and the start of the path.
const START_BYTES_MAX: usize = 64;

const VERSION_BYTES: usize = " HTTP/1.1".len();

/// The start of a head that has not reached a service.
pub struct Start {
    bytes: [u8; START_BYTES_MAX],
    len: usize,
    /// How many bytes have come before the first line feed.
    line_bytes: usize,
    is_line_whole: bool,
}

impl Default for Start {
    fn default() -> Self {
        Self { bytes: [0; START_BYTES_MAX], len: 0, line_bytes: 0, is_line_whole: false }
    }
}

impl Start {
    pub fn saw(&mut self, bytes: &[u8]) {
        if self.is_line_whole {
            return;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let line = &bytes[..end.unwrap_or(bytes.len())];
        let kept = line.len().min(START_BYTES_MAX - self.len);
        self.bytes[self.len..self.len + kept].copy_from_slice(&line[..kept]);
        self.len += kept;
        self.line_bytes += line.len();
        self.is_line_whole = end.is_some();
    }

    pub const fn is_empty(&self) -> bool {
        self.line_bytes == 0 && !self.is_line_whole
    }

    /// Whether the first line, without its line feed, is exactly this.
    pub fn is_line(&self, line: &[u8]) -> bool {
        self.is_line_whole && self.line_bytes == line.len() && self.bytes[..self.len] == *line
    }

    /// The method and path, as far as they can be read.
    fn method_and_path(&self) -> (Method, &str) {
        let text = self.bytes[..self.len].utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let (method, target) = text.trim_start().split_once(' ').unwrap_or((text, ""));
        let path = target.split([' ', '?', '#', '\r']).next().unwrap_or_default();
        (method.parse().unwrap_or_default(), if path.starts_with('/') { path } else { "/" })
    }

    fn is_target_too_long(&self) -> bool {
        let method = self.bytes[..self.len].iter().position(|byte| *byte == b' ').unwrap_or(self.len);
        let version = if self.is_line_whole { VERSION_BYTES + 1 } else { 0 };
        self.line_bytes.saturating_sub(method + 1 + version) > TARGET_BYTES_MAX
    }
}

/// Makes our own answers.
pub struct Refuser {
    pub front: Front,
    pub client: Peer,
}

impl Refuser {
    /// The answer to send instead of `written`. `None` if `written` is one of our own answers.
    pub fn instead_of(&self, written: &[u8], start: &Start) -> Option<Vec<u8>> {
        let status = automatic(written)?;
        let (method, path) = start.method_and_path();
        let failure =
            if start.is_target_too_long() { head::target_too_long() } else { head::of_status(status, path) };
        let is_head = method == Method::HEAD;
        let mut request = Request::builder().method(method).body(Body::empty()).ok()?;
        *request.uri_mut() = Uri::try_from(path).unwrap_or_default();
        request.extensions_mut().insert(self.client);
        request.extensions_mut().insert(Refused(failure));
        // For such a request there is nothing to wait for.
        let answered = async {
            let (parts, body) = self.front.call(request).await?.into_parts();
            Ok::<_, std::convert::Infallible>((parts, body.collect().await))
        };
        let (parts, body) = answered.now_or_never()?.ok()?;
        let body = body.ok()?.to_bytes();
        let mut answer = head_of(&Response::from_parts(parts, ()), body.len());
        if let Some(date) =
            written.split_inclusive(|byte| *byte == b'\n').find(|line| line.starts_with(b"date:"))
        {
            answer.extend_from_slice(date);
        }
        answer.extend_from_slice(b"\r\n");
        if !is_head {
            answer.extend_from_slice(&body);
        }
        Some(answer)
    }
}

/// The status of an answer that hyper wrote by itself. All our own answers have a request id.
fn automatic(written: &[u8]) -> Option<StatusCode> {
    let has = |text: &[u8]| written.windows(text.len()).any(|window| window == text);
    let is_automatic = written.starts_with(b"HTTP/1.1 4")
        && written.len() <= AUTOMATIC_BYTES_MAX
        && written.ends_with(b"\r\n\r\n")
        && has(b"\r\nconnection: close\r\n")
        && !has(b"\r\nx-request-id: ");
    is_automatic.then(|| StatusCode::from_bytes(&written[9..12]).ok()).flatten()
}

fn head_of(response: &Response<()>, body_bytes: usize) -> Vec<u8> {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("{:?} {} {reason}\r\n", Version::HTTP_11, status.as_u16()).into_bytes();
    let skipped = [header::CONTENT_LENGTH, header::CONNECTION];
    for (name, value) in response.headers().iter().filter(|(name, _)| !skipped.contains(name)) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(format!("content-length: {body_bytes}\r\nconnection: close\r\n").as_bytes());
    head
}
