//! The sweeper removes old rows. It works in small steps with pauses in between, so that calls do not slow
//! down.
//!
//! **When a session can be removed.** Without its row, all tokens of a session are refused. So removing a row
//! too early can end a session, but can never let anybody in. Removing it also ends the replay alarm: an old
//! refresh token that comes back no longer revokes the session. So a row stays while there is something to
//! protect. It can be removed in these cases:
//!
//! - The session was revoked or has expired: every token is refused before its generation is checked.
//! - The session was idle for `refresh_ttl`: its current refresh token has expired. The one before works
//!   only in the retry window, which is shorter. Access tokens have expired too, because
//!   `access_ttl <= refresh_ttl` is checked at start. No token can be used or renewed, so there is nothing
//!   left that a replay could harm.
//!
//! A session that ended because credentials were switched OFF waits for one of these cases.
//!
//! In each case the row stays for another [`crate::domain::session::KEPT_AFTER_END`], or for `access_ttl` if
//! that is longer. The lifetimes are the current settings: a shorter `refresh_ttl` also ends sessions that
//! began under a longer one.
//!
//! **How sessions are found.** There is no index over the columns that a rotation changes, because
//! PostgreSQL could then not update the row in place (HOT). The walk goes by primary key, which is the order
//! of start, over all sessions that started longer ago than `refresh_ttl`. No other session can have been
//! idle for that long. A session that was revoked earlier also waits until then.
//!
//! **How fast.** A walk works about two percent of the time, which calls do not notice. For every ten
//! minutes that the walk lasts, this doubles, up to a third ([`super::pace`]). So a backlog is removed
//! faster and faster.
//!
//! **Which clock.** The database's clock. Nothing is removed while ours differs from it ([`super::clock`]).
//!
//! **Replicas.** Any number of replicas can sweep. The statement that removes rows decides by itself what can
//! go, so no replica relies on another. For each kind, one replica removes at a time. Another one comes back
//! later instead of waiting for locks.

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
use crate::store::call_counts::{self, DAY_SECS, EARLIER_SHORT_SECS, HOUR_SECS, SHORT_SECS};
use crate::store::{Engine, StoreError, exchange_days, sweep};

/// How many webhook deliveries a step removes. Each may have dozens of attempts.
const DELIVERIES_STEP: i64 = 50;

/// How many merchants a step looks at that reads sessions. Most have nothing to remove.
pub(super) const MERCHANTS_STEP: i64 = 20;

/// How long client activity is kept: a little longer than it is used.
const ACTIVITY_KEPT: TimeDelta = TimeDelta::hours(3);

/// After this, calls in short slots are added to their hour and day.
const SHORT_COUNTS_KEPT: TimeDelta = TimeDelta::hours(3);

/// How long calls are counted in an hour or a day.
const LONG_COUNTS_KEPT: TimeDelta = TimeDelta::days(32);

/// The pause before the first step, because a starting process has other things to do.
const START_DELAY: Duration = Duration::from_secs(5);

/// The pause after a store error.
const FAULT_PAUSE: Duration = Duration::from_secs(10);

/// What is swept. Each kind has its own walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray, EnumCount)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    Sessions,
    /// Sessions of clients that have more than they may.
    SurplusSessions,
    Exchanges,
    WebhookDeliveries,
    WebhookEvents,
    AuditEvents,
    IdempotencyKeys,
    ClientActivity,
    /// Of the overview.
    CallCounts,
    /// Sessions of the console.
    ConsoleSessions,
    SignInLinks,
}

impl Kind {
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// How long records are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub audit: TimeDelta,
    pub exchanges: TimeDelta,
    /// The share of successful calls that are recorded, from 0 to 1.
    pub exchange_success_sample: f64,
}

/// The position of each walk.
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
    retention: Retention,
    /// Zero means no limit.
    sessions_per_client_max: u32,
    /// Locked during a step, so that this process makes one step at a time.
    walks: Mutex<Walks>,
    removed: [Count; Kind::COUNT],
    /// Complete walks over all sessions.
    session_walks: Count,
}

impl Sweeper {
    pub fn new(core: SharedCore, retention: Retention, sessions_per_client_max: u32) -> Arc<Self> {
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
        Arc::new(Self { core, clock, retention, sessions_per_client_max, walks, removed, session_walks })
    }

    /// Rows removed since the process started.
    pub fn removed(&self, kind: Kind) -> u64 {
        self.removed[kind as usize].get()
    }

    pub const fn clock(&self) -> &DatabaseClock {
        &self.clock
    }

    /// Complete walks over all sessions since the process started.
    pub fn session_walks(&self) -> u64 {
        self.session_walks.get()
    }

    /// Runs until it is aborted. That loses nothing: a row that was not removed is found again.
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
                    tracing::warn!(%error, kind = kind.name(), "the sweeper step failed and will be retried");
                    FAULT_PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Makes one step of a walk. After an error, the walk continues from where it was.
    pub async fn tick(&self, kind: Kind) -> Result<Step, StoreError> {
        self.step(&mut *self.walks.lock().await, kind, STEP).await
    }

    async fn step(&self, walks: &mut Walks, kind: Kind, limit: i64) -> Result<Step, StoreError> {
        let Some(now) = self.clock.now().await? else { return Ok(WITHHELD) };
        let step = match kind {
            Kind::Sessions => self.sweep_sessions(&mut walks.sessions, now, limit).await?,
            Kind::SurplusSessions => {
                walks.surplus.step(&self.core.store, self.sessions_per_client_max as usize).await?
            }
            Kind::Exchanges => self.sweep_exchanges(&mut walks.exchanges, now, limit).await?,
            Kind::WebhookDeliveries => self.sweep_deliveries(&mut walks.deliveries, now).await?,
            Kind::WebhookEvents => self.sweep_events(&mut walks.events, now, limit).await?,
            Kind::AuditEvents => self.sweep_audit_events(now, limit).await?,
            Kind::IdempotencyKeys
            | Kind::ClientActivity
            | Kind::CallCounts
            | Kind::ConsoleSessions
            | Kind::SignInLinks => self.sweep_by_age(kind, now, limit).await?,
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

    /// Goes through the merchants in steps. PostgreSQL has a table for each day, and drops those that are old enough.
    /// There, rows are removed only from what belongs to no day.
    async fn sweep_exchanges(
        &self,
        walk: &mut MerchantId,
        now: Timestamp,
        limit: i64,
    ) -> Result<Step, StoreError> {
        let store = &self.core.store;
        let mut until = now.minus(self.retention.exchanges);
        if store.engine() == Engine::Postgres {
            until = exchange_days::midnight(until);
            if *walk == MerchantId::nil()
                && let Some(step) = self.keep_days(now, until).await?
            {
                return Ok(step);
            }
        }
        let mut db = store.read().await?;
        let merchants = sweep::merchants(&mut db, *walk, limit).await?;
        let old = sweep::old_exchanges(&mut db, &merchants, ExchangeId::first_of(until), limit).await?;
        drop(db);
        let mut removed = 0;
        if !old.is_empty() {
            let Some(mut tx) = sweep::turn(store, Kind::Exchanges as i64).await? else { return Ok(NOT_NOW) };
            removed = sweep::exchanges(&mut tx, &old).await?;
            tx.commit().await?;
        }
        if old.len() as i64 == limit {
            // These merchants have more.
            return Ok(Step { removed, is_last: false });
        }
        let is_last = (merchants.len() as i64) < limit;
        *walk = merchants.last().copied().filter(|_| !is_last).unwrap_or(MerchantId::nil());
        Ok(Step { removed, is_last })
    }

    /// Makes the tables of the next days, and drops the oldest one if it is from before `until`.
    async fn keep_days(&self, now: Timestamp, until: Timestamp) -> Result<Option<Step>, StoreError> {
        let Some(mut tx) = sweep::turn(&self.core.store, Kind::Exchanges as i64).await? else {
            return Ok(Some(NOT_NOW));
        };
        // Dropping locks the whole first, and so does who reads. The other order could be a deadlock.
        let dropped = exchange_days::drop_oldest(&mut tx, ExchangeId::first_of(until)).await?;
        exchange_days::make(&mut tx, now).await?;
        tx.commit().await?;
        Ok(dropped.map(|rows| Step { removed: rows.unsigned_abs(), is_last: false }))
    }

    async fn sweep_deliveries(&self, walk: &mut DeliveryId, now: Timestamp) -> Result<Step, StoreError> {
        let store = &self.core.store;
        let finished = now.minus(self.retention.exchanges);
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
        let until = EventId::first_of(now.minus(self.retention.exchanges));
        let end = sweep::event_step(&mut store.read().await?, *walk, until, limit).await?;
        let Some(mut tx) = sweep::turn(store, Kind::WebhookEvents as i64).await? else { return Ok(NOT_NOW) };
        let removed = sweep::events(&mut tx, *walk, end.unwrap_or(until)).await?;
        tx.commit().await?;
        Ok(walked(walk, end, removed))
    }

    async fn sweep_audit_events(&self, now: Timestamp, limit: i64) -> Result<Step, StoreError> {
        match self.core.cut_audit_chain(now.minus(self.retention.audit), limit).await? {
            Cutting::Removed(removed) => Ok(by_age(removed, limit)),
            Cutting::Refused(verdict) => {
                tracing::error!(?verdict, "the audit chain is not intact, so no events are removed");
                Ok(Step { removed: 0, is_last: true })
            }
        }
    }

    /// For kinds that have an index on their age.
    async fn sweep_by_age(&self, kind: Kind, now: Timestamp, limit: i64) -> Result<Step, StoreError> {
        let Some(mut tx) = sweep::turn(&self.core.store, kind as i64).await? else { return Ok(NOT_NOW) };
        let removed = match kind {
            Kind::ClientActivity => sweep::client_activity(&mut tx, now.minus(ACTIVITY_KEPT), limit).await?,
            Kind::CallCounts => {
                let short = now.minus(SHORT_COUNTS_KEPT);
                let long = now.minus(LONG_COUNTS_KEPT);
                let mut total = call_counts::roll_up(&mut tx, short, limit).await?;
                // Short slots that are so old are of merchants that another cell serves.
                for (secs, until) in
                    [(EARLIER_SHORT_SECS, short), (SHORT_SECS, long), (HOUR_SECS, long), (DAY_SECS, long)]
                {
                    let left = limit - i64::try_from(total).unwrap_or(limit);
                    total += call_counts::sweep(&mut tx, secs, until, left).await?;
                }
                total
            }
            Kind::ConsoleSessions => sweep::console_sessions(&mut tx, now, limit).await?,
            Kind::SignInLinks => sweep::sign_in_links(&mut tx, now, limit).await?,
            _ => sweep::idempotency_keys(&mut tx, now.minus(KEPT_FOR), limit).await?,
        };
        tx.commit().await?;
        Ok(by_age(removed, limit))
    }
}

/// Another replica is removing rows of this kind. The walk stays where it is.
const NOT_NOW: Step = Step { removed: 0, is_last: false };

/// Nothing is removed, because the clocks differ.
const WITHHELD: Step = Step { removed: 0, is_last: true };

/// A step that went up to `end`. `None` means the walk is complete, and the next one starts again.
fn walked<T>(walk: &mut Id<T>, end: Option<Id<T>>, removed: u64) -> Step {
    let is_last = end.is_none();
    *walk = end.unwrap_or(Id::nil());
    Step { removed, is_last }
}

/// A step that always removes the oldest rows first.
const fn by_age(removed: u64, limit: i64) -> Step {
    Step { removed, is_last: removed < limit.unsigned_abs() }
}
