//! One extractor for the three body types of the integrators' API.
//!
//! `multipart/form-data`, `application/x-www-form-urlencoded` and `application/json`. A body labelled
//! urlencoded, or not labelled, that starts with `{` is JSON: that is what `curl --data-raw '{...}'`
//! sends. The same field twice is refused in all three (RFC 6749 3.2), an empty value is one not sent.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use zeroize::Zeroizing;

use super::error::Failure;
use crate::domain::secret::PlainSecret;

/// Three secrets and a grant type need under 1 KiB; the rest is room for what others may add.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
const FIELD_BYTES_MAX: usize = 4 * 1024;
const FIELDS_MAX: usize = 32;

/// How long a body may take to arrive. It fits a few packets; slower than this is on purpose.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The fields of a body, each once. Values may be secrets: no `Debug`.
pub struct Fields(Vec<(String, Zeroizing<String>)>);

impl Fields {
    fn new() -> Self {
        Self(Vec::with_capacity(4))
    }

    fn add(&mut self, name: String, value: String) -> Result<(), Failure> {
        let value = Zeroizing::new(value);
        if self.0.len() == FIELDS_MAX {
            return Err(Failure::invalid_request(format!("more than {FIELDS_MAX} fields")));
        }
        if name.len() > FIELD_BYTES_MAX || value.len() > FIELD_BYTES_MAX {
            return Err(Failure::invalid_request(format!("{}: longer than 4 KiB", shown(&name))));
        }
        if self.0.iter().any(|(known, _)| *known == name) {
            return Err(Failure::invalid_request(format!("{}: sent twice", shown(&name))));
        }
        self.0.push((name, value));
        Ok(())
    }

    /// A field's value; `None` when it was not sent or is empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// Takes a secret out.
    pub fn take_secret(&mut self, name: &str) -> Option<PlainSecret> {
        let (_, value) = self.0.iter_mut().find(|(known, value)| known == name && !value.is_empty())?;
        Some(PlainSecret::new(std::mem::take(&mut **value)))
    }
}

/// A field's name as it may stand in an error description (RFC 6749 5.2 allows printable ASCII without
/// quote and backslash): one of ours as it is, anything else not at all.
fn shown(name: &str) -> Cow<'static, str> {
    match ["client_id", "client_secret", "refresh_token", "grant_type", "scope", "token", "token_type_hint"]
        .into_iter()
        .find(|known| *known == name)
    {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Borrowed("a field"),
    }
}

impl<S: Sync> FromRequest<S> for Fields {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let content_type = content_type(request.headers())?.map(str::to_owned);
        let body = read_body(request.into_body(), BODY_BYTES_MAX).await?;
        parse(content_type.as_deref(), body).await
    }
}

fn content_type(headers: &HeaderMap) -> Result<Option<&str>, Failure> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Failure::invalid_request("Content-Type: sent twice"));
    }
    value
        .map(|value| value.to_str().map_err(|_| Failure::invalid_request("Content-Type: not ASCII")))
        .transpose()
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// 413 when it is larger, 408 when it takes too long, 400 when it breaks off.
pub async fn read_body(body: Body, limit: usize) -> Result<Bytes, Failure> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Failure::invalid_request_as(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"))
        }
        Ok(Err(_)) => Err(Failure::invalid_request("the body breaks off")),
        Err(_) => {
            Err(Failure::invalid_request_as(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive"))
        }
    }
}

/// Parses a body as its label, or its first byte, says.
///
/// # Errors
/// 400 names what is wrong; 415 for another type.
pub async fn parse(content_type: Option<&str>, body: Bytes) -> Result<Fields, Failure> {
    let label = content_type.unwrap_or("application/x-www-form-urlencoded");
    let essence = label.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "multipart/form-data" => parse_multipart(label, body).await,
        "application/json" => parse_json(&body),
        "application/x-www-form-urlencoded" if starts_like_json(&body) => parse_json(&body),
        "application/x-www-form-urlencoded" => parse_urlencoded(&body),
        _ => Err(Failure::invalid_request_as(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the content type must be multipart/form-data, application/x-www-form-urlencoded or application/json",
        )),
    }
}

fn starts_like_json(body: &[u8]) -> bool {
    body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

/// A form-urlencoded name or value in clear; `None` when it is not UTF-8.
pub(super) fn form_decoded(text: &str) -> Option<String> {
    if !text.contains(['+', '%']) {
        return Some(text.to_owned());
    }
    percent_decode_str(&text.replace('+', " ")).decode_utf8().ok().map(Cow::into_owned)
}

fn parse_urlencoded(body: &[u8]) -> Result<Fields, Failure> {
    let not_utf8 = || Failure::invalid_request("the body is not UTF-8");
    let text = std::str::from_utf8(body).map_err(|_| not_utf8())?;
    let decode = |part: &str| form_decoded(part).ok_or_else(not_utf8);
    let mut fields = Fields::new();
    for pair in text.trim_end_matches(['\r', '\n']).split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        fields.add(decode(name)?, decode(value)?)?;
    }
    Ok(fields)
}

fn parse_json(body: &[u8]) -> Result<Fields, Failure> {
    let mut fields = Fields::new();
    let mut failure = None;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let seed = JsonFields { fields: &mut fields, failure: &mut failure };
    let parsed = seed.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (failure, parsed) {
        (Some(failure), _) => Err(failure),
        (None, Err(_)) => Err(Failure::invalid_request("the body is not a JSON object")),
        (None, Ok(())) => Ok(fields),
    }
}

/// Reads a JSON object into fields. serde's maps keep the last of two equal names; here two are an error.
struct JsonFields<'a> {
    fields: &'a mut Fields,
    failure: &'a mut Option<Failure>,
}

impl<'de> DeserializeSeed<'de> for JsonFields<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for JsonFields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let value = match map.next_value::<JsonValue>()? {
                JsonValue::Text(text) => Ok(text),
                JsonValue::Null => Ok(String::new()),
                JsonValue::Other(_) if matches!(shown(&name), Cow::Borrowed("a field")) => Ok(String::new()),
                JsonValue::Other(_) => {
                    Err(Failure::invalid_request(format!("{}: must be a string", shown(&name))))
                }
            };
            if let Err(failure) = value.and_then(|value| self.fields.add(name, value)) {
                *self.failure = Some(failure);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum JsonValue {
    Text(String),
    Null,
    Other(IgnoredAny),
}

async fn parse_multipart(label: &str, body: Bytes) -> Result<Fields, Failure> {
    let malformed = |_| Failure::invalid_request("the multipart body is malformed");
    // Two boundaries are read differently by different parsers: a way to smuggle fields past one.
    if label.to_ascii_lowercase().matches("boundary=").count() != 1 {
        return Err(Failure::invalid_request("Content-Type: one boundary is needed"));
    }
    let boundary = multer::parse_boundary(label).map_err(malformed)?;
    let stream = futures_util::stream::once(std::future::ready(Ok::<_, Infallible>(body)));
    let mut multipart = multer::Multipart::new(stream, boundary);
    let mut fields = Fields::new();
    while let Some(field) = multipart.next_field().await.map_err(malformed)? {
        let Some(name) = field.name().map(str::to_owned) else {
            return Err(Failure::invalid_request("a part has no name"));
        };
        let value = field.bytes().await.map_err(malformed)?.to_vec();
        let value = String::from_utf8(value)
            .map_err(|_| Failure::invalid_request(format!("{}: not UTF-8", shown(&name))))?;
        fields.add(name, value)?;
    }
    Ok(fields)
}
