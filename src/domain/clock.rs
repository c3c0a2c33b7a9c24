//! Time: the timestamp that both engines store the same way, and a clock that tests can move.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// Microseconds since 1970-01-01T00:00:00Z.
///
/// SQLite and PostgreSQL store, compare and index integers the same way, unlike dates. RFC 3339 text is
/// made only for output.
///
/// In memory, 2^63 is added to the number. 0 is then free to stand for no time, so an `Option` of this takes no more
/// room. Only [`i64::MIN`] would be 0. It becomes [`Self::MIN`], which is one microsecond later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(NonZeroU64);

/// 1970-01-01T00:00:00Z in memory.
const EPOCH: u64 = 1 << 63;

const _: () = assert!(size_of::<Option<Timestamp>>() == size_of::<i64>());

impl Timestamp {
    /// Earlier than every stored time.
    pub const MIN: Self = Self(NonZeroU64::MIN);
    /// Later than every stored time.
    pub const MAX: Self = Self::from_micros(i64::MAX);

    pub const fn from_micros(micros: i64) -> Self {
        match NonZeroU64::new(micros.cast_unsigned() ^ EPOCH) {
            Some(raised) => Self(raised),
            None => Self::MIN,
        }
    }

    pub const fn from_unix_secs(secs: i64) -> Self {
        Self::from_micros(secs.saturating_mul(1_000_000))
    }

    pub const fn micros(self) -> i64 {
        (self.0.get() ^ EPOCH).cast_signed()
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn unix_secs(self) -> i64 {
        self.micros().div_euclid(1_000_000)
    }

    pub fn plus(self, delta: TimeDelta) -> Self {
        Self::from_micros(self.micros().saturating_add(delta.num_microseconds().unwrap_or(i64::MAX)))
    }

    pub fn minus(self, delta: TimeDelta) -> Self {
        Self::from_micros(self.micros().saturating_sub(delta.num_microseconds().unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to this. Negative if `earlier` is in fact later.
    pub fn since(self, earlier: Self) -> TimeDelta {
        TimeDelta::microseconds(self.micros().saturating_sub(earlier.micros()))
    }

    /// `2026-11-23 17:05:57` in UTC: the published format of `expire_time`.
    pub fn to_published(self) -> String {
        // Without a part of a second, chrono writes exactly this, in a quarter of the time that a pattern takes.
        Self::from_unix_secs(self.unix_secs()).date_time().naive_utc().to_string()
    }

    pub fn to_rfc3339(self) -> String {
        self.date_time().to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// `Mon, 23 Nov 2026 17:05:57 GMT` (RFC 9110 5.6.7).
    pub fn to_http_date(self) -> String {
        self.date_time().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    fn date_time(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.micros()).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timestamp").field(&self.micros()).finish()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_rfc3339())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let time = DateTime::<Utc>::deserialize(deserializer)?;
        Ok(Self::from_micros(time.timestamp_micros()))
    }
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("A time, RFC 3339, UTC."))
            .into()
    }
}

impl ToSchema for Timestamp {}

/// The zero point of [`Clock::monotonic`].
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The source of the current time: the system, or a test.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    #[default]
    System,
    /// The system's time plus this offset, to test a replica whose clock is wrong.
    Wrong(TimeDelta),
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands still at `start` until [`Clock::advance`].
    pub fn manual(start: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(start.micros())))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
            }
            Self::Wrong(offset) => Self::System.now().plus(*offset),
            Self::Manual(micros) => Timestamp::from_micros(micros.load(Ordering::SeqCst)),
        }
    }

    /// Time since a fixed point. It does not jump when somebody sets the system's clock, so a limit that
    /// uses it cannot lock everybody out. A manual clock moves this time too.
    pub fn monotonic(&self) -> Duration {
        match self {
            Self::System | Self::Wrong(_) => STARTED.elapsed(),
            Self::Manual(micros) => {
                Duration::from_micros(u64::try_from(micros.load(Ordering::SeqCst)).unwrap_or(0))
            }
        }
    }

    /// Moves a manual clock. The system's clock cannot be moved.
    pub fn advance(&self, delta: TimeDelta) {
        match self {
            Self::System | Self::Wrong(_) => debug_assert!(false, "the system clock was asked to move"),
            Self::Manual(micros) => {
                micros.fetch_add(delta.num_microseconds().unwrap_or(0), Ordering::SeqCst);
            }
        }
    }
}
