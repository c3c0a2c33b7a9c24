//! A form that was sent after the session had ended. The pages of the sign-in carry it, and afterwards it comes
//! back with its values. Nothing is changed until the user sends it again.

use askama::Template;
use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use serde::Deserialize;
use url::form_urlencoded;

use super::form::{RESTORED, is_form};
use super::page::SignedOutFrame;
use crate::http::body;

/// The routes whose forms can come back. None of these forms has a password or another secret.
const ROUTES: [&str; 10] = [
    "/console/merchants",
    "/console/people/users",
    "/console/people/tokens",
    "/console/m/{merchant}/people/users",
    "/console/m/{merchant}/people/tokens",
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
    /// Its path. Empty if there is no form.
    #[serde(default, rename = "form_path")]
    pub(super) path: String,
    /// Its fields, URL-encoded.
    #[serde(default, rename = "form_fields")]
    pub(super) fields: String,
}

impl KeptForm {
    /// The form of a request without a session, if it can come back.
    pub(super) async fn of(request: Request) -> Option<Self> {
        let route = request.extensions().get::<MatchedPath>()?.as_str();
        if *request.method() != Method::POST || !ROUTES.contains(&route) || !is_form(request.headers()) {
            return None;
        }
        let path = request.uri().path().to_owned();
        let (parts, body) = request.into_parts();
        let fields = body::read(&parts.headers, body, BYTES_MAX).await.ok()?;
        Some(Self { path, fields: String::from_utf8(fields.to_vec()).ok()? })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.path.is_empty()
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
