//! Merchants and their licences. Operators manage them, and a merchant's own users can see them.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::confirm::{ConfirmPage, costs};
use super::context::{MerchantContext, UserContext};
use super::form::{Form, filled};
use super::key_form::{chosen, day_of, end_of_day};
use super::keys::last_used_at;
use super::listing::{Listing, carried, next_page};
use super::page::{Page, Screen, answered, html, html_as};
use super::words::{self, When};
use crate::domain::clock::Timestamp;
use crate::domain::ids::MerchantId;
use crate::domain::licence::{Licence, Product};
use crate::domain::merchant::{Merchant, MerchantStatus};
use crate::flows::live::Whose;
use crate::flows::manage_merchants::MerchantChanges;
use crate::http::admin::page::{PageQuery, Query, Wanted};
use crate::http::error::Failure;

const NEW_MERCHANT: &str = "new merchant";

#[derive(Template)]
#[template(path = "merchants.html")]
struct MerchantsPage {
    page: Page,
    once: String,
    rows: Vec<Row>,
    next: Option<String>,
    q: String,
    error: Option<String>,
    name: String,
    gateway: String,
}

struct Row {
    id: MerchantId,
    name: String,
    gateway: String,
    is_suspended: bool,
    licences: [LicenceState; 2],
    created: When,
}

/// The state of a licence.
pub(super) struct LicenceState {
    pub(super) product: &'static str,
    pub(super) name: &'static str,
    pub(super) label: String,
    pub(super) class: &'static str,
    pub(super) is_active: bool,
    pub(super) last_day: String,
}

/// Show a warning if a licence ends within this time.
const SOON: chrono::TimeDelta = chrono::TimeDelta::days(30);

pub(super) fn licence_states(merchant: &Merchant, now: Timestamp) -> [LicenceState; 2] {
    [Product::ApiKeys, Product::EnhancedSecurity].map(|product| {
        let licence = merchant.licences.of(product);
        let ends = licence.and_then(|licence| licence.expires_at);
        let (label, class) = match licence {
            None => ("Not licensed".to_owned(), ""),
            Some(licence) if !licence.active => ("Ended".to_owned(), "bad"),
            Some(licence) => match licence.expires_at {
                None => ("Active".to_owned(), "good"),
                Some(end) if end <= now => (format!("Expired {}", words::relative(end, now)), "bad"),
                Some(end) => {
                    let class = if end <= now.plus(SOON) { "warn" } else { "good" };
                    (format!("Active, expires {}", words::relative(end, now)), class)
                }
            },
        };
        LicenceState {
            product: words::product(product),
            name: product.into(),
            label,
            class,
            is_active: licence.is_some_and(|licence| licence.active),
            last_day: ends.map(|end| day_of(end.minus(chrono::TimeDelta::seconds(1)))).unwrap_or_default(),
        }
    })
}

pub(super) async fn list(context: UserContext, Query(query): Query<Listing>) -> Result<Response, Failure> {
    let done = query.done.clone();
    let page = merchants_page(&context, query).await?;
    html(&MerchantsPage { page: page.page.saying(done.as_deref()), ..page })
}

async fn merchants_page(context: &UserContext, listing: Listing) -> Result<MerchantsPage, Failure> {
    context.principal.must_be_operator()?;
    let core = context.core();
    let query = PageQuery { limit: None, cursor: listing.cursor };
    let wanted = Wanted::new(core, "console merchants".to_owned(), query)?;
    let (before, limit) = (wanted.before, wanted.to_read());
    let found = match &listing.q {
        Some(part) => core.merchants_named(&context.principal, part, before, limit).await?,
        None => core.merchants(&context.principal, before, limit).await?,
    };
    let row = |one: Merchant| Row {
        id: one.id,
        is_suspended: one.status == MerchantStatus::Suspended,
        licences: licence_states(&one, context.now),
        created: When(one.created_at),
        name: one.name,
        gateway: one.gateway,
    };
    let listed = wanted.page(found, |one| one.id, row);
    Ok(MerchantsPage {
        page: context.page("Merchants", Screen::Merchants),
        once: context.new_once(),
        rows: listed.items,
        next: next_page(&carried(&[("q", listing.q.as_deref())]), listed.next_cursor.as_deref()),
        q: listing.q.unwrap_or_default(),
        error: None,
        name: String::new(),
        gateway: String::new(),
    })
}

#[derive(Deserialize)]
pub(super) struct NewMerchant {
    once: String,
    name: String,
    gateway: String,
}

pub(super) async fn add(context: UserContext, Form(form): Form<NewMerchant>) -> Result<Response, Failure> {
    let principal = context.once(&form.once, NEW_MERCHANT, uuid::Uuid::nil());
    let (name, gateway) = (form.name.trim().to_owned(), form.gateway.trim().to_owned());
    let made = context.core().create_merchant(&principal, name.clone(), gateway.clone()).await;
    match answered(made)? {
        Ok(_) => Ok(Redirect::to("/console/merchants?done=merchant-made").into_response()),
        Err(refusal) => {
            let page = merchants_page(&context, Listing::default()).await?;
            let error = Some(words::refusal(&refusal));
            let page = MerchantsPage { error, name, gateway, ..page };
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

#[derive(Template)]
#[template(path = "merchant.html")]
struct MerchantPage {
    page: Page,
    base: String,
    id: MerchantId,
    name: String,
    gateway: String,
    is_suspended: bool,
    version: i64,
    created: When,
    licences: [LicenceState; 2],
    is_operator: bool,
    error: Option<String>,
}

fn merchant_page(context: &MerchantContext, error: Option<String>) -> MerchantPage {
    let merchant = &context.merchant;
    MerchantPage {
        page: context.page("Account and licences", Screen::Merchant),
        base: context.path("/account"),
        id: merchant.id,
        name: merchant.name.clone(),
        gateway: merchant.gateway.clone(),
        is_suspended: merchant.status == MerchantStatus::Suspended,
        version: merchant.version(),
        created: When(merchant.created_at),
        licences: licence_states(&context.merchant, context.context.now),
        is_operator: context.context.is_operator(),
        error,
    }
}

pub(super) async fn show(
    context: MerchantContext,
    Query(query): Query<Listing>,
) -> Result<Response, Failure> {
    let page = merchant_page(&context, None);
    html(&MerchantPage { page: page.page.saying(query.done.as_deref()), ..page })
}

#[derive(Deserialize)]
pub(super) struct Changes {
    name: String,
    gateway: String,
    version: i64,
}

pub(super) async fn save(context: MerchantContext, Form(form): Form<Changes>) -> Result<Response, Failure> {
    let changes = MerchantChanges {
        name: Some(form.name.trim().to_owned()),
        gateway: Some(form.gateway.trim().to_owned()),
        status: None,
    };
    change(&context, Some(form.version), changes, "saved").await
}

#[derive(Deserialize)]
pub(super) struct Status {
    status: String,
}

/// The page that asks before a merchant is suspended.
pub(super) async fn confirm_suspend(context: MerchantContext) -> Result<Response, Failure> {
    context.context.principal.must_be_operator()?;
    let keys = context.context.core().api_keys(&context.context.principal, context.id(), None, 200).await?;
    let used = keys.iter().filter_map(last_used_at).max();
    html(&ConfirmPage {
        page: context.page("Suspend the account", Screen::Merchant),
        heading: format!("Suspend \u{201c}{}\u{201d}?", context.merchant.name),
        consequence:
            "Every call with this account's keys is refused at once, and its tokens are inactive, until \
                      you reinstate it. Its people can still sign in and look."
                .to_owned(),
        costs: costs(context.live(Whose::Merchant).await?, used, context.context.now),
        hidden: vec![("status", <&str>::from(MerchantStatus::Suspended).to_owned())],
        button: "Suspend this account",
        action: context.path("/account/status"),
        back: context.path("/account"),
    })
}

pub(super) async fn set_status(
    context: MerchantContext,
    Form(form): Form<Status>,
) -> Result<Response, Failure> {
    let status = chosen("Status", &form.status).map_err(Failure::invalid_request)?;
    let changes = MerchantChanges { status: Some(status), ..MerchantChanges::default() };
    let done = if status == MerchantStatus::Suspended { "suspended" } else { "reinstated" };
    change(&context, None, changes, done).await
}

async fn change(
    context: &MerchantContext,
    version: Option<i64>,
    changes: MerchantChanges,
    done: &str,
) -> Result<Response, Failure> {
    match answered(
        context
            .context
            .core()
            .update_merchant(&context.context.principal, context.id(), version, changes)
            .await,
    )? {
        Ok(_) => Ok(Redirect::to(&context.path(&format!("/account?done={done}"))).into_response()),
        Err(refusal) => {
            let page = merchant_page(context, Some(words::refusal(&refusal)));
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

#[derive(Deserialize)]
pub(super) struct LicencePath {
    product: Product,
}

#[derive(Deserialize)]
pub(super) struct LicenceForm {
    #[serde(default)]
    active: bool,
    #[serde(default, deserialize_with = "filled")]
    expires_on: Option<String>,
}

pub(super) async fn put_licence(
    context: MerchantContext,
    Path(path): Path<LicencePath>,
    Form(form): Form<LicenceForm>,
) -> Result<Response, Failure> {
    let expires_at =
        form.expires_on.as_deref().map(end_of_day).transpose().map_err(Failure::invalid_request)?;
    let licence = Licence { active: form.active, expires_at };
    context
        .context
        .core()
        .put_licence(&context.context.principal, context.id(), path.product, licence)
        .await?;
    Ok(Redirect::to(&context.path("/account?done=licence-saved")).into_response())
}
