//! Errors of flows: the caller is refused, or the server has failed.
//!
//! Both use `?`, which drops the transaction and so rolls it back. If something must stay although the call
//! is refused, it has to be committed before the refusal is made. The types ensure this:
//!
//! - [`commit_then_refuse`] takes the transaction and returns the error. A replayed refresh token ends its
//!   session this way.
//! - The function that runs changes also rolls back a refused change and records the refusal. The change
//!   itself does not.
//! - Failed attempts are counted before the secret is checked, outside of any transaction.

use crate::domain::licence::Product;
use crate::domain::reason::Reason;
use crate::store::{StoreError, Tx};

/// Why a flow has failed. `R` is [`Refused`] for management and [`Reason`] for calls with an API key.
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

/// A failure of the server. It says nothing about the caller.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too many calls wait, or the data for the decision changed again and again. The answer is 503.
    #[error("the server is too busy")]
    Busy,
    /// This replica does not have the token key that it needs to check something, so it cannot say whether
    /// that is valid. The answer is 503.
    #[error("token key {0} is needed but missing here: see `tollgate keys`")]
    TokenKeyMissing(String),
    /// A command was about to seal something that the server could not open.
    #[error(
        "the token keys here are not those of the database, so the server could not open what this command seals: \
         {0}. Run it with the token keys of the server: tokens.keys_file, TOLLGATE__TOKENS__KEYS_FILE or --data-dir"
    )]
    ForeignTokenKeys(String),
    #[error("a password was not hashed: {0}")]
    NotHashed(argon2::password_hash::Error),
}

impl Fault {
    /// Whether the caller should be told to try again later.
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Store(fault) => fault.is_temporary(),
            Self::Busy | Self::TokenKeyMissing(_) => true,
            Self::ForeignTokenKeys(_) | Self::NotHashed(_) => false,
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

/// Commits changes that must stay although the call is refused, and then returns the refusal.
pub(super) async fn commit_then_refuse<T, R>(tx: Tx, refusal: R) -> Result<T, Error<R>> {
    tx.commit().await?;
    Err(Error::Refused(refusal))
}

/// Why a management call was refused. The text may be shown to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("there is no such object")]
    NotFound,
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("the token does not have the permission for this")]
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
