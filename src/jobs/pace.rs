//! How fast the sweeper works. It starts with small steps and long pauses. The longer a walk lasts, the
//! larger its steps and the shorter its pauses become.

use std::time::Duration;

/// How many rows the first step of a walk reads. This occupies SQLite's only writer for a few milliseconds.
pub const STEP: i64 = 250;

/// The most rows that a step reads.
const STEP_MAX: i64 = 2000;

/// The next step is larger if this one was faster and removed as many rows as it could. The next step is
/// smaller if this one took more than twice as long. A step's time includes its wait for a busy store.
const STEP_TIME: Duration = Duration::from_millis(2);

/// The pause between two walks.
const REST: Duration = Duration::from_secs(60);

/// The shortest pause after a step.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// At first, the pause after a step is this many times as long as the step. Steps take longer on a busy
/// store, so it also gets longer pauses.
const PAUSE_FACTOR: u32 = 50;

/// The smallest factor, however long the walk takes.
const PAUSE_FACTOR_MIN: u32 = 2;

/// Each time a walk has lasted this much longer, its pauses are halved and its steps may take twice as long.
const HASTEN_AFTER: Duration = Duration::from_secs(10 * 60);

/// How many times that happens at most.
const HASTENED_MAX: u64 = 5;

/// The result of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub removed: u64,
    /// The walk is complete. The next step starts a new one.
    pub is_last: bool,
}

pub(super) struct Pace {
    /// How many rows the next step reads.
    pub(super) rows: i64,
    /// When the walk began, in monotonic time.
    began: Duration,
}

impl Pace {
    pub(super) const fn new(began: Duration) -> Self {
        Self { rows: STEP, began }
    }

    /// The pause after a step that took from `from` until `now`.
    pub(super) fn after(&mut self, step: Step, from: Duration, now: Duration) -> Duration {
        if step.is_last {
            *self = Self::new(now + REST);
            return REST;
        }
        let took = now.saturating_sub(from);
        let lasted = now.saturating_sub(self.began);
        let hastened = (lasted.as_secs() / HASTEN_AFTER.as_secs()).min(HASTENED_MAX);
        let step_time = STEP_TIME * (1 << hastened);
        if step.removed >= self.rows.unsigned_abs() && took < step_time {
            self.rows = (self.rows * 2).min(STEP_MAX);
        } else if took > step_time * 2 {
            self.rows = (self.rows / 2).max(STEP);
        }
        (took * (PAUSE_FACTOR >> hastened).max(PAUSE_FACTOR_MIN)).max(PAUSE_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const TOOK: Duration = Duration::from_millis(10);

    fn step(removed: i64) -> Step {
        Step { removed: removed.unsigned_abs(), is_last: false }
    }

    /// The pause after a step that began at `at`.
    fn pause(pace: &mut Pace, at: Duration) -> Duration {
        pace.after(step(STEP), at, at + TOOK)
    }

    #[test]
    fn a_walk_that_takes_long_goes_faster_up_to_a_third_of_the_time() {
        let mut pace = Pace::new(MINUTE);
        let factors = [1, 10, 11, 21, 31, 41, 51, 61, 1000]
            .map(|minutes| pause(&mut pace, MINUTE * minutes).as_millis() / TOOK.as_millis());
        assert_eq!(factors, [50, 50, 25, 12, 6, 3, 2, 2, 2]);
    }

    #[test]
    fn the_shortest_of_steps_is_followed_by_a_pause() {
        let mut pace = Pace::new(Duration::ZERO);
        assert_eq!(pace.after(step(0), MINUTE, MINUTE), PAUSE_MIN);
    }

    #[test]
    fn a_walk_that_takes_long_makes_large_steps_of_a_busy_store_as_well() {
        let (mut pace, busy) = (Pace::new(Duration::ZERO), STEP_TIME * 4);
        let mut rows_after = |at| {
            pace.after(step(STEP_MAX), at, at + busy);
            pace.rows
        };
        assert_eq!(rows_after(MINUTE), STEP);
        assert_eq!(rows_after(MINUTE * 31), 2 * STEP, "it may take eight times as long by then");
    }

    #[test]
    fn the_next_walk_begins_slowly_once_it_begins() {
        let mut pace = Pace::new(Duration::ZERO);
        assert_eq!(pace.after(Step { removed: 0, is_last: true }, MINUTE * 60, MINUTE * 60), REST);
        assert_eq!(pause(&mut pace, MINUTE * 60 + REST), TOOK * PAUSE_FACTOR);
    }

    #[test]
    fn steps_grow_while_they_are_short_and_full_and_shrink_when_they_are_long() {
        let mut pace = Pace::new(Duration::ZERO);
        let mut rows_after = |removed, took| {
            pace.after(step(removed), Duration::ZERO, took);
            pace.rows
        };
        assert_eq!(rows_after(STEP - 1, STEP_TIME / 2), STEP, "it was not full");
        assert_eq!(rows_after(STEP, STEP_TIME / 2), 2 * STEP);
        assert_eq!(rows_after(2 * STEP, STEP_TIME), 2 * STEP, "neither short nor long");
        for _ in 0..10 {
            rows_after(STEP_MAX, STEP_TIME / 2);
        }
        assert_eq!(rows_after(0, STEP_TIME), STEP_MAX);
        assert_eq!(rows_after(STEP_MAX, STEP_TIME * 3), STEP_MAX / 2);
        for _ in 0..10 {
            rows_after(0, STEP_TIME * 3);
        }
        assert_eq!(rows_after(0, STEP_TIME * 3), STEP);
    }
}
