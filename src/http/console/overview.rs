//! "Overview": what happened in the last hour, day or month, and what needs attention.

use askama::Template;
use axum::response::Response;
use serde::Deserialize;

use super::chart::{self, Chart, Column};
use super::context::MerchantContext;
use super::exchanges::{self, latency};
use super::listing::encoded;
use super::merchants::{LicenceState, licence_states};
use super::page::{Page, Screen, html};
use super::words;
use crate::domain::api_key::ApiKey;
use crate::domain::clock::Timestamp;
use crate::domain::licence::Product;
use crate::flows::figures::{Bucket, Figures, Period};
use crate::http::admin::page::Query;
use crate::http::error::Failure;

/// How many keys the overview shows: the most recently used ones.
const KEYS_SHOWN: usize = 6;

/// Show a warning if a key ends within this time.
const SOON: chrono::TimeDelta = chrono::TimeDelta::days(30);

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    page: Page,
    base: String,
    period: &'static str,
    periods: [(&'static str, &'static str); 3],
    span: &'static str,
    has_keys: bool,
    is_licensed: bool,
    issued: i64,
    refreshed: i64,
    denied: i64,
    p50: String,
    p95: String,
    calls: i64,
    /// The path of the list of this period's calls.
    denied_href: String,
    tokens: Chart,
    latency: Chart,
    rows: Vec<Row>,
    denials: Vec<Denial>,
    warnings: Vec<String>,
    licences: [LicenceState; 2],
    keys: Vec<KeyUse>,
}

/// A row of the table next to the charts.
struct Row {
    time: String,
    issued: i64,
    refreshed: i64,
    denied: i64,
    p50: String,
    p95: String,
}

struct Denial {
    why: String,
    /// The path of "API details" that lists exactly these calls.
    href: String,
    calls: i64,
    /// In percent, for the bar.
    share: i64,
}

struct KeyUse {
    name: String,
    path: String,
    used: String,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    period: String,
}

pub(super) async fn show(context: MerchantContext, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    let (period, name, span) = match asked.period.as_str() {
        "hour" => (Period::Hour, "hour", "the last hour"),
        "month" => (Period::Month, "month", "the last 30 days"),
        _ => (Period::Day, "day", "the last 24 hours"),
    };
    let core = context.context.core();
    let figures = core.figures(&context.context.principal, context.id(), period).await?;
    let keys = core.api_keys(&context.context.principal, context.id(), None, 200).await?;
    let label = |start: Timestamp| label(start, period);
    let total = |of: fn(&Bucket) -> i64| figures.buckets.iter().map(of).sum();
    let columns: Vec<Column<i64>> = figures
        .buckets
        .iter()
        .map(|one| Column {
            label: label(one.start),
            tooltip: format!("{} UTC: {} issued, {} refreshed", label(one.start), one.issued, one.refreshed),
            values: vec![one.issued, one.refreshed],
        })
        .collect();
    let latencies: Vec<Column<Option<i64>>> = figures
        .buckets
        .iter()
        .map(|one| Column {
            label: label(one.start),
            tooltip: format!(
                "{} UTC: median {}, 95th percentile {}",
                label(one.start),
                some_latency(one.p50_us),
                some_latency(one.p95_us)
            ),
            values: vec![one.p50_us, one.p95_us],
        })
        .collect();
    let listed = exchanges::path_since(&context, figures.buckets.first().map(|first| first.start));
    html(&OverviewPage {
        denied_href: format!("{listed}&denied=any"),
        page: context.page("Overview", Screen::Overview),
        base: context.path(""),
        period: name,
        periods: [("hour", "Hour"), ("day", "Day"), ("month", "Month")],
        span,
        has_keys: !keys.is_empty(),
        is_licensed: context.is_licensed(Product::ApiKeys),
        issued: total(|one| one.issued),
        refreshed: total(|one| one.refreshed),
        denied: total(|one| one.denied),
        p50: some_latency(figures.p50_us),
        p95: some_latency(figures.p95_us),
        calls: figures.calls,
        tokens: chart::bars(&format!("Tokens issued and refreshed, {span}"), &columns),
        latency: chart::lines(
            &format!("Latency, median and 95th percentile, {span}"),
            &latencies,
            &short_latency,
        ),
        rows: figures.buckets.iter().rev().filter_map(|one| row(one, period)).collect(),
        denials: denials(&figures, &listed),
        warnings: warnings(&context, &keys, &figures),
        licences: licence_states(&context.merchant, context.context.now),
        keys: recent(&context, keys),
    })
}

fn label(start: Timestamp, period: Period) -> String {
    let text = start.to_published();
    match period {
        Period::Hour | Period::Day => text[11..16].to_owned(),
        Period::Month => text[5..10].to_owned(),
    }
}

fn some_latency(micros: Option<i64>) -> String {
    micros.map_or_else(|| "\u{2013}".to_owned(), latency)
}

fn short_latency(micros: i64) -> String {
    if micros < 1000 { format!("{micros} \u{b5}s") } else { format!("{} ms", micros / 1000) }
}

fn row(bucket: &Bucket, period: Period) -> Option<Row> {
    let text = |value: Option<i64>| value.map(latency).unwrap_or_default();
    let is_empty = bucket.p50_us.is_none() && bucket.issued + bucket.refreshed + bucket.denied == 0;
    (!is_empty).then(|| Row {
        time: label(bucket.start, period),
        issued: bucket.issued,
        refreshed: bucket.refreshed,
        denied: bucket.denied,
        p50: text(bucket.p50_us),
        p95: text(bucket.p95_us),
    })
}

fn denials(figures: &Figures, listed: &str) -> Vec<Denial> {
    let most = figures.denials.first().map_or(1, |(_, calls)| (*calls).max(1));
    let denial = |(reason, calls): &(String, i64)| Denial {
        why: words::reason(reason),
        href: format!("{listed}&denied={}", encoded(reason)),
        calls: *calls,
        share: (calls * 100 / most).max(1),
    };
    figures.denials.iter().take(8).map(denial).collect()
}

fn warnings(context: &MerchantContext, keys: &[ApiKey], figures: &Figures) -> Vec<String> {
    let now = context.context.now;
    let mut warnings = Vec::new();
    for key in keys.iter().filter(|key| key.revoked_at.is_none()) {
        if let Some(end) = key.expires_at.filter(|end| now < *end && *end <= now.plus(SOON)) {
            warnings.push(format!(
                "The key \u{201c}{}\u{201d} expires {}.",
                key.name,
                words::relative(end, now)
            ));
        }
        if key.webhook_disabled_at.is_some() {
            warnings.push(format!("Webhooks of the key \u{201c}{}\u{201d} are disabled.", key.name));
        }
    }
    for client in &figures.storms {
        warnings.push(format!(
            "The client {} of the key \u{201c}{}\u{201d} started {} sessions within the last hour. It should keep its \
             refresh token and use it.",
            client.client_id, client.key_name, client.sessions
        ));
    }
    warnings
}

fn recent(context: &MerchantContext, keys: Vec<ApiKey>) -> Vec<KeyUse> {
    let now = context.context.now;
    let mut used: Vec<(Option<Timestamp>, ApiKey)> = keys
        .into_iter()
        .filter(|key| key.revoked_at.is_none())
        .map(|key| (key.secrets.iter().filter_map(|secret| secret.last_used_at).max(), key))
        .collect();
    used.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    used.truncate(KEYS_SHOWN);
    used.into_iter()
        .map(|(at, key)| KeyUse {
            path: context.path(&format!("/api-keys/{}", key.id)),
            used: at.map_or_else(|| "never used".to_owned(), |at| words::relative(at, now)),
            name: key.name,
        })
        .collect()
}
