//! Signing in to the console: timeouts, recovery codes, and codes from an authenticator app (RFC 6238).

use std::sync::LazyLock;

use chrono::TimeDelta;
use data_encoding::{Encoding, Specification};
use sqlx::FromRow;
use totp_rs::{Builder, Secret, Totp};
use zeroize::Zeroizing;

use super::clock::Timestamp;
use super::entropy::Entropy;
use super::secret::{PlainSecret, SecretHash};

/// A session ends this long after its last request.
pub const IDLE_TIMEOUT: TimeDelta = TimeDelta::minutes(30);

/// A session ends this long after the sign-in, even while it is used.
pub const ABSOLUTE_TIMEOUT: TimeDelta = TimeDelta::hours(12);

/// How long a user has for the second factor after the password.
pub const SECOND_FACTOR_WITHIN: TimeDelta = TimeDelta::minutes(5);

/// This many failed sign-ins in a row lock an account for [`LOCKED_FOR`].
pub const FAILURES_MAX: i64 = 10;

pub const LOCKED_FOR: TimeDelta = TimeDelta::minutes(30);

/// How long a one-time sign-in link works.
pub const LINK_TTL: TimeDelta = TimeDelta::hours(1);

/// How many sessions a user may have at a time, and how many sign-ins may wait for a second factor. One more
/// ends the oldest.
pub const SESSIONS_MAX: i64 = 20;

/// How many recovery codes a user gets at a time.
pub const RECOVERY_CODES: usize = 10;

/// 160 bits, as RFC 4226 4 recommends.
const TOTP_SECRET_BYTES: usize = 20;

/// Base32 without letters that look like digits, because people copy these codes by hand.
static CODE_ENCODING: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghjkmnpqrstuvwxyz023456789");
    specification.encoding().expect("32 different symbols make an encoding")
});

/// A console session. Only the cookie holds the secret itself.
#[derive(Clone, Debug, FromRow)]
pub struct ConsoleSession {
    pub hash: SecretHash,
    /// The password was right and the second factor is still to come. Until then the session can do
    /// nothing else.
    pub awaits_totp: bool,
    /// Opened by a one-time link, which replaces a forgotten password.
    pub by_link: bool,
    pub created_at: Timestamp,
    pub last_seen_at: Timestamp,
    pub expires_at: Timestamp,
    pub client_ip: String,
}

impl ConsoleSession {
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at && now < self.last_seen_at.plus(IDLE_TIMEOUT)
    }
}

/// A new recovery code: 80 random bits as 16 characters, in groups of four.
pub fn generate_recovery_code(entropy: &Entropy) -> PlainSecret {
    let bytes = Zeroizing::new(entropy.bytes::<10>());
    let mut code = Zeroizing::new(CODE_ENCODING.encode(&*bytes));
    for end_of_group in [12, 8, 4] {
        code.insert(end_of_group, '-');
    }
    PlainSecret::new(std::mem::take(&mut *code))
}

/// The hash of a recovery code as typed. Hyphens, spaces and case are ignored.
pub fn recovery_code_hash(typed: &str) -> SecretHash {
    let plain: Zeroizing<String> = Zeroizing::new(
        typed.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect(),
    );
    SecretHash::of(&plain)
}

/// A secret for an authenticator app.
pub struct TotpSecret(Zeroizing<Vec<u8>>);

impl TotpSecret {
    pub fn generate(entropy: &Entropy) -> Self {
        Self(Zeroizing::new(entropy.bytes::<TOTP_SECRET_BYTES>().to_vec()))
    }

    pub const fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// For users who type the secret into their app instead of scanning the QR code.
    pub fn to_base32(&self) -> PlainSecret {
        PlainSecret::new(Secret::new(self.0.as_slice().into()).to_base32())
    }

    /// The 30-second step that the code belongs to. Only the current step and its two neighbours count
    /// (RFC 6238 5.2).
    pub fn step_of(&self, code: &str, now: Timestamp) -> Option<i64> {
        let now_secs = u64::try_from(now.unix_secs()).ok()?;
        self.totp().check(code, now_secs).and_then(|step| i64::try_from(step).ok())
    }

    fn totp(&self) -> Totp {
        Builder::new()
            .with_secret(Secret::new(self.0.as_slice().into()))
            .build()
            .expect("160 bits and the defaults of RFC 6238 are compliant")
    }
}
