//! Signing in and out: e-mail and password, the second factor, one-time links.

use std::future::Future;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::context::UserContext;
use super::form::Form;
use super::guard::origin;
use super::page::{html, html_as};
use super::{assets, cookie, words};
use crate::domain::ids::UserId;
use crate::domain::reason::Reason;
use crate::domain::secret::PlainSecret;
use crate::flows::error::{Error, Fault};
use crate::flows::failures::Surface;
use crate::flows::sign_in::SignIn;
use crate::flows::sign_in_choice::{Choice, Choices};
use crate::http::Shared;
use crate::http::admin::page::Query;
use crate::http::context::RequestContext;
use crate::http::error::Failure;

/// The frame of the pages before the sign-in.
struct Door {
    style: String,
    script: String,
    icon: String,
}

impl Door {
    fn new() -> Self {
        Self { style: assets::style_url(), script: assets::script_url(), icon: assets::icon_url() }
    }
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    door: Door,
    email: String,
    next: String,
    error: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "sign_in_code.html")]
struct CodePage {
    door: Door,
    next: String,
    error: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "sign_in_merchant.html")]
struct MerchantPage {
    door: Door,
    next: String,
    sealed: String,
    choices: Vec<ChoiceRow>,
}

struct ChoiceRow {
    user: UserId,
    merchant: String,
    role: &'static str,
}

#[derive(Template)]
#[template(path = "sign_in_link.html")]
struct LinkPage {
    door: Door,
    token: String,
    error: Option<&'static str>,
}

#[derive(Deserialize)]
pub(super) struct Next {
    #[serde(default)]
    next: String,
    #[serde(default)]
    lost: String,
}

#[derive(Deserialize)]
pub(super) struct Password {
    email: String,
    password: String,
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub(super) struct Chosen {
    user: UserId,
    sealed: String,
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub(super) struct Code {
    code: String,
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub(super) struct Link {
    token: String,
}

/// The text is the same for every cause, so that it does not reveal whether an account exists.
const REFUSED: &str = "That e-mail address and password were not accepted. After ten failures an account is \
     locked for 30 minutes.";
const CODE_REFUSED: &str = "That code was not accepted. Each code works once; wait for the next one, or use a \
     recovery code.";
const COOKIE_LOST: &str = "Your browser did not keep the sign-in cookie. Use HTTPS, or, on this computer alone, \
     Chromium or Firefox.";
const CHOICE_REFUSED: &str = "That took too long, or your account was changed meanwhile. Sign in again.";
const LINK_REFUSED: &str = "This link has expired or was already used. Ask for a new one.";

pub(super) async fn show(Query(query): Query<Next>) -> Result<Response, Failure> {
    let error = (!query.lost.is_empty()).then_some(COOKIE_LOST);
    html(&SignInPage { door: Door::new(), email: String::new(), next: query.next, error })
}

pub(super) async fn submit(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    form: Result<Form<Password>, Failure>,
) -> Result<Response, Failure> {
    let form = tried(&shared, &context, form).await?;
    let password = PlainSecret::new(form.password);
    let origin = origin(&context);
    let attempt = shared.core.sign_in(&form.email, password, &origin);
    match counted(&shared, &context, attempt).await? {
        SignIn::Done(secret) => Ok(enter(&secret, &form.next)),
        SignIn::NeedsSecondFactor(secret) => Ok(ask_for_code(&secret, &form.next)),
        SignIn::Choose(choices) => ask_for_merchant(choices, form.next),
        SignIn::Refused => {
            let page =
                SignInPage { door: Door::new(), email: form.email, next: form.next, error: Some(REFUSED) };
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

/// As one of the users that the password was right for.
pub(super) async fn submit_merchant(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    form: Result<Form<Chosen>, Failure>,
) -> Result<Response, Failure> {
    let form = tried(&shared, &context, form).await?;
    let (sealed, origin) = (PlainSecret::new(form.sealed), origin(&context));
    let attempt = shared.core.sign_in_as(&sealed, form.user, &origin);
    match counted(&shared, &context, attempt).await? {
        SignIn::Done(secret) => Ok(enter(&secret, &form.next)),
        SignIn::NeedsSecondFactor(secret) => Ok(ask_for_code(&secret, &form.next)),
        SignIn::Choose(_) | SignIn::Refused => {
            let error = Some(CHOICE_REFUSED);
            let page = SignInPage { door: Door::new(), email: String::new(), next: form.next, error };
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

fn ask_for_merchant(choices: Choices, next: String) -> Result<Response, Failure> {
    let row = |choice: Choice| ChoiceRow {
        user: choice.user,
        merchant: choice.merchant.unwrap_or_else(|| "The platform".to_owned()),
        role: words::role(choice.role),
    };
    html(&MerchantPage {
        door: Door::new(),
        next,
        sealed: choices.sealed.expose().to_owned(),
        choices: choices.users.into_iter().map(row).collect(),
    })
}

pub(super) async fn show_code(Query(query): Query<Next>) -> Result<Response, Failure> {
    html(&CodePage { door: Door::new(), next: query.next, error: None })
}

pub(super) async fn submit_code(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    headers: HeaderMap,
    form: Result<Form<Code>, Failure>,
) -> Result<Response, Failure> {
    let form = tried(&shared, &context, form).await?;
    let Some(pending) = cookie::presented(&headers) else {
        return Ok(Redirect::to("/console/sign-in?lost=cookie").into_response());
    };
    let origin = origin(&context);
    let attempt = shared.core.sign_in_second_factor(&pending, &form.code, &origin);
    match counted(&shared, &context, attempt).await? {
        SignIn::Done(secret) => Ok(enter(&secret, &form.next)),
        SignIn::NeedsSecondFactor(_) | SignIn::Choose(_) | SignIn::Refused => {
            let page = CodePage { door: Door::new(), next: form.next, error: Some(CODE_REFUSED) };
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

/// Only shows a button, because a mail scanner may open the link and must not use it up.
pub(super) async fn show_link(Query(link): Query<Link>) -> Result<Response, Failure> {
    html(&LinkPage { door: Door::new(), token: link.token, error: None })
}

pub(super) async fn submit_link(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    form: Result<Form<Link>, Failure>,
) -> Result<Response, Failure> {
    let form = tried(&shared, &context, form).await?;
    let (link, origin) = (PlainSecret::new(form.token), origin(&context));
    let attempt = shared.core.sign_in_by_link(&link, &origin);
    match counted(&shared, &context, attempt).await? {
        SignIn::Done(secret) => Ok(enter(&secret, "")),
        SignIn::NeedsSecondFactor(secret) => Ok(ask_for_code(&secret, "")),
        SignIn::Choose(_) | SignIn::Refused => {
            let page = LinkPage { door: Door::new(), token: String::new(), error: Some(LINK_REFUSED) };
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

/// Parses the form of an attempt. A form with invalid fields counts as a failed attempt.
async fn tried<T>(
    shared: &Shared,
    context: &RequestContext,
    form: Result<Form<T>, Failure>,
) -> Result<T, Failure> {
    let failure = match form {
        Ok(Form(form)) => return Ok(form),
        Err(failure) => failure,
    };
    let Some(reason) = failure.reason.filter(|reason| reason.is_failed_authentication()) else {
        return Err(failure);
    };
    Ok(shared.core.guard(Surface::Console, context.ip(), async { Err(reason.into()) }).await?)
}

/// Runs an attempt, unless its address has too many failures. So guessing at many accounts is limited in the
/// same way as guessing keys.
async fn counted(
    shared: &Shared,
    context: &RequestContext,
    attempt: impl Future<Output = Result<SignIn, Fault>>,
) -> Result<SignIn, Failure> {
    let ip = context.ip();
    let attempt = async {
        match attempt.await? {
            SignIn::Refused => Err(Error::Refused(Reason::SignInRefused)),
            signed_in => Ok(signed_in),
        }
    };
    match shared.core.guard(Surface::Console, ip, attempt).await {
        Err(Error::Refused(Reason::SignInRefused)) => Ok(SignIn::Refused),
        decided => Ok(decided?),
    }
}

/// The first page after signing in. If there is no session, the browser did not accept the cookie. This page
/// then says so, instead of redirecting to the sign-in page again and again.
pub(super) async fn welcome(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Query(query): Query<Next>,
) -> Result<Redirect, Failure> {
    let who = match cookie::presented(&headers) {
        Some(cookie) => shared.core.signed_in(&cookie).await?,
        None => None,
    };
    Ok(match who {
        Some(_) => Redirect::to(within(&query.next)),
        None => Redirect::to("/console/sign-in?lost=cookie"),
    })
}

pub(super) async fn sign_out(context: UserContext) -> Result<Response, Failure> {
    context.core().sign_out(&context.principal, &context.who.session).await?;
    Ok(([(header::SET_COOKIE, cookie::clear())], Redirect::to("/console/sign-in")).into_response())
}

fn ask_for_code(secret: &PlainSecret, next: &str) -> Response {
    let to = format!("/console/sign-in/code?next={}", encoded(next));
    ([(header::SET_COOKIE, cookie::set(secret))], Redirect::to(&to)).into_response()
}

fn enter(secret: &PlainSecret, next: &str) -> Response {
    let to = format!("/console/welcome?next={}", encoded(within(next)));
    ([(header::SET_COOKIE, cookie::set(secret))], Redirect::to(&to)).into_response()
}

fn encoded(path: &str) -> String {
    utf8_percent_encode(path, NON_ALPHANUMERIC).to_string()
}

/// The path to redirect to, if it is a page of the console. This never leads to another site.
fn within(next: &str) -> &str {
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if next.starts_with("/console/") && is_plain { next } else { "/console" }
}
