//! The console's only cookie.
//!
//! `__Host-` restricts it to exactly this host and to HTTPS (RFC 6265bis 4.1.3.2). Chromium and Firefox also
//! accept it over plain HTTP from the same computer, so development needs no exception. From other computers,
//! nobody can sign in without TLS, which is what we want.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::domain::secret::{CONSOLE_SECRET_CHARS, PlainSecret};

const NAME: &str = "__Host-tollgate";

/// The cookie from the browser. `None` if there is none, or two with different values.
pub(super) fn presented(headers: &HeaderMap) -> Option<PlainSecret> {
    let mut values = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == NAME)
        .map(|(_, value)| value);
    let value = values.next()?;
    let is_ours = value.len() == CONSOLE_SECRET_CHARS && values.all(|other| other == value);
    is_ours.then(|| PlainSecret::new(value.to_owned()))
}

/// A `Set-Cookie` that lasts until the browser is closed. The server usually ends the session earlier.
pub(super) fn set(secret: &PlainSecret) -> HeaderValue {
    let text = format!("{NAME}={}; Path=/; Secure; HttpOnly; SameSite=Lax", secret.expose());
    let mut value = HeaderValue::from_str(&text).expect("base64url is fit for a header");
    value.set_sensitive(true);
    value
}

pub(super) fn clear() -> HeaderValue {
    HeaderValue::from_static("__Host-tollgate=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
}
