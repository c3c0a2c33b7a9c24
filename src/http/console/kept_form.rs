//! A form that was sent after the session had ended. The pages of the sign-in carry it, and afterwards it comes
//! back with its values. Nothing is changed until the user sends it again.
//!
//! It is sealed for the user of the ended session. So it comes back to nobody else who signs in on this browser,
//! and nobody can make up a form for another user to send.

use std::sync::Arc;

use askama::Template;
use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use url::form_urlencoded;

use super::cookie;
use super::form::{RESTORED, is_form};
use super::page::SignedOutFrame;
use crate::domain::ids::UserId;
use crate::domain::keyring::Purpose;
use crate::flows::Core;
use crate::http::{Shared, body};

/// The routes whose forms can come back. None of these forms has a password.
const ROUTES: [&str; 14] = [
    "/console/merchants",
    "/console/people/users",
    "/console/people/tokens",
    "/console/people/users/{user}/rename",
    "/console/people/tokens/{token}/rename",
    "/console/m/{merchant}/people/users",
    "/console/m/{merchant}/people/tokens",
    "/console/m/{merchant}/people/users/{user}/rename",
    "/console/m/{merchant}/people/tokens/{token}/rename",
    "/console/m/{merchant}/account",
    "/console/m/{merchant}/account/licences/{product}",
    "/console/m/{merchant}/api-keys",
    "/console/m/{merchant}/api-keys/{key}",
    "/console/m/{merchant}/api-keys/{key}/tokens/{client}/scopes",
];

/// Longer forms are not kept.
const BYTES_MAX: usize = 8 * 1024;

/// The notice on the page of a form that has come back.
pub(super) const FORM_RESTORED: Option<&str> = Some("form-restored");

/// A form as the pages of the sign-in carry it.
#[derive(Clone, Default, Deserialize)]
pub(super) struct KeptForm {
    /// Its path and its URL-encoded fields. Empty if there is no form.
    #[serde(default, rename = "form")]
    pub(super) sealed: String,
}

impl KeptForm {
    /// The form of a request without a session, if it can come back.
    pub(super) async fn of(shared: &Arc<Shared>, request: Request) -> Option<Self> {
        let route = request.extensions().get::<MatchedPath>()?.as_str();
        if *request.method() != Method::POST || !ROUTES.contains(&route) || !is_form(request.headers()) {
            return None;
        }
        let cookie = cookie::presented(request.headers())?;
        let user = shared.core.last_user(&cookie).await.ok()??;
        let path = request.uri().path().to_owned();
        let (parts, body) = request.into_parts();
        let fields = body::read(&parts.headers, body, BYTES_MAX).await.ok()?;
        let plain = serde_json::to_vec(&(path, str::from_utf8(&fields).ok()?)).ok()?;
        let core = &shared.core;
        let sealed = core.keyring.seal(Purpose::KeptForm, user.uuid().as_bytes(), &plain, &core.entropy);
        Some(Self { sealed: URL_SAFE_NO_PAD.encode(sealed) })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.sealed.is_empty()
    }

    /// Its path and fields, if it is of this user.
    pub(super) fn opened(&self, core: &Core, user: UserId) -> Option<(String, String)> {
        let sealed = URL_SAFE_NO_PAD.decode(&self.sealed).ok()?;
        let plain = core.keyring.open(Purpose::KeptForm, user.uuid().as_bytes(), &sealed)?;
        serde_json::from_slice(&plain).ok()
    }
}

/// The page after the sign-in that brings the form back.
#[derive(Template)]
#[template(path = "resume.html")]
pub(super) struct ResumePage {
    frame: SignedOutFrame,
    path: String,
    fields: Vec<(String, String)>,
}

impl ResumePage {
    /// `path` is a path of the console.
    pub(super) fn new(path: &str, fields: &str) -> Self {
        let mut fields: Vec<(String, String)> = form_urlencoded::parse(fields.as_bytes())
            .into_owned()
            .filter(|(name, _)| name != RESTORED)
            .collect();
        fields.push((RESTORED.to_owned(), "true".to_owned()));
        Self { frame: SignedOutFrame::new(), path: path.to_owned(), fields }
    }
}
