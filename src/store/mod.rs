//! All SQL, each statement beside the function that runs it.
//!
//! Functions take a [`Connection`] or a [`Tx`]; who opens the transaction decides what belongs
//! together. The hot path ([`hot`]) goes through group commit and a cache of merchant records.

pub mod admin_tokens;
pub mod api_keys;
pub mod audit;
pub mod audit_head;
pub mod backup;
pub mod batch;
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
pub mod exchanges;
pub mod fault;
pub mod figures;
pub mod hot;
pub mod idempotency;
pub mod lease;
pub mod merchants;
mod migrate;
mod outage;
pub mod outbox;
pub mod pool;
pub mod postgres;
pub mod secrets;
pub mod sessions;
mod sqlite_file;
pub mod surplus;
pub mod sweep;
pub mod token_keys;
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

/// One batch of audit events at a time: they would wait for each other at the chain's head anyway.
const RECORDERS: usize = 1;

/// Where the database is and how long a call waits for it.
pub struct Options<'a> {
    pub url: &'a str,
    /// Whether a SQLite file that is not there is made.
    pub may_create: bool,
    /// Of PostgreSQL, for the hot path and the rest together.
    pub connections_max: u32,
    pub timeout: Duration,
    /// Reads `url` again where it is kept in a file.
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
    /// Opens the database and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError`] says in words for an operator what is wrong.
    pub async fn open(options: Options<'_>) -> Result<Self, StoreError> {
        let Options { url, may_create, connections_max, timeout, read_again } = options;
        let tasks = Supervisor::default();
        let pool = Pool::open(url, may_create, connections_max, timeout, read_again, &tasks).await?;
        pool.migrate().await?;
        let hot = HotPath::start(&pool, timeout, &tasks);
        let around = Arc::default();
        let records = recorder(&pool, timeout, &around, &tasks);
        Ok(Self { pool, timeout, hot, records, around, tasks })
    }

    /// Has the head of the audit chain sealed from now on, whoever appends to it.
    pub fn seal_with(&self, sealer: Sealer) {
        // A store is opened for one set of token keys.
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

    /// Puts an event that belongs to no change into the audit trail. All that wait share a transaction.
    pub async fn record(&self, event: AuditEvent) -> Result<(), StoreError> {
        self.records.call(event).await
    }

    /// How each queue for a batch is doing.
    pub fn queues(&self) -> Vec<QueueState> {
        let mut queues = self.hot.queues();
        queues.push(self.records.state("audit"));
        queues
    }

    /// Told whenever this process has committed something to deliver. It remembers one such commit.
    pub fn published(&self) -> &Notify {
        &self.around.published
    }

    /// How many connections are open, and how many of them have nothing to do.
    pub fn pools(&self) -> Vec<PoolState> {
        self.pool.state()
    }

    /// How many statements this process has run.
    pub fn statements(&self) -> u64 {
        self.pool.outages().statements()
    }

    /// Its own background tasks, and those of whoever uses it.
    pub const fn tasks(&self) -> &Supervisor {
        &self.tasks
    }

    pub const fn hot(&self) -> &HotPath {
        &self.hot
    }

    /// Takes up a database URL that has changed in its file.
    pub fn read_url_again(&self) {
        self.pool.read_url_again();
    }

    /// Whether the store answers now, and takes writes.
    ///
    /// # Errors
    /// [`StoreError`] when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        // As calls for tokens do: others may be short of connections without harm to these.
        let ping = async { self.pool.read(Lane::Hot).await?.ping().await };
        tokio::time::timeout(self.timeout, ping).await.unwrap_or(Err(StoreError::Busy))
    }

    /// Waits for statements under way, then closes every connection.
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

/// Reads a stored name as the enum it must be.
fn parse_name<T: std::str::FromStr>(table: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Impossible { table, what: format!("unknown name `{text}`") })
}

/// Holds a write to the number of rows it must touch.
fn touched(table: &'static str, rows: u64, expected: u64) -> Result<(), StoreError> {
    if rows == expected {
        Ok(())
    } else {
        Err(StoreError::Impossible { table, what: format!("{rows} rows written, not {expected}") })
    }
}
