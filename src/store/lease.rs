//! A PostgreSQL connection from the pool, with a time limit for each statement.
//!
//! The server itself ends slow statements (`statement_timeout`). But it cannot do that if it is gone, or if
//! the network drops packets. So each statement has a limit here as well.
//!
//! A connection goes back to the pool only if it is in a clean state. It is closed instead if a statement
//! timed out or was dropped before it ended, if the table of faults says so, or if it is inside a
//! transaction. Closing also rolls back.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::managed::Object;
use sqlx::{Executor, PgConnection};

use super::fault::{self, Link};
use super::outage::Outages;
use super::postgres::{Pooled, Source};

pub struct Lease {
    /// `None` only while this is being dropped.
    connection: Option<Pooled>,
    source: Arc<Source>,
    /// How long a statement may take.
    limit: Duration,
    in_transaction: bool,
    /// A statement has not ended, or has left the connection in an unknown state.
    in_doubt: bool,
}

impl Lease {
    pub(super) const fn new(connection: Pooled, source: Arc<Source>, limit: Duration) -> Self {
        Self { connection: Some(connection), source, limit, in_transaction: false, in_doubt: false }
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

    pub(super) fn outages(&self) -> &Outages {
        &self.source.outages
    }

    /// The connection for one statement, and its time limit. Call [`Lease::settle`] after it.
    pub(super) fn start(&mut self) -> (&mut PgConnection, Duration) {
        self.in_doubt = true;
        let connection = self.connection.as_mut().expect("it is taken out only when this is dropped");
        (connection, self.limit)
    }

    pub(super) fn settle<T>(&mut self, done: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let link = done.as_ref().err().map_or(Link::Keep, |error| fault::of(error).link);
        if link == Link::CloseAll {
            self.source.distrust(Instant::now());
        }
        self.in_doubt = link != Link::Keep;
        self.source.outages.note(done)
    }
}

/// Runs a statement for no longer than `limit`.
pub(super) async fn in_time<T>(
    limit: Duration,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(limit, statement).await.unwrap_or_else(|_| Err(fault::no_answer()))
}

impl Drop for Lease {
    fn drop(&mut self) {
        if (self.in_transaction || self.in_doubt)
            && let Some(connection) = self.connection.take()
        {
            // Take it out of the pool and drop it. The server rolls back when the socket closes.
            drop(Object::take(connection));
        }
    }
}
