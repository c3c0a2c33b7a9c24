//! `tollgate operator` and `tollgate token`: admin tokens.

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;
use tollgate::app::Create;
use tollgate::domain::admin::{AdminToken, Permission, Role};
use tollgate::flows::idempotency::Rendered;
use tollgate::flows::manage_tokens::NewAdminToken;
use tollgate::flows::token_advice::Advice;
use tollgate::http::admin::body;

use super::api_keys::Overlap;
use super::output::{Listing, Output, print};
use super::{CommandLine, made_now};

#[derive(Clone, Subcommand)]
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

#[derive(Clone, Subcommand)]
pub(crate) enum TokenJob {
    /// List admin tokens, newest first.
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// Show an admin token.
    Show {
        /// Id or name.
        token: String,
        #[command(flatten)]
        output: Output,
    },
    /// Give an admin token another name.
    Rename {
        /// Id or name.
        token: String,
        new_name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Give an admin token a new secret. It is printed once.
    Rotate {
        /// Id or name.
        token: String,
        #[command(flatten)]
        overlap: Overlap,
        #[command(flatten)]
        output: Output,
    },
    /// Revoke an admin token at once.
    Revoke {
        /// Id or name.
        token: String,
        #[command(flatten)]
        output: Output,
    },
}

impl TokenJob {
    pub(super) const fn creates(&self) -> Create {
        match self {
            Self::List { .. } | Self::Show { .. } => Create::Nothing,
            Self::Rename { .. } | Self::Rotate { .. } | Self::Revoke { .. } => Create::Beside,
        }
    }
}

pub(super) async fn run_operator(line: &CommandLine, job: OperatorJob) -> anyhow::Result<()> {
    let OperatorJob::Add { name, introspect, json } = job;
    let (role, permissions) = match introspect {
        true => (Role::Service, vec![Permission::Introspect]),
        false => (Role::Operator, Vec::new()),
    };
    let allowed_ips = Vec::new();
    let new = NewAdminToken { name, role, merchant_id: None, permissions, allowed_ips, expires_at: None };
    let made = made_now(line.core.create_admin_token(&line.principal, new).await?)?;
    if json {
        return print(&json!({ "id": made.object.id, "token": made.secret.expose() }).to_string());
    }
    Output { json }.show(&made.body())
}

pub(super) async fn run(line: &CommandLine, job: TokenJob) -> anyhow::Result<()> {
    let CommandLine { core, principal } = line;
    match job {
        TokenJob::List { listing } => list(line, &listing).await,
        TokenJob::Show { token, output } => output.show(&body::json_bytes(&line.token(&token).await?)),
        TokenJob::Rename { token, new_name, output } => {
            let id = line.token(&token).await?.id;
            output.show(&body::json_bytes(&core.rename_admin_token(principal, id, new_name).await?))
        }
        TokenJob::Rotate { token, overlap, output } => {
            let id = line.token(&token).await?.id;
            let made = core.rotate_admin_token(principal, id, overlap.overlap_secs).await?;
            output.show(&made_now(made)?.body())
        }
        TokenJob::Revoke { token, output } => {
            let id = line.token(&token).await?.id;
            core.revoke_admin_token(principal, id).await?;
            output.show(&body::json_bytes(&core.admin_token_by_id(principal, id).await?))
        }
    }
}

/// A token as the admin API shows it, and why it should be narrowed.
#[derive(Serialize)]
struct MarkedToken<'a> {
    #[serde(flatten)]
    token: &'a AdminToken,
    narrow: Option<&'static str>,
}

async fn list(line: &CommandLine, listing: &Listing) -> anyhow::Result<()> {
    let found = line.core.admin_tokens(&line.principal, None, listing.limit).await?;
    let advice = line.core.tokens_to_narrow().await?;
    let narrow = |token: &AdminToken| advice.get(&token.id).map(|advice: &Advice| <&str>::from(*advice));
    let marked = found.iter().map(|token| MarkedToken { token, narrow: narrow(token) });
    let columns = ["id", "name", "role", "merchant_id", "last_used_at", "expires_at", "revoked_at", "narrow"];
    listing.print(marked, &columns)
}
