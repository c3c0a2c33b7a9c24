//! Counts of outcomes since the process started, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// By what the call carried.
#[derive(Debug, Default)]
pub struct WrongCell {
    pub key: Count,
    pub token: Count,
    pub admin_token: Count,
    pub id: Count,
}

#[derive(Debug, Default)]
pub struct Counters {
    /// Sessions started, each with a pair of tokens.
    pub issued: Count,
    /// Sessions moved to their next generation.
    pub refreshed: Count,
    /// Pairs that were given again within the retry window.
    pub repeated: Count,
    /// Sessions that ended because an old refresh token was used again.
    pub replayed: Count,
    /// Calls that came to this cell with something that is not here and that another cell made.
    pub wrong_cell: WrongCell,
}
