//! Scopes: names for what a key, a client or a session may do (RFC 6749 3.3).
//!
//! Wherever scopes are optional, `None` means every scope.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde::{Serialize, Serializer};

/// The most names in one set.
pub const NAMES_MAX: usize = 64;

const NAME_CHARS_MAX: usize = 100;

/// Whether this is a valid scope: 1 to 100 characters of `%x21 / %x23-5B / %x5D-7E`.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {NAMES_MAX} names, each of 1 to {NAME_CHARS_MAX} printable ASCII characters without \" and \\"
)]
pub struct BadScopes;

/// The sets have no name in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NothingLeft;

/// A set of 1 to 64 names, stored as on the wire: separated by single spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes(Arc<str>);

impl Scopes {
    /// Makes a set of these names and drops duplicates.
    ///
    /// # Errors
    /// [`BadScopes`] if there is no name, too many names, or a malformed one.
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

    /// The names that are in all of these sets.
    ///
    /// # Errors
    /// [`NothingLeft`] if no name is in all of them.
    pub fn in_all<const N: usize>(sets: [Option<&Self>; N]) -> Result<Option<Self>, NothingLeft> {
        let mut sets = sets.into_iter().flatten();
        let Some(first) = sets.next() else { return Ok(None) };
        sets.try_fold(first.clone(), |common, set| common.in_both(set).ok_or(NothingLeft)).map(Some)
    }

    /// The scopes in the path of a call to `/api/verify-scope/`: its first segment after the prefix. They are
    /// in the path because the proxy's configuration fixes it, while the caller controls the query and the
    /// headers.
    pub fn of_verify_path(path: &str) -> Option<Self> {
        let segment = path.strip_prefix("/api/verify-scope/")?.split('/').next()?;
        percent_decode_str(segment).decode_utf8().ok()?.parse().ok()
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

    /// Whether both sets have the same names, in any order.
    pub fn is_same_set(&self, other: &Self) -> bool {
        self.is_within(other) && other.is_within(self)
    }

    pub fn holds(&self, name: &str) -> bool {
        self.names().any(|held| held == name)
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
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
