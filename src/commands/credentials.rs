//! `tollgate credentials`: client ids and secrets, and the Enhanced Security switch.

use clap::Subcommand;
use tollgate::app::Create;
use tollgate::domain::credential::Credential;
use tollgate::flows::idempotency::Rendered;
use tollgate::flows::manage_credentials::{CredentialChanges, RotatedBy};
use tollgate::http::admin::body;
use tollgate::http::admin::credentials::CredentialView;

use super::api_keys::Overlap;
use super::find::WhichKey;
use super::output::{Listing, Output};
use super::{CommandLine, made_now};

#[derive(Clone, Subcommand)]
pub(crate) enum CredentialsJob {
    /// Generate a client id and secret for a key, switched OFF. The secret is printed once.
    Add {
        #[command(flatten)]
        which: WhichKey,
        #[command(flatten)]
        output: Output,
    },
    /// List all credentials of a key, newest first.
    List {
        #[command(flatten)]
        which: WhichKey,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show credentials.
    Show {
        client_id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Give credentials a new secret. It is printed once.
    Rotate {
        client_id: String,
        #[command(flatten)]
        overlap: Overlap,
        #[command(flatten)]
        output: Output,
    },
    /// Switch Enhanced Security ON.
    On {
        client_id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Switch Enhanced Security OFF. This ends every session at once.
    Off {
        client_id: String,
        #[command(flatten)]
        output: Output,
    },
}

impl CredentialsJob {
    pub(super) const fn creates(&self) -> Create {
        match self {
            Self::List { .. } | Self::Show { .. } => Create::Nothing,
            Self::Add { .. } | Self::Rotate { .. } | Self::On { .. } | Self::Off { .. } => Create::Beside,
        }
    }
}

pub(super) async fn run(line: &CommandLine, job: CredentialsJob) -> anyhow::Result<()> {
    let CommandLine { core, principal } = line;
    match job {
        CredentialsJob::Add { which, output } => {
            let key = line.key(&which).await?.id;
            let made = core.generate_credentials(principal, key, None).await?;
            output.show(&made_now(made)?.body())
        }
        CredentialsJob::List { which, listing } => {
            let key = line.key(&which).await?.id;
            let found = core.credentials(principal, key).await?;
            let views = found.iter().map(|credential| CredentialView::new(credential, core.now()));
            listing.print(views, &["client_id", "enabled", "last_used_at", "created_at"])
        }
        CredentialsJob::Show { client_id, output } => {
            show(line, &core.credential(principal, &client_id).await?, output)
        }
        CredentialsJob::Rotate { client_id, overlap, output } => {
            let by = RotatedBy::Manager { client_id: &client_id };
            let made = core.rotate_client_secret(principal, by, overlap.overlap_secs).await?;
            output.show(&made_now(made)?.body())
        }
        CredentialsJob::On { client_id, output } => switch(line, &client_id, true, output).await,
        CredentialsJob::Off { client_id, output } => switch(line, &client_id, false, output).await,
    }
}

async fn switch(line: &CommandLine, client_id: &str, on: bool, output: Output) -> anyhow::Result<()> {
    let changes = CredentialChanges::switch(on);
    show(line, &line.core.update_credentials(&line.principal, client_id, None, changes).await?, output)
}

fn show(line: &CommandLine, credential: &Credential, output: Output) -> anyhow::Result<()> {
    output.show(&body::json_bytes(&CredentialView::new(credential, line.core.now())))
}
