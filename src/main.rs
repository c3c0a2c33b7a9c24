//! The command line.

mod commands;
mod health_check;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;
use tollgate::app::{App, Create, open_store};
use tollgate::config::{Flag, Settings, Sources};
use tollgate::demo;
use tollgate::domain::clock::Clock;
use tollgate::domain::entropy::Entropy;
use tollgate::store::backup::backup;
use tollgate::telemetry;

use commands::{Job, print};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Issues and verifies API credentials for the merchants of a payment platform.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Common {
    /// Settings file (TOML). Every key is explained in config/default.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on.
    #[arg(long, global = true, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Directory of the embedded database and token keys.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// sqlite://FILE or postgres://...; also from DATABASE_URL.
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve,
    /// Run the server with a demo merchant, and print curl commands to paste.
    Demo,
    /// Bring the database schema up to date, and stop.
    Migrate,
    /// Check the settings, and print each with where it comes from.
    CheckConfig,
    /// Copy the embedded database to a new file while the server runs. The token keys are not in it.
    Backup {
        #[arg(value_name = "FILE")]
        to: PathBuf,
    },
    /// Ask the server that runs here with these settings whether it is up.
    Healthcheck,
    /// Print a fresh token key, for tokens.keys_file.
    KeyGen,
    #[command(flatten)]
    Job(Job),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "tollgate: {}", in_one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// The whole chain, and never a backtrace: this is for operators. Some errors tell their cause themselves.
fn in_one_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told {
        told if told.is_empty() => cause,
        told if told.contains(&cause) => told,
        told => format!("{told}: {cause}"),
    })
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let settings = Settings::load(&sources(cli.common))?;
    telemetry::start(&settings.log);
    match cli.command {
        Command::Serve => serve(settings).await,
        Command::Demo => run_demo(settings).await,
        Command::Migrate => {
            open_store(&settings, Create::Database).await?.close().await;
            Ok(())
        }
        Command::CheckConfig => print(&settings.explain()),
        Command::Backup { to } => back_up(&settings, &to).await,
        Command::Healthcheck => health_check::run(&settings),
        Command::KeyGen => print(&hex::encode(Entropy::System.bytes::<32>())),
        Command::Job(job) => commands::run(&settings, job).await,
    }
}

fn sources(common: Common) -> Sources {
    let flag = |key, name, value: Option<String>| value.map(|value| Flag { key, name, value });
    Sources {
        file: common.config,
        environment: std::env::vars().collect(),
        flags: [
            flag("server.listen", "--listen", common.listen),
            flag("server.data_dir", "--data-dir", common.data_dir),
            flag("database.url", "--database-url", common.database_url),
        ]
        .into_iter()
        .flatten()
        .collect(),
    }
}

async fn back_up(settings: &Settings, to: &Path) -> anyhow::Result<()> {
    backup(settings.database.url.expose(), to, settings.database.timeout).await?;
    print(&format!(
        "{} is a copy of the database.\nTokens are of use only together with the token keys: keep those too, elsewhere.",
        to.display()
    ))
}

async fn serve(mut settings: Settings) -> anyhow::Result<()> {
    let listener = bind_public(&mut settings).await?;
    let ops = match settings.ops.listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let mut app = App::build(&settings, Create::Embedded, Clock::System, Entropy::System).await?;
    if let Some(ops) = ops {
        tracing::info!(ops_listen = %ops.local_addr()?, "operations");
        app = app.with_ops(ops);
    }
    tracing::info!(listen = %listener.local_addr()?, engine = ?app.core().store.engine(), "ready");
    app.run(listener, stop_signal()).await;
    tracing::info!("stopped");
    Ok(())
}

async fn run_demo(mut settings: Settings) -> anyhow::Result<()> {
    let listener = bind_public(&mut settings).await?;
    let app = App::build(&settings, Create::Everything, Clock::System, Entropy::System).await?;
    print(&demo::prepare(app.core(), listener.local_addr()?).await?)?;
    app.run(listener, stop_signal()).await;
    Ok(())
}

/// Opens the public listener. An issuer made from port 0 is made again from the port that the system chose.
async fn bind_public(settings: &mut Settings) -> anyhow::Result<TcpListener> {
    let wanted = settings.server.listen;
    let listener = bind(wanted).await?;
    let is_of_port_0 = wanted.port() == 0 && settings.server.issuer.ends_with(&format!("://{wanted}"));
    if is_of_port_0 {
        let address = listener.local_addr()?;
        settings.server.issuer = settings.server.issuer.replace(&wanted.to_string(), &address.to_string());
    }
    Ok(listener)
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Resolves at SIGTERM or Ctrl-C.
async fn stop_signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
