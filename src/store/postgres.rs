//! Connections to PostgreSQL: made to a primary that takes writes and to no other node, and given up as
//! soon as there is a reason to doubt them.

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

/// A connection idle for longer than this is asked whether it is alive, and to a primary, before it is
/// used. A busy one is not: that would be a round trip for each batch.
const CHECK_AFTER_IDLE: Duration = Duration::from_secs(1);

/// How long that may take: a network may swallow the question.
const CHECK_LIMIT: Duration = Duration::from_secs(1);

/// A connection older than this is replaced.
const AGE_MAX: Duration = Duration::from_mins(30);

/// Between attempts to reach a server that is about to come back.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// How much longer than the server itself we wait for it to end a statement, before its connection is
/// given up as dead.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

/// Reads the database URL again, from the file that it came from; `None` if it cannot be read now.
pub type ReadAgain = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Where connections come from. All pools share it.
pub(super) struct Source {
    servers: RwLock<Arc<Servers>>,
    url: RwLock<String>,
    read_again: Option<ReadAgain>,
    pub(super) timeout: Duration,
    pub(super) outages: Arc<Outages>,
    began: Instant,
    /// Connections used last before this are not used again; in microseconds since `began`.
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

    /// Gives up every connection that was used last at `at` or before.
    pub(super) fn distrust(&self, at: Instant) {
        self.distrusted.fetch_max(self.micros(at) + 1, Ordering::Relaxed);
    }

    /// Takes up a URL that is another one by now; whether it is.
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
                tracing::error!("the database URL is now of another engine: it is not taken up");
                false
            }
            Err(error) => {
                tracing::error!(%error, "the database URL is not taken up");
                false
            }
        }
    }

    /// Connects, and waits for a server that is about to come back, as long as a call may wait.
    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let deadline = Instant::now() + self.timeout;
        let mut pause = PAUSE_FIRST;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match timeout(left, self.try_all()).await {
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

    /// The first server that takes writes; else why the last one did not do.
    async fn try_all(&self) -> Result<PgConnection, sqlx::Error> {
        let servers = Arc::clone(&self.servers.read().unwrap_or_else(PoisonError::into_inner));
        // One that swallows packets leaves time for the others.
        let share = self.timeout / u32::try_from(servers.each.len()).unwrap_or(1).max(1);
        let limit = servers.connect_timeout.map_or(share, |limit| limit.min(self.timeout));
        let mut failed = fault::no_answer();
        for server in &servers.each {
            match timeout(limit, writable(server, self.timeout)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = fault::no_answer(),
            }
        }
        Err(failed)
    }
}

async fn writable(server: &PgConnectOptions, timeout: Duration) -> Result<PgConnection, sqlx::Error> {
    let mut connection = PgConnection::connect_with(&server.clone().options(limits(timeout))).await?;
    check_writable(&mut connection).await?;
    Ok(connection)
}

/// On for a standby, and for a primary that was told to be read-only.
async fn check_writable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row = connection.fetch_one("show transaction_read_only").await?;
    if row.try_get::<String, _>(0)? == "on" { Err(fault::read_only()) } else { Ok(()) }
}

/// What the server is to end by itself, as it does for a caller that has gone.
fn limits(timeout: Duration) -> [(&'static str, String); 3] {
    let millis = timeout.as_millis().to_string();
    [
        ("statement_timeout", millis.clone()),
        ("lock_timeout", millis),
        ("idle_in_transaction_session_timeout", (timeout * 2).as_millis().to_string()),
    ]
}

/// Makes and checks the connections of one pool.
pub(super) struct Connections(Arc<Source>);

impl Manager for Connections {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        self.0.connect().await
    }

    async fn recycle(
        &self,
        connection: &mut PgConnection,
        metrics: &Metrics,
    ) -> Result<(), RecycleError<sqlx::Error>> {
        let source = &self.0;
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
        // Whatever befell it has befallen those as well that were left alone for longer. The one used
        // last is tried first, so this is found out once.
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

/// Whose connections are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// Issue, refresh, introspection and verification of tokens.
    Hot,
    /// Management, console, audit trail and jobs.
    Rest,
}

/// As many batches as may run at a time: more connections the hot path has no use for.
const HOT_MAX: usize = 14;

impl Postgres {
    /// `connections_max` is for both pools together. A single connection they share.
    pub(super) fn new(source: Source, connections_max: u32) -> Result<Self, StoreError> {
        let source = Arc::new(source);
        let total = connections_max.max(1) as usize;
        let for_hot = total.div_ceil(2).min(HOT_MAX);
        let hot = pool(&source, for_hot)?;
        let rest = if total == 1 { hot.clone() } else { pool(&source, total - for_hot)? };
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

    /// Open connections, and how many of them have nothing to do.
    pub(super) fn state(&self, lane: Lane) -> (u64, u64) {
        let status = self.lane(lane).status();
        (status.size as u64, status.available.min(status.size) as u64)
    }

    /// Closes those that nobody uses; the others close when they come back.
    pub(super) async fn close(&self) {
        for pool in [&self.hot, &self.rest] {
            for connection in pool.retain(|_, _| false).removed {
                // It is gone either way.
                let _ = timeout(CHECK_LIMIT, connection.close()).await;
            }
            pool.close();
        }
    }
}

/// What is used last is used next: a pool that is larger than needed leaves its tail alone, and whatever
/// has cut off an idle connection is found out at the youngest.
fn pool(source: &Arc<Source>, size: usize) -> Result<Pool<Connections>, StoreError> {
    let config = PoolConfig { max_size: size, queue_mode: QueueMode::Lifo, ..PoolConfig::default() };
    Pool::builder(Connections(Arc::clone(source)))
        .config(config)
        .build()
        .map_err(|error| StoreError::Query(sqlx::Error::Configuration(error.into())))
}

pub(super) type Pooled = Object<Connections>;
