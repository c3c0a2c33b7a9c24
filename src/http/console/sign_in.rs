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
use super::kept_form::{KeptForm, ResumePage};
use super::page::{SignedOutFrame, html, html_as};
use super::{cookie, words};
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

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: SignedOutFrame,
    email: String,
    next: String,
    form: KeptForm,
    error: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "sign_in_code.html")]
struct CodePage {
    frame: SignedOutFrame,
    next: String,
    form: KeptForm,
    error: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "sign_in_merchant.html")]
struct MerchantPage {
    frame: SignedOutFrame,
    next: String,
    form: KeptForm,
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
    frame: SignedOutFrame,
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
    #[serde(flatten)]
    form: KeptForm,
}

#[derive(Deserialize)]
pub(super) struct Chosen {
    user: UserId,
    sealed: String,
    #[serde(default)]
    next: String,
    #[serde(flatten)]
    form: KeptForm,
}

#[derive(Deserialize)]
pub(super) struct Code {
    code: String,
    #[serde(default)]
    next: String,
    #[serde(flatten)]
    form: KeptForm,
}

#[derive(Deserialize)]
pub(super) struct Link {
    token: String,
}

/// Where a one-time link leads: the page on which the user sets a password.
const AFTER_LINK: &str = "/console/account";

/// The text is the same for every cause, so that it does not reveal whether an account exists.
const REFUSED: &str = "The e-mail address or the password is wrong. After ten failed attempts, an account is \
     locked for 30 minutes.";
const CODE_REFUSED: &str =
    "The code is wrong or was already used. Wait for the next code, or use a recovery code.";
const COOKIE_LOST: &str = "Your browser did not keep the sign-in cookie. Use HTTPS. On this computer, Chromium and \
     Firefox also work without HTTPS.";
const CHOICE_REFUSED: &str = "This took too long, or your account has changed. Sign in again.";
const SIGNED_OUT: &str = "You were signed out. Sign in again to continue. Your form is kept.";
const LINK_REFUSED: &str = "This link has expired or was already used. Ask for a new one.";

pub(super) async fn show(Query(query): Query<Next>) -> Result<Response, Failure> {
    let error = (!query.lost.is_empty()).then_some(COOKIE_LOST);
    let form = KeptForm::default();
    html(&SignInPage { frame: SignedOutFrame::new(), email: String::new(), next: query.next, form, error })
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
        SignIn::Done(secret) => enter(&shared, &secret, &form.next, &form.form).await,
        SignIn::NeedsSecondFactor(secret) => ask_for_code(&secret, form.next, form.form),
        SignIn::Choose(choices) => ask_for_merchant(choices, form.next, form.form),
        SignIn::Refused => {
            let page = SignInPage {
                frame: SignedOutFrame::new(),
                email: form.email,
                next: form.next,
                form: form.form,
                error: Some(REFUSED),
            };
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
        SignIn::Done(secret) => enter(&shared, &secret, &form.next, &form.form).await,
        SignIn::NeedsSecondFactor(secret) => ask_for_code(&secret, form.next, form.form),
        SignIn::Choose(_) | SignIn::Refused => {
            let page = SignInPage {
                frame: SignedOutFrame::new(),
                email: String::new(),
                next: form.next,
                form: form.form,
                error: Some(CHOICE_REFUSED),
            };
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

fn ask_for_merchant(choices: Choices, next: String, form: KeptForm) -> Result<Response, Failure> {
    let row = |choice: Choice| ChoiceRow {
        user: choice.user,
        merchant: choice.merchant.unwrap_or_else(|| "The platform".to_owned()),
        role: words::role(choice.role),
    };
    html(&MerchantPage {
        frame: SignedOutFrame::new(),
        next,
        form,
        sealed: choices.sealed.expose().to_owned(),
        choices: choices.users.into_iter().map(row).collect(),
    })
}

pub(super) async fn show_code(Query(query): Query<Next>) -> Result<Response, Failure> {
    let form = KeptForm::default();
    html(&CodePage { frame: SignedOutFrame::new(), next: query.next, form, error: None })
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
        SignIn::Done(secret) => enter(&shared, &secret, &form.next, &form.form).await,
        SignIn::NeedsSecondFactor(_) | SignIn::Choose(_) | SignIn::Refused => {
            let page = CodePage {
                frame: SignedOutFrame::new(),
                next: form.next,
                form: form.form,
                error: Some(CODE_REFUSED),
            };
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

/// Only shows a button, because a mail scanner may open the link and must not use it up.
pub(super) async fn show_link(Query(link): Query<Link>) -> Result<Response, Failure> {
    html(&LinkPage { frame: SignedOutFrame::new(), token: link.token, error: None })
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
        SignIn::Done(secret) => enter(&shared, &secret, AFTER_LINK, &KeptForm::default()).await,
        SignIn::NeedsSecondFactor(secret) => {
            ask_for_code(&secret, AFTER_LINK.to_owned(), KeptForm::default())
        }
        SignIn::Choose(_) | SignIn::Refused => {
            let page =
                LinkPage { frame: SignedOutFrame::new(), token: String::new(), error: Some(LINK_REFUSED) };
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

fn ask_for_code(secret: &PlainSecret, next: String, form: KeptForm) -> Result<Response, Failure> {
    let to = format!("/console/sign-in/code?next={}", encoded(&next));
    let answer = if form.is_empty() {
        Redirect::to(&to).into_response()
    } else {
        // A redirect could not carry the form.
        html(&CodePage { frame: SignedOutFrame::new(), next, form, error: None })?
    };
    Ok(with_cookie(secret, answer))
}

async fn enter(
    shared: &Shared,
    secret: &PlainSecret,
    next: &str,
    form: &KeptForm,
) -> Result<Response, Failure> {
    let user = if form.is_empty() { None } else { shared.core.signed_in(secret).await? };
    let answer = match user.and_then(|who| form.opened(&shared.core, who.user.id)) {
        Some((path, fields)) => html(&ResumePage::new(&path, &fields))?,
        None => Redirect::to(&format!("/console/welcome?next={}", encoded(within(next)))).into_response(),
    };
    Ok(with_cookie(secret, answer))
}

fn with_cookie(secret: &PlainSecret, mut answer: Response) -> Response {
    answer.headers_mut().insert(header::SET_COOKIE, cookie::set(secret));
    answer
}

/// The sign-in page for a form that was sent without a session.
pub(super) fn page_with(next: String, form: KeptForm) -> Result<Response, Failure> {
    let error = Some(SIGNED_OUT);
    html(&SignInPage { frame: SignedOutFrame::new(), email: String::new(), next, form, error })
}

fn encoded(path: &str) -> String {
    utf8_percent_encode(path, NON_ALPHANUMERIC).to_string()
}

/// The path to redirect to, if it is a page of the console. This never leads to another site.
fn within(next: &str) -> &str {
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if next.starts_with("/console/") && is_plain { next } else { "/console" }
}
