//! A connection to PostgreSQL on loan from its pool, which no statement can hold for ever.
//!
//! The server ends what takes too long (`statement_timeout`), but a server that is gone, or a network
//! that swallows packets, ends nothing. So each statement has a limit here as well. A connection whose
//! statement ran into it, was dropped half-way or failed in a way after which the table of faults closes
//! it, or that is inside a transaction, is in no state to be used by somebody else: it is closed instead
//! of going back, which rolls back too.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::managed::Object;
use sqlx::{Executor, PgConnection};

use super::fault::{self, Link};
use super::outage::Outages;
use super::postgres::{Pooled, Source};

pub struct Lease {
    /// There until it is dropped.
    connection: Option<Pooled>,
    source: Arc<Source>,
    /// How long a statement may take.
    limit: Duration,
    in_transaction: bool,
    /// A statement has begun and not ended, or has left the connection in doubt.
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

    /// The connection for one statement, and how long that may take. [`Lease::settle`] ends it.
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
            // Out of the pool and dropped: the server rolls back when the socket closes.
            drop(Object::take(connection));
        }
    }
}
