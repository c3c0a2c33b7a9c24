//! Moves a merchant to another cell while it works.
//!
//! PostgreSQL copies the merchant's rows and then follows every change. Meanwhile the merchant is served where it
//! was. The rest takes at most [`OFF_MAX`], in which calls of this merchant get 503:
//!
//! 1. The old cell stops to serve the merchant. That raises the merchant's revision, so every statement that decided
//!    before changes nothing from now on.
//! 2. Transactions that were open at that moment may have been about to commit. Wait for their end.
//! 3. Change the merchant's row once more, and wait until that change has arrived. Changes arrive in the order of
//!    their commits, so everything else has arrived too.
//! 4. The new cell stops to receive changes. Whatever the old one still writes about the merchant, such as when a
//!    key was last used, can no longer overwrite anything.
//! 5. The new cell begins to serve the merchant.
//!
//! If 2 and 3 take too long, the old cell goes on serving the merchant. So at every moment at most one cell serves
//! it, and that cell has everything that was acknowledged. A move that was interrupted can be begun again, and goes
//! on where it was: `merchants.home` in both databases and the subscription say how far it came.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Core;
use super::principal::Principal;
use crate::domain::cell::CellId;
use crate::domain::clock::Timestamp;
use crate::domain::event::EventType;
use crate::domain::ids::{MerchantId, SessionId};
use crate::store::audit_head::Sealer;
use crate::store::transfer::{End, Home, NotFit};
use crate::store::{Store, StoreError};

/// How long no cell serves the merchant, at most, before the old one goes on.
const OFF_MAX: Duration = Duration::from_secs(2);

/// How often to try to hand the merchant over.
const TRIES: usize = 5;

/// Between two looks at a database.
const PAUSE: Duration = Duration::from_millis(20);

/// How long PostgreSQL may take to notice that nobody reads from a slot any more.
const SLOT_WAIT: Duration = Duration::from_secs(30);

/// Ids of sessions begin with the time of a replica's clock. It may be this far behind.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::seconds(10);

/// What the move does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub enum Step {
    #[strum(to_string = "offering the merchant's rows in cell {0}")]
    Offer(u16),
    #[strum(to_string = "starting the copy to cell {0}")]
    Subscribe(u16),
    #[strum(to_string = "copying: {0} tables left")]
    Copy(i64),
    #[strum(to_string = "switching the merchant off")]
    Off,
    #[strum(to_string = "not all changes arrived in time: the merchant is on again where it was")]
    OnAgain,
    #[strum(to_string = "all changes have arrived")]
    Arrived,
    #[strum(to_string = "switching the merchant on in cell {0}")]
    On(u16),
    #[strum(to_string = "the merchant was off for {0} ms")]
    WasOff(u128),
    #[strum(to_string = "clearing up")]
    Clear,
}

/// Why a merchant was not moved. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    #[error("the cell that the merchant leaves: {0}")]
    Source(#[source] NotFit),
    #[error("the cell that the merchant goes to: {0}")]
    Target(#[source] NotFit),
    #[error("{number} merchants are called {name:?} in the cell that the merchant leaves")]
    NotOne { name: String, number: usize },
    #[error("both databases belong to cell {0}")]
    SameCell(u16),
    #[error("the databases have different schemas: bring both cells to the same version")]
    Schemas,
    #[error("no replica of cell {0} runs, so nobody knows its token keys")]
    NoReplica(u16),
    #[error(
        "a replica of cell {0} lacks token keys that the merchant's sessions and secrets need: put the keys of the \
         old cell into its key file, as `verify`"
    )]
    KeysMissing(u16),
    #[error("another move of this merchant runs")]
    Running,
    #[error("the merchant is served by cell {0}")]
    ElsewhereAlready(u16),
    #[error("cell {0} has a merchant with this id that did not come by a move")]
    NotACopy(u16),
    #[error(
        "not all changes arrived within 2 seconds, {TRIES} times: look for long transactions in the old cell and for \
         errors in the log of the new cell's PostgreSQL. The merchant is on where it was; begin again or undo"
    )]
    TooSlow,
    #[error("the merchant is in the new cell already: move it back instead")]
    TooLate,
    #[error("the old cell's replication slot is still in use")]
    SlotInUse,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A merchant on its way.
pub struct Move {
    source: End,
    target: End,
    /// How the target's PostgreSQL reaches the source.
    reached_at: String,
    merchant: MerchantId,
}

impl Move {
    /// Finds the merchant by its id or name, and checks that both cells are fit for the move.
    pub async fn prepare(
        source_url: &str,
        target_url: &str,
        named: &str,
        reached_at: String,
    ) -> Result<Self, MoveError> {
        let mut source = End::connect(source_url).await.map_err(MoveError::Source)?;
        let mut target = End::connect(target_url).await.map_err(MoveError::Target)?;
        source.must_be_logical().await.map_err(MoveError::Source)?;
        if source.cell == target.cell {
            return Err(MoveError::SameCell(source.cell.number()));
        }
        if source.schema != target.schema {
            return Err(MoveError::Schemas);
        }
        let not_one = |number| MoveError::NotOne { name: named.to_owned(), number };
        let merchant = source.merchant(named).await?.map_err(not_one)?;
        if !source.take_turn(merchant).await? {
            return Err(MoveError::Running);
        }
        let (known_here, mut needed) = source.token_keys(merchant).await?;
        needed.extend(known_here.into_iter().flatten());
        let (known_there, _) = target.token_keys(merchant).await?;
        if known_there.is_empty() {
            return Err(MoveError::NoReplica(target.cell.number()));
        }
        if !known_there.iter().all(|known| known.is_superset(&needed)) {
            return Err(MoveError::KeysMissing(target.cell.number()));
        }
        Ok(Self { source, target, reached_at, merchant })
    }

    pub const fn merchant(&self) -> MerchantId {
        self.merchant
    }

    pub const fn cells(&self) -> (CellId, CellId) {
        (self.source.cell, self.target.cell)
    }

    /// Copies the merchant, while the source serves it. False if an earlier run has switched it off already: then call
    /// [`Move::hand_over`] at once.
    pub async fn copy(&mut self, tell: impl Fn(Step)) -> Result<bool, MoveError> {
        if self.has_moved().await? || self.source.home(self.merchant).await? == Some(Home::Moving) {
            return Ok(false);
        }
        self.copy_rows(&tell).await?;
        Ok(true)
    }

    /// Hands the merchant over, once it is copied. Call [`Move::clear`] once the proxy knows.
    pub async fn hand_over(&mut self, tell: impl Fn(Step)) -> Result<(), MoveError> {
        let (merchant, there) = (self.merchant, self.target.cell);
        if !self.has_moved().await? {
            let off_since = match self.target.is_receiving(merchant).await? {
                true => Some(self.switch_off(&tell).await?),
                // It had everything when an earlier run was interrupted.
                false => None,
            };
            tell(Step::Arrived);
            self.target.unsubscribe(merchant).await?;
            tell(Step::On(there.number()));
            self.target.set_home(merchant, Home::Cell(there)).await?;
            if let Some(since) = off_since {
                tell(Step::WasOff(since.elapsed().as_millis()));
            }
        }
        self.source.set_home(merchant, Home::Cell(there)).await?;
        Ok(())
    }

    /// What calls of the merchant carry, for the proxy, as far as it has arrived in the new cell. With a time, only the
    /// sessions that began after it, as far as clocks agree.
    pub async fn carried(&mut self, since: Option<Timestamp>) -> Result<Vec<String>, MoveError> {
        let first = since.map_or(SessionId::nil(), |time| SessionId::first_of(time.minus(CLOCKS_DIFFER)));
        Ok(self.target.carried(self.merchant, first).await?)
    }

    /// Those of these hashes and ids that the new cell does not have any more, although it serves the merchant that each
    /// is of.
    pub async fn gone(&mut self, carried: &[(MerchantId, String)]) -> Result<Vec<String>, MoveError> {
        Ok(self.target.gone(carried).await?)
    }

    /// One of these merchants that the new cell has never had.
    pub async fn unknown(&mut self, merchants: &[MerchantId]) -> Result<Option<MerchantId>, MoveError> {
        Ok(self.target.unknown(merchants).await?)
    }

    async fn has_moved(&mut self) -> Result<bool, MoveError> {
        Ok(self.target.home(self.merchant).await? == Some(Home::Cell(self.target.cell)))
    }

    async fn copy_rows(&mut self, tell: &impl Fn(Step)) -> Result<(), MoveError> {
        let (merchant, here) = (self.merchant, self.source.cell);
        match self.source.home(merchant).await? {
            // Before the copy, so that the copy is never taken for a merchant of the new cell.
            Some(Home::Unset) => drop(self.source.set_home(merchant, Home::Cell(here)).await?),
            Some(Home::Cell(cell)) if cell != here => {
                return Err(MoveError::ElsewhereAlready(cell.number()));
            }
            _ => {}
        }
        if self.target.is_subscribed(merchant).await? && !self.target.is_receiving(merchant).await? {
            // An undo was interrupted. The copy may have holes.
            self.target.unsubscribe(merchant).await?;
            self.drop_slot().await?;
        }
        tell(Step::Offer(here.number()));
        self.source.publish(merchant).await?;
        if !self.target.is_subscribed(merchant).await? {
            tell(Step::Subscribe(self.target.cell.number()));
            self.forget_copy().await?;
            self.target.subscribe(merchant, &self.reached_at).await?;
        }
        let mut told = None;
        loop {
            let left = self.target.tables_left(merchant).await?;
            if told != Some(left) {
                tell(Step::Copy(left));
                told = Some(left);
            }
            if left == 0 {
                break;
            }
            sleep(PAUSE).await;
        }
        let home = Home::Cell(here);
        let revision = self.source.set_home(merchant, home).await?;
        self.arrived(revision, None).await.map(drop)
    }

    /// Steps 1 to 3. Afterwards no cell serves the merchant, and the target has everything. Returns when that began.
    async fn switch_off(&mut self, tell: &impl Fn(Step)) -> Result<Instant, MoveError> {
        let merchant = self.merchant;
        for _ in 0..TRIES {
            tell(Step::Off);
            let begun = Instant::now();
            let deadline = begun + OFF_MAX;
            self.source.set_home(merchant, Home::Moving).await?;
            let since = self.source.now().await?;
            while self.source.open_since(since).await? > 0 && Instant::now() < deadline {
                sleep(PAUSE).await;
            }
            if Instant::now() < deadline {
                let revision = self.source.set_home(merchant, Home::Moving).await?;
                if self.arrived(revision, Some(deadline)).await? {
                    return Ok(begun);
                }
            }
            self.source.set_home(merchant, Home::Cell(self.source.cell)).await?;
            tell(Step::OnAgain);
        }
        Err(MoveError::TooSlow)
    }

    /// Waits until the target has this revision of the merchant, and so every earlier change.
    async fn arrived(&mut self, revision: i64, deadline: Option<Instant>) -> Result<bool, MoveError> {
        loop {
            if self.target.revision(self.merchant).await? >= Some(revision) {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            sleep(PAUSE).await;
        }
    }

    /// Removes what the move needed. The old rows stay in the source, which serves them no more. The target receives
    /// nothing any more, so a deletion stays here.
    pub async fn clear(&mut self, tell: impl Fn(Step)) -> Result<(), MoveError> {
        tell(Step::Clear);
        self.source.forget_short_counts(self.merchant).await?;
        self.drop_slot().await?;
        Ok(self.source.unpublish(self.merchant).await?)
    }

    async fn drop_slot(&mut self) -> Result<(), MoveError> {
        let deadline = Instant::now() + SLOT_WAIT;
        while !self.source.drop_slot(self.merchant).await? {
            if Instant::now() >= deadline {
                return Err(MoveError::SlotInUse);
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Gives the move up. The source goes on serving the merchant, and the copy is deleted.
    pub async fn undo(&mut self, tell: impl Fn(Step)) -> Result<(), MoveError> {
        let merchant = self.merchant;
        if self.has_moved().await? {
            return Err(MoveError::TooLate);
        }
        // First of all, so that an undo that is interrupted is never taken for a move that has arrived.
        self.source.set_home(merchant, Home::Cell(self.source.cell)).await?;
        self.target.unsubscribe(merchant).await?;
        self.forget_copy().await?;
        self.clear(tell).await
    }

    /// Deletes the merchant's rows in the target, if they are a copy.
    async fn forget_copy(&mut self) -> Result<(), MoveError> {
        match self.target.home(self.merchant).await? {
            None => Ok(()),
            Some(Home::Cell(cell)) if cell != self.target.cell => {
                Ok(self.target.forget(self.merchant).await?)
            }
            Some(Home::Moving) => Ok(self.target.forget(self.merchant).await?),
            Some(_) => Err(MoveError::NotACopy(self.target.cell.number())),
        }
    }
}

impl Core {
    /// Records a finished move in the audit trails of both cells. `there` is the store of the new one. The new cell has
    /// this one's token keys, so they can seal its trail too.
    pub async fn record_move(
        &self,
        principal: &Principal,
        moved: &Move,
        there: &Store,
    ) -> Result<(), StoreError> {
        let mut event = self.event_by(principal, EventType::MerchantMoved).about(moved.merchant);
        event.merchant_id = Some(moved.merchant);
        let (from, to) = moved.cells();
        event.detail = json!({ "from_cell": from.number(), "to_cell": to.number() });
        there.seal_with(Sealer { keyring: Arc::clone(&self.keyring), entropy: self.entropy.clone() });
        there.record(event.clone()).await?;
        self.store.record(event).await
    }
}
