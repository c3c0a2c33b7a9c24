//! Merchants and their licences. Operators manage them, and a merchant's own users can see them.

use std::cmp::Reverse;

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::cells::{Answers, Place, Silent};
use super::confirm::{ConfirmPage, costs};
use super::context::{MerchantContext, UserContext};
use super::form::{Form, RestorableForm, filled};
use super::kept_form::FORM_RESTORED;
use super::key_form::{chosen, day_of, end_of_day};
use super::keys::last_used_at;
use super::listing::{Listing, carried, next_page};
use super::mistakes::Mistakes;
use super::page::{Page, Screen, answered, html, html_as};
use super::words::{self, When};
use crate::domain::clock::Timestamp;
use crate::domain::ids::MerchantId;
use crate::domain::licence::{Licence, Product};
use crate::domain::merchant::{Merchant, MerchantStatus};
use crate::flows::changes::Versions;
use crate::flows::error::Refused;
use crate::flows::live::Whose;
use crate::flows::manage::check_name;
use crate::flows::manage_merchants::{self, MerchantChanges};
use crate::http::admin::page::{Page as List, PageQuery, Query, Wanted};
use crate::http::error::Failure;

const NEW_MERCHANT: &str = "new merchant";

#[derive(Template)]
#[template(path = "merchants.html")]
struct MerchantsPage {
    page: Page,
    once: String,
    spans_cells: bool,
    silent: Vec<Silent>,
    times: Vec<String>,
    rows: Vec<Row>,
    next: Option<String>,
    q: String,
    fields: MerchantFields,
    mistakes: Mistakes,
}

struct Row {
    cell: Place,
    id: MerchantId,
    name: String,
    gateway: String,
    is_suspended: bool,
    is_elsewhere: bool,
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
    let (part, before, limit) = (listing.q.as_deref(), wanted.before, wanted.to_read());
    let found = core.merchants(&context.principal, part, before, limit).await?;
    let ask = |_: &str| {
        let before = before.map(|before| before.to_string());
        let filters = carried(&[("name", part), ("before", before.as_deref())]);
        format!("/admin/v1/merchants?{filters}limit={limit}")
    };
    let Answers { answers, times, silent } = context.ask_other_cells::<List<Merchant>>(ask).await;
    let others = answers.into_iter().map(|(cell, list)| (cell, list.items));
    let row = |(cell, one): (Place, Merchant)| Row {
        cell,
        id: one.id,
        is_suspended: one.status == MerchantStatus::Suspended,
        is_elsewhere: one.is_elsewhere,
        licences: licence_states(&one, context.now),
        created: When(one.created_at),
        name: one.name,
        gateway: one.gateway,
    };
    let listed = wanted.page(of_all_cells(found, others), |(_, one)| one.id, row);
    Ok(MerchantsPage {
        page: context.page("Merchants", Screen::Merchants),
        once: context.new_once(),
        spans_cells: !context.other_cells().is_empty(),
        silent,
        times,
        rows: listed.items,
        next: next_page(&carried(&[("q", listing.q.as_deref())]), listed.next_cursor.as_deref()),
        q: listing.q.unwrap_or_default(),
        fields: MerchantFields::default(),
        mistakes: Mistakes::default(),
    })
}

/// The merchants of this cell and of others, newest first. A merchant that has moved is in the list of two cells, and
/// is shown once, where it is.
fn of_all_cells(
    here: Vec<Merchant>,
    others: impl Iterator<Item = (Place, Vec<Merchant>)>,
) -> Vec<(Place, Merchant)> {
    let lists = std::iter::once((Place::here(), here)).chain(others);
    let mut all: Vec<(Place, Merchant)> =
        lists.flat_map(|(cell, list)| list.into_iter().map(move |one| (cell.clone(), one))).collect();
    all.sort_by_key(|(_, one)| (Reverse(one.id), one.is_elsewhere));
    all.dedup_by_key(|(_, one)| one.id);
    all
}

/// The form of a merchant, new or not.
#[derive(Default, Deserialize)]
pub(super) struct MerchantFields {
    #[serde(default)]
    once: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    gateway: String,
    /// The version that the form was filled from.
    #[serde(default)]
    version: i64,
}

impl MerchantFields {
    /// What is wrong with them, as far as it can be told without the merchant.
    fn mistakes(&self) -> Mistakes {
        let mut mistakes = Mistakes::default();
        mistakes.check(check_name("name", self.name.trim()));
        mistakes.check(check_name("gateway", self.gateway.trim()));
        mistakes
    }
}

pub(super) async fn add(
    context: UserContext,
    form: RestorableForm<MerchantFields>,
) -> Result<Response, Failure> {
    let fields = form.fields;
    if form.is_restored {
        let page = merchants_page(&context, Listing::default()).await?;
        return html(&MerchantsPage { page: page.page.saying(FORM_RESTORED), fields, ..page });
    }
    let mut mistakes = fields.mistakes();
    if mistakes.is_empty() {
        let principal = context.once(&fields.once, NEW_MERCHANT, uuid::Uuid::nil());
        let (name, gateway) = (fields.name.trim().to_owned(), fields.gateway.trim().to_owned());
        let new = manage_merchants::NewMerchant { name, gateway };
        match answered(context.core().create_merchant(&principal, new).await)? {
            Ok(_) => return Ok(Redirect::to("/console/merchants?done=merchant-made").into_response()),
            Err(refusal) => mistakes = Mistakes::of(&refusal),
        }
    }
    let page = merchants_page(&context, Listing::default()).await?;
    html_as(StatusCode::UNPROCESSABLE_ENTITY, &MerchantsPage { fields, mistakes, ..page })
}

#[derive(Template)]
#[template(path = "merchant.html")]
struct MerchantPage {
    page: Page,
    base: String,
    id: MerchantId,
    fields: MerchantFields,
    is_suspended: bool,
    created: When,
    licences: [LicenceState; 2],
    is_operator: bool,
    mistakes: Mistakes,
}

fn merchant_page(context: &MerchantContext) -> MerchantPage {
    let merchant = &context.merchant;
    let fields = MerchantFields {
        once: String::new(),
        name: merchant.name.clone(),
        gateway: merchant.gateway.clone(),
        version: merchant.version(),
    };
    MerchantPage {
        page: context.page("Account and licences", Screen::Merchant),
        base: context.path("/account"),
        id: merchant.id,
        fields,
        is_suspended: merchant.status == MerchantStatus::Suspended,
        created: When(merchant.created_at),
        licences: licence_states(&context.merchant, context.context.now),
        is_operator: context.context.is_operator(),
        mistakes: Mistakes::default(),
    }
}

pub(super) async fn show(
    context: MerchantContext,
    Query(query): Query<Listing>,
) -> Result<Response, Failure> {
    let page = merchant_page(&context);
    html(&MerchantPage { page: page.page.saying(query.done.as_deref()), ..page })
}

pub(super) async fn save(
    context: MerchantContext,
    form: RestorableForm<MerchantFields>,
) -> Result<Response, Failure> {
    let fields = form.fields;
    let page = merchant_page(&context);
    if form.is_restored {
        return html(&MerchantPage { page: page.page.saying(FORM_RESTORED), fields, ..page });
    }
    let mut mistakes = fields.mistakes();
    if mistakes.is_empty() {
        let changes = MerchantChanges {
            name: Some(fields.name.trim().to_owned()),
            gateway: Some(fields.gateway.trim().to_owned()),
            status: None,
        };
        match change(&context, Some(vec![fields.version]), changes).await? {
            Ok(()) => return Ok(Redirect::to(&context.path("/account?done=saved")).into_response()),
            Err(refusal) => mistakes = Mistakes::with_conflict_at("gateway", &refusal),
        }
    }
    html_as(StatusCode::UNPROCESSABLE_ENTITY, &MerchantPage { fields, mistakes, ..page })
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
            "All calls with this account's keys are refused immediately, and its tokens are inactive \
                      until you reinstate it. Its users can still sign in and read."
                .to_owned(),
        costs: costs(context.live(Whose::Merchant).await?, used, context.context.now),
        hidden: vec![("status", <&str>::from(MerchantStatus::Suspended).to_owned())],
        code: None,
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
    match change(&context, None, changes).await? {
        Ok(()) => Ok(Redirect::to(&context.path(&format!("/account?done={done}"))).into_response()),
        Err(refusal) => refused(&context, Mistakes::of(&refusal)),
    }
}

async fn change(
    context: &MerchantContext,
    versions: Versions,
    changes: MerchantChanges,
) -> Result<Result<(), Refused>, Failure> {
    let (core, principal) = (context.context.core(), &context.context.principal);
    let changed = core.update_merchant(principal, context.id(), versions, changes).await;
    Ok(answered(changed)?.map(drop))
}

fn refused(context: &MerchantContext, mistakes: Mistakes) -> Result<Response, Failure> {
    let page = MerchantPage { mistakes, ..merchant_page(context) };
    html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
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
    form: RestorableForm<LicenceForm>,
) -> Result<Response, Failure> {
    let (fields, name) = (form.fields, <&str>::from(path.product));
    // The page as it was sent.
    let page = || {
        let mut page = merchant_page(&context);
        for licence in page.licences.iter_mut().filter(|licence| licence.name == name) {
            licence.is_active = fields.active;
            licence.last_day = fields.expires_on.clone().unwrap_or_default();
        }
        page
    };
    if form.is_restored {
        let page = page();
        return html(&MerchantPage { page: page.page.saying(FORM_RESTORED), ..page });
    }
    let (core, principal) = (context.context.core(), &context.context.principal);
    let mistakes = match fields.expires_on.as_deref().map(end_of_day).transpose() {
        Err(words) => Mistakes::one(name, words),
        Ok(expires_at) => {
            let licence = Licence { active: fields.active, expires_at };
            match answered(core.put_licence(principal, context.id(), path.product, licence).await)? {
                Ok(_) => {
                    return Ok(Redirect::to(&context.path("/account?done=licence-saved")).into_response());
                }
                Err(refusal) => Mistakes::one(name, words::refusal(&refusal)),
            }
        }
    };
    html_as(StatusCode::UNPROCESSABLE_ENTITY, &MerchantPage { mistakes, ..page() })
}
