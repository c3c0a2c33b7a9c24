//! The common jobs of an operator, beside a running server or without one.
//!
//! The same flows as the admin API, and with `--json` the same answers.

mod audit;
mod look;
mod token_keys;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use chrono::DateTime;
use clap::{Subcommand, ValueEnum};
use serde_json::Value;
use tollgate::app::{Create, open_core};
use tollgate::config::Settings;
use tollgate::domain::admin::{Permission, Role};
use tollgate::domain::api_key::{Environment, IpMode, WebhookFormat};
use tollgate::domain::clock::{Clock, Timestamp};
use tollgate::domain::entropy::Entropy;
use tollgate::domain::ids::{AdminTokenId, ApiKeyId, MerchantId, SessionId, UserId};
use tollgate::domain::licence::{Licence, Product};
use tollgate::domain::secret::PlainSecret;
use tollgate::flows::Core;
use tollgate::flows::manage::By;
use tollgate::flows::manage_credentials::CredentialChanges;
use tollgate::flows::manage_keys::NewApiKey;
use tollgate::flows::manage_tokens::NewAdminToken;
use tollgate::flows::manage_users::NewUser;
use tollgate::flows::once::{Answer, Once};
use tollgate::http::admin::{api_keys, body, credentials, merchants, tokens, users};

use look::Listing;

#[derive(Subcommand)]
pub(crate) enum Job {
    /// Operators: who may administer every merchant.
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
    /// Admin tokens, of operators too.
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
        /// A service token instead, which may introspect every merchant's tokens and nothing else.
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
        /// `worldpay_corporate` unlocks the second webhook output type.
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
    Revoke { token: AdminTokenId },
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
    End { session: SessionId },
}

#[derive(Subcommand)]
pub(crate) enum LicenceJob {
    /// Grant a licence, or extend it.
    Grant {
        merchant: MerchantId,
        product: ProductName,
        /// RFC 3339; without it the licence does not lapse.
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
        /// An address or CIDR range it may be used from; may be given several times.
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
    /// Undo a revocation, within the hour.
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
    /// Generate tokens: a client id and secret for a key, switched OFF. The secret is printed once.
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
    /// Switch Enhanced Security OFF, which ends every session at once.
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
        #[arg(long)]
        json: bool,
    },
    /// Print a link that signs a user in once, within the hour.
    Link {
        email: String,
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
    /// Whether it changes nothing: then it makes no directory, key or database either.
    const fn only_looks(&self) -> bool {
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

/// Does a job and prints what came of it.
pub(crate) async fn run(settings: &Settings, job: Job) -> anyhow::Result<()> {
    let create = if job.only_looks() { Create::Nothing } else { Create::Beside };
    let core = open_core(settings, create, Clock::System, Entropy::System).await?;
    core.follow_token_key().await?;
    let done = perform(settings, &core, job).await;
    core.store.close().await;
    done
}

async fn perform(settings: &Settings, core: &Core, job: Job) -> anyhow::Result<()> {
    let by = By::command_line();
    match job {
        Job::Operator(OperatorJob::Add { name, introspect, json }) => {
            add_operator(core, &by, name, introspect, json).await
        }
        Job::Merchant(MerchantJob::Add { name, gateway, json }) => {
            let made = core.create_merchant(&by, name, gateway, Once::never()).await??;
            show(&merchants::render(&made_now(made)?), json)
        }
        Job::Merchant(MerchantJob::List { listing }) => look::merchants(core, &by, &listing).await,
        Job::Merchant(MerchantJob::Show { merchant, json }) => {
            show(&merchants::render(&look::merchant(core, &by, &merchant).await?), json)
        }
        Job::Token(TokenJob::List { listing }) => look::tokens(core, &by, &listing).await,
        Job::Token(TokenJob::Show { token, json }) => look::token(core, &by, token, json).await,
        Job::Token(TokenJob::Revoke { token }) => Ok(core.revoke_admin_token(&by, token).await??),
        Job::Session(SessionJob::List { merchant, listing }) => {
            look::sessions(core, &by, &merchant, &listing).await
        }
        Job::Session(SessionJob::Show { session, json }) => look::session(core, &by, session, json).await,
        Job::Session(SessionJob::End { session }) => Ok(core.end_session_by(&by, session).await??),
        Job::Key(KeyJob::List { merchant, listing }) => look::keys(core, &by, &merchant, &listing).await,
        Job::Key(KeyJob::Show { key, json }) => {
            let key = core.api_key(&by, key).await??;
            show(&body::json_bytes(&api_keys::ApiKeyView::new(&key, core.now())), json)
        }
        Job::Key(KeyJob::Restore { key, json }) => {
            let key = core.restore_api_key(&by, key).await??;
            show(&body::json_bytes(&api_keys::ApiKeyView::new(&key, core.now())), json)
        }
        Job::Credentials(CredentialsJob::List { key, listing }) => {
            look::credentials(core, &by, key, &listing).await
        }
        Job::Credentials(CredentialsJob::Show { client_id, json }) => {
            let credential = core.credential(&by, &client_id).await??;
            show(&body::json_bytes(&credentials::CredentialView::new(&credential, core.now())), json)
        }
        Job::Licence(LicenceJob::Grant { merchant, product, expires_at, json }) => {
            let expires_at = expires_at.map(|at| Timestamp::from_micros(at.timestamp_micros()));
            let licence = Licence { active: true, expires_at };
            put_licence(core, &by, merchant, product, licence, json).await
        }
        Job::Licence(LicenceJob::End { merchant, product, json }) => {
            let licence = Licence { active: false, expires_at: None };
            put_licence(core, &by, merchant, product, licence, json).await
        }
        Job::Key(KeyJob::Add { merchant, name, environment, allowed_ips, json }) => {
            let new = NewApiKey {
                name,
                environment: environment.into(),
                allowed_ips,
                ip_mode: IpMode::Enforce,
                webhook_format: WebhookFormat::SingleJson,
                webhook_url: None,
                scopes: None,
                expires_at: None,
            };
            let made = core.create_api_key(&by, merchant, new, Once::never()).await??;
            show(&api_keys::render_made(&made_now(made)?), json)
        }
        Job::Key(KeyJob::Revoke { key, json }) => {
            let key = core.revoke_api_key(&by, key).await??;
            show(&body::json_bytes(&api_keys::ApiKeyView::new(&key, core.now())), json)
        }
        Job::Credentials(CredentialsJob::Add { key, json }) => {
            let made = core.generate_credentials(&by, key, None, Once::never()).await??;
            show(&credentials::render(&made_now(made)?), json)
        }
        Job::Credentials(CredentialsJob::On { client_id, json }) => {
            switch(core, &by, &client_id, true, json).await
        }
        Job::Credentials(CredentialsJob::Off { client_id, json }) => {
            switch(core, &by, &client_id, false, json).await
        }
        Job::User(job) => user(core, &by, job).await,
        Job::Audit(job) => audit::run(core, &by, job).await,
        Job::Keys(keys) => token_keys::run(settings, core, &by, keys).await,
    }
}

async fn add_operator(
    core: &Core,
    by: &By,
    name: String,
    introspect: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let (role, permissions) = match introspect {
        true => (Role::Service, vec![Permission::Introspect]),
        false => (Role::Operator, Vec::new()),
    };
    let allowed_ips = Vec::new();
    let new = NewAdminToken { name, role, merchant_id: None, permissions, allowed_ips, expires_at: None };
    let made = made_now(core.create_admin_token(by, new, Once::never()).await??)?;
    if as_json {
        let line = serde_json::json!({ "id": made.object.id, "token": made.secret.expose() });
        return print(&line.to_string());
    }
    show(&tokens::render(&made), false)
}

async fn user(core: &Core, by: &By, job: UserJob) -> anyhow::Result<()> {
    match job {
        UserJob::Add { email, role, merchant, password_file, json } => {
            let has_password = password_file.is_some();
            let password = match password_file {
                Some(path) => first_line(&path)?,
                // Nobody knows it: the link is the way in, and a password is set then.
                None => PlainSecret::console(&core.entropy),
            };
            let new = NewUser { email, role: role.into(), merchant_id: merchant, password };
            let made = made_now(core.create_user(by, new, Once::never()).await??)?;
            let mut answer = serde_json::to_value(users::UserView::from(&made))?;
            if !has_password {
                answer["sign_in_link"] = sign_in_link(core, by, made.id).await?.into();
            }
            show(&body::json_bytes(&answer), json)
        }
        UserJob::List { listing } => look::users(core, by, &listing).await,
        UserJob::Show { email, json } => {
            let user = core.user_by_email(by, &email).await??;
            show(&body::json_bytes(&users::UserView::from(&user)), json)
        }
        UserJob::Link { email, json } => {
            let user = core.user_by_email(by, &email).await??;
            let link = sign_in_link(core, by, user.id).await?;
            if json { print(&serde_json::json!({ "link": link }).to_string()) } else { print(&link) }
        }
    }
}

async fn sign_in_link(core: &Core, by: &By, user: UserId) -> anyhow::Result<String> {
    let link = core.make_sign_in_link(by, user).await??;
    Ok(format!("{}/console/once?token={}", core.issuer, link.expose()))
}

fn first_line(path: &Path) -> anyhow::Result<PlainSecret> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let text = zeroize::Zeroizing::new(text);
    let line = text.lines().next().with_context(|| format!("{}: empty", path.display()))?;
    Ok(PlainSecret::new(line.to_owned()))
}

async fn put_licence(
    core: &Core,
    by: &By,
    merchant: MerchantId,
    product: ProductName,
    licence: Licence,
    as_json: bool,
) -> anyhow::Result<()> {
    let licence = core.put_licence(by, merchant, product.into(), licence).await??;
    show(&body::json_bytes(&merchants::LicenceView::from(licence)), as_json)
}

async fn switch(core: &Core, by: &By, client_id: &str, on: bool, as_json: bool) -> anyhow::Result<()> {
    let credential = core.update_credentials(by, client_id, None, CredentialChanges::switch(on)).await??;
    show(&body::json_bytes(&credentials::CredentialView::new(&credential, core.now())), as_json)
}

fn made_now<T>(answer: Answer<T>) -> anyhow::Result<T> {
    answer.made().context("it was made before")
}

/// Prints an answer of the admin API as one line of JSON, or as lines for people.
fn show(answer: &[u8], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return print(std::str::from_utf8(answer)?);
    }
    let Value::Object(fields) = serde_json::from_slice(answer)? else { bail!("not an object") };
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&format!("{name:<20} {value}\n"));
    }
    if ["key", "client_secret", "token"].iter().any(|secret| fields.contains_key(*secret)) {
        text.push_str("\nThe secret is shown this once.\n");
    }
    print(&text)
}

/// Prints to standard output, ending in one newline.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{}", text.trim_end()).context("cannot write to standard output")
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
