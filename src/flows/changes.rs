//! What a change says of a field: nothing, a value, or that the field is taken away. And which versions of the
//! object it is for.

use serde::{Deserialize, Deserializer};

use super::error::Refused;

/// The versions of an object that a change may be made to (`If-Match`, RFC 9110 13.1.1). `None` is any.
pub type Versions = Option<Vec<i64>>;

pub(super) fn must_include(versions: &Versions, current: i64) -> Result<(), Refused> {
    match versions {
        Some(versions) if !versions.contains(&current) => Err(Refused::VersionMismatch),
        _ => Ok(()),
    }
}

/// Distinguishes `null` from a missing field. `Some(None)` removes a setting.
///
/// # Errors
/// When the value is neither null nor a `T`.
pub fn nullable<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}
