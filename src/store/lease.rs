//! A connection to PostgreSQL on loan from its pool, which no statement can hold for ever.
//!
//! The server ends what takes too long (`statement_timeout`), but a server that is gone, or a network
//! that swallows packets, ends nothing. So each statement has a limit here as well. A connection whose
//! statement ran into it or was dropped half-way, or that is inside a transaction, is in no state to be
//! used by somebody else: it is closed instead of going back, which rolls back too. (sqlx 0.9 would put
//! a connection back whose `begin` was cancelled half-way, inside an open transaction.)

use std::future::Future;
use std::io;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Executor, PgConnection, Postgres};

pub struct Lease {
    connection: PoolConnection<Postgres>,
    /// How long a statement may take.
    limit: Duration,
    in_transaction: bool,
    /// A statement has begun and not ended.
    in_flight: bool,
}

impl Lease {
    pub(super) fn new(connection: PoolConnection<Postgres>, limit: Duration) -> Self {
        Self { connection, limit, in_transaction: false, in_flight: false }
    }

    pub(super) async fn begin(mut self) -> Result<Self, sqlx::Error> {
        self.in_transaction = true;
        self.run("begin").await?;
        Ok(self)
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.run("commit").await?;
        self.in_transaction = false;
        Ok(())
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        let (connection, limit) = self.start();
        let done = in_time(limit, connection.execute(sql)).await;
        self.settle(done).map(drop)
    }

    /// The connection for one statement, and how long that may take. [`Lease::settle`] ends it.
    pub(super) fn start(&mut self) -> (&mut PgConnection, Duration) {
        self.in_flight = true;
        (&mut self.connection, self.limit)
    }

    pub(super) fn settle<T>(&mut self, done: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        // After these nobody knows how much of an answer is still to come.
        self.in_flight = matches!(done, Err(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)));
        done
    }
}

/// Runs a statement for no longer than `limit`.
pub(super) async fn in_time<T>(
    limit: Duration,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(limit, statement).await.unwrap_or_else(|_| {
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
    })
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.in_transaction || self.in_flight {
            self.connection.close_on_drop();
        }
    }
}
