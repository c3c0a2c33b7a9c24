//! Every reason for which a call is refused, and what of it is told.
//!
//! An outsider sees the [`ErrorCode`] alone; the merchant finds the [`Reason`] in the exchange record.

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
    /// RFC 6750 3.1: the resource asks for more than the token may do.
    InsufficientScope,
    SlowDown,
    TemporarilyUnavailable,
    /// RFC 6749 4.1.2.1: a fault of ours.
    ServerError,
}

/// Exactly why a call was refused. Stored by name in the exchange record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, IntoStaticStr, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    KeyMissing,
    KeyRepeated,
    KeyUnknown,
    KeyReplaced,
    KeyRevoked,
    KeyExpired,
    MerchantSuspended,
    ApiKeysLicenceInactive,
    AddressUnreadable,
    AddressNotAllowed,
    /// Neither client id nor secret came, nor an `Authorization` header.
    ClientMissing,
    ClientUnknown,
    ClientOfAnotherKey,
    ClientSecretWrong,
    ClientSecretReplaced,
    EnhancedSecurityOff,
    EnhancedSecurityLicenceInactive,
    ServiceTokenUnknown,
    /// A person at the console, by password, second factor or link.
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
    /// Malformed, or not one of the names that exist.
    ScopeInvalid,
    /// More than the client may have.
    ScopeNotAllowed,
    /// Another set than the session was granted.
    ScopeNotGranted,
    /// The resource needs a scope that the caller lacks.
    ScopeInsufficient,
    /// The client and its key lost every scope that the session was granted.
    ScopesTakenAway,
    RequestInvalid,
    /// PostgreSQL stores none, and no credential of ours has one: in a credential it is a failed attempt.
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
            Self::RequestInvalid | Self::NulCharacter => ErrorCode::InvalidRequest,
            Self::TooManyFailures | Self::TooManyCalls | Self::TooManySessions => ErrorCode::SlowDown,
        }
    }

    /// Whether the caller was refused for who he is, before anything was done for him.
    pub const fn is_of_an_outsider(self) -> bool {
        matches!(self.error(), ErrorCode::InvalidClient) || matches!(self, Self::TooManyFailures)
    }

    /// Whether a secret was presented that is wrong, or works no longer: what guessing looks like. A
    /// suspended merchant or a lapsed licence is no guess, nor is a token that has had its time.
    pub const fn is_failed_authentication(self) -> bool {
        matches!(
            self,
            Self::KeyUnknown
                | Self::KeyReplaced
                | Self::KeyRevoked
                | Self::KeyExpired
                | Self::ClientUnknown
                | Self::ClientOfAnotherKey
                | Self::ClientSecretWrong
                | Self::ClientSecretReplaced
                | Self::ServiceTokenUnknown
                | Self::SignInRefused
                | Self::NulCharacter
        )
    }

    pub fn name(self) -> &'static str {
        self.into()
    }
}
