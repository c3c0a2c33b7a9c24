//! One type for each kind of id. All are UUIDv7 (RFC 9562 5.7): unique without coordination, and ordered
//! by the time they were made. Those that a cell makes show it, see [`super::cell`].

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use chrono::TimeDelta;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};
use uuid::fmt::Hyphenated;
use uuid::{Builder, Uuid};

use super::clock::Timestamp;
use super::entropy::Entropy;

/// The id of a `T`. `T` is only a marker, so that the compiler rejects a merchant's id where a session's
/// is wanted.
pub struct Id<T>(Uuid, PhantomData<fn() -> T>);

pub enum OfMerchant {}
pub enum OfApiKey {}
pub enum OfCredential {}
pub enum OfSecret {}
pub enum OfSession {}
pub enum OfExchange {}
pub enum OfEvent {}
pub enum OfDelivery {}
pub enum OfUser {}
pub enum OfAdminToken {}

pub type MerchantId = Id<OfMerchant>;
pub type ApiKeyId = Id<OfApiKey>;
pub type CredentialId = Id<OfCredential>;
pub type SecretId = Id<OfSecret>;
pub type SessionId = Id<OfSession>;
pub type ExchangeId = Id<OfExchange>;
pub type EventId = Id<OfEvent>;
pub type DeliveryId = Id<OfDelivery>;
pub type UserId = Id<OfUser>;
pub type AdminTokenId = Id<OfAdminToken>;

impl<T> Id<T> {
    pub fn generate(now: Timestamp, entropy: &Entropy) -> Self {
        let mut random = entropy.id_bytes();
        if let Some(cell) = entropy.cell() {
            cell.stamp(&mut random);
        }
        Self::from_uuid(Builder::from_unix_timestamp_millis(millis(now), &random).into_uuid())
    }

    /// The smallest id that can be made at `time`.
    pub fn first_of(time: Timestamp) -> Self {
        Self::from_uuid(Builder::from_unix_timestamp_millis(millis(time), &[0; 10]).into_uuid())
    }

    /// No id that is made before `time` comes after this one.
    pub fn first_after(time: Timestamp) -> Self {
        Self::first_of(time.plus(TimeDelta::milliseconds(1)))
    }

    /// Smaller than every id.
    pub const fn nil() -> Self {
        Self::from_uuid(Uuid::nil())
    }

    /// Greater than every id.
    pub const fn max() -> Self {
        Self::from_uuid(Uuid::max())
    }

    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }

    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

/// The 48 bits that an id begins with.
fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.micros() / 1000).unwrap_or(0).min((1 << 48) - 1)
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Id<T> {}
impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}
impl<T> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<T> fmt::Display for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl<T> FromStr for Id<T> {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // In one form only, in which the proxy of several cells finds it too.
        text.parse::<Hyphenated>().map(|id| Self::from_uuid(id.into_uuid()))
    }
}
impl<T> Serialize for Id<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
impl<'de, T> Deserialize<'de> for Id<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<T> PartialSchema for Id<T> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
            .description(Some("A UUIDv7."))
            .into()
    }
}
impl<T> ToSchema for Id<T> {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Id")
    }
}
