//! Layers in front of the console's screens: response headers, protection against posts from other sites, a
//! limit on calls per minute, and the sign-in.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::kept_form::KeptForm;
use super::{cookie, sign_in};
use crate::domain::address::network_of;
use crate::domain::admin::Role;
use crate::flows::console_session::SignedIn;
use crate::flows::error::Refused;
use crate::flows::principal::Origin;
use crate::http::Shared;
use crate::http::context::RequestContext;
use crate::http::error::Failure;

/// Allows only our own files, and no scripts or styles inside a page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
     img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Adds the headers of every answer under `/console`, including errors and files.
///
/// `is_https` says whether browsers reach the console over TLS, here or at a proxy in front.
pub fn put_headers(headers: &mut HeaderMap, is_https: bool) {
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    // `no-referrer` would make browsers send `Origin: null` with our own forms.
    set(header::REFERRER_POLICY, "same-origin");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if is_https {
        // Two years (RFC 6797). Only for this host, because we know nothing about others in its domain.
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=63072000");
    }
}

pub fn is_console(path: &str) -> bool {
    path == "/console" || path.starts_with("/console/")
}

/// Refuses requests that another site makes a browser send, in addition to the cookie's `SameSite`.
pub async fn same_site(request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if is_read || is_from_here(request.headers()) {
        return next.run(request).await;
    }
    let mut failure = Failure::invalid_request_as(
        StatusCode::FORBIDDEN,
        "a page of another site sent this form; open the console and try again there",
    );
    failure.code = "cross_site";
    failure.into_response()
}

/// Browsers say where a form was sent from, in `Sec-Fetch-Site` or `Origin`. A client that sends neither is
/// not a current browser, so another site cannot make it send a user's cookie.
fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin";
    }
    let Some(origin) = text(header::ORIGIN) else { return true };
    let host = text(header::HOST).unwrap_or_default();
    origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
}

/// Counts a call for its address, before it can cause any other work.
pub async fn counted(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    request: Request,
    next: Next,
) -> Response {
    match shared.core.limits.console_addresses.count(network_of(context.ip())) {
        Ok(()) => next.run(request).await,
        Err(secs) => Failure::too_many_calls(secs).into_response(),
    }
}

/// Redirects users who are not signed in to the sign-in page, which sends them back here.
///
/// A form that can come back is kept over the sign-in.
pub async fn signed_in(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let cookie = cookie::presented(request.headers());
    let found = match &cookie {
        Some(cookie) => shared.core.signed_in(cookie).await,
        None => Ok(None),
    };
    match found {
        Ok(Some(who)) => {
            if let Err(secs) = shared.core.limits.console_users.count(who.user.id) {
                return Failure::too_many_calls(secs).into_response();
            }
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        Ok(None) => ask_to_sign_in(&shared, request).await,
        Err(fault) => Failure::from(fault).into_response(),
    }
}

/// Refuses the pages with forms for changes to viewers. Their attempts to change something go on to the flows,
/// which refuse and record them.
pub async fn must_not_only_look(request: Request, next: Next) -> Response {
    let who = request.extensions().get::<SignedIn>();
    let only_looks = who.is_none_or(|who| who.user.role == Role::MerchantViewer);
    if only_looks && matches!(*request.method(), Method::GET | Method::HEAD) {
        return Failure::from(Refused::Forbidden("this role can only read")).into_response();
    }
    next.run(request).await
}

async fn ask_to_sign_in(shared: &Arc<Shared>, request: Request) -> Response {
    let wanted = match *request.method() {
        Method::GET => request.uri().path_and_query().map(ToString::to_string),
        // The page with the form.
        _ => referring_page(request.headers()),
    };
    let wanted = wanted.filter(|path| path != "/console").unwrap_or_default();
    if let Some(form) = KeptForm::of(shared, request).await {
        return sign_in::page_with(wanted, form).into_response();
    }
    if wanted.is_empty() {
        return Redirect::to("/console/sign-in").into_response();
    }
    let to = format!("/console/sign-in?next={}", utf8_percent_encode(&wanted, NON_ALPHANUMERIC));
    Redirect::to(&to).into_response()
}

/// The path of the page that sent this request. The sign-in only leads to pages of the console.
fn referring_page(headers: &HeaderMap) -> Option<String> {
    let referer: Uri = headers.get(header::REFERER)?.to_str().ok()?.parse().ok()?;
    referer.path_and_query().map(ToString::to_string)
}

/// Where a request comes from, for flows and the audit trail.
pub fn origin(context: &RequestContext) -> Origin {
    Origin { client_ip: context.ip(), request_id: context.request_id().to_owned() }
}
