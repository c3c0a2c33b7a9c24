//! The sweeper: removes what has had its time, in small steps with pauses between, so that calls do not
//! notice.
//!
//! **What of a session may go, and when.** A row is all that makes its tokens genuine, so without it every
//! one of them is refused: sweeping can end a session too early, but never let anybody in. What is lost
//! with it is the alarm, that a token of an earlier generation coming back ends the session. So the row
//! stays for as long as there is something to protect:
//!
//! - Revoked, or past its absolute end: every token is refused before its generation is looked at.
//! - Idle for `refresh_ttl`: the refresh token of the current generation expired with it. That of the
//!   generation before earns a repetition within the retry window at most, which is shorter. Access tokens
//!   live no longer (`access_ttl <= refresh_ttl`, checked at start), those of earlier generations began
//!   earlier. Nothing can be used or renewed, so a replay could only end what has ended.
//! - Ended by credentials switched OFF: such a row waits for one of these.
//!
//! Each waits another [`crate::domain::session::KEPT_AFTER_END`], or as long as an access token of it could
//! be presented, if that is longer. Lifetimes are those of the settings now:
//! a `refresh_ttl` that is made shorter also ends sessions that began under the longer one.
//!
//! **How they are found.** By no index over what a rotation changes, for PostgreSQL could not rotate in
//! place then. The walk goes by primary key, in order of start, over sessions that started longer ago than
//! `refresh_ttl`; no other can be idle for as long. One that was revoked sooner waits until then.
//!
//! **How fast.** A walk takes two hundredths of the time, which calls do not notice, and every ten minutes
//! that it lasts twice as much, up to a third ([`super::pace`]): a backlog is worked off faster and faster.
//!
//! **By whose clock.** By the database's, and not at all while our own differs from it ([`super::clock`]).
//!
//! **Any number of replicas** may sweep. What a step removes is decided by the statement that removes it,
//! and none of them relies on another. Of each kind one replica removes at a time: one that finds another
//! at it comes back later instead of waiting for its locks.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::future::{join, join_all};
use strum::{EnumCount, IntoStaticStr, VariantArray};
use tokio::sync::Mutex;

use super::clock::DatabaseClock;
use super::pace::{Pace, STEP, Step};
use super::surplus::Surplus;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{DeliveryId, EventId, ExchangeId, Id, MerchantId, SessionId};
use crate::flows::SharedCore;
use crate::flows::audit_chain::Cutting;
use crate::flows::counters::Count;
use crate::flows::idempotency::KEPT_FOR;
use crate::store::{StoreError, sweep};

/// Webhook deliveries of one step: each may have some dozens of attempts.
const DELIVERIES_STEP: i64 = 50;

/// Merchants that one step asks for exchanges: most of them have none to remove.
pub(super) const MERCHANTS_STEP: i64 = 20;

/// How long slots of activity are kept: somewhat longer than they are looked at.
const ACTIVITY_KEPT: TimeDelta = TimeDelta::hours(3);

/// From the start of the process, which has other things to do then.
const START_DELAY: Duration = Duration::from_secs(5);

/// After a fault of the store.
const FAULT_PAUSE: Duration = Duration::from_secs(10);

/// What is swept, each by a walk of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray, EnumCount)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    Sessions,
    /// Sessions past what one client may have.
    SurplusSessions,
    Exchanges,
    WebhookDeliveries,
    WebhookEvents,
    AuditEvents,
    IdempotencyKeys,
    ClientActivity,
    /// Of the console.
    ConsoleSessions,
    SignInLinks,
}

impl Kind {
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// From the settings.
#[derive(Clone, Copy, Debug)]
pub struct SweepSettings {
    pub audit_kept: TimeDelta,
    pub exchanges_kept: TimeDelta,
    /// Zero: off.
    pub sessions_per_client_max: usize,
}

/// Where each walk is.
struct Walks {
    sessions: SessionId,
    surplus: Surplus,
    exchanges: MerchantId,
    deliveries: DeliveryId,
    events: EventId,
}

pub struct Sweeper {
    core: SharedCore,
    clock: DatabaseClock,
    settings: SweepSettings,
    /// Held through a step: this process makes one at a time.
    walks: Mutex<Walks>,
    removed: [Count; Kind::COUNT],
    /// Whole walks over the sessions.
    session_walks: Count,
}

impl Sweeper {
    pub fn new(core: SharedCore, settings: SweepSettings) -> Arc<Self> {
        let walks = Walks {
            sessions: SessionId::nil(),
            surplus: Surplus::default(),
            exchanges: MerchantId::nil(),
            deliveries: DeliveryId::nil(),
            events: EventId::nil(),
        };
        let walks = Mutex::new(walks);
        let (removed, session_walks) = Default::default();
        let clock = DatabaseClock::new(Arc::clone(&core));
        Arc::new(Self { core, clock, settings, walks, removed, session_walks })
    }

    /// Rows removed since the process started.
    pub fn removed(&self, kind: Kind) -> u64 {
        self.removed[kind as usize].get()
    }

    pub const fn clock(&self) -> &DatabaseClock {
        &self.clock
    }

    /// How often all sessions were gone through since the process started.
    pub fn session_walks(&self) -> u64 {
        self.session_walks.get()
    }

    /// Runs until it is aborted. Nothing is lost by that: what is not removed is met again.
    pub async fn run(self: Arc<Self>) {
        tokio::time::sleep(START_DELAY).await;
        join(self.clock.keep(), join_all(Kind::VARIANTS.iter().map(|kind| self.walk(*kind)))).await;
    }

    async fn walk(&self, kind: Kind) {
        let clock = &self.core.clock;
        let mut pace = Pace::new(clock.monotonic());
        loop {
            let mut walks = self.walks.lock().await;
            let began = clock.monotonic();
            let step = self.step(&mut walks, kind, pace.rows).await;
            drop(walks);
            let pause = match step {
                Ok(step) => pace.after(step, began, clock.monotonic()),
                Err(error) => {
                    tracing::warn!(%error, kind = kind.name(), "sweep put off");
                    FAULT_PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Makes one step of a walk.
    ///
    /// # Errors
    /// A fault of the store; the walk goes on from where it was.
    pub async fn tick(&self, kind: Kind) -> Result<Step, StoreError> {
        self.step(&mut *self.walks.lock().await, kind, STEP).await
    }

    async fn step(&self, walks: &mut Walks, kind: Kind, limit: i64) -> Result<Step, StoreError> {
        let Some(now) = self.clock.now().await? else { return Ok(WITHHELD) };
        let step = match kind {
            Kind::Sessions => self.sweep_sessions(&mut walks.sessions, now, limit).await?,
            Kind::SurplusSessions => {
                walks.surplus.step(&self.core.store, self.settings.sessions_per_client_max).await?
            }
            Kind::Exchanges => self.sweep_exchanges(&mut walks.exchanges, now, limit).await?,
            Kind::WebhookDeliveries => self.sweep_deliveries(&mut walks.deliveries, now).await?,
            Kind::WebhookEvents => self.sweep_events(&mut walks.events, now, limit).await?,
            Kind::AuditEvents => self.sweep_audit_events(now, limit).await?,
            Kind::IdempotencyKeys | Kind::ClientActivity | Kind::ConsoleSessions | Kind::SignInLinks => {
                self.sweep_by_age(kind, now, limit).await?
            }
        };
        self.removed[kind as usize].add(step.removed);
        Ok(step)
    }

    async fn sweep_sessions(
        &self,
        walk: &mut SessionId,
        now: Timestamp,
        limit: i64,
    ) -> Result<Step, StoreError> {
        let store = &self.core.store;
        let dead = self.core.lifetimes.dead_before(now);
        let until = SessionId::first_of(dead.rotated);
        let end = sweep::session_step(&mut store.read().await?, *walk, until, limit).await?;
        let Some(mut tx) = sweep::turn(store, Kind::Sessions as i64).await? else { return Ok(NOT_NOW) };
        let removed = sweep::sessions(&mut tx, *walk, end.unwrap_or(until), dead).await?;
        tx.commit().await?;
        let step = walked(walk, end, removed);
        if step.is_last {
            self.session_walks.add_one();
        }
        Ok(step)
    }

    /// Exchanges go merchant by merchant, as their key has it.
    async fn sweep_exchanges(
        &self,
        walk: &mut MerchantId,
        now: Timestamp,
        limit: i64,
    ) -> Result<Step, StoreError> {
        let store = &self.core.store;
        let until = ExchangeId::first_of(now.minus(self.settings.exchanges_kept));
        let mut db = store.read().await?;
        let merchants = sweep::merchants(&mut db, *walk, MERCHANTS_STEP).await?;
        for merchant in &merchants {
            if sweep::exchange_step(&mut db, *merchant, until, 0).await?.is_none() {
                *walk = *merchant;
                continue;
            }
            let end = sweep::exchange_step(&mut db, *merchant, until, limit).await?;
            drop(db);
            let Some(mut tx) = sweep::turn(store, Kind::Exchanges as i64).await? else { return Ok(NOT_NOW) };
            let removed = sweep::exchanges(&mut tx, *merchant, end.unwrap_or(until)).await?;
            tx.commit().await?;
            if end.is_none() {
                *walk = *merchant;
            }
            return Ok(Step { removed, is_last: false });
        }
        let is_last = merchants.len() < MERCHANTS_STEP as usize;
        if is_last {
            *walk = MerchantId::nil();
        }
        Ok(Step { removed: 0, is_last })
    }

    async fn sweep_deliveries(&self, walk: &mut DeliveryId, now: Timestamp) -> Result<Step, StoreError> {
        let store = &self.core.store;
        let finished = now.minus(self.settings.exchanges_kept);
        let until = DeliveryId::first_of(finished);
        let end = sweep::delivery_step(&mut store.read().await?, *walk, until, DELIVERIES_STEP).await?;
        let Some(mut tx) = sweep::turn(store, Kind::WebhookDeliveries as i64).await? else {
            return Ok(NOT_NOW);
        };
        let removed = sweep::deliveries(&mut tx, *walk, end.unwrap_or(until), finished).await?;
        tx.commit().await?;
        Ok(walked(walk, end, removed))
    }

    async fn sweep_events(&self, walk: &mut EventId, now: Timestamp, limit: i64) -> Result<Step, StoreError> {
        let store = &self.core.store;
        let until = EventId::first_of(now.minus(self.settings.exchanges_kept));
        let end = sweep::event_step(&mut store.read().await?, *walk, until, limit).await?;
        let Some(mut tx) = sweep::turn(store, Kind::WebhookEvents as i64).await? else { return Ok(NOT_NOW) };
        let removed = sweep::events(&mut tx, *walk, end.unwrap_or(until)).await?;
        tx.commit().await?;
        Ok(walked(walk, end, removed))
    }

    async fn sweep_audit_events(&self, now: Timestamp, limit: i64) -> Result<Step, StoreError> {
        match self.core.cut_audit_chain(now.minus(self.settings.audit_kept), limit).await? {
            Cutting::Removed(removed) => Ok(by_age(removed, limit)),
            Cutting::Refused(verdict) => {
                tracing::error!(?verdict, "the audit chain does not hold, so none of it is removed");
                Ok(Step { removed: 0, is_last: true })
            }
        }
    }

    /// Kinds with an index over their age.
    async fn sweep_by_age(&self, kind: Kind, now: Timestamp, limit: i64) -> Result<Step, StoreError> {
        let Some(mut tx) = sweep::turn(&self.core.store, kind as i64).await? else { return Ok(NOT_NOW) };
        let removed = match kind {
            Kind::ClientActivity => sweep::client_activity(&mut tx, now.minus(ACTIVITY_KEPT), limit).await?,
            Kind::ConsoleSessions => sweep::console_sessions(&mut tx, now, limit).await?,
            Kind::SignInLinks => sweep::sign_in_links(&mut tx, now, limit).await?,
            _ => sweep::idempotency_keys(&mut tx, now.minus(KEPT_FOR), limit).await?,
        };
        tx.commit().await?;
        Ok(by_age(removed, limit))
    }
}

/// Another replica is at it: the walk stays where it is.
const NOT_NOW: Step = Step { removed: 0, is_last: false };

/// Nothing is removed while the clocks differ.
const WITHHELD: Step = Step { removed: 0, is_last: true };

/// A step that went to `end`; where there is none it was the last, and the next walk begins anew.
fn walked<T>(walk: &mut Id<T>, end: Option<Id<T>>, removed: u64) -> Step {
    let is_last = end.is_none();
    *walk = end.unwrap_or(Id::nil());
    Step { removed, is_last }
}

/// A step that always begins with the oldest rows.
const fn by_age(removed: u64, limit: i64) -> Step {
    Step { removed, is_last: removed < limit.unsigned_abs() }
}
