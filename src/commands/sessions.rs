//! `tollgate session`.

use clap::{Subcommand, ValueEnum};
use tollgate::app::Create;
use tollgate::domain::ids::SessionId;
use tollgate::http::admin::body;
use tollgate::http::admin::sessions::SessionView;
use tollgate::store::sessions::{Filter, Status};

use super::CommandLine;
use super::find::WhichKey;
use super::output::{Listing, Output, Time, timestamp};

#[derive(Clone, Subcommand)]
pub(crate) enum SessionJob {
    /// List a merchant's sessions, newest first.
    List {
        /// Id or name.
        merchant: String,
        /// Only sessions of this API key: its id or name.
        #[arg(long)]
        key: Option<String>,
        /// Only sessions of the client ids that begin with this.
        #[arg(long)]
        client_id: Option<String>,
        #[arg(long)]
        status: Option<StatusName>,
        /// Only sessions that started at this time or later (RFC 3339).
        #[arg(long, value_name = "TIME")]
        from: Option<Time>,
        /// Only sessions that started before this time (RFC 3339).
        #[arg(long, value_name = "TIME")]
        to: Option<Time>,
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

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum StatusName {
    Active,
    Expired,
    Ended,
}

impl From<StatusName> for Status {
    fn from(name: StatusName) -> Self {
        match name {
            StatusName::Active => Self::Active,
            StatusName::Expired => Self::Expired,
            StatusName::Ended => Self::Ended,
        }
    }
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
        SessionJob::List { merchant, key, client_id, status, from, to, listing } => {
            let merchant = line.merchant(&merchant).await?.id;
            let api_key_id = match key {
                Some(key) => Some(line.key(&WhichKey::of(merchant, key)).await?.id),
                None => None,
            };
            let (from, to) = (from.map(timestamp), to.map(timestamp));
            let filter = Filter { api_key_id, client_id, status: status.map(Status::from), from, to };
            let found = core.sessions(principal, merchant, &filter, None, listing.limit).await?;
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
