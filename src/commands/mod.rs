//! The commands for operators. They work with or without a running server.
//!
//! Each noun has a file with its arguments and what its commands do. They use the same flows as the admin API
//! and, with `--json`, print the same answers.

mod api_keys;
mod audit;
mod cell;
mod cells;
mod credentials;
mod find;
mod merchants;
mod onboard;
mod output;
mod sessions;
mod token_keys;
mod tokens;
mod users;

use anyhow::Context;
use clap::Subcommand;
use tollgate::app::{Create, open_core};
use tollgate::config::Settings;
use tollgate::domain::clock::Clock;
use tollgate::domain::entropy::Entropy;
use tollgate::flows::Core;
use tollgate::flows::idempotency::Answer;
use tollgate::flows::principal::Principal;

pub(crate) use cells::{NamedCell, run as run_on_cells};
pub(crate) use onboard::SecretsLost;
pub(crate) use output::{note, print};

#[derive(Clone, Subcommand)]
pub(crate) enum Job {
    /// Operators, who may administer every merchant.
    #[command(subcommand)]
    Operator(tokens::OperatorJob),
    /// Merchants.
    #[command(subcommand)]
    Merchant(merchants::MerchantJob),
    /// Licences of merchants.
    #[command(subcommand)]
    Licence(merchants::LicenceJob),
    /// API keys, with their webhook secrets.
    #[command(subcommand)]
    Key(api_keys::KeyJob),
    /// Client credentials.
    #[command(subcommand)]
    Credentials(credentials::CredentialsJob),
    /// Users of the console.
    #[command(subcommand)]
    User(users::UserJob),
    /// The audit trail.
    #[command(subcommand)]
    Audit(audit::Job),
    /// Admin tokens, including those of operators.
    #[command(subcommand)]
    Token(tokens::TokenJob),
    /// Sessions.
    #[command(subcommand)]
    Session(sessions::SessionJob),
    /// Cells.
    #[command(subcommand)]
    Cell(cell::CellJob),
    /// The server's token keys.
    Keys(token_keys::Keys),
}

impl Job {
    /// What the command may create. A new store is of use only to commands that can be the first on it.
    const fn creates(&self) -> Create {
        match self {
            Self::Operator(_) => Create::First,
            Self::Merchant(job) => job.creates(),
            Self::Licence(job) => job.creates(),
            Self::Key(job) => job.creates(),
            Self::Credentials(job) => job.creates(),
            Self::User(job) => job.creates(),
            Self::Audit(_) => Create::Nothing,
            Self::Token(job) => job.creates(),
            Self::Session(job) => job.creates(),
            Self::Cell(_) => Create::Beside,
            Self::Keys(keys) => keys.creates(),
        }
    }
}

/// What every command works with.
struct CommandLine {
    core: Core,
    principal: Principal,
}

/// Runs a command and prints its result.
pub(crate) async fn run(settings: &Settings, job: Job) -> anyhow::Result<()> {
    let core = open_core(settings, job.creates(), Clock::System, Entropy::System).await?;
    core.follow_token_key().await?;
    let line = CommandLine { core, principal: Principal::command_line() };
    let done = perform(settings, &line, job).await;
    line.core.store.close().await;
    done
}

async fn perform(settings: &Settings, line: &CommandLine, job: Job) -> anyhow::Result<()> {
    match job {
        Job::Operator(job) => tokens::run_operator(line, job).await,
        Job::Merchant(job) => merchants::run(line, job).await,
        Job::Licence(job) => merchants::run_licence(line, job).await,
        Job::Key(job) => api_keys::run(line, job).await,
        Job::Credentials(job) => credentials::run(line, job).await,
        Job::User(job) => users::run(line, job).await,
        Job::Audit(job) => audit::run(&line.core, &line.principal, job).await,
        Job::Token(job) => tokens::run(line, job).await,
        Job::Session(job) => sessions::run(line, job).await,
        Job::Cell(job) => cell::run(settings, line, job).await,
        Job::Keys(keys) => token_keys::run(settings, &line.core, &line.principal, keys).await,
    }
}

fn made_now<T>(answer: Answer<T>) -> anyhow::Result<T> {
    answer.made().context("it already exists")
}
