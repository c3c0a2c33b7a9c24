//! Limits: how often something may happen before the caller is told to slow down.
//!
//! Each replica counts in memory, because limits do not have to agree across replicas. [`super::failures`]
//! counts failed authentications.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use moka::sync::Cache;
use serde::Serialize;
use utoipa::ToSchema;

use super::failures::{Failures, Surface};
use crate::domain::clock::Clock;
use crate::domain::ids::{ApiKeyId, CredentialId, UserId};
use crate::domain::reason::Reason;
use crate::domain::secret::SecretHash;

const MINUTE: Duration = Duration::from_secs(60);

/// The most console calls of one user per minute. That is ten per second, which a person cannot make.
const CONSOLE_CALLS_PER_USER: u32 = 600;

/// The most console calls from one address per minute. A whole company may share an address.
const CONSOLE_CALLS_PER_ADDRESS: u32 = 6_000;

/// The most callers that are counted at a time. If there are more, new callers are not counted in this
/// minute.
const CALLERS_MAX: usize = 100_000;

/// The most admin tokens in the cache of valid ones.
const GOOD_TOKENS_MAX: u64 = 10_000;

/// The `[limits]` settings. Zero means no limit, except for the first one.
#[derive(Clone, Copy, Debug)]
pub struct LimitSettings {
    pub failures_per_address_per_minute: u32,
    pub calls_per_key_per_second: u32,
    pub new_sessions_per_client_per_minute: u32,
    pub admin_calls_per_token_per_minute: u32,
    /// Sessions of a client at a time; the sweeper removes those past it.
    pub sessions_per_client_max: u32,
}

/// The limits of one caller. Null means that a limit is off.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct LimitsOf {
    calls_per_key_per_second: Option<u32>,
    new_sessions_per_client_per_minute: Option<u32>,
    failures_per_address_per_minute: u32,
    /// How many failed authentications the caller's address has left now.
    failures_left: u32,
}

pub struct Limits {
    settings: LimitSettings,
    api_failures: Failures,
    admin_failures: Failures,
    console_failures: Failures,
    calls: Option<Rate<ApiKeyId>>,
    sessions: Option<Rate<CredentialId>>,
    /// By the hash of an accepted token, so that a token over its limit is refused without a query.
    pub admin_calls: Calls<SecretHash>,
    pub console_users: Calls<UserId>,
    pub console_addresses: Calls<IpAddr>,
    /// Admin tokens that were valid when they were last checked.
    pub(super) good_tokens: Cache<SecretHash, ()>,
}

impl Limits {
    pub fn new(settings: LimitSettings, clock: &Clock) -> Self {
        let time = AppClock(clock.clone());
        let failures = || Failures::new(settings.failures_per_address_per_minute, clock);
        Self {
            settings,
            api_failures: failures(),
            admin_failures: failures(),
            console_failures: failures(),
            calls: NonZeroU32::new(settings.calls_per_key_per_second)
                .map(|calls| Rate::new(Quota::per_second(calls), &time)),
            sessions: NonZeroU32::new(settings.new_sessions_per_client_per_minute)
                .map(|sessions| Rate::new(Quota::per_minute(sessions), &time)),
            admin_calls: Calls::new(settings.admin_calls_per_token_per_minute, clock),
            console_users: Calls::new(CONSOLE_CALLS_PER_USER, clock),
            console_addresses: Calls::new(CONSOLE_CALLS_PER_ADDRESS, clock),
            good_tokens: Cache::new(GOOD_TOKENS_MAX),
        }
    }

    pub(super) const fn failures(&self, surface: Surface) -> &Failures {
        match surface {
            Surface::Api => &self.api_failures,
            Surface::Admin => &self.admin_failures,
            Surface::Console => &self.console_failures,
        }
    }

    /// The limits for a caller from `ip`.
    pub fn of(&self, ip: IpAddr) -> LimitsOf {
        let is_on = |limit: u32| (limit > 0).then_some(limit);
        LimitsOf {
            calls_per_key_per_second: is_on(self.settings.calls_per_key_per_second),
            new_sessions_per_client_per_minute: is_on(self.settings.new_sessions_per_client_per_minute),
            failures_per_address_per_minute: self.settings.failures_per_address_per_minute,
            failures_left: self.api_failures.left(ip),
        }
    }

    /// Counts a call with a key. `false` if it is over the limit.
    pub fn count_call(&self, key: ApiKeyId) -> bool {
        self.calls.as_ref().is_none_or(|calls| calls.0.check_key(&key).is_ok())
    }

    /// Counts a session of a client. `false` if it is over the limit.
    pub fn count_session(&self, client: CredentialId) -> bool {
        self.sessions.as_ref().is_none_or(|sessions| sessions.0.check_key(&client).is_ok())
    }

    /// After how many seconds a caller that was refused for `reason` should try again.
    pub fn retry_after_secs(&self, surface: Surface, reason: Reason, ip: IpAddr) -> u32 {
        let wait = match reason {
            Reason::TooManyFailures => self.failures(surface).locked_for(ip),
            Reason::TooManySessions => self.sessions.as_ref().map_or(Duration::ZERO, |rate| rate.1),
            _ => Duration::ZERO,
        };
        whole_secs(wait)
    }

    /// Removes callers that are no longer active, so that memory does not grow with every caller.
    pub fn tidy(&self) {
        for surface in [Surface::Api, Surface::Admin, Surface::Console] {
            self.failures(surface).tidy();
        }
        if let Some(calls) = &self.calls {
            calls.0.retain_recent();
            calls.0.shrink_to_fit();
        }
        if let Some(sessions) = &self.sessions {
            sessions.0.retain_recent();
            sessions.0.shrink_to_fit();
        }
        self.admin_calls.tidy();
        self.console_users.tidy();
        self.console_addresses.tidy();
    }

    /// How many addresses, keys, clients, tokens and users are in memory.
    pub fn tracked(&self) -> usize {
        self.api_failures.tracked()
            + self.admin_failures.tracked()
            + self.console_failures.tracked()
            + self.calls.as_ref().map_or(0, |rate| rate.0.len())
            + self.sessions.as_ref().map_or(0, |rate| rate.0.len())
            + self.admin_calls.windows().len()
            + self.console_users.windows().len()
            + self.console_addresses.windows().len()
    }
}

fn whole_secs(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

/// Counts the calls of each caller in a minute. The minute begins with the caller's first call.
pub struct Calls<K> {
    clock: Clock,
    /// 0 means no limit.
    max: u32,
    windows: Mutex<HashMap<K, Window>>,
}

#[derive(Clone, Copy)]
struct Window {
    began: Duration,
    calls: u32,
}

impl<K: Hash + Eq> Calls<K> {
    fn new(max: u32, clock: &Clock) -> Self {
        Self { clock: clock.clone(), max, windows: Mutex::default() }
    }

    /// Counts a call. The error says how many seconds to wait if it is over the limit.
    pub fn count(&self, caller: K) -> Result<(), u32> {
        if self.max == 0 {
            return Ok(());
        }
        let now = self.clock.monotonic();
        let mut windows = self.windows();
        if windows.len() >= CALLERS_MAX && !windows.contains_key(&caller) {
            windows.retain(|_, window| now < window.began + MINUTE);
            if windows.len() >= CALLERS_MAX {
                return Ok(());
            }
        }
        let window = windows.entry(caller).or_insert(Window { began: now, calls: 0 });
        if window.began + MINUTE <= now {
            *window = Window { began: now, calls: 0 };
        }
        if window.calls >= self.max {
            return Err(whole_secs(window.began + MINUTE - now));
        }
        window.calls += 1;
        Ok(())
    }

    /// Whether the next call would be within the limit, without counting it. The error says how many seconds
    /// to wait.
    pub fn may_call(&self, caller: &K) -> Result<(), u32> {
        let now = self.clock.monotonic();
        match self.windows().get(caller) {
            Some(window) if window.calls >= self.max && now < window.began + MINUTE => {
                Err(whole_secs(window.began + MINUTE - now))
            }
            _ => Ok(()),
        }
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<K, Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tidy(&self) {
        let now = self.clock.monotonic();
        let mut windows = self.windows();
        windows.retain(|_, window| now < window.began + MINUTE);
        windows.shrink_to(0);
    }
}

/// The application's clock for the rate limiter.
#[derive(Clone)]
struct AppClock(Clock);

impl clock::Clock for AppClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

/// A rate limit per key, and the time after which one more call is allowed. Only admitted callers are
/// counted, so there are no more keys than rows in the database.
struct Rate<K: Clone + Hash + Eq>(
    RateLimiter<K, DashMapStateStore<K>, AppClock, NoOpMiddleware<Duration>>,
    Duration,
);

impl<K: Clone + Hash + Eq> Rate<K> {
    fn new(quota: Quota, time: &AppClock) -> Self {
        let store = DashMapStateStore::default();
        Self(RateLimiter::new(quota, store, time.clone()), quota.replenish_interval())
    }
}
