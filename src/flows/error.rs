//! How a flow ends without having done what was asked: the caller is refused, or something is at fault.
//!
//! Both travel by `?`, which drops the transaction and so rolls it back. What must stay although the call is
//! refused is therefore committed before the refusal exists, and types see to it:
//!
//! - [`commit_then_refuse`] takes the transaction and gives the error. A replayed refresh token ends its
//!   session this way.
//! - A refused change is undone and its refusal recorded by the one function that runs changes, never by the
//!   change itself.
//! - Failed attempts are counted before the secret is looked at, outside of any transaction.

use crate::domain::licence::Product;
use crate::domain::reason::Reason;
use crate::store::{StoreError, Tx};

/// `R` is [`Refused`] for management and [`Reason`] for calls with an API key.
#[derive(Debug, thiserror::Error)]
pub enum Error<R> {
    #[error(transparent)]
    Refused(R),
    #[error(transparent)]
    Fault(Fault),
}

/// The result of a management flow.
pub type Managed<T> = Result<T, Error<Refused>>;

/// The result of a flow that decides about a caller.
pub type Decided<T> = Result<T, Error<Reason>>;

/// What a flow cannot help. None of it says anything about the caller.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too many calls wait, or others kept changing what this one decides by. Answered with 503.
    #[error("the server is too busy")]
    Busy,
    /// A token key sealed something and is not on this replica yet, so nobody may say whether it is good.
    /// Answered with 503.
    #[error("token key {0} is needed and not here: see `tollgate keys`")]
    TokenKeyMissing(String),
    #[error("a password was not hashed: {0}")]
    NotHashed(argon2::password_hash::Error),
}

impl Fault {
    /// Whether the caller should be told to try again later.
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Store(fault) => fault.is_temporary(),
            Self::Busy | Self::TokenKeyMissing(_) => true,
            Self::NotHashed(_) => false,
        }
    }
}

impl<R> From<Fault> for Error<R> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl<R> From<StoreError> for Error<R> {
    fn from(fault: StoreError) -> Self {
        Self::Fault(fault.into())
    }
}

impl From<Refused> for Error<Refused> {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Reason> for Error<Reason> {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

/// Commits what must stay although the call is refused, and only then refuses it.
pub(super) async fn commit_then_refuse<T, R>(tx: Tx, refusal: R) -> Result<T, Error<R>> {
    tx.commit().await?;
    Err(Error::Refused(refusal))
}

/// Why a management call was refused; all of it may be told to whoever made the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("there is no such object")]
    NotFound,
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("the token lacks the permission for this")]
    InsufficientPermission,
    #[error("{field}: {detail}")]
    Invalid { field: &'static str, detail: String },
    #[error("the merchant has no active licence for `{}`", <&str>::from(*.0))]
    NotLicensed(Product),
    #[error("{0}")]
    Conflict(String),
    #[error("the object was changed by somebody else; read it again")]
    VersionMismatch,
}

impl Refused {
    pub(super) fn invalid(field: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid { field, detail: detail.into() }
    }
}
