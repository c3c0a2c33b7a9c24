//! The operations listener: health and metrics. It must not be reachable for the public.
//!
//! Counters live in the code that counts. States such as queues, pools and the outbox are read only when
//! somebody asks for the metrics.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};
use strum::VariantArray;

use super::error::Failure;
use super::exposition::{self, is_open_metrics_wanted};
use super::metrics::Labels;
use super::{Shared, around_every_call, health};
use crate::domain::clock::Timestamp;
use crate::domain::ids::SessionId;
use crate::domain::session::Earliest;
use crate::flows::Core;
use crate::jobs::sweep::{Kind, Sweeper};
use crate::store::audit_head::Head;
use crate::store::batch::QueueState;
use crate::store::estimates::{self, Backlog, SessionRows};
use crate::store::{Store, StoreError};
use crate::telemetry::lines;

/// Enough for a scraper and a few probes.
pub const CONNECTIONS_MAX: usize = 64;

/// How long a scrape waits for values from the database. If it takes longer, the answer has only the others.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics))
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(around_every_call(Arc::clone(&shared)))
        .with_state(shared)
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, Failure> {
    let in_store = match tokio::time::timeout(STORE_TIMEOUT, in_store(&shared.core)).await {
        Ok(Ok(numbers)) => Some(numbers),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the metrics have no values from the database");
            None
        }
        Err(_) => None,
    };
    let body = write(&shared, in_store).map_err(|_| Failure::fault("metrics could not be written"))?;
    let (content_type, body) = if is_open_metrics_wanted(&headers) {
        (exposition::OPEN_METRICS, body)
    } else {
        (exposition::PLAIN, exposition::plain(&body))
    };
    Ok(([(header::CONTENT_TYPE, content_type)], body).into_response())
}

/// Values from the database.
struct InStore {
    backlog: Backlog,
    rows: SessionRows,
    earliest: Earliest,
    audit_head: Head,
}

async fn in_store(core: &Core) -> Result<InStore, StoreError> {
    let mut db = core.store.read().await?;
    let floor = SessionId::first_of(core.lifetimes.dead_before(core.now()).rotated);
    Ok(InStore {
        backlog: estimates::outbox(&mut db).await?,
        rows: estimates::session_rows(&mut db).await?,
        earliest: estimates::earliest(&mut db, floor).await?,
        audit_head: core.audit_head().await?,
    })
}

fn write(shared: &Shared, in_store: Option<InStore>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tollgate");
    registry.register("build", "The program", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
    shared.metrics.register(&mut registry);
    if let Some(expires_at) = shared.tls.as_ref().and_then(|tls| tls.expires_at()) {
        let expiry = ConstGauge::new(expires_at.unix_secs());
        registry.register(
            "tls_certificate_expiry_timestamp_seconds",
            "When the TLS certificate in use expires, since 1970",
            expiry,
        );
    }
    let core = &shared.core;
    flows(core, &mut registry);
    let dropped = ConstCounter::new(shared.exchanges.dropped());
    registry.register("exchanges_dropped", "Exchange records never written", dropped);
    let unrecorded = ConstCounter::new(shared.exchanges.unrecorded());
    registry.register(
        "exchanges_unrecorded",
        "Refused calls without an exchange record, past what one address gets",
        unrecorded,
    );
    sweeper(&shared.sweeper, &mut registry);
    store(&core.store, &mut registry);
    process(&core.store, &mut registry);
    let is_up = ConstGauge::new(i64::from(in_store.is_some()));
    registry.register("store_up", "Whether the store answered when it was asked for this", is_up);
    if let Some(in_store) = in_store {
        tables(&in_store, core, &mut registry);
    }
    let mut body = String::new();
    text::encode(&mut body, &registry)?;
    Ok(body)
}

fn flows(core: &Core, registry: &mut Registry) {
    let tokens = Family::<Labels<1>, Counter>::default();
    for (outcome, count) in [
        ("issued", &core.counters.issued),
        ("refreshed", &core.counters.refreshed),
        ("repeated", &core.counters.repeated),
    ] {
        tokens.get_or_create(&[("outcome", outcome.to_owned())]).inc_by(count.get());
    }
    registry.register("token_pairs", "Pairs of tokens given out", tokens);
    let replayed = ConstCounter::new(core.counters.replayed.get());
    registry.register("replays", "Sessions ended by the replay of an earlier generation", replayed);
    if core.cell.is_some() {
        let wrong_cell = &core.counters.wrong_cell;
        let wrong = Family::<Labels<1>, Counter>::default();
        for (carried, count) in [
            ("key", &wrong_cell.key),
            ("token", &wrong_cell.token),
            ("admin_token", &wrong_cell.admin_token),
            ("id", &wrong_cell.id),
        ] {
            wrong.get_or_create(&[("carried", carried.to_owned())]).inc_by(count.get());
        }
        registry.register(
            "wrong_cell_calls",
            "Calls with something that another cell made and that is not here",
            wrong,
        );
    }
    let tracked = ConstGauge::new(core.limits.tracked() as u64);
    registry.register("limits_tracked", "Addresses, keys and clients that limits keep in memory", tracked);
}

fn sweeper(sweeper: &Sweeper, registry: &mut Registry) {
    let swept = Family::<Labels<1>, Counter>::default();
    for kind in Kind::VARIANTS {
        swept.get_or_create(&[("kind", kind.name().to_owned())]).inc_by(sweeper.removed(*kind));
    }
    registry.register(
        "swept_rows",
        "Old rows that this replica removed, or added to those of longer times",
        swept,
    );
    let walks = ConstCounter::new(sweeper.session_walks());
    if let Some(skew) = sweeper.clock().skew() {
        let skew = ConstGauge::new(skew.as_seconds_f64());
        let help = "How far the clock is ahead of the database's, in seconds";
        registry.register("clock_skew_seconds", help, skew);
    }
    registry.register("sweep_walks", "How often this replica went through all sessions of age", walks);
}

/// Metrics of the process itself.
fn process(store: &Store, registry: &mut Registry) {
    let lost = ConstCounter::new(lines::lost());
    registry.register("log_lines_lost", "Log lines that could not be written", lost);
    let restarts = Family::<Labels<1>, Counter>::default();
    let up = Family::<Labels<1>, Gauge>::default();
    for task in store.tasks().states() {
        let labels = [("task", task.name.to_owned())];
        restarts.get_or_create(&labels).inc_by(task.restarts);
        up.get_or_create(&labels).set(i64::from(task.is_up));
    }
    registry.register("task_restarts", "How often a background task failed and was restarted", restarts);
    registry.register("task_up", "Whether a background task runs", up);
}

/// Metrics of the queues and the connection pools.
fn store(store: &Store, registry: &mut Registry) {
    let depth = Family::<Labels<1>, Gauge>::default();
    let pool = Family::<Labels<2>, Gauge>::default();
    for queue in store.queues() {
        let labels = [("operation", queue.operation.to_owned())];
        depth.get_or_create(&labels).set(i64::try_from(queue.depth).unwrap_or(i64::MAX));
    }
    registry.register("queue_depth", "Calls that wait for a batch", depth);
    registry.register("batch_size", "Calls that shared a statement", BatchSizes(store.queues()));
    for state in store.pools() {
        for (kind, connections) in [("idle", state.idle), ("busy", state.open.saturating_sub(state.idle))] {
            let labels = [("pool", state.name.to_owned()), ("state", kind.to_owned())];
            pool.get_or_create(&labels).set(i64::try_from(connections).unwrap_or(i64::MAX));
        }
    }
    registry.register("pool_connections", "Connections to the database", pool);
    let looks = Family::<Labels<2>, Counter>::default();
    for cache in store.hot().caches() {
        for (result, count) in [("hit", cache.hits), ("miss", cache.misses)] {
            let labels = [("cache", cache.name.to_owned()), ("result", result.to_owned())];
            looks.get_or_create(&labels).inc_by(count);
        }
    }
    registry.register("cache_looks", "How often the cache had what was asked for", looks);
    let memory: Gauge = Gauge::default();
    memory.set(i64::try_from(store.hot().cache_bytes()).unwrap_or(i64::MAX));
    registry.register_with_unit("cache_size", "Memory that the cache takes, about", Unit::Bytes, memory);
    let statements = ConstCounter::new(store.statements());
    registry.register("store_statements", "Statements that were run in the database", statements);
}

/// One histogram for each queue. The queues update them.
#[derive(Debug)]
struct BatchSizes(Vec<QueueState>);

impl EncodeMetric for BatchSizes {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for queue in &self.0 {
            let labels = [("operation", queue.operation)];
            queue.batch_sizes.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        Histogram::TYPE
    }
}

/// Metrics from the database. They are the same on every replica.
fn tables(in_store: &InStore, core: &Core, registry: &mut Registry) {
    let InStore { backlog, rows, earliest, audit_head } = in_store;
    let now = core.now();
    let since = |time: Option<Timestamp>| {
        let micros = time.map_or(0, |time| now.since(time).num_microseconds().unwrap_or(i64::MAX));
        ConstGauge::new(micros.max(0) as f64 / 1e6)
    };
    registry.register(
        "audit_head_seq",
        "Number of the last event of the audit trail",
        ConstGauge::new(audit_head.seq),
    );
    // Metrics are floating-point numbers, and 48 bits fit without rounding.
    let start = audit_head.hash.iter().take(6).fold(0, |number, byte| number << 8 | i64::from(*byte));
    registry.register("audit_head_hash", "The first 48 bits of that event's hash", ConstGauge::new(start));
    let deliveries = ConstGauge::new(backlog.deliveries);
    registry.register("outbox_deliveries", "Webhook deliveries still to be made", deliveries);
    registry.register_with_unit(
        "outbox_age",
        "Age of the oldest webhook delivery still to be made",
        Unit::Seconds,
        since(backlog.oldest),
    );
    let session_rows = Family::<Labels<1>, Gauge>::default();
    for (kind, count) in [("live", rows.live), ("dead", rows.dead)] {
        session_rows.get_or_create(&[("state", kind.to_owned())]).set(count);
    }
    registry.register(
        "session_rows",
        "Rows of the sessions table, as the engine estimates them",
        session_rows,
    );
    registry.register_with_unit(
        "sweep_lag",
        "How long the session that ended first, of the oldest thousand in the table, has been due to go",
        Unit::Seconds,
        ConstGauge::new(core.lifetimes.dead_before(now).lag(*earliest).as_seconds_f64()),
    );
}
