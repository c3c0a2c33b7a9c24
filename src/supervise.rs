//! Starts all background tasks, and restarts those that panic.
//!
//! A panic is a bug, but it must not stop webhooks, the sweeper or group commit until somebody restarts the
//! process. So the task is restarted after a pause, which grows while the task keeps failing. During the
//! pause `/readyz` reports the task, and a metric counts the restarts.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::task::JoinHandle;

/// The first and the longest pause before a restart.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// After a task has run for this long, its next pause is the shortest one again.
const STEADY: Duration = Duration::from_secs(60);

/// The background tasks of one application. Clones share the same tasks.
#[derive(Clone, Default)]
pub struct Supervisor(Arc<Mutex<BTreeMap<&'static str, Arc<Task>>>>);

/// All tasks with the same name.
#[derive(Default)]
struct Task {
    restarts: AtomicU64,
    /// How many of them are waiting for a restart.
    down: AtomicUsize,
}

/// The state of all tasks with one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskState {
    pub name: &'static str,
    pub restarts: u64,
    pub is_up: bool,
}

impl Supervisor {
    /// Runs the future that `start` makes, and starts a new one whenever it panics. A task that returns is
    /// not restarted: it was told to stop, or its queue is closed. Aborting the handle also ends the task.
    pub fn keep<R>(&self, name: &'static str, mut start: impl FnMut() -> R + Send + 'static) -> JoinHandle<()>
    where
        R: Future + Send + 'static,
    {
        let task = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default());
        tokio::spawn(async move {
            let mut pause = PAUSE_MIN;
            loop {
                let began = Instant::now();
                let run = AssertUnwindSafe(async { drop(start().await) });
                if run.catch_unwind().await.is_ok() {
                    return;
                }
                if began.elapsed() >= STEADY {
                    pause = PAUSE_MIN;
                }
                task.restarts.fetch_add(1, Ordering::Relaxed);
                task.down.fetch_add(1, Ordering::Relaxed);
                tracing::error!(task = name, pause_ms = pause.as_millis(), "a background task is restarted");
                tokio::time::sleep(pause).await;
                task.down.fetch_sub(1, Ordering::Relaxed);
                pause = (pause * 2).min(PAUSE_MAX);
            }
        })
    }

    pub fn states(&self) -> Vec<TaskState> {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |(name, task): (&&'static str, &Arc<Task>)| TaskState {
            name,
            restarts: task.restarts.load(Ordering::Relaxed),
            is_up: task.down.load(Ordering::Relaxed) == 0,
        };
        tasks.iter().map(state).collect()
    }
}
