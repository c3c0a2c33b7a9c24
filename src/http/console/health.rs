//! The health of the service at a glance, for operators. The operations listener has the metrics.

use std::sync::atomic::Ordering;
use std::time::Instant;

use askama::Template;
use axum::response::Response;

use super::context::UserContext;
use super::exchanges::latency;
use super::page::{Page, Screen, html};
use super::words;
use crate::http::error::Failure;
use crate::store::{Engine, estimates};

#[derive(Template)]
#[template(path = "health.html")]
struct HealthPage {
    page: Page,
    is_draining: bool,
    engine: &'static str,
    store_took: String,
    issuer: String,
    sessions: i64,
    deliveries: i64,
    oldest_delivery: Option<String>,
    exchanges_dropped: u64,
    requests: usize,
    version: &'static str,
    totp_required_for_live: bool,
}

pub(super) async fn show(context: UserContext) -> Result<Response, Failure> {
    context.principal.must_be_operator()?;
    let core = context.core();
    let started = Instant::now();
    core.store.ping().await?;
    let took = i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX);
    let mut db = core.store.read().await?;
    let sessions = estimates::session_rows(&mut db).await?;
    let backlog = estimates::outbox(&mut db).await?;
    drop(db);
    html(&HealthPage {
        page: context.page("Health", Screen::Health),
        is_draining: context.shared.is_draining.load(Ordering::Relaxed),
        engine: match core.store.engine() {
            Engine::Postgres => "PostgreSQL",
            Engine::Sqlite => "SQLite",
        },
        store_took: latency(took),
        issuer: core.issuer.clone(),
        sessions: sessions.live,
        deliveries: backlog.deliveries,
        oldest_delivery: backlog.oldest.map(|oldest| words::relative(oldest, context.now)),
        exchanges_dropped: context.shared.exchanges.dropped(),
        requests: context.shared.tasks.len(),
        version: env!("CARGO_PKG_VERSION"),
        totp_required_for_live: core.console.totp_required_for_live,
    })
}
