//! Opening the database of either engine, and handing out connections.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, PgPool, SqlitePool};
use tokio::sync::Notify;

use super::driver::{Connection, Engine, Tx};
use super::error::StoreError;
use super::lease::Lease;
use super::sqlite_file;
use super::wal::{self, Checkpointer};
use crate::supervise::Supervisor;

/// Connections that read a SQLite file side by side; the one writer is apart.
const SQLITE_READERS: u32 = 4;

/// A connection idle for longer than this is asked whether it is alive before it is used. A busy one
/// is not: that would be a round trip for each batch.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);

/// How much longer than the server itself we wait for it to end a statement, before its connection is
/// given up as dead.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

/// A pool of connections at this moment.
#[derive(Clone, Copy, Debug)]
pub struct PoolState {
    pub name: &'static str,
    pub open: u64,
    pub idle: u64,
}

#[derive(Clone)]
pub(super) enum Pool {
    /// With how long a statement may take.
    Postgres(PgPool, Duration),
    Sqlite {
        readers: SqlitePool,
        writer: SqlitePool,
        checkpointer: Checkpointer,
    },
}

impl Pool {
    /// Opens the database at `url`. A SQLite file that is not there is made only where `may_create`,
    /// or where the URL itself says `mode=rwc`: a typing error must not become an empty database.
    pub(super) async fn open(
        url: &str,
        may_create: bool,
        connections_max: u32,
        timeout: Duration,
        tasks: &Supervisor,
    ) -> Result<Self, StoreError> {
        if url.starts_with("sqlite:") {
            Self::open_sqlite(url, may_create, timeout, tasks).await
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Self::open_postgres(url, connections_max, timeout).await
        } else {
            Err(StoreError::UnknownScheme)
        }
    }

    async fn open_postgres(url: &str, connections_max: u32, timeout: Duration) -> Result<Self, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(timeout)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > PING_AFTER_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(postgres_options(url)?.options(limits(timeout)))
            .await?;
        Ok(Self::Postgres(pool, timeout + CANCEL_GRACE))
    }

    async fn open_sqlite(
        url: &str,
        may_create: bool,
        timeout: Duration,
        tasks: &Supervisor,
    ) -> Result<Self, StoreError> {
        let mut options = SqliteConnectOptions::from_str(url)
            .map_err(|_| StoreError::BadUrl)?
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(timeout)
            .foreign_keys(true)
            .pragma("wal_autocheckpoint", wal::PAGES_MAX.to_string());
        let path = options.get_filename().to_owned();
        // Not of the whole URL: a directory may have any name.
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let is_in_memory = url.starts_with("sqlite::memory:") || query.contains("mode=memory");
        if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" || is_in_memory {
            // Each connection would have a database of its own.
            return Err(StoreError::InMemory);
        }
        if may_create {
            options = options.create_if_missing(true);
        }
        if !may_create && !query.contains("mode=rwc") && !path.exists() {
            return Err(StoreError::NoSuchFile(path));
        }
        sqlite_file::prepare(&path, may_create || query.contains("mode=rwc"))?;
        let writer = sqlite_pool(1, timeout).connect_with(options.clone()).await?;
        let options = options.create_if_missing(false);
        let readers = sqlite_pool(SQLITE_READERS, timeout).connect_with(options.clone()).await?;
        // Opened when there is something to do: a command that only looks at the database has nothing.
        let moving = sqlite_pool(1, timeout).connect_lazy_with(options);
        let checkpointer = Checkpointer::start(moving, writer.clone(), tasks);
        Ok(Self::Sqlite { readers, writer, checkpointer })
    }

    pub(super) const fn engine(&self) -> Engine {
        match self {
            Self::Postgres(..) => Engine::Postgres,
            Self::Sqlite { .. } => Engine::Sqlite,
        }
    }

    /// A connection for reading.
    pub(super) async fn read(&self) -> Result<Connection, StoreError> {
        Ok(match self {
            Self::Postgres(pool, limit) => Connection::Postgres(Lease::new(pool.acquire().await?, *limit)),
            Self::Sqlite { readers, .. } => Connection::Sqlite(readers.acquire().await?),
        })
    }

    /// A connection for single statements that write.
    pub(super) async fn write(&self) -> Result<Connection, StoreError> {
        Ok(match self {
            Self::Postgres(pool, limit) => Connection::Postgres(Lease::new(pool.acquire().await?, *limit)),
            Self::Sqlite { writer, checkpointer, .. } => {
                checkpointer.note_write();
                Connection::Sqlite(writer.acquire().await?)
            }
        })
    }

    /// A transaction; `published` is told of its commit if it leaves something to deliver.
    pub(super) async fn begin(&self, published: Arc<Notify>) -> Result<Tx, StoreError> {
        let connection = match self {
            Self::Postgres(pool, limit) => {
                Connection::Postgres(Lease::new(pool.acquire().await?, *limit).begin().await?)
            }
            // `immediate` takes the write lock at once; a transaction that starts by reading could
            // not be promoted while another writes.
            Self::Sqlite { writer, checkpointer, .. } => {
                checkpointer.note_write();
                Connection::SqliteTx(writer.begin_with("begin immediate").await?)
            }
        };
        Ok(Tx::new(connection, published))
    }

    pub(super) fn state(&self) -> Vec<PoolState> {
        let state = |name, open: u32, idle: usize| PoolState { name, open: open.into(), idle: idle as u64 };
        match self {
            Self::Postgres(pool, _) => vec![state("postgres", pool.size(), pool.num_idle())],
            Self::Sqlite { readers, writer, .. } => vec![
                state("sqlite_readers", readers.size(), readers.num_idle()),
                state("sqlite_writer", writer.size(), writer.num_idle()),
            ],
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Postgres(pool, _) => pool.close().await,
            Self::Sqlite { readers, writer, checkpointer } => {
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

pub(super) fn postgres_options(url: &str) -> Result<PgConnectOptions, StoreError> {
    Ok(PgConnectOptions::from_str(url).map_err(|_| StoreError::BadUrl)?.application_name("tollgate"))
}

/// What the server is to end by itself, as it does for a caller that has gone.
fn limits(timeout: Duration) -> [(&'static str, String); 3] {
    let millis = timeout.as_millis().to_string();
    [
        ("statement_timeout", millis.clone()),
        ("lock_timeout", millis.clone()),
        ("idle_in_transaction_session_timeout", (timeout * 2).as_millis().to_string()),
    ]
}
