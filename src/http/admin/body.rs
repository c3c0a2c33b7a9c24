//! JSON bodies, `If-Match` and `ETag`, and the `Idempotency-Key` of calls that create something.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::flows::changes::Versions;
use crate::flows::idempotency::{Answer, IdempotencyKey, Rendered};
use crate::flows::principal::Principal;
use crate::http::body;
use crate::http::error::Failure;

/// A hundred address ranges and a URL need much less.
const BODY_BYTES_MAX: usize = 64 * 1024;

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A JSON body. Unknown fields are an error if `T` says so. Duplicate fields are always an error.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        Ok(Self(Creation::from_request(request, state).await?.body))
    }
}

/// The body of a call that creates something, and the principal with its `Idempotency-Key`.
pub struct Creation<T> {
    pub body: T,
    pub principal: Principal,
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Creation<T> {
    type Rejection = Failure;

    async fn from_request(mut request: Request, _: &S) -> Result<Self, Failure> {
        let principal = request.extensions_mut().remove::<Principal>();
        let principal = principal.ok_or_else(|| Failure::fault("a body outside the admin layer"))?;
        let (parts, body) = request.into_parts();
        must_be_json(&parts.headers)?;
        let bytes = body::read(&parts.headers, body, BODY_BYTES_MAX).await?;
        body::must_have_no_mark(&bytes)?;
        let key = idempotency(&principal, &parts, &bytes)?;
        // A missing body counts as an empty object, because all fields may be optional.
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let body = parsed(text)?;
        if has_nul(text) {
            return Err(Failure::invalid_request("a field has a NUL character in it"));
        }
        Ok(Self { body, principal: principal.with_idempotency(key) })
    }
}

fn parsed<T: DeserializeOwned>(text: &[u8]) -> Result<T, Failure> {
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    // serde would also read the fields from an array, in their order here.
    if first.is_some_and(|byte| *byte != b'{') {
        return Err(Failure::invalid_request("the body must be a JSON object"));
    }
    serde_json::from_slice(text).map_err(|error| {
        Failure::invalid_request(format!("the body is not accepted: {}", in_json_words(&error.to_string())))
    })
}

/// What serde says about a value of the wrong type, in the words of JSON. Leaves out the value itself.
fn in_json_words(told: &str) -> String {
    let is_about_a_value = ["invalid type: ", "invalid value: "].iter().any(|start| told.starts_with(start));
    let Some((found, rest)) = told.rsplit_once(", expected ").filter(|_| is_about_a_value) else {
        return told.to_owned();
    };
    let (expected, place) = rest.split_once(" at line").unwrap_or((rest, ""));
    let expected = match expected {
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "isize" | "usize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "an array",
        "a map" => "an object",
        name if name.starts_with("struct ") => "an object",
        name => name,
    };
    let found = found.split(['`', '"']).next().unwrap_or_default().trim_end();
    format!("{found}, expected {expected} at line{place}")
}

/// Whether a string in valid JSON has an escaped NUL. An unescaped NUL would not be valid JSON.
fn has_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let escape = &rest[at + 1..];
        if escape.starts_with(b"u0000") {
            return true;
        }
        // Skip the escaped character, which may be a backslash.
        rest = escape.get(1..).unwrap_or_default();
    }
    false
}

fn must_be_json(headers: &HeaderMap) -> Result<(), Failure> {
    let is_json = headers.get(header::CONTENT_TYPE).is_none_or(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    });
    if is_json {
        return Ok(());
    }
    Err(Failure::invalid_request_as(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the content type must be application/json",
    ))
}

/// The caller's `Idempotency-Key`. A malformed one is 400.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Failure> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=255).contains(&key.len()));
    key.map(Some)
        .ok_or_else(|| Failure::invalid_request("Idempotency-Key: must be 1 to 255 printable characters"))
}

fn idempotency(principal: &Principal, parts: &Parts, body: &[u8]) -> Result<Option<IdempotencyKey>, Failure> {
    let Some(key) = idempotency_key(&parts.headers)? else { return Ok(None) };
    let actor = principal.actor.id.as_deref().and_then(|id| Uuid::try_parse(id).ok());
    let actor = actor.ok_or_else(|| Failure::fault("an admin token without an id"))?;
    let request_hash = Sha256::new()
        .chain_update(parts.method.as_str())
        .chain_update([0])
        .chain_update(parts.uri.path())
        .chain_update([0])
        .chain_update(body)
        .finalize()
        .into();
    Ok(Some(IdempotencyKey { actor, key: key.to_owned(), request_hash }))
}

/// 201 with the new object, or with the stored answer for a repetition.
pub fn created<T: Rendered>(answer: Answer<T>) -> Response {
    let json = HeaderValue::from_static("application/json");
    (StatusCode::CREATED, [(header::CONTENT_TYPE, json)], Body::from(answer.into_body())).into_response()
}

/// JSON of a value that always serialises.
pub fn json_bytes(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("views hold only strings, numbers and lists")
}

/// 200 with the object's version as its `ETag`.
pub fn versioned(version: i64, body: impl serde::Serialize) -> Response {
    let etag = HeaderValue::from_str(&format!("\"{version}\"")).expect("digits in quotes are a header value");
    ([(header::ETAG, etag)], axum::Json(body)).into_response()
}

/// The versions in `If-Match`: `*`, or tags in a list (RFC 9110 13.1.1).
pub struct IfMatch(pub Versions);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let lines = parts.headers.get_all(header::IF_MATCH).iter();
        let tags: Vec<_> =
            lines.flat_map(|line| line.to_str().unwrap_or_default().split(',')).map(str::trim).collect();
        if tags.is_empty() || tags == ["*"] {
            return Ok(Self(None));
        }
        // A text that is not one of our tags matches no version.
        Ok(Self(Some(tags.iter().filter_map(|tag| tag.trim_matches('"').parse().ok()).collect())))
    }
}
