//! The extractor for bodies of the integrators' API.
//!
//! It accepts `multipart/form-data`, `application/x-www-form-urlencoded` and `application/json`. A body that
//! is marked as urlencoded or not marked at all, but starts with `{`, is read as JSON, because `curl
//! --data-raw '{...}'` sends that. A field that is sent twice is refused in all three (RFC 6749 3.2). An
//! empty value counts as not sent.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use percent_encoding::percent_decode;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use zeroize::Zeroizing;

use super::body;
use super::error::Failure;
use super::head::HEAD_BYTES_MAX;
use crate::domain::parameters::{self, is_token};
use crate::domain::secret::PlainSecret;

/// Three secrets and a grant type need less than 1 KiB. The rest is for additional fields that clients send.
pub const BODY_BYTES_MAX: usize = 16 * 1024;

/// A service passes on the token that its own caller sent in a head. It may fill the head, and percent-encoding makes it
/// three times as long.
pub const BODY_OF_SERVICE_BYTES_MAX: usize = BODY_BYTES_MAX + 3 * HEAD_BYTES_MAX;

const FIELD_BYTES_MAX: usize = 4 * 1024;
const FIELDS_MAX: usize = 32;

/// This field has a token that somebody else gave to the caller. If it cannot be one of our tokens, that is
/// not the caller's mistake: it is a token that is not active (RFC 7662 2.2, RFC 7009 2.2).
const TOKEN: &str = "token";

const CREDENTIALS: [&str; 3] = ["client_id", "client_secret", "refresh_token"];

/// The fields of a body, each once. It has no `Debug`, because values may be secrets.
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
        let is_token = name == TOKEN;
        if name.len() > FIELD_BYTES_MAX || value.len() > FIELD_BYTES_MAX && !is_token {
            return Err(Failure::invalid_request(format!("{}: longer than 4 KiB", shown(&name))));
        }
        if self.0.iter().any(|(known, _)| *known == name) {
            return Err(Failure::invalid_request(format!("{}: sent twice", shown(&name))));
        }
        // A NUL in a credential is refused later, with the credentials, so that it counts as a failure.
        let is_judged_later = is_token || CREDENTIALS.contains(&name.as_str());
        if name.contains('\0') || value.contains('\0') && !is_judged_later {
            return Err(Failure::invalid_request(format!("{}: has a NUL character in it", shown(&name))));
        }
        self.0.push((name, value));
        Ok(())
    }

    /// The fields of a body of at most `limit` bytes.
    pub async fn of(request: Request, limit: usize) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let body = body::read(&parts.headers, body, limit).await?;
        labelled(&parts.headers, body).await
    }

    /// A field's value. `None` if it was not sent or is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// Removes a secret from the fields and returns it.
    pub fn take_secret(&mut self, name: &str) -> Option<PlainSecret> {
        let (_, value) = self.0.iter_mut().find(|(known, value)| known == name && !value.is_empty())?;
        Some(PlainSecret::new(std::mem::take(&mut **value)))
    }
}

/// A field's name for an error description. Only our own names are shown, because RFC 6749 5.2 allows only
/// printable ASCII without quotes and backslashes.
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
        Self::of(request, BODY_BYTES_MAX).await
    }
}

/// Parses a body according to its headers.
///
/// # Errors
/// Those of [`parse`], and 400 if there are two `Content-Type` headers or one that is not ASCII.
pub async fn labelled(headers: &HeaderMap, body: Bytes) -> Result<Fields, Failure> {
    parse(content_type(headers)?, body).await
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

/// Parses a body according to its content type or its first byte.
///
/// # Errors
/// 400 with the mistake, or 415 for another type.
pub async fn parse(content_type: Option<&str>, body: Bytes) -> Result<Fields, Failure> {
    let label = content_type.unwrap_or("application/x-www-form-urlencoded");
    match body::media_type(label).as_str() {
        "multipart/form-data" => parse_multipart(body::boundary(label)?, body).await,
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

/// Decodes a form-urlencoded name or value.
pub(super) fn form_decoded(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    if spaced.contains(&b'%') { percent_decode(&spaced).collect() } else { spaced }
}

/// The text of a field. Invalid UTF-8 is the caller's mistake, except in a token.
fn field_text(name: &str, value: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(value).or_else(|error| match name {
        TOKEN => Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        _ => Err(Failure::invalid_request(format!("{}: not UTF-8", shown(name)))),
    })
}

fn parse_urlencoded(body: &[u8]) -> Result<Fields, Failure> {
    body::must_have_no_mark(body)?;
    let mut fields = Fields::new();
    let end = body.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    for pair in body[..end].split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let mut half = || form_decoded(halves.next().unwrap_or_default());
        let name = field_text("", half())?;
        let value = field_text(&name, half())?;
        fields.add(name, value)?;
    }
    Ok(fields)
}

fn parse_json(body: &[u8]) -> Result<Fields, Failure> {
    body::must_have_no_mark(body)?;
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

/// Reads a JSON object into fields. serde's maps keep the last of two equal names, but here that is an error.
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
                JsonValue::Number(number) if name == "overlap_secs" => Ok(number.to_string()),
                _ if matches!(shown(&name), Cow::Borrowed("a field")) => Ok(String::new()),
                _ => Err(Failure::invalid_request(format!("{}: must be a string", shown(&name)))),
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
    Number(i64),
    Null,
    Other(IgnoredAny),
}

async fn parse_multipart(boundary: String, body: Bytes) -> Result<Fields, Failure> {
    let malformed = |_| Failure::invalid_request("the multipart body is malformed");
    let stream = futures_util::stream::once(std::future::ready(Ok::<_, Infallible>(body)));
    let mut multipart = multer::Multipart::new(stream, boundary);
    let mut fields = Fields::new();
    while let Some(part) = multipart.next_field().await.map_err(malformed)? {
        let name = part_name(part.headers())?;
        let value = field_text(&name, part.bytes().await.map_err(malformed)?.to_vec())?;
        fields.add(name, value)?;
    }
    Ok(fields)
}

/// The `name` of a part. multer is not used for this, because it also finds a name inside a quoted file name.
fn part_name(headers: &HeaderMap) -> Result<String, Failure> {
    let Some(line) = headers.get(header::CONTENT_DISPOSITION) else {
        return Err(Failure::invalid_request("a part has no Content-Disposition"));
    };
    // A file name may be in any character set. We ignore it.
    let line = String::from_utf8_lossy(line.as_bytes());
    let parameters = line.split_once(';').map_or("", |(_, parameters)| parameters);
    let Some((parameters, "")) = parameters::read(parameters, is_token) else {
        return Err(Failure::invalid_request("the Content-Disposition of a part is malformed"));
    };
    let mut named = parameters.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case("name"));
    match (named.next(), named.next()) {
        (Some((_, name)), None) => Ok(name.into_owned()),
        _ => Err(Failure::invalid_request("a part has no name, or two")),
    }
}
