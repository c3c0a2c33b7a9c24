//! `tollgate session`.

use clap::Subcommand;
use tollgate::app::Create;
use tollgate::domain::ids::SessionId;
use tollgate::http::admin::body;
use tollgate::http::admin::sessions::SessionView;

use super::CommandLine;
use super::output::{Listing, Output};

#[derive(Clone, Subcommand)]
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
        #[command(flatten)]
        output: Output,
    },
    /// End a session and all its tokens.
    End {
        session: SessionId,
        #[command(flatten)]
        output: Output,
    },
}

impl SessionJob {
    pub(super) const fn creates(&self) -> Create {
        match self {
            Self::List { .. } | Self::Show { .. } => Create::Nothing,
            Self::End { .. } => Create::Beside,
        }
    }
}

pub(super) async fn run(line: &CommandLine, job: SessionJob) -> anyhow::Result<()> {
    let CommandLine { core, principal } = line;
    match job {
        SessionJob::List { merchant, listing } => {
            let merchant = line.merchant(&merchant).await?.id;
            let found = core.sessions(principal, merchant, None, listing.limit).await?;
            let views = found.into_iter().map(|session| SessionView::new(session, core.now()));
            let columns =
                ["id", "client_id", "active", "generation", "started_at", "rotated_at", "expires_at"];
            listing.print(views, &columns)
        }
        SessionJob::Show { session, output } => show(line, session, output).await,
        SessionJob::End { session, output } => {
            core.end_session_by(principal, session).await?;
            show(line, session, output).await
        }
    }
}

async fn show(line: &CommandLine, id: SessionId, output: Output) -> anyhow::Result<()> {
    let session = line.core.session(&line.principal, id).await?;
    output.show(&body::json_bytes(&SessionView::new(session, line.core.now())))
}
