//! Reads form bodies into a struct. Fields that the struct does not have are ignored.

use std::borrow::Cow;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use url::form_urlencoded;

use crate::domain::clock::Timestamp;
use crate::domain::reason::Reason;
use crate::http::body;
use crate::http::error::Failure;

/// A hundred address ranges and a URL need much less.
const BODY_BYTES_MAX: usize = 32 * 1024;

/// The field that marks a form that comes back after a sign-in.
pub(super) const RESTORED: &str = "restored";

pub(super) struct Form<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Form<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let form = RestorableForm::read(request).await?;
        // A form that comes back must not do anything.
        if form.is_restored {
            return Err(Failure::invalid_request("this form cannot come back; open its page again"));
        }
        Ok(Self(form.fields))
    }
}

/// A form that can come back after a sign-in. If it has, its page shows its values, and nothing is changed.
pub(super) struct RestorableForm<T> {
    pub(super) fields: T,
    pub(super) is_restored: bool,
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for RestorableForm<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        Self::read(request).await
    }
}

impl<T: DeserializeOwned> RestorableForm<T> {
    async fn read(request: Request) -> Result<Self, Failure> {
        if !is_form(request.headers()) {
            return Err(Failure::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let (parts, body) = request.into_parts();
        let body = body::read(&parts.headers, body, BODY_BYTES_MAX).await?;
        if body.contains(&0) || body.windows(3).any(|encoded| encoded == b"%00") {
            return Err(Failure::refused(Reason::NulCharacter));
        }
        let is_restored = form_urlencoded::parse(&body).any(|(name, _)| name == RESTORED);
        // Do not show the error: it would repeat the input, which may be a password.
        let fields = serde_urlencoded::from_bytes(&joined(&body))
            .map_err(|_| Failure::invalid_request("the form has a missing or duplicate field"))?;
        Ok(Self { fields, is_restored })
    }
}

pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let label = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let essence = label.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// Fields whose names end in `[]`, such as checkboxes, may occur several times. Their values are joined with
/// spaces.
fn joined(body: &[u8]) -> Vec<u8> {
    let mut fields: Vec<(Cow<'_, str>, String)> = Vec::new();
    for (name, value) in form_urlencoded::parse(body) {
        match fields.iter_mut().find(|(of, _)| name.ends_with("[]") && *of == name) {
            Some((_, values)) => {
                values.push(' ');
                values.push_str(&value);
            }
            None => fields.push((name, value.into_owned())),
        }
    }
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish().into_bytes()
}

/// Treats an empty text field as missing.
pub(super) fn filled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
}

/// A time as a date field sends it, or in RFC 3339.
pub(super) fn time_of(text: &str) -> Option<Timestamp> {
    let full = if text.len() == "2026-11-23T17:05".len() { format!("{text}:00Z") } else { text.to_owned() };
    let time = chrono::DateTime::parse_from_rfc3339(&full).ok()?;
    Some(Timestamp::from_micros(time.timestamp_micros()))
}

/// Formats a time as the value of a date field.
pub(super) fn date_field(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_rfc3339()[..16].to_owned()).unwrap_or_default()
}
