//! Background tasks that go on whatever happens to them.
//!
//! Everything that runs beside the requests is started here. A task that panics is a defect, but it must not
//! end webhooks, the sweep or group commit until somebody restarts the process: it is started anew, after a
//! pause that grows while it fails again and again. Meanwhile `/readyz` says so, and metrics count it.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::task::JoinHandle;

/// The pause before a task is started anew: the first one, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A task that has run for so long does not fail again and again: its next pause is the first one.
const STEADY: Duration = Duration::from_secs(60);

/// The background tasks of one application. Clones are the same one.
#[derive(Clone, Default)]
pub struct Supervisor(Arc<Mutex<BTreeMap<&'static str, Arc<Task>>>>);

/// All tasks of one name.
#[derive(Default)]
struct Task {
    restarts: AtomicU64,
    /// How many of them wait to be started anew.
    down: AtomicUsize,
}

/// How the tasks of one name are doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskState {
    pub name: &'static str,
    pub restarts: u64,
    pub is_up: bool,
}

impl Supervisor {
    /// Runs what `start` makes, and makes it again whenever it panics. A task that returns has done its work:
    /// it was told to stop, or its queue is closed. Aborting the handle ends it as well.
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
                tracing::error!(
                    task = name,
                    pause_ms = pause.as_millis(),
                    "a background task is started anew"
                );
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
