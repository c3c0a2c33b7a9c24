//! Helper types for values that are stored in a column of another type.

use serde_json::Value;

/// A list or an object, in a column of text.
#[derive(Debug)]
pub struct JsonText<T>(pub T);

impl<T> From<JsonText<Self>> for Vec<T> {
    fn from(text: JsonText<Self>) -> Self {
        text.0
    }
}

impl From<JsonText<Self>> for Value {
    fn from(text: JsonText<Self>) -> Self {
        text.0
    }
}

/// A number that may be missing, in a column that holds larger ones.
#[derive(Debug)]
pub struct SmallNumber(pub Option<i64>);

impl TryFrom<SmallNumber> for Option<u16> {
    type Error = std::num::TryFromIntError;

    fn try_from(number: SmallNumber) -> Result<Self, Self::Error> {
        number.0.map(u16::try_from).transpose()
    }
}
