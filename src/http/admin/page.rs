//! Pages of lists: `?limit=` and `?cursor=` in, `{"items": [...], "next_cursor": null}` out. Cursors are
//! sealed, so callers cannot read or change them.

use axum::extract::FromRequestParts;
use axum::extract::rejection::{PathRejection, QueryRejection};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::domain::entropy::Entropy;
use crate::domain::keyring::{Keyring, Purpose};
use crate::flows::Core;
use crate::flows::error::Refused;
use crate::http::error::Failure;

const LIMIT_DEFAULT: i64 = 50;
const LIMIT_MAX: i64 = 200;

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Objects per page, 1 to 200; the default is 50.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<i64>,
    /// The `next_cursor` of the previous page.
    pub cursor: Option<String>,
}

/// A query string. An unknown or malformed parameter is an error.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Failure))]
pub struct Query<T>(pub T);

impl From<QueryRejection> for Failure {
    fn from(_: QueryRejection) -> Self {
        Self::invalid_request("the query string has an unknown or malformed parameter")
    }
}

/// A path parameter. A malformed id is 404, like an id that does not exist.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Failure))]
pub struct Path<T>(pub T);

impl From<PathRejection> for Failure {
    fn from(_: PathRejection) -> Self {
        Refused::NotFound.into()
    }
}

/// One page of a list.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The cursor of the next page; null on the last page.
    pub next_cursor: Option<String>,
}

/// The cursor of a position in the list `of`.
pub fn sealed<C: Serialize>(keyring: &Keyring, of: &str, position: &C, entropy: &Entropy) -> String {
    let plain = serde_json::to_vec(position).expect("positions are ids and numbers");
    URL_SAFE_NO_PAD.encode(keyring.seal(Purpose::Cursor, of.as_bytes(), &plain, entropy))
}

/// The position in a cursor. `None` if it was changed or belongs to another list.
pub fn opened<C: DeserializeOwned>(keyring: &Keyring, of: &str, cursor: &str) -> Option<C> {
    let sealed = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let plain = keyring.open(Purpose::Cursor, of.as_bytes(), &sealed)?;
    serde_json::from_slice(&plain).ok()
}

/// A request for a page of the list `of`. A cursor works only for its own list.
pub struct Wanted<'a, C> {
    core: &'a Core,
    of: String,
    limit: i64,
    /// The position after which the page begins.
    pub before: Option<C>,
}

impl<'a, C: Serialize + DeserializeOwned> Wanted<'a, C> {
    /// # Errors
    /// 400 if the limit is out of range, or if the cursor was changed or belongs to another list.
    pub fn new(core: &'a Core, of: String, query: PageQuery) -> Result<Self, Failure> {
        let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Failure::invalid_request(format!("limit: must be 1 to {LIMIT_MAX}")));
        }
        let before = query.cursor.map(|cursor| opened(&core.keyring, &of, &cursor));
        match before {
            Some(None) => Err(Failure::invalid_request("cursor: does not belong to this list")),
            before => Ok(Self { core, of, limit, before: before.flatten() }),
        }
    }

    /// How many objects to read: one more than a page has, to find out whether there is another page.
    pub const fn to_read(&self) -> i64 {
        self.limit + 1
    }

    /// Makes a page from the objects that were read.
    pub fn page<T, V>(&self, mut read: Vec<T>, position: impl Fn(&T) -> C, view: impl Fn(T) -> V) -> Page<V> {
        let limit = usize::try_from(self.limit).expect("the limit was checked to be 1 to 200");
        let has_more = read.len() > limit;
        read.truncate(limit);
        let last = read.last().filter(|_| has_more).map(position);
        let next_cursor = last.map(|last| sealed(&self.core.keyring, &self.of, &last, &self.core.entropy));
        Page { items: read.into_iter().map(view).collect(), next_cursor }
    }
}
