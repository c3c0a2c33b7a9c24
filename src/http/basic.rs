//! Client authentication: `client_id` and `client_secret` in the body, or HTTP Basic with both
//! form-urlencoded (RFC 6749 2.3.1, RFC 7617). A request must use only one of the two.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::error::Failure;
use super::form::{Fields, form_decoded};
use crate::domain::reason::Reason;
use crate::domain::secret::PlainSecret;
use crate::flows::authorize::PresentedClient;

/// The user and password of an `Authorization: Basic` header. `None` if there is no header or another scheme.
/// Also `None` if both are empty, because some clients send that together with credentials in the body.
///
/// # Errors
/// 400 if the header is sent twice or does not follow RFC 7617.
pub fn credentials(headers: &HeaderMap) -> Result<Option<(String, PlainSecret)>, Failure> {
    let malformed = || Failure::invalid_request("Authorization: malformed");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Failure::invalid_request("Authorization: sent twice"));
    }
    let value = value.to_str().map_err(|_| malformed())?;
    let Some((scheme, rest)) = value.split_once(' ') else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(None);
    }
    let decoded = STANDARD.decode(rest.trim()).map_err(|_| malformed())?;
    let decoded = PlainSecret::new(String::from_utf8(decoded).map_err(|_| malformed())?);
    let (user, password) = decoded.expose().split_once(':').ok_or_else(malformed)?;
    if user.is_empty() && password.is_empty() {
        return Ok(None);
    }
    let decode = |text: &str| String::from_utf8(form_decoded(text.as_bytes())).map_err(|_| malformed());
    Ok(Some((decode(user)?, PlainSecret::new(decode(password)?))))
}

/// The parsed `Authorization` header, for [`client`].
pub struct Authorization {
    basic: Result<Option<(String, PlainSecret)>, Failure>,
    /// Whether the header has another scheme.
    is_other: bool,
}

impl<S: Sync> FromRequestParts<S> for Authorization {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

impl Authorization {
    pub fn of(headers: &HeaderMap) -> Self {
        let basic = credentials(headers);
        let is_other = matches!(basic, Ok(None)) && has_other_scheme(headers);
        Self { basic, is_other }
    }
}

fn has_other_scheme(headers: &HeaderMap) -> bool {
    let is_basic = |value: &HeaderValue| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"basic")
    };
    headers.get(header::AUTHORIZATION).is_some_and(|value| !is_basic(value))
}

/// The client id and secret of a request.
///
/// # Errors
/// 401 if there is no authentication at all, because some clients wait for the challenge (RFC 6749 5.2). 400
/// if a field is missing or the request uses both ways.
pub fn client(authorization: Authorization, fields: &mut Fields) -> Result<PresentedClient, Failure> {
    let in_body = fields.take_secret("client_secret");
    let client_id = fields.get("client_id").map(str::to_owned);
    match (authorization.basic?, in_body) {
        (Some(_), Some(_)) => Err(Failure::invalid_request(
            "client_secret: authenticate in the body or by HTTP Basic, not both",
        )),
        // The same client id in the body and in HTTP Basic does not count as using both ways.
        (Some((user, _)), None) if client_id.as_ref().is_some_and(|id| *id != user) => {
            Err(Failure::invalid_request("client_id: differs from the one in the Authorization header"))
        }
        (Some((user, password)), None) => Ok(PresentedClient::new(user, &password)),
        (None, None) if client_id.is_none() && !authorization.is_other => {
            Err(Failure::refused(Reason::ClientMissing))
        }
        (None, in_body) => {
            let missing = |field: &'static str| Failure::invalid_request(format!("{field}: missing"));
            let client_id = client_id.ok_or_else(|| missing("client_id"))?;
            let secret = in_body.ok_or_else(|| missing("client_secret"))?;
            Ok(PresentedClient::new(client_id, &secret))
        }
    }
}
