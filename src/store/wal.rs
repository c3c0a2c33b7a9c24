//! Moves committed pages from SQLite's write-ahead log to the database file (a checkpoint).
//!
//! By default SQLite does this in a commit that finds the log long. That commit then waits for thousands of
//! pages and two flushes. Here a separate connection does it beside the writer. The log can start again only
//! when all of it has been moved, which never happens while the writer is busy. So when the log is long, the
//! writer moves the last few hundred pages itself, between two transactions.

use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlitePool;
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;

use crate::supervise::Supervisor;

/// The time from a write to its checkpoint. A shorter time costs more, because a page that is written often
/// is moved more often.
const DELAY: Duration = Duration::from_millis(250);

/// With this many pages of 4 KiB in the log, we make it start again.
const PAGES_ENOUGH: i64 = 4000;

/// With this many pages in the log (64 MiB), SQLite makes a checkpoint in a commit after all, unless one is
/// running.
pub(super) const PAGES_MAX: i64 = 16_000;

/// The task that moves pages. Clones share it, and it ends with the last of them.
#[derive(Clone)]
pub(super) struct Checkpointer {
    connection: SqlitePool,
    written: mpsc::Sender<()>,
    task: AbortHandle,
}

impl Checkpointer {
    /// `connection` is used only for this.
    pub(super) fn start(connection: SqlitePool, writer: SqlitePool, tasks: &Supervisor) -> Self {
        let (written, writes) = mpsc::channel(1);
        let writes = Arc::new(Mutex::new(writes));
        let checkpoints = connection.clone();
        let run = move || run(checkpoints.clone(), writer.clone(), Arc::clone(&writes));
        let task = tasks.keep("checkpoints", run).abort_handle();
        Self { connection, written, task }
    }

    /// Call this before each write.
    pub(super) fn note_write(&self) {
        // A full channel is fine: a checkpoint is already pending.
        let _ = self.written.try_send(());
    }

    /// Stops the task. SQLite moves the rest when its last connection closes.
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
            tracing::warn!(%error, "the checkpoint failed; committed data stays in the write-ahead log for now");
        }
    }
}

/// Moves all pages that no reader still needs, without waiting. Returns the number of pages in the log.
async fn checkpoint(connection: &SqlitePool) -> Result<i64, sqlx::Error> {
    let (_busy, pages, _moved): (i64, i64, i64) =
        sqlx::query_as("pragma wal_checkpoint(passive)").fetch_one(connection).await?;
    Ok(pages)
}
