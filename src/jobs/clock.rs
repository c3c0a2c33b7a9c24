//! The clock that decides which rows are old enough to be removed. It is the database's clock. While this
//! replica's clock differs from it by more than a minute, this replica removes nothing: a clock that runs
//! ahead would remove everything within seconds.
//!
//! PostgreSQL has a clock. SQLite has none, so the processes that share a file write the time into it. A
//! process whose own time differs does not overwrite the time in the file. It takes over when nobody has
//! written for ten minutes. A process that starts after a stop of more than a minute waits in the same way.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;

use crate::domain::clock::{Clock, Timestamp};
use crate::flows::SharedCore;
use crate::store::{Engine, StoreError, clock};

/// How often we ask the database. In between, we add our own monotonic time to its last answer.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// The log warns about a larger difference.
const SKEW_NOTABLE: TimeDelta = TimeDelta::seconds(5);

/// Nothing is removed while the difference is larger.
const SKEW_MAX: TimeDelta = TimeDelta::minutes(1);

/// A process with a different time takes over when the time in a SQLite file has not changed for this long.
const ABANDONED_AFTER: Duration = Duration::from_mins(10);

/// The database's last answer.
#[derive(Clone, Copy)]
struct Said {
    time: Timestamp,
    /// When we first got this answer, in our monotonic time.
    heard_at: Duration,
    /// Whether the time is known to advance. The time that an earlier process left in a SQLite file does not.
    is_running: bool,
}

impl Said {
    /// From the time in a SQLite file. If it changed since the last look, another process is updating it.
    fn in_file(before: Option<Self>, time: Timestamp, at: Duration) -> Self {
        match before {
            Some(before) if before.time == time => before,
            before => Self { time, heard_at: at, is_running: before.is_some() },
        }
    }

    const fn running(time: Timestamp, heard_at: Duration) -> Self {
        Self { time, heard_at, is_running: true }
    }

    fn age(&self, monotonic: Duration) -> Duration {
        monotonic.saturating_sub(self.heard_at)
    }

    /// The database's time now.
    fn now(&self, monotonic: Duration) -> Timestamp {
        let gone = if self.is_running { self.age(monotonic) } else { Duration::ZERO };
        self.time.plus(TimeDelta::from_std(gone).unwrap_or(TimeDelta::MAX))
    }

    /// Whether a process may write its `own` time into the SQLite file.
    fn gives_way_to(&self, own: Timestamp, monotonic: Duration) -> bool {
        own.since(self.now(monotonic)).abs() <= SKEW_MAX || self.age(monotonic) >= ABANDONED_AFTER
    }
}

/// How well the clocks agree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agreement {
    Good,
    /// They differ by more than [`SKEW_NOTABLE`].
    Fair,
    /// They differ by more than [`SKEW_MAX`].
    None,
    /// We do not know whether the database's time advances.
    Unknown,
}

impl Agreement {
    fn of(skew: Option<TimeDelta>) -> Self {
        match skew.map(|skew| skew.abs()) {
            None => Self::Unknown,
            Some(skew) if skew > SKEW_MAX => Self::None,
            Some(skew) if skew > SKEW_NOTABLE => Self::Fair,
            Some(_) => Self::Good,
        }
    }
}

struct State {
    said: Option<Said>,
    /// What we logged last.
    told: Agreement,
}

/// The database's clock as this replica knows it.
pub struct DatabaseClock {
    core: SharedCore,
    state: Mutex<State>,
}

impl DatabaseClock {
    pub(super) const fn new(core: SharedCore) -> Self {
        Self { core, state: Mutex::new(State { said: None, told: Agreement::Good }) }
    }

    /// The database's time. `None` while ours differs from it by more than a minute.
    pub(super) async fn now(&self) -> Result<Option<Timestamp>, StoreError> {
        // In a test that moves the clock, the database's time moves with it.
        if let Clock::Manual(_) = self.core.clock {
            return Ok(Some(self.core.now()));
        }
        if self.said().is_none() {
            self.look().await?;
        }
        let skew = self.skew().filter(|skew| skew.abs() <= SKEW_MAX);
        Ok(skew.map(|skew| self.core.now().minus(skew)))
    }

    /// How far this replica's clock is ahead of the database's. `None` while unknown.
    pub fn skew(&self) -> Option<TimeDelta> {
        let said = self.said().filter(|said| said.is_running)?;
        Some(self.core.now().since(said.now(self.core.clock.monotonic())))
    }

    /// Calls [`Self::look`] regularly until it is aborted.
    pub(super) async fn keep(&self) {
        loop {
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "the database's clock cannot be read");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks the database for its time. In a SQLite file, it also updates the time for the other processes.
    pub async fn look(&self) -> Result<(), StoreError> {
        let store = &self.core.store;
        let time = clock::read(&mut store.read().await?).await?;
        let (own, at) = (self.core.now(), self.core.clock.monotonic());
        let said = match (store.engine(), time) {
            (Engine::Postgres, Some(time)) => Some(Said::running(time, at)),
            (_, time) => time
                .map(|time| Said::in_file(self.said(), time, at))
                .filter(|said| !said.gives_way_to(own, at)),
        };
        if said.is_none() {
            clock::write(&mut store.write().await?, own).await?;
        }
        let said = said.unwrap_or_else(|| Said::running(own, at));
        self.state.lock().unwrap_or_else(PoisonError::into_inner).said = Some(said);
        self.tell();
        Ok(())
    }

    fn said(&self) -> Option<Said> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).said
    }

    /// Logs a change in how well the clocks agree.
    fn tell(&self) {
        let skew = self.skew();
        let now = Agreement::of(skew);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut state.told, now) == now {
            return;
        }
        drop(state);
        let skew_secs = skew.map(|skew| skew.num_seconds());
        match now {
            Agreement::Good => tracing::info!("the clock agrees with the database's"),
            Agreement::Fair => tracing::warn!(skew_secs, "the clock differs from the database's"),
            Agreement::None => tracing::error!(
                skew_secs,
                "the clock differs from the database's: this replica removes nothing until they agree"
            ),
            Agreement::Unknown => tracing::info!(
                "nobody kept the time of the database: this replica removes nothing for ten minutes"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: Timestamp = Timestamp::from_unix_secs(1_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_time_that_a_stopped_process_left_gives_way_after_ten_minutes() {
        let own = THERE.plus(TimeDelta::hours(1));
        let mut said = Said::in_file(None, THERE, SECOND);
        for at in [SECOND, ABANDONED_AFTER] {
            said = Said::in_file(Some(said), THERE, at);
            assert!(!said.is_running && !said.gives_way_to(own, at), "{at:?}");
        }
        assert!(said.gives_way_to(own, ABANDONED_AFTER + SECOND));
    }

    #[test]
    fn a_time_that_is_kept_up_never_gives_way_to_one_far_from_it() {
        let mut said = Said::in_file(None, THERE, Duration::ZERO);
        for look in 1..100 {
            let (time, at) = (THERE.plus(TimeDelta::seconds(look.into())), LOOK_EVERY * look);
            said = Said::in_file(Some(said), time, at);
            assert!(said.is_running);
            assert!(!said.gives_way_to(time.plus(TimeDelta::seconds(61)), at));
            assert!(!said.gives_way_to(time.minus(TimeDelta::seconds(61)), at));
            assert!(said.gives_way_to(time.plus(SKEW_MAX), at));
        }
    }

    #[test]
    fn our_own_time_stays_in_agreement_while_we_cannot_write_it() {
        let said = Said::in_file(Some(Said::running(THERE, Duration::ZERO)), THERE, SECOND);
        let later = Duration::from_mins(5);
        assert!(said.gives_way_to(THERE.plus(TimeDelta::minutes(5)), later));
        assert!(!said.gives_way_to(THERE.plus(TimeDelta::days(500)), later), "the clock was set meanwhile");
    }
}
