//! "API details": every call with its answer, and a sentence that says why a call was refused.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use chrono::TimeDelta;
use serde::Deserialize;
use strum::VariantArray;

use super::context::MerchantContext;
use super::form::{Form, date_field, filled, time_of};
use super::listing::{carried, encoded, next_page};
use super::page::{Page, Screen, html};
use super::words::{self, Exactly};
use crate::domain::api_key::ApiKey;
use crate::domain::clock::Timestamp;
use crate::domain::ids::ApiKeyId;
use crate::domain::reason::Reason;
use crate::flows::error::Refused;
use crate::flows::manage_keys::ApiKeyChanges;
use crate::http::admin::page::Query;
use crate::http::error::Failure;
use crate::store::exchanges::{Exchange, Filter};

#[derive(Template)]
#[template(path = "exchanges.html")]
struct ExchangesPage {
    page: Page,
    base: String,
    request_id: String,
    status: String,
    key: String,
    denied: String,
    /// Each reason with its label.
    reasons: Vec<(&'static str, &'static str)>,
    client_ip: String,
    from: String,
    to: String,
    is_filtered: bool,
    keys: Vec<(ApiKeyId, String)>,
    rows: Vec<Row>,
    next: Option<String>,
}

struct Row {
    at: Exactly,
    request_id: String,
    method: String,
    path: String,
    status: u16,
    class: &'static str,
    why: String,
    client_ip: String,
    hops: String,
    /// The path of the key, and its name.
    key_name: Option<(String, String)>,
    client_id: String,
    latency: String,
    /// Set if a button can add the address to this key's allow list.
    may_allow: Option<ApiKeyId>,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default, deserialize_with = "filled")]
    request_id: Option<String>,
    #[serde(default, deserialize_with = "filled")]
    status: Option<String>,
    #[serde(default, deserialize_with = "filled")]
    key: Option<String>,
    /// A reason, `other` for those without one, or `any`.
    #[serde(default, deserialize_with = "filled")]
    denied: Option<String>,
    #[serde(default, deserialize_with = "filled")]
    client_ip: Option<String>,
    /// Times in UTC, in RFC 3339 or as a date field sends them.
    #[serde(default, deserialize_with = "filled")]
    from: Option<String>,
    #[serde(default, deserialize_with = "filled")]
    to: Option<String>,
    cursor: Option<String>,
    done: Option<String>,
}

pub(super) async fn list(context: MerchantContext, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    let core = context.context.core();
    let filter = Filter {
        request_id: asked.request_id.clone(),
        status: asked.status.as_deref().and_then(|status| status.parse().ok()),
        api_key_id: asked.key.as_deref().and_then(|key| key.parse().ok()),
        denied: asked.denied.clone(),
        client_ip: asked.client_ip.clone(),
        from: asked.from.as_deref().and_then(time_of),
        to: asked.to.as_deref().and_then(time_of),
    };
    let wanted = context.wanted("exchanges", asked.cursor)?;
    let found = core
        .exchanges(&context.context.principal, context.id(), &filter, wanted.before, wanted.to_read())
        .await?;
    let keys = context.key_names(found.iter().filter_map(|exchange| exchange.api_key_id)).await?;
    let may_change = context.may_change();
    let listed = wanted.page(
        found,
        |exchange| exchange.id,
        |exchange| {
            let name = exchange.api_key_id.map(|id| (context.path(&format!("/api-keys/{id}")), keys.of(id)));
            let key = exchange.api_key_id.and_then(|id| keys.key(id));
            row(exchange, name, key, may_change)
        },
    );
    let text = |value: Option<String>| value.unwrap_or_default();
    let carried = carried(&[
        ("request_id", asked.request_id.as_deref()),
        ("status", asked.status.as_deref()),
        ("key", asked.key.as_deref()),
        ("denied", asked.denied.as_deref()),
        ("client_ip", asked.client_ip.as_deref()),
        ("from", asked.from.as_deref()),
        ("to", asked.to.as_deref()),
    ]);
    html(&ExchangesPage {
        page: context.page("API details", Screen::ApiDetails).saying(asked.done.as_deref()),
        base: context.path("/api-details"),
        is_filtered: !carried.is_empty(),
        request_id: text(asked.request_id),
        status: text(asked.status),
        key: text(asked.key),
        denied: text(asked.denied),
        reasons: Reason::VARIANTS.iter().map(|reason| (reason.name(), words::why(*reason))).collect(),
        client_ip: text(asked.client_ip),
        from: date_field(filter.from),
        to: date_field(filter.to),
        keys: keys.choices(),
        rows: listed.items,
        next: next_page(&carried, listed.next_cursor.as_deref()),
    })
}

/// The path of the list with the calls from `start` until now, for a link beside their number.
pub(super) fn path_since(context: &MerchantContext, start: Option<Timestamp>) -> String {
    // Links have milliseconds, and the calls of this one count too.
    let end = context.context.core().now().plus(TimeDelta::milliseconds(1)).to_rfc3339();
    let start = start.map(Timestamp::to_rfc3339).unwrap_or_default();
    format!("{}?from={}&to={}", context.path("/api-details"), encoded(&start), encoded(&end))
}

fn row(
    exchange: Exchange,
    key_name: Option<(String, String)>,
    key: Option<&ApiKey>,
    may_change: bool,
) -> Row {
    let is_outside = matches!(exchange.reason.as_deref(), Some("address_not_allowed" | "address_observed"));
    // If the address is allowed by now or the key is revoked, there is nothing to add.
    let may_allow = key.filter(|key| {
        let is_still_outside = exchange.client_ip.parse().is_ok_and(|ip| !key.allow_list.allows(ip));
        may_change && is_outside && is_still_outside && key.revoked_at.is_none()
    });
    Row {
        at: Exactly(exchange.at),
        why: words::exchange(&exchange),
        class: match exchange.status {
            0..400 if exchange.reason.is_some() => "warn",
            0..400 => "good",
            500.. => "bad",
            _ => "warn",
        },
        key_name,
        client_id: exchange.client_id.unwrap_or_default(),
        latency: latency(exchange.latency_us),
        may_allow: may_allow.map(|key| key.id),
        request_id: exchange.request_id,
        method: exchange.method,
        path: exchange.path,
        status: exchange.status,
        client_ip: exchange.client_ip,
        hops: exchange.hops.join(", "),
    }
}

/// Formats microseconds for people.
pub(super) fn latency(micros: i64) -> String {
    match micros {
        ..1000 => format!("{micros} \u{b5}s"),
        1000..100_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        _ => format!("{} ms", micros / 1000),
    }
}

#[derive(Deserialize)]
pub(super) struct Allow {
    key: ApiKeyId,
    address: String,
}

/// Adds an address to a key's current allow list, and changes nothing else.
pub(super) async fn allow(context: MerchantContext, Form(form): Form<Allow>) -> Result<Response, Failure> {
    let key = context.key(form.key).await?;
    if key.allow_list.ranges().is_empty() {
        // An empty list allows every address, so adding one would lock out all others.
        return Err(Refused::Conflict("the key works from any address already".to_owned()).into());
    }
    let mut ranges = key.allow_list.to_strings();
    ranges.push(form.address);
    let changes = ApiKeyChanges { allowed_ips: Some(ranges), ..ApiKeyChanges::default() };
    context
        .context
        .core()
        .update_api_key(&context.context.principal, key.id, Some(vec![key.version]), changes)
        .await?;
    Ok(Redirect::to(&context.path("/api-details?done=address-added")).into_response())
}
