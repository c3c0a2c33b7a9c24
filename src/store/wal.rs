//! Moving what SQLite has committed from its write-ahead log into the database file.
//!
//! Left to itself SQLite does so in the commit that finds the log long enough, and whoever waits for that
//! commit waits for thousands of pages and two flushes. Here a connection of its own does it beside the
//! writer. The log starts anew only when all of it has been moved, which a busy writer never lets happen:
//! once it is long, the writer moves what came meanwhile, some hundred pages, between two transactions.

use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlitePool;
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;

use crate::supervise::Supervisor;

/// From a write to the checkpoint that moves it. Less costs more: a page that is written again and again
/// is moved once each time.
const DELAY: Duration = Duration::from_millis(250);

/// Pages in the log, of 4 KiB, from which on it is made to start anew.
const PAGES_ENOUGH: i64 = 4000;

/// Pages in the log, 64 MiB, from which on SQLite makes a checkpoint in a commit after all, unless there is
/// one under way.
pub(super) const PAGES_MAX: i64 = 16_000;

/// The task that moves pages. Clones are the same one; it ends with the last of them.
#[derive(Clone)]
pub(super) struct Checkpointer {
    connection: SqlitePool,
    written: mpsc::Sender<()>,
    task: AbortHandle,
}

impl Checkpointer {
    /// `connection` is used for this alone.
    pub(super) fn start(connection: SqlitePool, writer: SqlitePool, tasks: &Supervisor) -> Self {
        let (written, writes) = mpsc::channel(1);
        let writes = Arc::new(Mutex::new(writes));
        let checkpoints = connection.clone();
        let run = move || run(checkpoints.clone(), writer.clone(), Arc::clone(&writes));
        let task = tasks.keep("checkpoints", run).abort_handle();
        Self { connection, written, task }
    }

    /// To be called whenever something may be written soon.
    pub(super) fn note_write(&self) {
        // Full is as good: the checkpoint that was asked for is still to come.
        let _ = self.written.try_send(());
    }

    /// The last connection to be closed moves what is left.
    pub(super) async fn stop(&self) {
        self.task.abort();
        self.connection.close().await;
    }
}

async fn run(connection: SqlitePool, writer: SqlitePool, writes: Arc<Mutex<mpsc::Receiver<()>>>) {
    let mut writes = writes.lock().await;
    while writes.recv().await.is_some() {
        tokio::time::sleep(DELAY).await;
        let moved = match checkpoint(&connection).await {
            Ok(pages) if pages >= PAGES_ENOUGH => checkpoint(&writer).await.map(drop),
            done => done.map(drop),
        };
        if let Err(error) = moved {
            tracing::warn!(%error, "what was committed stays in the write-ahead log for now");
        }
    }
}

/// Moves what no reader still needs in the log, and waits for nobody; pages in the log.
async fn checkpoint(connection: &SqlitePool) -> Result<i64, sqlx::Error> {
    let (_busy, pages, _moved): (i64, i64, i64) =
        sqlx::query_as("pragma wal_checkpoint(passive)").fetch_one(connection).await?;
    Ok(pages)
}
