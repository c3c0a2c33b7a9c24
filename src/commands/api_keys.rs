//! `tollgate key`: API keys and their webhook secrets.

use clap::{Args, Subcommand, ValueEnum};
use tollgate::app::Create;
use tollgate::domain::api_key::{ApiKey, Environment};
use tollgate::flows::idempotency::Rendered;
use tollgate::flows::manage_keys::{ApiKeyChanges, NewApiKey};
use tollgate::http::admin::api_keys::ApiKeyView;
use tollgate::http::admin::body;

use super::find::WhichKey;
use super::output::{Listing, Output};
use super::{CommandLine, made_now};

#[derive(Clone, Subcommand)]
pub(crate) enum KeyJob {
    /// Make an API key. It is printed once.
    Add {
        /// Id or name of the merchant.
        merchant: String,
        name: String,
        #[arg(long)]
        environment: EnvironmentName,
        /// An address or CIDR range that the key may be used from. Can be given several times.
        #[arg(long = "allow", value_name = "CIDR")]
        allowed_ips: Vec<String>,
        #[command(flatten)]
        output: Output,
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
        #[command(flatten)]
        which: WhichKey,
        #[command(flatten)]
        output: Output,
    },
    /// Give an API key another name.
    Rename {
        #[command(flatten)]
        which: WhichKey,
        new_name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Give an API key a new secret. It is printed once.
    Rotate {
        #[command(flatten)]
        which: WhichKey,
        #[command(flatten)]
        overlap: Overlap,
        #[command(flatten)]
        output: Output,
    },
    /// Give the webhooks of an API key a new signing secret. It is printed once.
    RotateWebhookSecret {
        #[command(flatten)]
        which: WhichKey,
        /// How many seconds the previous secret still signs too.
        #[arg(long, value_name = "SECS", default_value_t = 86_400)]
        overlap_secs: i64,
        #[command(flatten)]
        output: Output,
    },
    /// List the signing secrets of a key's webhooks, newest first. The secrets themselves are never shown.
    WebhookSecrets {
        #[command(flatten)]
        which: WhichKey,
        #[command(flatten)]
        listing: Listing,
    },
    /// Restore a revoked API key, within an hour.
    Restore {
        #[command(flatten)]
        which: WhichKey,
        #[command(flatten)]
        output: Output,
    },
    /// Revoke an API key at once.
    Revoke {
        #[command(flatten)]
        which: WhichKey,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args, Clone)]
pub(crate) struct Overlap {
    /// How many seconds the previous secret still works after the first use of the new one.
    #[arg(long, value_name = "SECS", default_value_t = 86_400)]
    pub(super) overlap_secs: i64,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum EnvironmentName {
    Sandbox,
    Live,
}

impl From<EnvironmentName> for Environment {
    fn from(name: EnvironmentName) -> Self {
        match name {
            EnvironmentName::Sandbox => Self::Sandbox,
            EnvironmentName::Live => Self::Live,
        }
    }
}

impl KeyJob {
    pub(super) const fn creates(&self) -> Create {
        match self {
            Self::List { .. } | Self::Show { .. } | Self::WebhookSecrets { .. } => Create::Nothing,
            Self::Add { .. }
            | Self::Rename { .. }
            | Self::Rotate { .. }
            | Self::RotateWebhookSecret { .. }
            | Self::Restore { .. }
            | Self::Revoke { .. } => Create::Beside,
        }
    }
}

pub(super) async fn run(line: &CommandLine, job: KeyJob) -> anyhow::Result<()> {
    let CommandLine { core, principal } = line;
    match job {
        KeyJob::Add { merchant, name, environment, allowed_ips, output } => {
            let merchant = line.merchant(&merchant).await?.id;
            let new = NewApiKey { allowed_ips, ..NewApiKey::named(name, environment.into()) };
            let made = core.create_api_key(principal, merchant, new).await?;
            output.show(&made_now(made)?.body())
        }
        KeyJob::List { merchant, listing } => {
            let merchant = line.merchant(&merchant).await?.id;
            let found = core.api_keys(principal, merchant, None, listing.limit).await?;
            let views = found.iter().map(|key| ApiKeyView::new(key, core.now()));
            listing.print(views, &["id", "name", "environment", "status", "key_hint", "expires_at"])
        }
        KeyJob::Show { which, output } => show(line, &line.key(&which).await?, output),
        KeyJob::Rename { which, new_name, output } => {
            let id = line.key(&which).await?.id;
            let changes = ApiKeyChanges { name: Some(new_name), ..ApiKeyChanges::default() };
            show(line, &core.update_api_key(principal, id, None, changes).await?.object, output)
        }
        KeyJob::Rotate { which, overlap, output } => {
            let id = line.key(&which).await?.id;
            let made = core.rotate_api_key(principal, id, overlap.overlap_secs).await?;
            output.show(&made_now(made)?.body())
        }
        KeyJob::RotateWebhookSecret { which, overlap_secs, output } => {
            let id = line.key(&which).await?.id;
            let made = core.rotate_webhook_secret(principal, id, overlap_secs).await?;
            output.show(&made_now(made)?.body())
        }
        KeyJob::WebhookSecrets { which, listing } => {
            let id = line.key(&which).await?.id;
            let found = core.signing_secrets(principal, id).await?;
            listing.print(&found, &["id", "created_at", "ends_at"])
        }
        KeyJob::Restore { which, output } => {
            let id = line.revoked_key(&which).await?.id;
            show(line, &core.restore_api_key(principal, id).await?, output)
        }
        KeyJob::Revoke { which, output } => {
            let id = line.key(&which).await?.id;
            show(line, &core.revoke_api_key(principal, id).await?, output)
        }
    }
}

fn show(line: &CommandLine, key: &ApiKey, output: Output) -> anyhow::Result<()> {
    output.show(&body::json_bytes(&ApiKeyView::new(key, line.core.now())))
}
