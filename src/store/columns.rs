//! Columns of values for the group-commit statements, and domain types as column types.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::{Decode, Encode, Type};
use uuid::Uuid;

use crate::domain::admin::Role;
use crate::domain::allow_list::AllowList;
use crate::domain::api_key::{Environment, IpMode, WebhookFormat};
use crate::domain::clock::Timestamp;
use crate::domain::delivery::{DeliveryState, SendError};
use crate::domain::event::{ActorKind, Outcome};
use crate::domain::ids::Id;
use crate::domain::licence::Product;
use crate::domain::merchant::MerchantStatus;
use crate::domain::scope::Scopes;
use crate::domain::secret::SecretHash;
use crate::domain::stored::{JsonText, SmallNumber};
use crate::domain::webhook::EventData;

/// One column of a batch.
pub enum Column<'a> {
    Uuid(Vec<Option<Uuid>>),
    Int(Vec<Option<i64>>),
    Bytes(Vec<Option<&'a [u8]>>),
    Text(Vec<Option<Cow<'a, str>>>),
}

impl<'a> Column<'a> {
    pub fn ids<T>(ids: impl Iterator<Item = Id<T>>) -> Self {
        Self::Uuid(ids.map(|id| Some(id.uuid())).collect())
    }

    /// Ids, some of which may be missing.
    pub fn maybe_ids<T>(ids: impl Iterator<Item = Option<Id<T>>>) -> Self {
        Self::Uuid(ids.map(|id| id.map(Id::uuid)).collect())
    }

    pub fn ints(values: impl Iterator<Item = i64>) -> Self {
        Self::Int(values.map(Some).collect())
    }

    pub fn times(values: impl Iterator<Item = Timestamp>) -> Self {
        Self::Int(values.map(|time| Some(time.micros())).collect())
    }

    pub fn bytes(values: impl Iterator<Item = &'a [u8]>) -> Self {
        Self::Bytes(values.map(Some).collect())
    }

    pub fn text(values: impl Iterator<Item = Option<impl Into<Cow<'a, str>>>>) -> Self {
        Self::Text(values.map(|value| value.map(Into::into)).collect())
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
                Some(value) => out.push_str(&json(value)),
                None => null(out),
            },
        }
    }
}

impl Column<'_> {
    /// A field of PostgreSQL's binary COPY format: its length, or -1 for null, and the value.
    fn write_copy(&self, row: usize, out: &mut Vec<u8>) {
        let mut field = |value: Option<&[u8]>| match value {
            Some(value) => {
                out.extend_from_slice(&length(value.len()).to_be_bytes());
                out.extend_from_slice(value);
            }
            None => out.extend_from_slice(&(-1i32).to_be_bytes()),
        };
        match self {
            Self::Uuid(values) => field(values[row].as_ref().map(|value| value.as_bytes().as_slice())),
            Self::Int(values) => field(values[row].map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice)),
            Self::Bytes(values) => field(values[row]),
            Self::Text(values) => field(values[row].as_deref().map(str::as_bytes)),
        }
    }
}

fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("a value is shorter than 2 GiB")
}

/// Rows in PostgreSQL's binary COPY format (<https://www.postgresql.org/docs/current/sql-copy.html>).
pub(super) fn rows_as_copy(columns: &[Column<'_>]) -> Vec<u8> {
    /// The signature, no flags, and no extension of the header.
    const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    let rows = columns.first().map_or(0, Column::len);
    let fields = i16::try_from(columns.len()).expect("a table has a few columns");
    let mut out = Vec::with_capacity(HEADER.len() + rows * columns.len() * 20);
    out.extend_from_slice(HEADER);
    for row in 0..rows {
        out.extend_from_slice(&fields.to_be_bytes());
        for column in columns {
            column.write_copy(row, &mut out);
        }
    }
    out.extend_from_slice(&(-1i16).to_be_bytes());
    out
}

/// A JSON array with one array for each row, for `jsonb_each`.
pub(super) fn rows_as_json(columns: &[Column<'_>]) -> String {
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

/// Stores types of the domain in columns of a plain type. The first function converts a value to the plain type,
/// and the second one converts it back.
macro_rules! stored {
    ($([$($generics:tt)*] $type:ty as $plain:ty, $to:expr, $back:expr;)*) => {$(
        impl<DB: sqlx::Database, $($generics)*> Type<DB> for $type
        where
            $plain: Type<DB>,
        {
            fn type_info() -> DB::TypeInfo {
                <$plain as Type<DB>>::type_info()
            }
            fn compatible(ty: &DB::TypeInfo) -> bool {
                <$plain as Type<DB>>::compatible(ty)
            }
        }

        impl<'q, DB: sqlx::Database, $($generics)*> Encode<'q, DB> for $type
        where
            $plain: Encode<'q, DB>,
        {
            fn encode_by_ref(&self, buffer: &mut DB::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
                let to: fn(&Self) -> $plain = $to;
                to(self).encode(buffer)
            }
        }

        impl<'r, DB: sqlx::Database, $($generics)*> Decode<'r, DB> for $type
        where
            $plain: Decode<'r, DB>,
        {
            fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
                let back: fn($plain) -> Result<Self, BoxDynError> = $back;
                back(<$plain as Decode<'r, DB>>::decode(value)?)
            }
        }
    )*};
}

stored! {
    [T] Id<T> as Uuid, |id| id.uuid(), |uuid| Ok(Self::from_uuid(uuid));
    [] Timestamp as i64, |time| time.micros(), |micros| Ok(Self::from_micros(micros));
    [] Scopes as String, Self::to_string, |text| Ok(text.parse()?);
    [] AllowList as String, |list| json(&list.to_strings()), |text| {
        Ok(Self::parse(&serde_json::from_str::<Vec<String>>(&text)?)?)
    };
    [] SecretHash as Vec<u8>, |hash| hash.bytes().to_vec(), |bytes| match bytes.try_into() {
        Ok(bytes) => Ok(Self::from_bytes(bytes)),
        Err(_) => Err("a hash that is not 32 bytes".into()),
    };
    [] EventData as String, |data| data.as_str().to_owned(), |text| Ok(Self::from_stored(text));
    [T: Serialize + DeserializeOwned] JsonText<T> as String, |value| json(&value.0), |text| {
        Ok(Self(serde_json::from_str(&text)?))
    };
    [] Environment as String, name_of, named;
    [] IpMode as String, name_of, named;
    [] WebhookFormat as String, name_of, named;
    [] MerchantStatus as String, name_of, named;
    [] Product as String, name_of, named;
    [] Role as String, name_of, named;
    [] ActorKind as String, name_of, named;
    [] Outcome as String, name_of, named;
    [] DeliveryState as String, name_of, named;
    [] SendError as String, name_of, named;
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("lists and objects of texts and numbers are JSON")
}

fn name_of<T: Copy + Into<&'static str>>(value: &T) -> String {
    (*value).into().to_owned()
}

fn named<T: FromStr>(name: String) -> Result<T, BoxDynError> {
    name.parse().map_err(|_| format!("unknown name `{name}`").into())
}

impl<DB: sqlx::Database> Type<DB> for SmallNumber
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

impl<'r, DB: sqlx::Database> Decode<'r, DB> for SmallNumber
where
    Option<i64>: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
        Option::decode(value).map(Self)
    }
}
