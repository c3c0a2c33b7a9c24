//! Logs outages: one line when the database fails and one when it answers again, however many calls are
//! affected. Also counts statements.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use strum::EnumCount;
use tracing::Level;

use super::fault::{self, Answer, Fault, Row};

/// An outage is over when the database answers and nothing has failed for this long, because during an outage
/// some statements may still work.
const CALM: Duration = Duration::from_secs(1);

/// The current outage, and what was logged about it.
#[derive(Default)]
pub struct Outages {
    /// Read after every statement, so it is outside the lock.
    is_on: AtomicBool,
    now: Mutex<Option<Outage>>,
    statements: AtomicU64,
}

struct Outage {
    began: Instant,
    last: Instant,
    failures: u64,
    told: [bool; Fault::COUNT],
}

impl Outages {
    /// Counts a statement that is about to run.
    pub(super) fn count_statement(&self) {
        self.statements.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    /// Notes the result of a statement, and returns it.
    pub(super) fn note<T>(&self, done: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        match &done {
            Ok(_) => self.answered(),
            Err(error) => self.failed(fault::of(error), error),
        }
        done
    }

    /// Logs each kind of fault once per outage. Consequences of other faults are logged only if there is no
    /// other fault.
    pub(super) fn failed(&self, row: &Row, error: &sqlx::Error) {
        if row.answer == Answer::ComeBack {
            self.tell(row.fault, row.level, error);
        }
    }

    pub(super) fn tell(&self, fault: Fault, level: Level, error: &dyn Display) {
        let now = Instant::now();
        let mut current = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = current.get_or_insert_with(|| Outage {
            began: now,
            last: now,
            failures: 0,
            told: [false; Fault::COUNT],
        });
        self.is_on.store(true, Ordering::Relaxed);
        (outage.last, outage.failures) = (now, outage.failures + 1);
        let is_told =
            if fault.is_consequence() { outage.told.contains(&true) } else { outage.told[fault as usize] };
        outage.told[fault as usize] = true;
        drop(current);
        if is_told {
            return;
        }
        let (fault, message) =
            (<&str>::from(fault), "the database fails: calls that need it are answered 503");
        if level == Level::ERROR {
            tracing::error!(fault, %error, message);
        } else {
            tracing::warn!(fault, %error, message);
        }
    }

    pub(super) fn answered(&self) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        let mut current = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outage) = current.take_if(|outage| outage.last.elapsed() > CALM) {
            self.is_on.store(false, Ordering::Relaxed);
            drop(current);
            let (secs, failures) = (outage.began.elapsed().as_secs(), outage.failures);
            tracing::info!(secs, failures, "the database answers again");
        }
    }
}
