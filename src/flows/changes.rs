//! What a change says of a field: nothing, a value, or that the field is taken away.

use serde::{Deserialize, Deserializer};

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
