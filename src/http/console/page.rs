//! The frame of every page (title, navigation, the signed-in user), and rendering a page as an answer.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::{assets, words};
use crate::domain::admin::Role;
use crate::domain::ids::MerchantId;
use crate::domain::merchant::{Merchant, MerchantStatus};
use crate::flows::console_session::SignedIn;
use crate::flows::error::{Error, Managed, Refused};
use crate::http::error::Failure;

/// The frame of a signed-in page.
pub(super) struct Page {
    pub(super) title: &'static str,
    pub(super) style: String,
    pub(super) script: String,
    pub(super) icon: String,
    pub(super) email: String,
    pub(super) role: &'static str,
    pub(super) merchant: Option<MerchantHead>,
    pub(super) sections: Vec<Section>,
    /// Shown once at the top, after something was done.
    pub(super) notice: Option<String>,
    /// The user signed in with a one-time link and has not set a password since.
    pub(super) lacks_password: bool,
}

pub(super) struct MerchantHead {
    pub(super) id: MerchantId,
    pub(super) name: String,
    pub(super) is_suspended: bool,
}

pub(super) struct Section {
    pub(super) label: &'static str,
    pub(super) items: Vec<Item>,
}

pub(super) struct Item {
    pub(super) label: &'static str,
    pub(super) href: String,
    pub(super) is_current: bool,
}

/// The screens, as the navigation names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    Overview,
    ApiKeys,
    Sessions,
    AuditTrail,
    People,
    ApiDetails,
    Webhooks,
    Merchant,
    Merchants,
    Platform,
    Tokens,
    PlatformTokens,
    Trail,
    Health,
    Account,
}

impl Page {
    pub(super) fn new(
        title: &'static str,
        screen: Screen,
        who: &SignedIn,
        merchant: Option<&Merchant>,
    ) -> Self {
        let is_operator = who.user.role == Role::Operator;
        let merchant = merchant.map(|one| MerchantHead {
            id: one.id,
            name: one.name.clone(),
            is_suspended: one.status == MerchantStatus::Suspended,
        });
        Self {
            title,
            style: assets::style_url(),
            script: assets::script_url(),
            icon: assets::icon_url(),
            email: who.user.email.clone(),
            role: words::role(who.user.role),
            sections: sections(screen, merchant.as_ref().map(|head| head.id), is_operator),
            merchant,
            notice: None,
            lacks_password: who.session.by_link && screen != Screen::Account,
        }
    }

    /// Adds the notice for the action that the redirect names.
    pub(super) fn saying(mut self, done: Option<&str>) -> Self {
        self.notice = done.and_then(words::done);
        self
    }
}

fn sections(current: Screen, merchant: Option<MerchantId>, is_operator: bool) -> Vec<Section> {
    let item = |label, screen, href| Item { label, href, is_current: screen == current };
    let mut sections = Vec::new();
    if let Some(id) = merchant {
        let at = |rest: &str| format!("/console/m/{id}{rest}");
        sections.push(Section {
            label: "Activity",
            items: vec![
                item("Overview", Screen::Overview, at("")),
                item("API details", Screen::ApiDetails, at("/api-details")),
                item("Webhooks sent", Screen::Webhooks, at("/webhooks")),
            ],
        });
        sections.push(Section {
            label: "Account security",
            items: vec![
                item("API secret key", Screen::ApiKeys, at("/api-keys")),
                item("Sessions", Screen::Sessions, at("/sessions")),
                item("Users", Screen::People, at("/people")),
                item("Admin tokens", Screen::Tokens, at("/people/tokens")),
                item("Audit trail", Screen::AuditTrail, at("/audit")),
                item("Account and licences", Screen::Merchant, at("/account")),
            ],
        });
    }
    if is_operator {
        sections.push(Section {
            label: "Platform",
            items: vec![
                item("Merchants", Screen::Merchants, "/console/merchants".to_owned()),
                item("Users", Screen::Platform, "/console/people".to_owned()),
                item("Admin tokens", Screen::PlatformTokens, "/console/people/tokens".to_owned()),
                item("Audit trail", Screen::Trail, "/console/audit".to_owned()),
                item("Health", Screen::Health, "/console/health".to_owned()),
            ],
        });
    }
    sections
}

/// The result of a form: done or refused. The page says which. A fault gets a page of its own.
pub(super) fn answered<T>(result: Managed<T>) -> Result<Result<T, Refused>, Failure> {
    match result {
        Ok(done) => Ok(Ok(done)),
        Err(Error::Refused(refused)) => Ok(Err(refused)),
        Err(fault) => Err(fault.into()),
    }
}

/// The stored answer to a form, both for the first time and for a repetition.
pub(super) fn stored<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|_| Failure::fault("a kept answer is not one to this form"))
}

/// A page as an answer. The browser must not store it, because it may show a secret and the signed-in user.
pub(super) fn html(template: &impl Template) -> Result<Response, Failure> {
    html_as(StatusCode::OK, template)
}

pub(super) fn html_as(status: StatusCode, template: &impl Template) -> Result<Response, Failure> {
    let text = template.render().map_err(|error| Failure::fault(&error.to_string()))?;
    let content_type = HeaderValue::from_static("text/html; charset=utf-8");
    Ok((status, [(header::CONTENT_TYPE, content_type)], text).into_response())
}

/// The frame of the pages before the sign-in.
pub(super) struct SignedOutFrame {
    pub(super) style: String,
    pub(super) script: String,
    pub(super) icon: String,
}

impl SignedOutFrame {
    pub(super) fn new() -> Self {
        Self { style: assets::style_url(), script: assets::script_url(), icon: assets::icon_url() }
    }
}

/// The page for an error. It has no navigation, because the user may not be signed in.
#[derive(Template)]
#[template(path = "failed.html")]
struct Failed<'a> {
    style: String,
    icon: String,
    heading: &'static str,
    words: String,
    request_id: &'a str,
}

/// The body of an error page.
pub fn failure_body(failure: &Failure, request_id: &str) -> String {
    let heading = match failure.status {
        StatusCode::NOT_FOUND => "Page not found",
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::CONFLICT => "This is not possible now",
        StatusCode::SERVICE_UNAVAILABLE => "Service unavailable",
        StatusCode::TOO_MANY_REQUESTS => "Too many requests",
        status if status.is_server_error() => "Something went wrong",
        _ => "Bad request",
    };
    let page = Failed {
        style: assets::style_url(),
        icon: assets::icon_url(),
        heading,
        words: words::sentence(&failure.description),
        request_id,
    };
    page.render().unwrap_or_else(|_| heading.to_owned())
}
