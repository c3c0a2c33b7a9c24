//! `tollgate user`: users of the console.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use serde_json::json;
use tollgate::app::Create;
use tollgate::domain::admin::{Role, User};
use tollgate::domain::ids::UserId;
use tollgate::domain::secret::PlainSecret;
use tollgate::flows::manage_users::{NewUser, UserChanges};
use tollgate::http::admin::body;

use super::find::WhichUser;
use super::output::{Listing, Output, print};
use super::{CommandLine, made_now};

#[derive(Clone, Subcommand)]
pub(crate) enum UserJob {
    /// Make a user. Without a password file, a one-time sign-in link is printed.
    Add {
        email: String,
        #[arg(long)]
        role: RoleName,
        /// Id or name. For the merchant roles.
        #[arg(long)]
        merchant: Option<String>,
        /// A file whose first line is the password.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// List users, newest first.
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a user.
    Show {
        #[command(flatten)]
        which: WhichUser,
        #[command(flatten)]
        output: Output,
    },
    /// Give a user another e-mail address. The password ends, and a one-time sign-in link is printed.
    Rename {
        #[command(flatten)]
        which: WhichUser,
        new_email: String,
        #[command(flatten)]
        output: Output,
    },
    /// Print a link that signs a user in once, within an hour.
    Link {
        #[command(flatten)]
        which: WhichUser,
        /// Print {"link"}.
        #[arg(long)]
        json: bool,
    },
    /// Disable a user. All sessions of the user end at once.
    Disable {
        #[command(flatten)]
        which: WhichUser,
        #[command(flatten)]
        output: Output,
    },
    /// Enable a disabled user.
    #[command(alias = "enable")]
    Restore {
        #[command(flatten)]
        which: WhichUser,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum RoleName {
    Operator,
    MerchantAdmin,
    MerchantViewer,
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

impl UserJob {
    pub(super) const fn creates(&self) -> Create {
        match self {
            Self::Add { .. } => Create::First,
            Self::List { .. } | Self::Show { .. } => Create::Nothing,
            Self::Rename { .. } | Self::Link { .. } | Self::Disable { .. } | Self::Restore { .. } => {
                Create::Beside
            }
        }
    }
}

pub(super) async fn run(line: &CommandLine, job: UserJob) -> anyhow::Result<()> {
    let CommandLine { core, principal } = line;
    match job {
        UserJob::Add { email, role, merchant, password_file, output } => {
            let has_password = password_file.is_some();
            let password = match password_file {
                Some(path) => first_line(&path)?,
                // A random password that nobody knows. The user signs in with the link and sets their own.
                None => PlainSecret::console(&core.entropy),
            };
            let merchant_id = line.merchant_if_any(merchant.as_deref()).await?;
            let new = NewUser { email, role: role.into(), merchant_id, password };
            let made = made_now(core.create_user(principal, new).await?)?;
            if has_password {
                return output.show(&body::json_bytes(&made));
            }
            show_with_link(line, &made, output).await
        }
        UserJob::List { listing } => {
            let found = core.users(principal, None, listing.limit).await?;
            listing.print(&found, &["id", "email", "role", "merchant_id", "disabled_at"])
        }
        UserJob::Show { which, output } => output.show(&body::json_bytes(&line.user(&which).await?)),
        UserJob::Rename { which, new_email, output } => {
            let id = line.user(&which).await?.id;
            let password = Some(PlainSecret::console(&core.entropy));
            let changes = UserChanges { email: Some(new_email), password, disabled: None };
            let renamed = core.update_user(principal, id, None, changes).await?;
            show_with_link(line, &renamed, output).await
        }
        UserJob::Link { which, json } => {
            let user = line.user(&which).await?.id;
            let link = sign_in_link(line, user).await?;
            if json { print(&json!({ "link": link }).to_string()) } else { print(&link) }
        }
        UserJob::Disable { which, output } => set_disabled(line, &which, true, output).await,
        UserJob::Restore { which, output } => set_disabled(line, &which, false, output).await,
    }
}

/// Prints a user with a new sign-in link.
async fn show_with_link(line: &CommandLine, user: &User, output: Output) -> anyhow::Result<()> {
    let mut answer = serde_json::to_value(user)?;
    answer["sign_in_link"] = sign_in_link(line, user.id).await?.into();
    output.show(&body::json_bytes(&answer))
}

async fn set_disabled(
    line: &CommandLine,
    which: &WhichUser,
    disabled: bool,
    output: Output,
) -> anyhow::Result<()> {
    let user = if disabled { line.user(which).await? } else { line.disabled_user(which).await? };
    let id = user.id;
    let changes = UserChanges { disabled: Some(disabled), ..UserChanges::default() };
    output.show(&body::json_bytes(&line.core.update_user(&line.principal, id, None, changes).await?))
}

async fn sign_in_link(line: &CommandLine, user: UserId) -> anyhow::Result<String> {
    Ok(link_to(line, &line.core.make_sign_in_link(&line.principal, user).await?))
}

/// A sign-in link to the server's own address, which the settings name.
pub(super) fn link_to(line: &CommandLine, secret: &PlainSecret) -> String {
    format!("{}/console/once?token={}", line.core.issuer, secret.expose())
}

fn first_line(path: &Path) -> anyhow::Result<PlainSecret> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let text = zeroize::Zeroizing::new(text);
    let line = text.lines().next().with_context(|| format!("{}: empty", path.display()))?;
    Ok(PlainSecret::new(line.to_owned()))
}
