//! One interface for both engines, so that code with a query does not depend on the engine.
//!
//! Both engines support `$1`, `returning`, `on conflict`, common table expressions and `true`. So a query has
//! one text, and the connection decides which engine runs it. Only a few things have a text for each engine
//! ([`Sql`]): the group-commit statements, the engine's clock and statistics, locks, and the migrations.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, Encode, FromRow, Postgres, Sqlite, SqliteConnection, Transaction, Type};
use tokio::sync::Notify;

use super::audit_head::Sealer;
use super::columns::{Column, rows_as_copy, rows_as_json};
use super::error::StoreError;
use super::fault;
use super::lease::{Lease, in_time};
use super::outage::Outages;
use crate::domain::event::AuditEvent;

/// The log's target for events of the audit trail.
const AUDIT_LOG: &str = "tollgate::audit";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Postgres,
    Sqlite,
}

/// A statement with a different text for each engine.
pub struct Sql {
    pub postgres: &'static str,
    pub sqlite: &'static str,
}

/// SQLite cannot tell this in advance: a read-only file fails at the next write.
const TAKES_WRITES: Sql =
    Sql { postgres: "select current_setting('transaction_read_only') = 'off'", sqlite: "select true" };

/// A connection from the pool, inside a transaction or not.
pub enum Connection {
    Postgres(Lease),
    Sqlite(PoolConnection<Sqlite>, Arc<Outages>),
    SqliteTx(Transaction<'static, Sqlite>, Arc<Outages>),
}

impl Connection {
    /// Prepares `sql`, which is the same for both engines.
    pub fn query(&mut self, sql: &'static str) -> Query<'_> {
        Query { link: self.link(), sql, failed: None }
    }

    /// Prepares the engine's text of `sql` with columns of values. PostgreSQL gets arrays for `unnest`,
    /// SQLite gets a JSON array of rows as `$1` for `jsonb_each`.
    pub fn batch(&mut self, sql: &'static Sql, columns: Vec<Column<'_>>) -> Query<'_> {
        let link = self.link();
        match link {
            Link::Postgres(..) => {
                let query = Query { link, sql: sql.postgres, failed: None };
                columns.into_iter().fold(query, Query::bind_column)
            }
            Link::Sqlite(..) => Query { link, sql: sql.sqlite, failed: None }.bind(rows_as_json(&columns)),
        }
    }

    /// Inserts many rows. PostgreSQL gets them as binary COPY, which takes it a third less time than an insert
    /// from arrays. SQLite gets a JSON array of rows as `$1` for `jsonb_each`.
    pub async fn copy(&mut self, sql: &'static Sql, columns: Vec<Column<'_>>) -> Result<(), StoreError> {
        let query = match self.link() {
            Link::Postgres(lease, _) => {
                lease.outages().count_statement();
                let rows = rows_as_copy(&columns);
                let (connection, limit) = lease.start();
                let copied = in_time(limit, async {
                    let mut copy = connection.copy_in_raw(sql.postgres).await?;
                    copy.send(rows).await?;
                    copy.finish().await
                });
                let copied = copied.await;
                lease.settle(copied)?;
                return Ok(());
            }
            link @ Link::Sqlite(..) => Query { link, sql: sql.sqlite, failed: None },
        };
        query.bind(rows_as_json(&columns)).execute().await?;
        Ok(())
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

    /// Checks that the database answers and accepts writes.
    pub(super) async fn ping(&mut self) -> Result<(), StoreError> {
        let (takes_writes,) = self.query_of(&TAKES_WRITES).one::<(bool,)>().await?;
        match self {
            Self::Postgres(lease) if !takes_writes => Ok(lease.settle(Err(fault::read_only()))?),
            _ => Ok(()),
        }
    }

    fn link(&mut self) -> Link<'_> {
        match self {
            Self::Postgres(c) => Link::Postgres(c, PgArguments::default()),
            Self::Sqlite(c, outages) => Link::Sqlite(c, outages, SqliteArguments::default()),
            Self::SqliteTx(c, outages) => Link::Sqlite(c, outages, SqliteArguments::default()),
        }
    }
}

/// Shared by all transactions of a process.
#[derive(Default)]
pub(super) struct Around {
    /// Notified after a commit with events to deliver.
    pub(super) published: Notify,
    pub(super) sealer: OnceLock<Arc<Sealer>>,
}

/// A transaction. It rolls back if it is dropped without [`Tx::commit`].
pub struct Tx {
    connection: Connection,
    around: Arc<Around>,
    leaves_deliveries: bool,
    /// The audit events that it has appended, with their numbers.
    events: Vec<(i64, AuditEvent)>,
}

impl Tx {
    pub(super) const fn new(connection: Connection, around: Arc<Around>) -> Self {
        Self { connection, around, leaves_deliveries: false, events: Vec::new() }
    }

    /// Wakes this process's deliverer after the commit.
    pub(super) const fn leaves_deliveries(&mut self) {
        self.leaves_deliveries = true;
    }

    /// Writes audit events to the log after the commit.
    pub(super) fn leaves_events(&mut self, events: impl Iterator<Item = (i64, AuditEvent)>) {
        if tracing::enabled!(target: AUDIT_LOG, tracing::Level::INFO) {
            self.events.extend(events);
        }
    }

    /// Seals the head of the audit chain. `None` before the token keys are loaded.
    pub(super) fn sealer(&self) -> Option<Arc<Sealer>> {
        self.around.sealer.get().cloned()
    }

    /// Returns when the changes are durable. After an error, the changes may or may not have been committed.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self.connection {
            Connection::Postgres(lease) => lease.commit().await?,
            Connection::SqliteTx(tx, outages) => outages.note(tx.commit().await)?,
            Connection::Sqlite(..) => {
                debug_assert!(false, "Pool::begin makes transactions");
            }
        }
        if self.leaves_deliveries {
            self.around.published.notify_one();
        }
        for (seq, event) in &self.events {
            log(*seq, event);
        }
        Ok(())
    }
}

/// Writes one log line for an audit event, for syslog or a SIEM.
fn log(seq: i64, event: &AuditEvent) {
    tracing::info!(
        target: AUDIT_LOG,
        seq,
        id = %event.id,
        at = %event.at,
        merchant_id = event.merchant_id.map(tracing::field::display),
        actor_kind = <&str>::from(event.actor.kind),
        actor_id = event.actor.id.as_deref(),
        actor_name = event.actor.name.as_deref(),
        action = event.action.as_str(),
        object_kind = event.object_kind.as_str(),
        object_id = event.object_id.as_deref(),
        outcome = <&str>::from(event.outcome),
        client_ip = event.client_ip.as_deref(),
        request_id = event.request_id.as_deref(),
        detail = event.detail.to_string().as_str(),
    );
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

/// A value that can be a parameter on both engines.
pub trait Value:
    for<'q> Encode<'q, Postgres> + Type<Postgres> + for<'q> Encode<'q, Sqlite> + Type<Sqlite>
{
}
impl<T> Value for T where
    T: for<'q> Encode<'q, Postgres> + Type<Postgres> + for<'q> Encode<'q, Sqlite> + Type<Sqlite>
{
}

/// A row type for both engines. `#[derive(sqlx::FromRow)]` is enough.
pub trait Row: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}
impl<T> Row for T where T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}

enum Link<'c> {
    Postgres(&'c mut Lease, PgArguments),
    Sqlite(&'c mut SqliteConnection, &'c Outages, SqliteArguments),
}

/// A statement and its parameters, on a connection.
pub struct Query<'c> {
    link: Link<'c>,
    sql: &'static str,
    failed: Option<sqlx::Error>,
}

impl Query<'_> {
    pub fn bind<T: Value>(mut self, value: T) -> Self {
        let added = match &mut self.link {
            Link::Postgres(_, arguments) => arguments.add(value),
            Link::Sqlite(_, _, arguments) => arguments.add(value),
        };
        if let Err(error) = added {
            self.failed = Some(sqlx::Error::Encode(error));
        }
        self
    }

    /// Binds one of the last parameters, which only one of two texts has.
    pub fn bind_if<T: Value>(self, value: Option<T>) -> Self {
        match value {
            Some(value) => self.bind(value),
            None => self,
        }
    }

    fn bind_column(mut self, column: Column<'_>) -> Self {
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

    /// Runs the statement and returns the number of affected rows.
    pub async fn execute(self) -> Result<u64, StoreError> {
        self.begin()?;
        Ok(match self.link {
            Link::Postgres(lease, arguments) => {
                let (c, limit) = lease.start();
                let done = in_time(limit, sqlx::query_with(self.sql, arguments).execute(c)).await;
                lease.settle(done)?.rows_affected()
            }
            Link::Sqlite(c, outages, arguments) => {
                outages.note(sqlx::query_with(self.sql, arguments).execute(c).await)?.rows_affected()
            }
        })
    }

    pub async fn all<T: Row>(self) -> Result<Vec<T>, StoreError> {
        self.begin()?;
        let read = match self.link {
            Link::Postgres(lease, arguments) => {
                let (c, limit) = lease.start();
                let done = in_time(limit, sqlx::query_as_with(self.sql, arguments).fetch_all(c)).await;
                lease.settle(done)
            }
            Link::Sqlite(c, outages, arguments) => {
                outages.note(sqlx::query_as_with(self.sql, arguments).fetch_all(c).await)
            }
        };
        read.map_err(|error| unread(self.sql, error))
    }

    pub async fn optional<T: Row>(self) -> Result<Option<T>, StoreError> {
        self.begin()?;
        let read = match self.link {
            Link::Postgres(lease, arguments) => {
                let (c, limit) = lease.start();
                let done = in_time(limit, sqlx::query_as_with(self.sql, arguments).fetch_optional(c)).await;
                lease.settle(done)
            }
            Link::Sqlite(c, outages, arguments) => {
                outages.note(sqlx::query_as_with(self.sql, arguments).fetch_optional(c).await)
            }
        };
        read.map_err(|error| unread(self.sql, error))
    }

    /// The first row. It is an error if there is none.
    pub async fn one<T: Row>(self) -> Result<T, StoreError> {
        self.optional().await?.ok_or(StoreError::Query(sqlx::Error::RowNotFound))
    }

    /// Counts the statement. Fails if a parameter could not be bound.
    fn begin(&self) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(StoreError::Query(sqlx::Error::Protocol(error.to_string())));
        }
        match &self.link {
            Link::Postgres(lease, _) => lease.outages().count_statement(),
            Link::Sqlite(_, outages, _) => outages.count_statement(),
        }
        Ok(())
    }
}

/// A column that cannot be read makes its row impossible.
fn unread(sql: &'static str, error: sqlx::Error) -> StoreError {
    let sqlx::Error::ColumnDecode { index, source } = error else { return error.into() };
    StoreError::Impossible { table: table_of(sql), what: format!("{index}: {source}") }
}

/// The first table that the statement names outside of parentheses.
fn table_of(sql: &'static str) -> &'static str {
    let mut words = sql.split_ascii_whitespace();
    let mut depth = 0;
    let is_table_next = |word: &&str| {
        let is_outside = depth == 0;
        depth += word.matches('(').count();
        depth -= word.matches(')').count();
        is_outside && matches!(*word, "from" | "update" | "into")
    };
    words.find(is_table_next).and_then(|_| words.next()).unwrap_or(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_a_statement_is_not_that_of_a_subquery() {
        for sql in [
            "select a, (select b from other where other.id = things.id) as b from things where a = $1",
            "update things set a = (select max(b) from other) where id = $1 returning a",
            "insert into things (a) select a from other",
        ] {
            assert_eq!(table_of(sql), "things", "{sql}");
        }
    }
}
