//! All SQL. Each statement is next to the function that runs it.
//!
//! Functions take a [`Connection`] or a [`Tx`]. The code that opens the transaction decides which changes
//! belong together. The hot path ([`hot`]) uses group commit and a cache of merchant records.

pub mod admin_tokens;
pub mod api_keys;
pub mod attempts;
pub mod audit;
pub mod audit_head;
pub mod backup;
pub mod batch;
pub mod call_counts;
pub mod cell;
pub mod client_activity;
pub mod clock;
pub mod columns;
pub mod console;
pub mod credentials;
pub mod deadlines;
pub mod deliveries;
pub mod delivery_log;
pub mod driver;
pub mod error;
pub mod estimates;
pub mod exchange_days;
pub mod exchanges;
pub mod fault;
pub mod figures;
pub mod hot;
pub mod idempotency;
pub mod lease;
pub mod merchants;
mod migrate;
pub mod names;
mod outage;
pub mod outbox;
pub mod pool;
pub mod postgres;
pub mod scope_use;
pub mod secrets;
pub mod sessions;
mod sqlite_file;
pub mod surplus;
pub mod sweep;
pub mod token_keys;
pub mod transfer;
pub mod url;
pub mod users;
mod wal;
pub mod webhook_secrets;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::domain::event::AuditEvent;
use crate::supervise::Supervisor;

pub use driver::{Connection, Engine, Tx};
pub use error::StoreError;
pub use pool::PoolState;

use audit_head::Sealer;
use batch::{Batcher, QueueState};
use driver::Around;
use hot::HotPath;
use pool::Pool;
use postgres::{Lane, ReadAgain};

/// Only one batch of audit events runs at a time, because the lock on the chain's head allows no more anyway.
const RECORDERS: usize = 1;

/// What to make if it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// Nothing. It is an error if the schema is not up to date.
    Nothing,
    /// The schema, or what it lacks. A SQLite file only if the URL has `mode=rwc`.
    Schema,
    /// A SQLite file as well.
    File,
}

/// Where the database is and how long a call waits for it.
pub struct Options<'a> {
    pub url: &'a str,
    pub make: Make,
    /// For PostgreSQL: the most connections, for the hot path and everything else together.
    pub connections_max: u32,
    pub timeout: Duration,
    /// The most memory for the caches of the hot path.
    pub cache_bytes_max: u64,
    /// Reads `url` again if it comes from a file.
    pub read_again: Option<ReadAgain>,
}

/// The open database.
pub struct Store {
    pool: Pool,
    timeout: Duration,
    hot: HotPath,
    records: Batcher<AuditEvent, ()>,
    around: Arc<Around>,
    tasks: Supervisor,
}

impl Store {
    /// Opens the database. Brings its schema up to date, or checks that it is. The text of an error is for the
    /// operator.
    pub async fn open(options: Options<'_>) -> Result<Self, StoreError> {
        let Options { url, make, connections_max, timeout, cache_bytes_max, read_again } = options;
        let tasks = Supervisor::default();
        let pool = Pool::open(url, make, connections_max, timeout, read_again, &tasks).await?;
        match make {
            Make::Nothing => pool.must_be_migrated().await?,
            Make::Schema | Make::File => pool.migrate().await?,
        }
        let hot = HotPath::start(&pool, timeout, cache_bytes_max, &tasks);
        let around = Arc::default();
        let records = recorder(&pool, timeout, &around, &tasks);
        Ok(Self { pool, timeout, hot, records, around, tasks })
    }

    /// From now on, appends to the audit trail seal its head.
    pub fn seal_with(&self, sealer: Sealer) {
        // This is set only once, because a store is opened for one set of token keys.
        let _ = self.around.sealer.set(Arc::new(sealer));
    }

    pub const fn engine(&self) -> Engine {
        self.pool.engine()
    }

    /// A connection for reading.
    pub async fn read(&self) -> Result<Connection, StoreError> {
        self.pool.read(Lane::Rest).await
    }

    /// A connection for single statements that write.
    pub async fn write(&self) -> Result<Connection, StoreError> {
        self.pool.write(Lane::Rest).await
    }

    pub async fn begin(&self) -> Result<Tx, StoreError> {
        self.pool.begin(Arc::clone(&self.around)).await
    }

    /// Appends an event that belongs to no change to the audit trail. All waiting events share a transaction.
    pub async fn record(&self, event: AuditEvent) -> Result<(), StoreError> {
        self.records.call(event).await
    }

    /// The state of all batch queues.
    pub fn queues(&self) -> Vec<QueueState> {
        let mut queues = self.hot.queues();
        queues.push(self.records.state("audit"));
        queues
    }

    /// Notified after this process has committed something to deliver. It stores one notification.
    pub fn published(&self) -> &Notify {
        &self.around.published
    }

    /// The state of the connection pools.
    pub fn pools(&self) -> Vec<PoolState> {
        self.pool.state()
    }

    /// How many statements this process has run.
    pub fn statements(&self) -> u64 {
        self.pool.outages().statements()
    }

    /// The background tasks of the store and of the application.
    pub const fn tasks(&self) -> &Supervisor {
        &self.tasks
    }

    pub const fn hot(&self) -> &HotPath {
        &self.hot
    }

    /// Uses the database URL from its file if it has changed.
    pub fn read_url_again(&self) {
        self.pool.read_url_again();
    }

    /// Checks that the store answers and accepts writes.
    pub async fn ping(&self) -> Result<(), StoreError> {
        // Use the pool for tokens: if only the other pool is exhausted, calls with tokens still work.
        let ping = async { self.pool.read(Lane::Hot).await?.ping().await };
        tokio::time::timeout(self.timeout, ping).await.unwrap_or(Err(StoreError::Busy))
    }

    /// Waits for running statements, then closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn recorder(
    pool: &Pool,
    timeout: Duration,
    around: &Arc<Around>,
    tasks: &Supervisor,
) -> Batcher<AuditEvent, ()> {
    let (pool, around) = (pool.clone(), Arc::clone(around));
    Batcher::start(RECORDERS, timeout, tasks, move |events: Arc<[AuditEvent]>| {
        let (pool, around) = (pool.clone(), Arc::clone(&around));
        async move {
            let mut tx = pool.begin(around).await?;
            audit::append_all(&mut tx, &events).await?;
            tx.commit().await?;
            Ok(vec![(); events.len()])
        }
    })
}

/// Checks that a write has affected the expected number of rows.
fn touched(table: &'static str, rows: u64, expected: u64) -> Result<(), StoreError> {
    if rows == expected {
        Ok(())
    } else {
        Err(StoreError::Impossible { table, what: format!("{rows} rows written, not {expected}") })
    }
}

/// A pattern for `lower(...) like lower(...) escape '!'` that finds this text anywhere in another one. The database
/// makes both lower-case, because SQLite and Rust differ in which letters they know.
fn like(part: &str) -> String {
    format!("%{}", beginning(part))
}

/// The same for a text that begins with this one.
fn beginning(part: &str) -> String {
    let escaped = part.replace('!', "!!").replace('%', "!%").replace('_', "!_");
    format!("{escaped}%")
}
