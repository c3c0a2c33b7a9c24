//! The two engines behind one face: the only file that names PostgreSQL or SQLite.
//!
//! Both take `$1`, `returning`, `on conflict`, common table expressions and `true`, so a query is one
//! text, and the engine is chosen at the connection. Four things alone carry a text per engine: the
//! group-commit statements ([`Sql`]), the engine's own statistics, the sweeper's turns, and the migrations.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{
    Arguments, Connection as _, Encode, FromRow, PgPool, Postgres, Sqlite, SqliteConnection, SqlitePool,
    Transaction, Type,
};
use tokio::sync::Notify;

use super::columns::{Column, rows_as_json};
use super::error::StoreError;
use super::lease::{Lease, in_time};

/// Connections that read a SQLite file side by side; the one writer is apart.
const SQLITE_READERS: u32 = 4;

/// A connection idle for longer than this is asked whether it is alive before it is used. A busy one
/// is not: that would be a round trip for each batch.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);

/// How much longer than the server itself we wait for it to end a statement, before its connection is
/// given up as dead.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Postgres,
    Sqlite,
}

/// A statement whose two texts differ.
pub struct Sql {
    pub postgres: &'static str,
    pub sqlite: &'static str,
}

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
    ) -> Result<Self, StoreError> {
        if url.starts_with("sqlite:") {
            Self::open_sqlite(url, may_create, timeout).await
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

    async fn open_sqlite(url: &str, may_create: bool, timeout: Duration) -> Result<Self, StoreError> {
        let mut options = SqliteConnectOptions::from_str(url)
            .map_err(|_| StoreError::BadUrl)?
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(timeout)
            .foreign_keys(true);
        let path = options.get_filename().to_owned();
        if path.as_os_str().is_empty() || url.contains(":memory:") || url.contains("mode=memory") {
            // Each connection would have a database of its own.
            return Err(StoreError::InMemory);
        }
        if may_create {
            options = options.create_if_missing(true);
        }
        if !may_create && !url.contains("mode=rwc") && !path.exists() {
            return Err(StoreError::NoSuchFile(path));
        }
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(timeout)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await?;
        protect(&path)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(SQLITE_READERS)
            .acquire_timeout(timeout)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.create_if_missing(false))
            .await?;
        Ok(Self::Sqlite { readers, writer })
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
            Self::Sqlite { writer, .. } => Connection::Sqlite(writer.acquire().await?),
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
            Self::Sqlite { writer, .. } => Connection::SqliteTx(writer.begin_with("begin immediate").await?),
        };
        Ok(Tx { connection, published, leaves_deliveries: false })
    }

    pub(super) fn state(&self) -> Vec<PoolState> {
        let state = |name, open: u32, idle: usize| PoolState { name, open: open.into(), idle: idle as u64 };
        match self {
            Self::Postgres(pool, _) => vec![state("postgres", pool.size(), pool.num_idle())],
            Self::Sqlite { readers, writer } => vec![
                state("sqlite_readers", readers.size(), readers.num_idle()),
                state("sqlite_writer", writer.size(), writer.num_idle()),
            ],
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Postgres(pool, _) => pool.close().await,
            Self::Sqlite { readers, writer } => {
                readers.close().await;
                writer.close().await;
            }
        }
    }
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

/// The database holds the hashes and session secrets: for its owner alone.
fn protect(path: &Path) -> Result<(), StoreError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(sqlx::Error::Io)?;
    }
    Ok(())
}

/// A connection out of the pool, inside a transaction or not.
pub enum Connection {
    Postgres(Lease),
    Sqlite(PoolConnection<Sqlite>),
    SqliteTx(Transaction<'static, Sqlite>),
}

impl Connection {
    /// Prepares `sql`, the same text on both engines.
    pub fn query(&mut self, sql: &'static str) -> Query<'_> {
        Query { link: self.link(), sql, failed: None }
    }

    /// Prepares the engine's text of `sql` with whole columns of values: arrays for `unnest` on
    /// PostgreSQL, one JSON array of rows as `$1` for `jsonb_each` on SQLite.
    pub fn batch(&mut self, sql: &'static Sql, columns: Vec<Column>) -> Query<'_> {
        let link = self.link();
        match link {
            Link::Postgres(..) => {
                let query = Query { link, sql: sql.postgres, failed: None };
                columns.into_iter().fold(query, Query::bind_column)
            }
            Link::Sqlite(..) => Query { link, sql: sql.sqlite, failed: None }.bind(rows_as_json(&columns)),
        }
    }

    /// Prepares the engine's text of `sql`.
    pub fn query_of(&mut self, sql: &'static Sql) -> Query<'_> {
        let link = self.link();
        let sql = match link {
            Link::Postgres(..) => sql.postgres,
            Link::Sqlite(..) => sql.sqlite,
        };
        Query { link, sql, failed: None }
    }

    fn link(&mut self) -> Link<'_> {
        match self {
            Self::Postgres(c) => Link::Postgres(c, PgArguments::default()),
            Self::Sqlite(c) => Link::Sqlite(c, SqliteArguments::default()),
            Self::SqliteTx(c) => Link::Sqlite(c, SqliteArguments::default()),
        }
    }
}

/// A transaction. Dropped without [`Tx::commit`], it rolls back.
pub struct Tx {
    connection: Connection,
    published: Arc<Notify>,
    leaves_deliveries: bool,
}

impl Tx {
    /// Has the deliverer of this process woken once the changes are durable.
    pub(super) const fn leaves_deliveries(&mut self) {
        self.leaves_deliveries = true;
    }

    /// Returns once the changes are durable.
    ///
    /// # Errors
    /// When the engine does not confirm; the changes may then be there or not.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self.connection {
            Connection::Postgres(lease) => lease.commit().await?,
            Connection::SqliteTx(tx) => tx.commit().await?,
            Connection::Sqlite(_) => {
                debug_assert!(false, "Pool::begin makes transactions");
            }
        }
        if self.leaves_deliveries {
            self.published.notify_one();
        }
        Ok(())
    }
}

impl Deref for Tx {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// A value that both engines take as a parameter.
pub trait Value:
    for<'q> Encode<'q, Postgres> + Type<Postgres> + for<'q> Encode<'q, Sqlite> + Type<Sqlite>
{
}
impl<T> Value for T where
    T: for<'q> Encode<'q, Postgres> + Type<Postgres> + for<'q> Encode<'q, Sqlite> + Type<Sqlite>
{
}

/// A row type that both engines can fill; `#[derive(sqlx::FromRow)]` is enough.
pub trait Row: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}
impl<T> Row for T where T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}

enum Link<'c> {
    Postgres(&'c mut Lease, PgArguments),
    Sqlite(&'c mut SqliteConnection, SqliteArguments),
}

/// A statement and its parameters, on a connection.
pub struct Query<'c> {
    link: Link<'c>,
    sql: &'static str,
    failed: Option<sqlx::Error>,
}

impl Query<'_> {
    #[must_use]
    pub fn bind<T: Value>(mut self, value: T) -> Self {
        let added = match &mut self.link {
            Link::Postgres(_, arguments) => arguments.add(value),
            Link::Sqlite(_, arguments) => arguments.add(value),
        };
        if let Err(error) = added {
            self.failed = Some(sqlx::Error::Encode(error));
        }
        self
    }

    fn bind_column(mut self, column: Column) -> Self {
        if let Link::Postgres(_, arguments) = &mut self.link {
            let added = match column {
                Column::Uuid(values) => arguments.add(values),
                Column::Int(values) => arguments.add(values),
                Column::Bytes(values) => arguments.add(values),
                Column::Text(values) => arguments.add(values),
            };
            if let Err(error) = added {
                self.failed = Some(sqlx::Error::Encode(error));
            }
        }
        self
    }

    /// Runs it and returns the number of rows touched.
    ///
    /// # Errors
    /// [`StoreError`], as for all below.
    pub async fn execute(self) -> Result<u64, StoreError> {
        self.check()?;
        Ok(match self.link {
            Link::Postgres(lease, arguments) => {
                let (c, limit) = lease.start();
                let done = in_time(limit, sqlx::query_with(self.sql, arguments).execute(c)).await;
                lease.settle(done)?.rows_affected()
            }
            Link::Sqlite(c, arguments) => {
                sqlx::query_with(self.sql, arguments).execute(c).await?.rows_affected()
            }
        })
    }

    /// # Errors
    /// [`StoreError`].
    pub async fn all<T: Row>(self) -> Result<Vec<T>, StoreError> {
        self.check()?;
        Ok(match self.link {
            Link::Postgres(lease, arguments) => {
                let (c, limit) = lease.start();
                let done = in_time(limit, sqlx::query_as_with(self.sql, arguments).fetch_all(c)).await;
                lease.settle(done)?
            }
            Link::Sqlite(c, arguments) => sqlx::query_as_with(self.sql, arguments).fetch_all(c).await?,
        })
    }

    /// # Errors
    /// [`StoreError`].
    pub async fn optional<T: Row>(self) -> Result<Option<T>, StoreError> {
        self.check()?;
        Ok(match self.link {
            Link::Postgres(lease, arguments) => {
                let (c, limit) = lease.start();
                let done = in_time(limit, sqlx::query_as_with(self.sql, arguments).fetch_optional(c)).await;
                lease.settle(done)?
            }
            Link::Sqlite(c, arguments) => sqlx::query_as_with(self.sql, arguments).fetch_optional(c).await?,
        })
    }

    /// # Errors
    /// [`StoreError`]; no row at all is one.
    pub async fn one<T: Row>(self) -> Result<T, StoreError> {
        self.optional().await?.ok_or(StoreError::Query(sqlx::Error::RowNotFound))
    }

    fn check(&self) -> Result<(), StoreError> {
        match &self.failed {
            None => Ok(()),
            Some(error) => Err(StoreError::Query(sqlx::Error::Protocol(error.to_string()))),
        }
    }
}
