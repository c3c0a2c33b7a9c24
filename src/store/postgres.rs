//! Connections to PostgreSQL. They are made only to a primary that accepts writes, and closed as soon as
//! there is a reason to doubt them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolConfig, PoolError, QueueMode, RecycleError};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection, Row};
use tokio::time::{sleep, timeout};

use super::error::StoreError;
use super::fault::{self, Fault, Link};
use super::lease::Lease;
use super::outage::Outages;
use super::url::{Servers, Target};

/// If a connection was idle for longer than this, we check before its next use that it is alive and its
/// server is a primary. Checking busy connections too would cost a round trip for each batch.
const CHECK_AFTER_IDLE: Duration = Duration::from_secs(1);

/// How long this check may take. A network that drops packets would never answer.
const CHECK_LIMIT: Duration = Duration::from_secs(1);

/// A connection older than this is replaced.
const AGE_MAX: Duration = Duration::from_mins(30);

/// The pauses between attempts to reach a server that is about to come back.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// The server ends slow statements itself. If it has not done so after this additional time, we close the
/// connection.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

/// Reads the database URL from its file again. `None` if it cannot be read now.
pub type ReadAgain = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Makes connections. All pools share it.
pub(super) struct Source {
    servers: RwLock<Arc<Servers>>,
    url: RwLock<String>,
    read_again: Option<ReadAgain>,
    pub(super) timeout: Duration,
    pub(super) outages: Arc<Outages>,
    began: Instant,
    /// Connections whose last use was before this time are not used again. In microseconds since `began`.
    distrusted: AtomicU64,
}

impl Source {
    pub(super) fn new(
        url: &str,
        servers: Servers,
        read_again: Option<ReadAgain>,
        timeout: Duration,
        outages: Arc<Outages>,
    ) -> Self {
        Self {
            servers: RwLock::new(Arc::new(servers)),
            url: RwLock::new(url.to_owned()),
            read_again,
            timeout,
            outages,
            began: Instant::now(),
            distrusted: AtomicU64::new(0),
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }

    /// Stops using all connections whose last use was at `at` or earlier.
    pub(super) fn distrust(&self, at: Instant) {
        self.distrusted.fetch_max(self.micros(at) + 1, Ordering::Relaxed);
    }

    /// Uses the URL from the file if it has changed. Returns whether it has.
    pub(super) fn read_again(&self) -> bool {
        let Some(url) = self.read_again.as_ref().and_then(|read| read()) else { return false };
        let mut known = self.url.write().unwrap_or_else(PoisonError::into_inner);
        if *known == url {
            return false;
        }
        match Target::parse(&url) {
            Ok(Target::Postgres(servers)) => {
                *self.servers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(servers);
                *known = url;
                tracing::info!("the database URL was read again");
                true
            }
            Ok(Target::Sqlite { .. }) => {
                tracing::error!("the new database URL is for another engine and is not used");
                false
            }
            Err(error) => {
                tracing::error!(%error, "the new database URL is not used");
                false
            }
        }
    }

    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        self.connect_for(PLANS).await
    }

    /// Connects. If the server is about to come back, waits for as long as a call may wait.
    async fn connect_for(&self, plans: Plans) -> Result<PgConnection, sqlx::Error> {
        let deadline = Instant::now() + self.timeout;
        let mut pause = PAUSE_FIRST;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match timeout(left, self.try_all(plans)).await {
                Ok(Ok(connection)) => {
                    self.outages.answered();
                    return Ok(connection);
                }
                Ok(Err(error)) => error,
                Err(_) => fault::no_answer(),
            };
            let row = fault::of(&error);
            if row.fault == Fault::LoginRefused && self.read_again() {
                continue;
            }
            self.outages.failed(row, &error);
            if !fault::may_pass(&error) || Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Connects to the first server that accepts writes. The error is that of the last server.
    async fn try_all(&self, plans: Plans) -> Result<PgConnection, sqlx::Error> {
        let servers = Arc::clone(&self.servers.read().unwrap_or_else(PoisonError::into_inner));
        // If one server drops packets, there must be time left for the others.
        let share = self.timeout / u32::try_from(servers.each.len()).unwrap_or(1).max(1);
        let limit = servers.connect_timeout.map_or(share, |limit| limit.min(self.timeout));
        let mut failed = fault::no_answer();
        for server in &servers.each {
            match timeout(limit, writable(server, self.timeout, plans)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = fault::no_answer(),
            }
        }
        Err(failed)
    }
}

async fn writable(
    server: &PgConnectOptions,
    timeout: Duration,
    plans: Plans,
) -> Result<PgConnection, sqlx::Error> {
    let options = server.clone().options(limits(timeout)).options(plans.iter().copied());
    let mut connection = PgConnection::connect_with(&options).await?;
    check_writable(&mut connection).await?;
    Ok(connection)
}

/// `transaction_read_only` is on for a standby, and for a primary that is set to read-only.
async fn check_writable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row = connection.fetch_one("show transaction_read_only").await?;
    if row.try_get::<String, _>(0)? == "on" { Err(fault::read_only()) } else { Ok(()) }
}

/// Time limits that the server enforces itself, also after the caller has gone.
fn limits(timeout: Duration) -> [(&'static str, String); 3] {
    let millis = timeout.as_millis().to_string();
    [
        ("statement_timeout", millis.clone()),
        ("lock_timeout", millis),
        ("idle_in_transaction_session_timeout", (timeout * 2).as_millis().to_string()),
    ]
}

/// Settings of the planner.
type Plans = &'static [(&'static str, &'static str)];

/// The server's own settings.
const PLANS: Plans = &[];

/// The statements of the hot path find their rows by key, so the best plan is always nested loops over indexes.
/// It is made once per connection, because planning takes longer than running. Without the other settings, a plan
/// that was made while a table was small could read all of it for as long as the connection lives.
const HOT_PLANS: Plans = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// Makes and checks the connections of one pool.
pub(super) struct Connections {
    source: Arc<Source>,
    plans: Plans,
}

impl Manager for Connections {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        self.source.connect_for(self.plans).await
    }

    async fn recycle(
        &self,
        connection: &mut PgConnection,
        metrics: &Metrics,
    ) -> Result<(), RecycleError<sqlx::Error>> {
        let source = &self.source;
        let used = metrics.recycled.unwrap_or(metrics.created);
        if source.micros(used) < source.distrusted.load(Ordering::Relaxed) || metrics.age() > AGE_MAX {
            return Err(RecycleError::message("given up"));
        }
        if used.elapsed() <= CHECK_AFTER_IDLE {
            return Ok(());
        }
        let limit = CHECK_LIMIT.min(source.timeout / 4);
        let checked = timeout(limit, check_writable(connection)).await;
        let error = match checked.unwrap_or_else(|_| Err(fault::no_answer())) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // The cause probably affects all connections that were idle for longer too. The pool tries the most
        // recently used connection first, so we find this out only once.
        let is_for_all = fault::of(&error).link == Link::CloseAll;
        source.distrust(if is_for_all { Instant::now() } else { used });
        Err(error.into())
    }
}

/// The pools of one database.
#[derive(Clone)]
pub(super) struct Postgres {
    pub(super) source: Arc<Source>,
    hot: Pool<Connections>,
    rest: Pool<Connections>,
}

/// Which pool a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// Issue, refresh, introspection and verification of tokens.
    Hot,
    /// Management, console, audit trail and jobs.
    Rest,
}

/// The most connections that the hot path can use: one for each batch that can run at a time.
const HOT_MAX: usize = 14;

impl Postgres {
    /// `connections_max` is for both pools together. If it is 1, they share the connection.
    pub(super) fn new(source: Source, connections_max: u32) -> Result<Self, StoreError> {
        let source = Arc::new(source);
        let total = connections_max.max(1) as usize;
        let for_hot = total.div_ceil(2).min(HOT_MAX);
        let hot = pool(&source, for_hot, if total == 1 { PLANS } else { HOT_PLANS })?;
        let rest = if total == 1 { hot.clone() } else { pool(&source, total - for_hot, PLANS)? };
        Ok(Self { source, hot, rest })
    }

    fn lane(&self, lane: Lane) -> &Pool<Connections> {
        match lane {
            Lane::Hot => &self.hot,
            Lane::Rest => &self.rest,
        }
    }

    pub(super) async fn lease(&self, lane: Lane) -> Result<Lease, StoreError> {
        let source = &self.source;
        let error = match timeout(source.timeout, self.lane(lane).get()).await {
            Ok(Ok(connection)) => {
                return Ok(Lease::new(connection, Arc::clone(source), source.timeout + CANCEL_GRACE));
            }
            Ok(Err(PoolError::Backend(error))) => error,
            Ok(Err(_)) => sqlx::Error::PoolClosed,
            Err(_) => sqlx::Error::PoolTimedOut,
        };
        source.outages.failed(fault::of(&error), &error);
        Err(StoreError::connecting(error))
    }

    /// The number of open connections, and of idle ones among them.
    pub(super) fn state(&self, lane: Lane) -> (u64, u64) {
        let status = self.lane(lane).status();
        (status.size as u64, status.available.min(status.size) as u64)
    }

    /// Closes idle connections. The others are closed when they are returned.
    pub(super) async fn close(&self) {
        for pool in [&self.hot, &self.rest] {
            for connection in pool.retain(|_, _| false).removed {
                // If this fails, the connection is gone anyway.
                let _ = timeout(CHECK_LIMIT, connection.close()).await;
            }
            pool.close();
        }
    }
}

/// The pool uses the most recently used connection first. So in a pool that is larger than needed, the extra
/// connections stay idle. If something cuts idle connections, we notice it at the one that was idle for the
/// shortest time.
fn pool(source: &Arc<Source>, size: usize, plans: Plans) -> Result<Pool<Connections>, StoreError> {
    let config = PoolConfig { max_size: size, queue_mode: QueueMode::Lifo, ..PoolConfig::default() };
    Pool::builder(Connections { source: Arc::clone(source), plans })
        .config(config)
        .build()
        .map_err(|error| StoreError::Query(sqlx::Error::Configuration(error.into())))
}

pub(super) type Pooled = Object<Connections>;
