//! Cells: installations of Tollgate that share nothing, each with a database of its own, behind one proxy.
//!
//! Everything that a cell makes shows the cell, so the proxy can send each call to the right one. This is the
//! layout, with cell 5 (hexadecimal 005) as the example:
//!
//! | made | without cells | by a cell |
//! |---|---|---|
//! | id | `........-....-7...-....-............` | `........-....-7005-bce1-............` |
//! | token | 60 characters | characters 10 and 11 are `AF`, 12 to 14 are `vO` and one of `EFGH` |
//! | API key | 64 hex characters | `005` and 64 hex characters |
//! | client id | 32 hex characters | `005` and 32 hex characters |
//! | admin token | `tga_` and 43 characters | `tga_005` and 43 characters |
//!
//! - **Ids** stay UUIDv7: the cell takes the 12 random bits after the version (RFC 9562 5.7), [`MARK`] takes 14
//!   more, and 48 random bits are left for each millisecond of each cell. An id without a cell looks like one with
//!   the number of another cell once in 16,384 × 4,096 times for each cell that there is.
//! - **Tokens** begin with their kind and the session's id, so the cell and the mark of that id are at a fixed place
//!   of their base64url text.
//! - **Secrets** keep all of their random bytes. Their length tells whether they show a cell.
//!
//! What shows no cell belongs to the default cell: it was made before there were cells.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::secret::{ADMIN_TOKEN_CHARS, ADMIN_TOKEN_PREFIX, API_KEY_CHARS};
use super::token::SealedToken;

/// Hexadecimal digits of a cell.
pub const CELL_DIGITS: usize = 3;

/// The fourth group of an id that shows a cell. Its first two bits are the variant of RFC 9562.
const MARK: [u8; 2] = [0xbc, 0xe1];

/// The characters of a client id that shows no cell.
pub const CLIENT_ID_CHARS: usize = 32;

/// The number of a cell, 0 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellId(u16);

impl CellId {
    pub const MAX: u16 = 4095;

    /// `None` if the number is greater than [`CellId::MAX`].
    pub const fn new(number: u16) -> Option<Self> {
        if number <= Self::MAX { Some(Self(number)) } else { None }
    }

    pub const fn number(self) -> u16 {
        self.0
    }

    /// The two base64url characters that tokens of this cell have at 10 and 11.
    pub fn in_tokens(self) -> String {
        let [high, low] = (self.0 << 4).to_be_bytes();
        URL_SAFE_NO_PAD.encode([high, low])[..2].to_owned()
    }

    /// Puts the cell into the random bytes of a UUIDv7, which follow its time.
    pub(super) const fn stamp(self, random: &mut [u8; 10]) {
        [random[0], random[1]] = self.0.to_be_bytes();
        [random[2], random[3]] = MARK;
    }

    /// The cell that an id shows.
    pub fn of_id(id: Uuid) -> Option<Self> {
        let bytes = id.as_bytes();
        let is_marked = bytes[6] >> 4 == 7 && bytes[8..10] == MARK;
        is_marked.then(|| Self(u16::from_be_bytes([bytes[6] & 0x0f, bytes[7]])))
    }

    /// The cell that a token shows. The token may be forged.
    pub fn of_token(token: &str) -> Option<Self> {
        Self::of_id(SealedToken::parse(token)?.claims().session.uuid())
    }

    /// The cell that an API key shows.
    pub fn of_api_key(key: &str) -> Option<Self> {
        Self::before(key, API_KEY_CHARS)
    }

    /// The cell that a client id shows.
    pub fn of_client_id(client_id: &str) -> Option<Self> {
        Self::before(client_id, CLIENT_ID_CHARS)
    }

    /// The cell that an admin token shows.
    pub fn of_admin_token(token: &str) -> Option<Self> {
        Self::before(token.strip_prefix(ADMIN_TOKEN_PREFIX)?, ADMIN_TOKEN_CHARS - ADMIN_TOKEN_PREFIX.len())
    }

    /// The digits before a text that otherwise has `chars` characters.
    fn before(text: &str, chars: usize) -> Option<Self> {
        let digits = text.get(..CELL_DIGITS).filter(|_| text.len() == CELL_DIGITS + chars)?;
        let is_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        u16::from_str_radix(digits, 16).ok().filter(|_| is_hex).map(Self)
    }
}

/// The three hexadecimal digits that keys of this cell begin with.
impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03x}", self.0)
    }
}

/// The cell that this installation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub id: CellId,
    /// Whether everything that shows no cell is here.
    pub is_default: bool,
}

impl Cell {
    /// Whether something that shows `cell` was made elsewhere.
    pub fn is_elsewhere(self, cell: Option<CellId>) -> bool {
        cell.map_or(!self.is_default, |cell| cell != self.id)
    }

    /// Whether a part of an admin API's path is an id that was made elsewhere, and the cell that it shows.
    pub fn elsewhere_in(self, path: &str) -> Option<Option<CellId>> {
        let shown = |part: &str| match Uuid::try_parse(part) {
            Ok(id) if part.contains('-') => Some(CellId::of_id(id)),
            _ if part.bytes().all(|byte| byte.is_ascii_hexdigit())
                && [CLIENT_ID_CHARS, CLIENT_ID_CHARS + CELL_DIGITS].contains(&part.len()) =>
            {
                Some(CellId::of_client_id(part))
            }
            _ => None,
        };
        path.split('/').filter_map(shown).find(|shown| self.is_elsewhere(*shown))
    }
}
