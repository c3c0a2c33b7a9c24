//! The names and arguments of the commands for operators.

use std::path::PathBuf;

use chrono::DateTime;
use clap::{Subcommand, ValueEnum};
use tollgate::domain::admin::Role;
use tollgate::domain::api_key::Environment;
use tollgate::domain::ids::{AdminTokenId, ApiKeyId, MerchantId, SessionId};
use tollgate::domain::licence::Product;

use super::inspect::Listing;
use super::{audit, token_keys};

#[derive(Subcommand)]
pub(crate) enum Job {
    /// Operators, who may administer every merchant.
    #[command(subcommand)]
    Operator(OperatorJob),
    /// Merchants.
    #[command(subcommand)]
    Merchant(MerchantJob),
    /// Licences of merchants.
    #[command(subcommand)]
    Licence(LicenceJob),
    /// API keys.
    #[command(subcommand)]
    Key(KeyJob),
    /// Client credentials.
    #[command(subcommand)]
    Credentials(CredentialsJob),
    /// Users of the console.
    #[command(subcommand)]
    User(UserJob),
    /// The audit trail.
    #[command(subcommand)]
    Audit(audit::Job),
    /// Admin tokens, including those of operators.
    #[command(subcommand)]
    Token(TokenJob),
    /// Sessions.
    #[command(subcommand)]
    Session(SessionJob),
    /// The server's token keys.
    Keys(token_keys::Keys),
}

#[derive(Subcommand)]
pub(crate) enum OperatorJob {
    /// Make an operator token. It is printed once.
    Add {
        name: String,
        /// Make a service token instead, which may only introspect the tokens of every merchant.
        #[arg(long)]
        introspect: bool,
        /// Print {"id", "token"}.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum MerchantJob {
    /// Make a merchant.
    Add {
        name: String,
        /// `worldpay_corporate` allows the second webhook format.
        #[arg(long, default_value = "default")]
        gateway: String,
        #[arg(long)]
        json: bool,
    },
    /// List merchants, newest first.
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a merchant.
    Show {
        /// Id or name.
        merchant: String,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum TokenJob {
    /// List admin tokens, newest first.
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// Show an admin token.
    Show {
        token: AdminTokenId,
        #[arg(long)]
        json: bool,
    },
    /// Revoke an admin token at once.
    Revoke {
        token: AdminTokenId,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum SessionJob {
    /// List a merchant's sessions, newest first.
    List {
        /// Id or name.
        merchant: String,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a session.
    Show {
        session: SessionId,
        #[arg(long)]
        json: bool,
    },
    /// End a session and all its tokens.
    End {
        session: SessionId,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum LicenceJob {
    /// Grant a licence, or extend it.
    Grant {
        merchant: MerchantId,
        product: ProductName,
        /// When the licence expires (RFC 3339). Without this it does not expire.
        #[arg(long)]
        expires_at: Option<DateTime<chrono::FixedOffset>>,
        #[arg(long)]
        json: bool,
    },
    /// End a licence now.
    End {
        merchant: MerchantId,
        product: ProductName,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum ProductName {
    ApiKeys,
    EnhancedSecurity,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum EnvironmentName {
    Sandbox,
    Live,
}

#[derive(Subcommand)]
pub(crate) enum KeyJob {
    /// Make an API key. It is printed once.
    Add {
        merchant: MerchantId,
        name: String,
        #[arg(long)]
        environment: EnvironmentName,
        /// An address or CIDR range that the key may be used from. Can be given several times.
        #[arg(long = "allow", value_name = "CIDR")]
        allowed_ips: Vec<String>,
        #[arg(long)]
        json: bool,
    },
    /// List a merchant's API keys, newest first.
    List {
        /// Id or name.
        merchant: String,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show an API key.
    Show {
        key: ApiKeyId,
        #[arg(long)]
        json: bool,
    },
    /// Restore a revoked API key, within an hour.
    Restore {
        key: ApiKeyId,
        #[arg(long)]
        json: bool,
    },
    /// Revoke an API key at once.
    Revoke {
        key: ApiKeyId,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum CredentialsJob {
    /// Generate a client id and secret for a key, switched OFF. The secret is printed once.
    Add {
        key: ApiKeyId,
        #[arg(long)]
        json: bool,
    },
    /// List all credentials of a key, newest first.
    List {
        key: ApiKeyId,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show credentials.
    Show {
        client_id: String,
        #[arg(long)]
        json: bool,
    },
    /// Switch Enhanced Security ON.
    On {
        client_id: String,
        #[arg(long)]
        json: bool,
    },
    /// Switch Enhanced Security OFF. This ends every session at once.
    Off {
        client_id: String,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum UserJob {
    /// Make a user. Without a password file, a one-time sign-in link is printed.
    Add {
        email: String,
        #[arg(long)]
        role: RoleName,
        /// For the merchant roles.
        #[arg(long)]
        merchant: Option<MerchantId>,
        /// A file whose first line is the password.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// List users, newest first.
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a user.
    Show {
        email: String,
        /// Where the address has users at several merchants.
        #[arg(long)]
        merchant: Option<MerchantId>,
        #[arg(long)]
        json: bool,
    },
    /// Print a link that signs a user in once, within an hour.
    Link {
        email: String,
        /// Where the address has users at several merchants.
        #[arg(long)]
        merchant: Option<MerchantId>,
        /// Print {"link"}.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum RoleName {
    Operator,
    MerchantAdmin,
    MerchantViewer,
}

impl Job {
    /// Whether the command only reads. If so, it must not create a directory, key or database either.
    pub(super) const fn only_looks(&self) -> bool {
        match self {
            Self::Merchant(job) => matches!(job, MerchantJob::List { .. } | MerchantJob::Show { .. }),
            Self::Key(job) => matches!(job, KeyJob::List { .. } | KeyJob::Show { .. }),
            Self::Credentials(job) => {
                matches!(job, CredentialsJob::List { .. } | CredentialsJob::Show { .. })
            }
            Self::User(job) => matches!(job, UserJob::List { .. } | UserJob::Show { .. }),
            Self::Token(job) => matches!(job, TokenJob::List { .. } | TokenJob::Show { .. }),
            Self::Session(job) => matches!(job, SessionJob::List { .. } | SessionJob::Show { .. }),
            Self::Audit(_) => true,
            Self::Operator(_) | Self::Licence(_) | Self::Keys(_) => false,
        }
    }
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Operator => Self::Operator,
            RoleName::MerchantAdmin => Self::MerchantAdmin,
            RoleName::MerchantViewer => Self::MerchantViewer,
        }
    }
}

impl From<ProductName> for Product {
    fn from(name: ProductName) -> Self {
        match name {
            ProductName::ApiKeys => Self::ApiKeys,
            ProductName::EnhancedSecurity => Self::EnhancedSecurity,
        }
    }
}

impl From<EnvironmentName> for Environment {
    fn from(name: EnvironmentName) -> Self {
        match name {
            EnvironmentName::Sandbox => Self::Sandbox,
            EnvironmentName::Live => Self::Live,
        }
    }
}
