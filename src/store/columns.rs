//! Columns of values for the group-commit statements, and domain types as column types.

use std::fmt::Write as _;

use sqlx::{Decode, Encode, Type};
use uuid::Uuid;

use crate::domain::clock::Timestamp;
use crate::domain::ids::Id;
use crate::domain::scope::Scopes;

/// One column of a batch.
pub enum Column {
    Uuid(Vec<Option<Uuid>>),
    Int(Vec<Option<i64>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Text(Vec<Option<String>>),
}

impl Column {
    pub fn ids<T>(ids: impl Iterator<Item = Id<T>>) -> Self {
        Self::Uuid(ids.map(|id| Some(id.uuid())).collect())
    }

    pub fn ints(values: impl Iterator<Item = i64>) -> Self {
        Self::Int(values.map(Some).collect())
    }

    pub fn times(values: impl Iterator<Item = Timestamp>) -> Self {
        Self::Int(values.map(|time| Some(time.micros())).collect())
    }

    fn len(&self) -> usize {
        match self {
            Self::Uuid(values) => values.len(),
            Self::Int(values) => values.len(),
            Self::Bytes(values) => values.len(),
            Self::Text(values) => values.len(),
        }
    }

    /// Blobs are written as hex, and the statement decodes them with `unhex`.
    fn write_json(&self, row: usize, out: &mut String) {
        let null = |out: &mut String| out.push_str("null");
        match self {
            Self::Int(values) => match values[row] {
                Some(value) => write!(out, "{value}").expect("a String takes any text"),
                None => null(out),
            },
            Self::Uuid(values) => match &values[row] {
                Some(value) => write!(out, "\"{}\"", value.simple()).expect("a String takes any text"),
                None => null(out),
            },
            Self::Bytes(values) => match &values[row] {
                Some(value) => write!(out, "\"{}\"", hex::encode(value)).expect("a String takes any text"),
                None => null(out),
            },
            Self::Text(values) => match &values[row] {
                Some(value) => out.push_str(&serde_json::Value::from(value.as_str()).to_string()),
                None => null(out),
            },
        }
    }
}

/// A JSON array with one array for each row, for `jsonb_each`.
pub(super) fn rows_as_json(columns: &[Column]) -> String {
    let rows = columns.first().map_or(0, Column::len);
    let mut out = String::with_capacity(rows * columns.len() * 40);
    out.push('[');
    for row in 0..rows {
        out.push_str(if row == 0 { "[" } else { ",[" });
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            column.write_json(row, &mut out);
        }
        out.push(']');
    }
    out.push(']');
    out
}

// Domain types as column types: an id is stored as its UUID, a timestamp as microseconds, scopes as text.

impl<DB: sqlx::Database, T> Type<DB> for Id<T>
where
    Uuid: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        Uuid::type_info()
    }
    fn compatible(ty: &DB::TypeInfo) -> bool {
        Uuid::compatible(ty)
    }
}

impl<'q, DB: sqlx::Database, T> Encode<'q, DB> for Id<T>
where
    Uuid: Encode<'q, DB>,
{
    fn encode_by_ref(
        &self,
        buffer: &mut DB::ArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        self.uuid().encode(buffer)
    }
}

impl<'r, DB: sqlx::Database, T> Decode<'r, DB> for Id<T>
where
    Uuid: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
        Uuid::decode(value).map(Self::from_uuid)
    }
}

impl<DB: sqlx::Database> Type<DB> for Timestamp
where
    i64: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        i64::type_info()
    }
    fn compatible(ty: &DB::TypeInfo) -> bool {
        i64::compatible(ty)
    }
}

impl<'q, DB: sqlx::Database> Encode<'q, DB> for Timestamp
where
    i64: Encode<'q, DB>,
{
    fn encode_by_ref(
        &self,
        buffer: &mut DB::ArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        self.micros().encode(buffer)
    }
}

impl<'r, DB: sqlx::Database> Decode<'r, DB> for Timestamp
where
    i64: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
        i64::decode(value).map(Self::from_micros)
    }
}

impl<DB: sqlx::Database> Type<DB> for Scopes
where
    String: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        String::type_info()
    }
    fn compatible(ty: &DB::TypeInfo) -> bool {
        String::compatible(ty)
    }
}

impl<'q, DB: sqlx::Database> Encode<'q, DB> for Scopes
where
    String: Encode<'q, DB>,
{
    fn encode_by_ref(
        &self,
        buffer: &mut DB::ArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        self.to_string().encode(buffer)
    }
}

impl<'r, DB: sqlx::Database> Decode<'r, DB> for Scopes
where
    String: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
        Ok(String::decode(value)?.parse()?)
    }
}
