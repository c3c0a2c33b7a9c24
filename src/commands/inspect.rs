//! `list` and `show`: print the same objects as the admin API, and create nothing.

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use tollgate::domain::admin::AdminToken;
use tollgate::domain::ids::{AdminTokenId, MerchantId, SessionId};
use tollgate::domain::merchant::Merchant;
use tollgate::flows::Core;
use tollgate::flows::principal::Principal;
use tollgate::flows::token_advice::Advice;
use tollgate::http::admin::{api_keys, body, credentials, sessions};

use super::{print, show};

/// How many objects are read at a time to find one by its name.
const PAGE: i64 = 200;

/// How a list is printed.
#[derive(Args)]
pub(crate) struct Listing {
    /// Print only the newest ones, up to this number.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
    /// Print {"items": [...]}, each as the admin API shows it.
    #[arg(long)]
    json: bool,
}

impl Listing {
    fn print<T: Serialize>(&self, items: impl Iterator<Item = T>, columns: &[&str]) -> anyhow::Result<()> {
        let items = items.map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        if self.json {
            return print(&json!({ "items": items }).to_string());
        }
        print(&table(&items, columns))
    }
}

fn table(items: &[Value], columns: &[&str]) -> String {
    let cell = |item: &Value, column: &&str| match &item[*column] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let header = columns.iter().map(|column| (*column).to_owned()).collect();
    let rows = items.iter().map(|item| columns.iter().map(|column| cell(item, column)).collect());
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The merchant with this id or name.
pub(crate) async fn merchant(core: &Core, principal: &Principal, text: &str) -> anyhow::Result<Merchant> {
    if let Ok(id) = text.parse::<MerchantId>() {
        return Ok(core.merchant(principal, id).await?);
    }
    let (mut before, mut found) = (None, Vec::new());
    loop {
        let page = core.merchants(principal, before, PAGE).await?;
        before = page.last().map(|last| last.id);
        let is_last = before.is_none();
        found.extend(page.into_iter().filter(|merchant| merchant.name == text));
        if is_last {
            break;
        }
    }
    let only = found.pop().with_context(|| format!("there is no merchant with the id or name {text:?}"))?;
    if !found.is_empty() {
        bail!("{} merchants have the name {text:?}: give the id", found.len() + 1);
    }
    Ok(only)
}

pub(crate) async fn merchants(core: &Core, principal: &Principal, listing: &Listing) -> anyhow::Result<()> {
    let found = core.merchants(principal, None, listing.limit).await?;
    listing.print(found.iter(), &["id", "name", "gateway", "status"])
}

pub(crate) async fn keys(
    core: &Core,
    principal: &Principal,
    of: &str,
    listing: &Listing,
) -> anyhow::Result<()> {
    let merchant = merchant(core, principal, of).await?.id;
    let (found, now) = (core.api_keys(principal, merchant, None, listing.limit).await?, core.now());
    let columns = ["id", "name", "environment", "status", "key_hint", "expires_at"];
    listing.print(found.iter().map(|key| api_keys::ApiKeyView::new(key, now)), &columns)
}

pub(crate) async fn credentials(
    core: &Core,
    principal: &Principal,
    key: tollgate::domain::ids::ApiKeyId,
    listing: &Listing,
) -> anyhow::Result<()> {
    let (found, now) = (core.credentials(principal, key).await?, core.now());
    let views = found.iter().map(|credential| credentials::CredentialView::new(credential, now));
    listing.print(views, &["client_id", "enabled", "last_used_at", "created_at"])
}

pub(crate) async fn users(core: &Core, principal: &Principal, listing: &Listing) -> anyhow::Result<()> {
    let found = core.users(principal, None, listing.limit).await?;
    listing.print(found.iter(), &["id", "email", "role", "merchant_id", "disabled_at"])
}

pub(crate) async fn tokens(core: &Core, principal: &Principal, listing: &Listing) -> anyhow::Result<()> {
    let found = core.admin_tokens(principal, None, listing.limit).await?;
    let advice = core.tokens_to_narrow().await?;
    let columns = ["id", "name", "role", "merchant_id", "last_used_at", "expires_at", "revoked_at", "narrow"];
    listing.print(found.iter().map(|token| marked(token, advice.get(&token.id).copied())), &columns)
}

/// A token as the admin API shows it, and why it should be narrowed.
#[derive(Serialize)]
struct MarkedToken<'a> {
    #[serde(flatten)]
    token: &'a AdminToken,
    narrow: Option<&'static str>,
}

fn marked(token: &AdminToken, advice: Option<Advice>) -> MarkedToken<'_> {
    MarkedToken { token, narrow: advice.map(<&str>::from) }
}

pub(crate) async fn token(
    core: &Core,
    principal: &Principal,
    id: AdminTokenId,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut before = None;
    loop {
        let page = core.admin_tokens(principal, before, PAGE).await?;
        let Some(last) = page.last() else { bail!("there is no such object") };
        before = Some(last.id);
        if let Some(token) = page.iter().find(|token| token.id == id) {
            return show(&body::json_bytes(token), as_json);
        }
    }
}

pub(crate) async fn sessions(
    core: &Core,
    principal: &Principal,
    of: &str,
    listing: &Listing,
) -> anyhow::Result<()> {
    let merchant = merchant(core, principal, of).await?.id;
    let (found, now) = (core.sessions(principal, merchant, None, listing.limit).await?, core.now());
    let columns = ["id", "client_id", "active", "generation", "started_at", "rotated_at", "expires_at"];
    listing.print(found.into_iter().map(|session| sessions::SessionView::new(session, now)), &columns)
}

pub(crate) async fn session(
    core: &Core,
    principal: &Principal,
    id: SessionId,
    as_json: bool,
) -> anyhow::Result<()> {
    let session = core.session(principal, id).await?;
    show(&body::json_bytes(&sessions::SessionView::new(session, core.now())), as_json)
}
