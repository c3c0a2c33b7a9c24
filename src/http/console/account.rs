//! "Your account": password, second factor, recovery codes, other sessions.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use qrcode::{Color, EcLevel, QrCode};
use serde::Deserialize;

use super::confirm::ConfirmPage;
use super::context::UserContext;
use super::form::Form;
use super::mistakes::Mistakes;
use super::page::{Page, Screen, answered, html, html_as};
use super::words::When;
use crate::domain::secret::PlainSecret;
use crate::flows::second_factor::Enrolment;
use crate::http::admin::page::Query;
use crate::http::error::Failure;

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    page: Page,
    needs_current: bool,
    has_totp: bool,
    codes_left: i64,
    is_required_for_live: bool,
    signed_in: When,
    ends: When,
    mistakes: Mistakes,
}

#[derive(Template)]
#[template(path = "second_factor.html")]
struct EnrolPage {
    page: Page,
    qr: Qr,
    secret: String,
    sealed: String,
    needs_password: bool,
    mistakes: Mistakes,
}

#[derive(Template)]
#[template(path = "recovery_codes.html")]
struct CodesPage {
    page: Page,
    codes: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    done: Option<String>,
}

pub(super) async fn show(context: UserContext, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    let page = account_page(&context, Mistakes::default()).await?;
    html(&AccountPage { page: page.page.saying(asked.done.as_deref()), ..page })
}

async fn account_page(context: &UserContext, mistakes: Mistakes) -> Result<AccountPage, Failure> {
    let (core, who) = (context.core(), &context.who);
    Ok(AccountPage {
        page: account_frame(context, "Your account").await?,
        needs_current: !who.session.by_link,
        has_totp: who.user.has_totp,
        codes_left: core.recovery_codes_left(who.user.id).await?,
        is_required_for_live: core.console.totp_required_for_live,
        signed_in: When(who.session.created_at),
        ends: When(who.session.expires_at),
        mistakes,
    })
}

/// The page frame, with the navigation of the user's own merchant if there is one.
async fn account_frame(context: &UserContext, title: &'static str) -> Result<Page, Failure> {
    let merchant = match context.principal.merchant_id {
        Some(id) => answered(context.core().merchant(&context.principal, id).await)?.ok(),
        None => None,
    };
    Ok(Page::new(title, Screen::Account, &context.who, merchant.as_ref()))
}

async fn refused(context: &UserContext, mistakes: Mistakes) -> Result<Response, Failure> {
    let page = account_page(context, mistakes).await?;
    html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
}

#[derive(Deserialize)]
pub(super) struct NewPassword {
    #[serde(default)]
    current: String,
    password: String,
    again: String,
}

pub(super) async fn set_password(
    context: UserContext,
    Form(form): Form<NewPassword>,
) -> Result<Response, Failure> {
    if form.password != form.again {
        let words = "The two new passwords are not the same.".to_owned();
        return refused(&context, Mistakes::one("again", words)).await;
    }
    let (current, new) = (PlainSecret::new(form.current), PlainSecret::new(form.password));
    match answered(context.core().set_own_password(&context.principal, &context.who, current, new).await)? {
        Ok(()) => Ok(Redirect::to("/console/account?done=password-set").into_response()),
        Err(refusal) => refused(&context, Mistakes::with_conflict_at("current", &refusal)).await,
    }
}

pub(super) async fn end_others(context: UserContext) -> Result<Response, Failure> {
    context.core().end_other_sessions(&context.principal, &context.who).await?;
    Ok(Redirect::to("/console/account?done=others-ended").into_response())
}

pub(super) async fn enrol(context: UserContext) -> Result<Response, Failure> {
    let enrolment = context.core().begin_totp(context.who.user.id);
    html(&enrol_page(&context, &enrolment, Mistakes::default()).await?)
}

async fn enrol_page(
    context: &UserContext,
    enrolment: &Enrolment,
    mistakes: Mistakes,
) -> Result<EnrolPage, Failure> {
    let secret = enrolment.secret.to_base32();
    let account = utf8_percent_encode(&context.who.user.email, NON_ALPHANUMERIC);
    let uri = format!("otpauth://totp/Tollgate:{account}?secret={}&issuer=Tollgate", secret.expose());
    let grouped: Vec<&str> = secret
        .expose()
        .as_bytes()
        .chunks(4)
        .map(|group| std::str::from_utf8(group).expect("base32 is ASCII"))
        .collect();
    Ok(EnrolPage {
        page: account_frame(context, "Set up a second factor").await?,
        qr: Qr::of(&uri)?,
        secret: grouped.join(" "),
        sealed: hex::encode(&enrolment.sealed),
        needs_password: context.core().console.totp_required_for_live,
        mistakes,
    })
}

#[derive(Deserialize)]
pub(super) struct Confirmation {
    sealed: String,
    code: String,
    #[serde(default)]
    password: String,
}

pub(super) async fn confirm(
    context: UserContext,
    Form(form): Form<Confirmation>,
) -> Result<Response, Failure> {
    let core = context.core();
    let sealed = hex::decode(&form.sealed).unwrap_or_default();
    match answered(
        core.confirm_totp(
            &context.principal,
            &context.who,
            &sealed,
            &form.code,
            PlainSecret::new(form.password),
        )
        .await,
    )? {
        Ok(codes) => show_codes(&context, &codes).await,
        Err(refusal) => {
            // Show the same secret again, because the user may already have added it to the app.
            let Some(enrolment) = core.resume_totp(context.who.user.id, &sealed) else {
                return Ok(Redirect::to("/console/account/second-factor").into_response());
            };
            let page = enrol_page(&context, &enrolment, Mistakes::of(&refusal)).await?;
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

async fn show_codes(context: &UserContext, codes: &[PlainSecret]) -> Result<Response, Failure> {
    html(&CodesPage {
        page: account_frame(context, "Recovery codes").await?,
        codes: codes.iter().map(|code| code.expose().to_owned()).collect(),
    })
}

#[derive(Deserialize)]
pub(super) struct Code {
    code: String,
}

pub(super) async fn renew_codes(context: UserContext, Form(form): Form<Code>) -> Result<Response, Failure> {
    match answered(context.core().renew_recovery_codes(&context.principal, &context.who, &form.code).await)? {
        Ok(codes) => show_codes(&context, &codes).await,
        Err(refusal) => refused(&context, Mistakes::of(&refusal)).await,
    }
}

/// The page that asks before the second factor is removed.
pub(super) async fn confirm_remove(context: UserContext) -> Result<Response, Failure> {
    html(&remove_page(&context, Mistakes::default()).await?)
}

async fn remove_page(context: &UserContext, mistakes: Mistakes) -> Result<ConfirmPage, Failure> {
    let codes_left = context.core().recovery_codes_left(context.who.user.id).await?;
    let mut consequence =
        "You can then sign in with your password alone. Your recovery codes stop working. To have \
                           a second factor again, you must set it up again."
            .to_owned();
    if context.core().console.totp_required_for_live {
        consequence.push_str(" Without a second factor, you cannot create or rotate live keys.");
    }
    Ok(ConfirmPage {
        page: account_frame(context, "Remove the second factor").await?,
        heading: "Remove your second factor?".to_owned(),
        consequence,
        costs: vec![("Recovery codes left", codes_left.to_string())],
        hidden: Vec::new(),
        code: Some(mistakes),
        button: "Remove second factor",
        action: "/console/account/second-factor/remove".to_owned(),
        back: "/console/account".to_owned(),
    })
}

pub(super) async fn remove(context: UserContext, Form(form): Form<Code>) -> Result<Response, Failure> {
    match answered(context.core().remove_own_totp(&context.principal, &context.who, &form.code).await)? {
        Ok(()) => Ok(Redirect::to("/console/account?done=factor-removed").into_response()),
        Err(refusal) => {
            let page = remove_page(&context, Mistakes::of(&refusal)).await?;
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

/// A QR code as one SVG path with a square for each dark module.
struct Qr {
    /// Modules per side, including the quiet zone of four on each side.
    side: usize,
    path: String,
}

impl Qr {
    fn of(text: &str) -> Result<Self, Failure> {
        let code = QrCode::with_error_correction_level(text, EcLevel::M)
            .map_err(|error| Failure::fault(&error.to_string()))?;
        let width = code.width();
        let dark = code.to_colors().into_iter().enumerate().filter(|(_, color)| *color == Color::Dark);
        let path = dark.map(|(at, _)| format!("M{} {}h1v1h-1z", at % width + 4, at / width + 4)).collect();
        Ok(Self { side: width + 8, path })
    }
}
