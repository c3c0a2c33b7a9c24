//! Opens the database of either engine, and provides connections.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::Make;
use super::driver::{Around, Connection, Engine, Tx};
use super::error::StoreError;
use super::outage::Outages;
use super::postgres::{Lane, Postgres, ReadAgain, Source};
use super::sqlite_file;
use super::url::Target;
use super::wal::{self, Checkpointer};
use crate::supervise::Supervisor;

/// Connections for reading a SQLite file, in addition to the single writer.
const SQLITE_READERS: u32 = 4;

/// The state of a connection pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolState {
    pub name: &'static str,
    pub open: u64,
    pub idle: u64,
}

#[derive(Clone)]
pub(super) enum Pool {
    Postgres(Postgres),
    Sqlite { readers: SqlitePool, writer: SqlitePool, checkpointer: Checkpointer, outages: Arc<Outages> },
}

impl Pool {
    /// Opens the database at `url`. A missing SQLite file is made only if `make` says so, so that a typo does not
    /// make an empty database.
    pub(super) async fn open(
        url: &str,
        make: Make,
        connections_max: u32,
        timeout: Duration,
        read_again: Option<ReadAgain>,
        tasks: &Supervisor,
    ) -> Result<Self, StoreError> {
        let outages = Arc::default();
        match Target::parse(url)? {
            Target::Sqlite { path, creates } => {
                let may_create = make == Make::File || (creates && make == Make::Schema);
                Self::open_sqlite(&path, may_create, timeout, outages, tasks).await
            }
            Target::Postgres(servers) => {
                let source = Source::new(url, servers, read_again, timeout, outages);
                Ok(Self::Postgres(Postgres::new(source, connections_max)?))
            }
        }
    }

    async fn open_sqlite(
        path: &Path,
        may_create: bool,
        timeout: Duration,
        outages: Arc<Outages>,
        tasks: &Supervisor,
    ) -> Result<Self, StoreError> {
        if !may_create && !path.exists() {
            return Err(StoreError::NoSuchFile(path.to_owned()));
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(may_create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(timeout)
            .foreign_keys(true)
            .pragma("wal_autocheckpoint", wal::PAGES_MAX.to_string());
        sqlite_file::prepare(path, may_create)?;
        let writer = sqlite_pool(1, timeout).connect_with(options.clone()).await?;
        let options = options.create_if_missing(false);
        let readers = sqlite_pool(SQLITE_READERS, timeout).connect_with(options.clone()).await?;
        // Opened only when there is something to do. A command that only reads never needs it.
        let moving = sqlite_pool(1, timeout).connect_lazy_with(options);
        let checkpointer = Checkpointer::start(moving, writer.clone(), tasks);
        Ok(Self::Sqlite { readers, writer, checkpointer, outages })
    }

    pub(super) const fn engine(&self) -> Engine {
        match self {
            Self::Postgres(..) => Engine::Postgres,
            Self::Sqlite { .. } => Engine::Sqlite,
        }
    }

    /// A connection for reading.
    pub(super) async fn read(&self, lane: Lane) -> Result<Connection, StoreError> {
        Ok(match self {
            Self::Postgres(pools) => Connection::Postgres(pools.lease(lane).await?),
            Self::Sqlite { readers, outages, .. } => {
                Connection::Sqlite(outages.note(readers.acquire().await)?, Arc::clone(outages))
            }
        })
    }

    /// A connection for single statements that write.
    pub(super) async fn write(&self, lane: Lane) -> Result<Connection, StoreError> {
        Ok(match self {
            Self::Postgres(pools) => Connection::Postgres(pools.lease(lane).await?),
            Self::Sqlite { writer, checkpointer, outages, .. } => {
                checkpointer.note_write();
                Connection::Sqlite(outages.note(writer.acquire().await)?, Arc::clone(outages))
            }
        })
    }

    pub(super) async fn begin(&self, around: Arc<Around>) -> Result<Tx, StoreError> {
        let connection = match self {
            Self::Postgres(pools) => Connection::Postgres(pools.lease(Lane::Rest).await?.begin().await?),
            // `immediate` takes the write lock at once. A transaction that begins with a read could not
            // become a writing one while another transaction writes.
            Self::Sqlite { writer, checkpointer, outages, .. } => {
                checkpointer.note_write();
                let tx = outages.note(writer.begin_with("begin immediate").await)?;
                Connection::SqliteTx(tx, Arc::clone(outages))
            }
        };
        Ok(Tx::new(connection, around))
    }

    /// Uses the database URL from its file if it has changed, and drops the connections to the old one.
    pub(super) fn read_url_again(&self) {
        if let Self::Postgres(pools) = self
            && pools.source.read_again()
        {
            pools.source.distrust(std::time::Instant::now());
        }
    }

    pub(super) fn outages(&self) -> &Outages {
        match self {
            Self::Postgres(pools) => &pools.source.outages,
            Self::Sqlite { outages, .. } => outages,
        }
    }

    pub(super) fn state(&self) -> Vec<PoolState> {
        let of_sqlite = |name, pool: &SqlitePool| PoolState {
            name,
            open: pool.size().into(),
            idle: pool.num_idle() as u64,
        };
        let of_postgres = |name, (open, idle)| PoolState { name, open, idle };
        match self {
            Self::Postgres(pools) => vec![
                of_postgres("postgres_hot", pools.state(Lane::Hot)),
                of_postgres("postgres_rest", pools.state(Lane::Rest)),
            ],
            Self::Sqlite { readers, writer, .. } => {
                vec![of_sqlite("sqlite_readers", readers), of_sqlite("sqlite_writer", writer)]
            }
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Postgres(pools) => pools.close().await,
            Self::Sqlite { readers, writer, checkpointer, .. } => {
                checkpointer.stop().await;
                readers.close().await;
                writer.close().await;
            }
        }
    }
}

fn sqlite_pool(connections: u32, timeout: Duration) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(timeout)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}
