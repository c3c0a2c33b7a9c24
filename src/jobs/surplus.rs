//! Sessions past what one client may have: the walk that finds and removes them.
//!
//! Clients are not counted by every call; that would make each of them dearer for the sake of a few. This
//! walk goes merchant by merchant instead. One with no more sessions than a single client may have is done
//! with by one look at an index. The sessions of any other are read in small steps, and of each client the
//! most recently used are remembered, as many as it may have. Whatever falls out of them goes. So nobody is
//! left with fewer, whichever replicas do this at the same time: what goes has that many used after it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::pace::{STEP, Step};
use super::sweep::{Kind, MERCHANTS_STEP};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{CredentialId, MerchantId, SessionId};
use crate::store::{Store, StoreError, surplus, sweep};

/// Where the walk is.
pub(super) struct Surplus {
    /// The last merchant that is done with.
    merchant: MerchantId,
    counting: Option<Counting>,
}

/// A merchant whose sessions are gone through.
struct Counting {
    merchant: MerchantId,
    after: SessionId,
    /// Of each client, the least recently used on top.
    latest: HashMap<CredentialId, BinaryHeap<Reverse<(Timestamp, SessionId)>>>,
    /// Fell out, and still to be removed.
    going: Vec<(Timestamp, SessionId)>,
    /// All of its sessions were looked at.
    is_read: bool,
    removed: u64,
}

impl Default for Surplus {
    fn default() -> Self {
        Self { merchant: MerchantId::nil(), counting: None }
    }
}

impl Surplus {
    /// Makes one step. `max` is how many sessions a client may have; 0 is any number.
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

    /// Looks for the next merchant with so many sessions that one of its clients may have too many.
    async fn look(&mut self, store: &Store, max: usize) -> Result<Step, StoreError> {
        let mut db = store.read().await?;
        let merchants = sweep::merchants(&mut db, self.merchant, MERCHANTS_STEP).await?;
        for merchant in &merchants {
            if surplus::has_more(&mut db, *merchant, i64::try_from(max).unwrap_or(i64::MAX)).await? {
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
    /// Takes the next sessions in; how many others went for them, and whether these were the last.
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
