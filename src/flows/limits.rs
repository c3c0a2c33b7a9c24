//! Limits: how often something may happen before the caller is told to slow down.
//!
//! Counted in memory, per replica: what must agree across replicas is decided in the database, and a
//! limit need not. Failed authentications are counted by [`super::failures`].

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

/// Pages and forms of one user in a minute: ten a second is no person.
const CONSOLE_CALLS_PER_USER: u32 = 600;

/// Calls of the console from one address in a minute. A whole company may share an address.
const CONSOLE_CALLS_PER_ADDRESS: u32 = 6_000;

/// Callers whose calls are counted at a time. Past it, callers that are new in this minute go uncounted.
const CALLERS_MAX: usize = 100_000;

/// Admin tokens that are known to be good.
const GOOD_TOKENS_MAX: u64 = 10_000;

/// From the `[limits]` settings. Zero is "off" for all but the first.
#[derive(Clone, Copy, Debug)]
pub struct LimitSettings {
    pub failures_per_address_per_minute: u32,
    pub calls_per_key_per_second: u32,
    pub new_sessions_per_client_per_minute: u32,
    pub admin_calls_per_token_per_minute: u32,
}

/// The limits of one caller. Null means that a limit is off.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct LimitsOf {
    calls_per_key_per_second: Option<u32>,
    new_sessions_per_client_per_minute: Option<u32>,
    failures_per_address_per_minute: u32,
    /// Failed authentications that this address has left at this moment.
    failures_left: u32,
}

pub struct Limits {
    settings: LimitSettings,
    api_failures: Failures,
    admin_failures: Failures,
    console_failures: Failures,
    calls: Option<Rate<ApiKeyId>>,
    sessions: Option<Rate<CredentialId>>,
    /// By the hash of a token that was let in: so an exhausted one is refused before the store is asked.
    pub admin_calls: Calls<SecretHash>,
    pub console_users: Calls<UserId>,
    pub console_addresses: Calls<IpAddr>,
    /// Admin tokens that were live when they were last looked at.
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

    /// The limits that hold for a caller from `ip`.
    pub fn of(&self, ip: IpAddr) -> LimitsOf {
        let is_on = |limit: u32| (limit > 0).then_some(limit);
        LimitsOf {
            calls_per_key_per_second: is_on(self.settings.calls_per_key_per_second),
            new_sessions_per_client_per_minute: is_on(self.settings.new_sessions_per_client_per_minute),
            failures_per_address_per_minute: self.settings.failures_per_address_per_minute,
            failures_left: self.api_failures.left(ip),
        }
    }

    /// Counts a call with a key; `false` when it is one too many.
    pub fn count_call(&self, key: ApiKeyId) -> bool {
        self.calls.as_ref().is_none_or(|calls| calls.0.check_key(&key).is_ok())
    }

    /// Counts a session of a client; `false` when it is one too many.
    pub fn count_session(&self, client: CredentialId) -> bool {
        self.sessions.as_ref().is_none_or(|sessions| sessions.0.check_key(&client).is_ok())
    }

    /// Seconds after which a caller refused for `reason` may do better.
    pub fn retry_after_secs(&self, surface: Surface, reason: Reason, ip: IpAddr) -> u32 {
        let wait = match reason {
            Reason::TooManyFailures => self.failures(surface).locked_for(ip),
            Reason::TooManySessions => self.sessions.as_ref().map_or(Duration::ZERO, |rate| rate.1),
            _ => Duration::ZERO,
        };
        whole_secs(wait)
    }

    /// Forgets what no longer matters, so that memory does not grow with every caller there ever was.
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

    /// Addresses, keys, clients, tokens and users in memory.
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

/// How many calls each caller makes in a minute, which begins with its first.
pub struct Calls<K> {
    clock: Clock,
    /// 0: off.
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

    /// Counts a call. Seconds to wait, where it is one too many.
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

    /// Seconds to wait, where the next call would be one too many. It is not counted.
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

/// The application's clock, as the rate limiter reads it.
#[derive(Clone)]
struct AppClock(Clock);

impl clock::Clock for AppClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

/// A rate per key, and how long one more takes to be earned. There are no more keys in it than there
/// are rows in the database: only admitted callers are counted.
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
