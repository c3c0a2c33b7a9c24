//! Scopes: names of what a key, a client and a session may do (RFC 6749 3.3).
//!
//! Wherever scopes are optional, `None` means everything.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Names of one set.
pub const NAMES_MAX: usize = 64;

const NAME_CHARS_MAX: usize = 100;

/// Whether this is one scope: 1 to 100 of `%x21 / %x23-5B / %x5D-7E`.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

/// Why a text is no set of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {NAMES_MAX} names, each of 1 to {NAME_CHARS_MAX} printable ASCII characters without \" and \\"
)]
pub struct BadScopes;

/// Several sets have no name in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NothingLeft;

/// 1 to 64 names, each once. Kept as they are written on the wire, with one space between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes(Arc<str>);

impl Scopes {
    /// A name that is there twice counts once.
    ///
    /// # Errors
    /// [`BadScopes`] for no name at all, too many, or one that is malformed.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, BadScopes> {
        let mut distinct = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            if index == NAMES_MAX || !is_name(name) {
                return Err(BadScopes);
            }
            if !distinct.contains(&name) {
                distinct.push(name);
            }
        }
        if distinct.is_empty() { Err(BadScopes) } else { Ok(Self(distinct.join(" ").into())) }
    }

    /// What all of these sets hold, of which `None` holds everything.
    ///
    /// # Errors
    /// [`NothingLeft`] where that is not one name.
    pub fn in_all<const N: usize>(sets: [Option<&Self>; N]) -> Result<Option<Self>, NothingLeft> {
        let mut sets = sets.into_iter().flatten();
        let Some(first) = sets.next() else { return Ok(None) };
        sets.try_fold(first.clone(), |common, set| common.in_both(set).ok_or(NothingLeft)).map(Some)
    }

    fn in_both(self, other: &Self) -> Option<Self> {
        if self.is_within(other) {
            return Some(self);
        }
        let common: Vec<_> = self.names().filter(|name| other.holds(name)).collect();
        (!common.is_empty()).then(|| Self(common.join(" ").into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ')
    }

    pub fn to_strings(&self) -> Vec<String> {
        self.names().map(str::to_owned).collect()
    }

    pub fn is_within(&self, other: &Self) -> bool {
        self == other || self.names().all(|name| other.holds(name))
    }

    /// The same names, in whatever order.
    pub fn is_same_set(&self, other: &Self) -> bool {
        self.is_within(other) && other.is_within(self)
    }

    fn holds(&self, name: &str) -> bool {
        self.names().any(|held| held == name)
    }
}

impl FromStr for Scopes {
    type Err = BadScopes;

    fn from_str(text: &str) -> Result<Self, BadScopes> {
        Self::of(text.split(' '))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
