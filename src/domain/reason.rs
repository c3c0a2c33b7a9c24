//! The reasons for which a call is refused, and the error code for each.
//!
//! The caller sees only the [`ErrorCode`]. The merchant sees the [`Reason`] in the exchange record.

use strum::{Display, EnumString, IntoStaticStr, VariantArray};

/// The `error` of an answer (RFC 6749 5.2, RFC 8628 3.5 for `slow_down`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum ErrorCode {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    UnauthorizedClient,
    UnsupportedGrantType,
    InvalidScope,
    /// RFC 6750 3.1: the resource needs a scope that the token does not have.
    InsufficientScope,
    SlowDown,
    TemporarilyUnavailable,
    /// RFC 6749 4.1.2.1: a bug in this server.
    ServerError,
}

/// The exact reason why a call was refused. Stored by name in the exchange record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, IntoStaticStr, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    KeyMissing,
    KeyRepeated,
    KeyUnknown,
    /// The key is unknown here, and shows that another cell made it.
    KeyOfAnotherCell,
    KeyReplaced,
    KeyRevoked,
    KeyExpired,
    MerchantSuspended,
    ApiKeysLicenceInactive,
    AddressUnreadable,
    AddressNotAllowed,
    /// The call has no client id, no secret and no `Authorization` header.
    ClientMissing,
    ClientUnknown,
    ClientOfAnotherKey,
    ClientSecretWrong,
    ClientSecretReplaced,
    EnhancedSecurityOff,
    EnhancedSecurityLicenceInactive,
    ServiceTokenUnknown,
    /// An admin token that works, but not from this address, not for this call, or not with the id beside it.
    ServiceTokenUnfit,
    /// The admin token or user may not make this call.
    PermissionMissing,
    /// An object of the admin API does not exist, or is not for this caller.
    ObjectUnknown,
    /// The change does not fit the state of its object.
    Conflict,
    /// A failed sign-in to the console, by password, second factor or link.
    SignInRefused,
    TokenMissing,
    TokenUnknown,
    TokenOfAnotherClient,
    TokenExpired,
    TokenReplayed,
    SessionRevoked,
    SessionExpired,
    /// The credentials were switched OFF after the session began.
    SessionEnded,
    GrantTypeUnsupported,
    /// The scope is malformed or does not exist.
    ScopeInvalid,
    /// The client may not have the scope.
    ScopeNotAllowed,
    /// A refresh asked for a different set than was granted.
    ScopeNotGranted,
    /// The resource needs a scope that the caller does not have.
    ScopeInsufficient,
    /// The client or its key no longer has any scope that the session was granted.
    ScopesTakenAway,
    RequestInvalid,
    /// PostgreSQL cannot store NUL, and none of our credentials has one. In a credential it is a failed
    /// attempt.
    NulCharacter,
    TooManyFailures,
    TooManyCalls,
    TooManySessions,
}

impl std::error::Error for Reason {}

impl Reason {
    /// The error that an outsider sees.
    pub const fn error(self) -> ErrorCode {
        match self {
            Self::KeyMissing
            | Self::KeyRepeated
            | Self::KeyUnknown
            | Self::KeyOfAnotherCell
            | Self::KeyReplaced
            | Self::KeyRevoked
            | Self::KeyExpired
            | Self::MerchantSuspended
            | Self::ApiKeysLicenceInactive
            | Self::AddressUnreadable
            | Self::AddressNotAllowed
            | Self::ClientUnknown
            | Self::ClientOfAnotherKey
            | Self::ClientSecretWrong
            | Self::ClientSecretReplaced
            | Self::ClientMissing
            | Self::ServiceTokenUnknown
            | Self::ServiceTokenUnfit
            | Self::SignInRefused => ErrorCode::InvalidClient,
            Self::EnhancedSecurityOff | Self::EnhancedSecurityLicenceInactive => {
                ErrorCode::UnauthorizedClient
            }
            Self::TokenMissing
            | Self::TokenUnknown
            | Self::TokenOfAnotherClient
            | Self::TokenExpired
            | Self::TokenReplayed
            | Self::SessionRevoked
            | Self::SessionExpired
            | Self::SessionEnded
            | Self::ScopesTakenAway => ErrorCode::InvalidGrant,
            Self::GrantTypeUnsupported => ErrorCode::UnsupportedGrantType,
            Self::ScopeInvalid | Self::ScopeNotAllowed | Self::ScopeNotGranted => ErrorCode::InvalidScope,
            Self::ScopeInsufficient => ErrorCode::InsufficientScope,
            // The admin API has its own codes for some of these.
            Self::RequestInvalid
            | Self::NulCharacter
            | Self::PermissionMissing
            | Self::ObjectUnknown
            | Self::Conflict => ErrorCode::InvalidRequest,
            Self::TooManyFailures | Self::TooManyCalls | Self::TooManySessions => ErrorCode::SlowDown,
        }
    }

    /// Whether the caller was refused because of who it is.
    pub const fn is_of_an_outsider(self) -> bool {
        matches!(self.error(), ErrorCode::InvalidClient) || matches!(self, Self::TooManyFailures)
    }

    /// Whether the call had a secret that is wrong or no longer works, which may be guessing. A suspended
    /// merchant, an expired licence and an expired token do not count.
    pub const fn is_failed_authentication(self) -> bool {
        matches!(
            self,
            Self::KeyUnknown
                | Self::KeyOfAnotherCell
                | Self::KeyReplaced
                | Self::KeyRevoked
                | Self::KeyExpired
                | Self::ClientUnknown
                | Self::ClientOfAnotherKey
                | Self::ClientSecretWrong
                | Self::ClientSecretReplaced
                | Self::ServiceTokenUnknown
                | Self::ServiceTokenUnfit
                | Self::SignInRefused
                | Self::NulCharacter
        )
    }

    pub fn name(self) -> &'static str {
        self.into()
    }
}
