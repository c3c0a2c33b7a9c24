//! Sealed tokens. They are not stored, so they cannot be stolen from the database and need no clean-up.
//!
//! ```text
//! token = base64url( kind(1) | session id(16) | generation(4) | expires at, seconds(4) | mac(20) )
//! mac   = first 20 bytes of HMAC-SHA256( HKDF(server key, "token"), session secret(32) | everything before mac )
//! ```
//!
//! Forging a token needs both the server key, which is not in the database, and the session's secret, which
//! is in the database.
//!
//! Tokens are derived and not random: the same rotation always gives the same pair. So a client can ask again
//! for a lost response, and parallel refreshes get the same pair without a lock.
//!
//! **Why one HMAC is enough.** Its key is derived once from the server key, for tokens only. So the MAC of a
//! token takes three blocks of SHA-256.
//! - An attacker with the database does not know the HMAC's key. A forgery would be the HMAC of a new message
//!   under an unknown key, and HMAC prevents that. The message always ends with 25 bytes of claims, so two
//!   different pairs of secret and claims never give the same message. The kind is one of the claims.
//! - An attacker with the server key knows the HMAC's key, but not the 32 random bytes at the start of the
//!   message. The outer hash prevents length extension. So the attacker has to guess 256 bits.
//!
//! **The first form.** Earlier, each token was signed with a key of its own,
//! `HKDF(server key, salt = session secret, info = kind)`, which takes twelve blocks. The form belongs to the
//! session, not to the token: see [`super::keyring::Signer`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

use super::clock::Timestamp;
use super::ids::SessionId;
use super::keyring::Signer;
use super::secret::PlainSecret;

pub const TOKEN_CHARS: usize = 60;

const SIGNED_BYTES: usize = 25;
const MAC_BYTES: usize = 20;
const TOKEN_BYTES: usize = SIGNED_BYTES + MAC_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Access,
    Refresh,
}

impl TokenKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Access => 1,
            Self::Refresh => 2,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Access),
            2 => Some(Self::Refresh),
            _ => None,
        }
    }

    /// Names the key that signed a token of the first form.
    pub(super) const fn info(self) -> &'static [u8] {
        match self {
            Self::Access => b"access token",
            Self::Refresh => b"refresh token",
        }
    }
}

/// The contents of a token. Do not trust them before [`SealedToken::is_genuine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    pub kind: TokenKind,
    pub session: SessionId,
    pub generation: u32,
    pub expires_at: Timestamp,
}

impl Claims {
    fn to_bytes(self) -> [u8; SIGNED_BYTES] {
        // Seconds fit into 32 bits until 2106. A later time saturates, so a token never lives longer than it
        // should.
        let secs = u32::try_from(self.expires_at.unix_secs().max(0)).unwrap_or(u32::MAX);
        let mut bytes = [0; SIGNED_BYTES];
        bytes[0] = self.kind.byte();
        bytes[1..17].copy_from_slice(self.session.uuid().as_bytes());
        bytes[17..21].copy_from_slice(&self.generation.to_be_bytes());
        bytes[21..].copy_from_slice(&secs.to_be_bytes());
        bytes
    }

    /// Makes the token for these claims.
    pub fn seal(self, signer: &Signer, session_secret: &[u8]) -> PlainSecret {
        let signed = self.to_bytes();
        let mut token = [0; TOKEN_BYTES];
        token[..SIGNED_BYTES].copy_from_slice(&signed);
        let mac = signer.mac(self.kind, session_secret, &signed);
        token[SIGNED_BYTES..].copy_from_slice(&mac[..MAC_BYTES]);
        PlainSecret::new(URL_SAFE_NO_PAD.encode(token))
    }
}

/// A presented token that is well-formed, but not checked yet.
#[derive(Clone, Copy)]
pub struct SealedToken {
    claims: Claims,
    mac: [u8; MAC_BYTES],
}

impl SealedToken {
    /// `None` if the text is not 60 characters of base64url with a known kind. So a text that cannot be a
    /// token costs no query.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != TOKEN_CHARS {
            return None;
        }
        let mut bytes = [0; TOKEN_BYTES];
        URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (kind, rest) = bytes.split_first_chunk::<1>()?;
        let (session, rest) = rest.split_first_chunk::<16>()?;
        let (generation, rest) = rest.split_first_chunk::<4>()?;
        let (expires_at, rest) = rest.split_first_chunk::<4>()?;
        let (mac, _) = rest.split_first_chunk::<MAC_BYTES>()?;
        let claims = Claims {
            kind: TokenKind::from_byte(kind[0])?,
            session: SessionId::from_uuid(uuid::Uuid::from_bytes(*session)),
            generation: u32::from_be_bytes(*generation),
            expires_at: Timestamp::from_unix_secs(u32::from_be_bytes(*expires_at).into()),
        };
        Some(Self { claims, mac: *mac })
    }

    pub const fn claims(&self) -> Claims {
        self.claims
    }

    /// Whether we sealed this token for the session with this secret. Compares in constant time.
    pub fn is_genuine(&self, signer: &Signer, session_secret: &[u8]) -> bool {
        let mac = signer.mac(self.claims.kind, session_secret, &self.claims.to_bytes());
        mac[..MAC_BYTES].ct_eq(&self.mac).into()
    }
}
