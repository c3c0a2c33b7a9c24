//! Finds and removes the sessions of clients that have more than they may.
//!
//! Counting sessions at each call would slow down every call for the sake of a few clients. So this walk goes
//! through the merchants instead. A merchant whose sessions together are within the limit of a single client
//! needs only one index lookup. For other merchants, the walk reads the sessions in small steps. For each
//! client it remembers the most recently used ones, up to the limit, and removes the rest.
//!
//! Several replicas can do this at the same time. Each removed session has a full set of more recently used
//! ones, so no client is left with fewer than it may have.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::pace::{STEP, Step};
use super::sweep::{Kind, MERCHANTS_STEP};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{CredentialId, MerchantId, SessionId};
use crate::store::{Store, StoreError, surplus, sweep};

/// The position of the walk.
pub(super) struct Surplus {
    /// The last merchant that is finished.
    merchant: MerchantId,
    counting: Option<Counting>,
}

/// A merchant whose sessions are being read.
struct Counting {
    merchant: MerchantId,
    after: SessionId,
    /// The sessions that each client keeps, with the least recently used one on top.
    latest: HashMap<CredentialId, BinaryHeap<Reverse<(Timestamp, SessionId)>>>,
    /// Sessions that are still to be removed.
    going: Vec<(Timestamp, SessionId)>,
    /// All sessions of the merchant have been read.
    is_read: bool,
    removed: u64,
}

impl Default for Surplus {
    fn default() -> Self {
        Self { merchant: MerchantId::nil(), counting: None }
    }
}

impl Surplus {
    /// Makes one step. `max` is how many sessions a client may have. 0 means any number.
    pub(super) async fn step(&mut self, store: &Store, max: usize) -> Result<Step, StoreError> {
        if max == 0 {
            return Ok(Step { removed: 0, is_last: true });
        }
        let Some(counting) = &mut self.counting else { return self.look(store, max).await };
        let (removed, is_done) = counting.step(store, max).await?;
        if is_done {
            if counting.removed > 0 {
                tracing::warn!(
                    merchant = %counting.merchant, sessions = counting.removed, max,
                    "clients have opened more sessions than they may have; the longest unused have ended"
                );
            }
            self.merchant = counting.merchant;
            self.counting = None;
        }
        Ok(Step { removed, is_last: false })
    }

    /// Finds the next merchant that has more sessions than a single client may have.
    async fn look(&mut self, store: &Store, max: usize) -> Result<Step, StoreError> {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let merchants = surplus::next(&mut store.read().await?, self.merchant, max, MERCHANTS_STEP).await?;
        for (merchant, has_more) in &merchants {
            if *has_more {
                self.counting = Some(Counting {
                    merchant: *merchant,
                    after: SessionId::nil(),
                    latest: HashMap::new(),
                    going: Vec::new(),
                    is_read: false,
                    removed: 0,
                });
                return Ok(Step { removed: 0, is_last: false });
            }
            self.merchant = *merchant;
        }
        let is_last = merchants.len() < MERCHANTS_STEP as usize;
        if is_last {
            self.merchant = MerchantId::nil();
        }
        Ok(Step { removed: 0, is_last })
    }
}

impl Counting {
    /// Reads the next sessions and removes some. Returns how many were removed, and whether the merchant is
    /// finished.
    async fn step(&mut self, store: &Store, max: usize) -> Result<(u64, bool), StoreError> {
        if self.going.is_empty() && !self.is_read {
            self.read(store, max).await?;
        }
        let mut removed = 0;
        if !self.going.is_empty()
            && let Some(mut tx) = sweep::turn(store, Kind::SurplusSessions as i64).await?
        {
            removed = surplus::remove(&mut tx, self.going.clone()).await?;
            tx.commit().await?;
            self.going.clear();
            self.removed += removed;
        }
        Ok((removed, self.is_read && self.going.is_empty()))
    }

    async fn read(&mut self, store: &Store, max: usize) -> Result<(), StoreError> {
        let page = surplus::held(&mut store.read().await?, self.merchant, self.after, STEP).await?;
        for held in page.iter().filter(|held| !held.is_revoked) {
            let latest = self.latest.entry(held.credential_id).or_default();
            latest.push(Reverse((held.rotated_at, held.id)));
            if latest.len() > max {
                self.going.extend(latest.pop().map(|Reverse(oldest)| oldest));
            }
        }
        if let Some(last) = page.last() {
            self.after = last.id;
        }
        self.is_read = page.len() < STEP as usize;
        Ok(())
    }
}
