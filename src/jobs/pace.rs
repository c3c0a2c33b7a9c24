//! How fast the sweeper goes: little work at a time, at first with long pauses, and in longer steps with
//! shorter pauses while a walk does not come to its end.

use std::time::Duration;

/// Rows that one step looks at, to begin with: a few milliseconds of SQLite's one writer.
pub const STEP: i64 = 250;

/// And at most, however quickly they go.
const STEP_MAX: i64 = 2000;

/// How long a step may take, its wait for a busy store included, for the next to be larger, to begin with.
/// One of twice that makes the next smaller.
const STEP_TIME: Duration = Duration::from_millis(2);

/// Between two walks.
const REST: Duration = Duration::from_secs(60);

/// The least pause after a step.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// How many times as long as a step took the pause after it is, to begin with: on a store that is busy it
/// takes longer, and so it is left alone for longer.
const PAUSE_FACTOR: u32 = 50;

/// And at the least, however long the walk takes.
const PAUSE_FACTOR_MIN: u32 = 2;

/// The time after which the pauses of a walk become half as long and its steps may take twice as long,
/// again and again.
const HASTEN_AFTER: Duration = Duration::from_secs(10 * 60);

/// And how often at most.
const HASTENED_MAX: u64 = 5;

/// What came of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub removed: u64,
    /// The walk is over; the next step begins another.
    pub is_last: bool,
}

/// How fast a walk goes.
pub(super) struct Pace {
    /// Rows that a step looks at.
    pub(super) rows: i64,
    /// When the walk began, by the monotonic clock.
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

    /// The pause after a step that ends so long after the start.
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
