//! Why a management call is refused.

use crate::domain::licence::Product;

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
