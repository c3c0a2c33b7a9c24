//! The command line.

mod commands;
mod health_check;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, CommandFactory, Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tollgate::app::{App, Create, open_store};
use tollgate::config::{Flag, Settings, Sources};
use tollgate::demo;
use tollgate::domain::clock::Clock;
use tollgate::domain::entropy::Entropy;
use tollgate::process::signals::Signals;
use tollgate::process::{descriptors, service_manager};
use tollgate::store::backup::backup;
use tollgate::{store, telemetry};

use commands::{Job, NamedCell, SecretsLost, note, print};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused or failed, with the reason on standard error; 2 wrong arguments; \
     3 (onboard) done, but secrets that were made earlier cannot be shown again.";

/// Issues and verifies API credentials for the merchants of a payment platform.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = EXIT_CODES)]
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
    /// Run a command on this cell, NAME=URL or NAME=FILE with the URL in it. Commands that only read take several.
    #[arg(long = "cell", global = true, value_name = "NAME=URL")]
    cells: Vec<NamedCell>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve {
        /// Start although token keys are missing that the database needs. Sessions, webhook secrets and
        /// second factors that they sealed are lost for good. Needed only once.
        #[arg(long)]
        allow_missing_token_keys: bool,
    },
    /// Run the server with a demo merchant, and print curl commands to paste.
    Demo,
    /// Bring the database schema up to date, and stop.
    Migrate,
    /// Check the settings, and print each one and where it comes from.
    CheckConfig,
    /// Copy the embedded database to a new file while the server runs. The token keys are not in it.
    Backup {
        #[arg(value_name = "FILE")]
        to: PathBuf,
    },
    /// Check that the server with these settings is up on this machine.
    Healthcheck,
    /// Print a fresh token key, for tokens.keys_file.
    KeyGen,
    /// Print a script that completes this command line, for your shell.
    Completions { shell: clap_complete::Shell },
    #[command(flatten)]
    Job(Job),
}

fn main() -> ExitCode {
    start_process(Cli::parse()).unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr().lock(), "tollgate: {}", in_one_line(&error));
        if error.is::<SecretsLost>() { ExitCode::from(3) } else { ExitCode::FAILURE }
    })
}

fn start_process(mut cli: Cli) -> anyhow::Result<ExitCode> {
    if let Command::KeyGen = cli.command {
        // Do not load the settings: they may name the file that this key is for, which does not exist yet.
        print(&hex::encode(Entropy::System.bytes::<32>()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let signals = Signals::install().context("cannot start")?;
    forbid_core_dumps();
    let tells_password = cli.common.database_url.as_deref().is_some_and(has_password);
    let cells = std::mem::take(&mut cli.common.cells);
    let settings = Settings::load(&sources(cli.common))?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(settings.worker_threads)
        .enable_all()
        .build()
        .context("cannot start")?;
    let ended = runtime.block_on(async {
        let _logging = telemetry::start(&settings.log).context("cannot start to log")?;
        for warning in settings.warnings() {
            tracing::warn!("{warning}");
        }
        if tells_password {
            tracing::warn!(
                "everybody on this machine can read the password in --database-url in the list of processes; \
                 set DATABASE_URL or database.url_file instead"
            );
        }
        run(cli.command, cells, settings, signals).await
    });
    // A thread that is still blocked, for example in name resolution, must not delay the end.
    runtime.shutdown_background();
    ended
}

/// The error with all its causes and without a backtrace, for operators. Some errors already contain the text
/// of their cause, which is then not repeated.
fn in_one_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told {
        told if told.is_empty() => cause,
        told if told.contains(&cause) => told,
        told => format!("{told}: {cause}"),
    })
}

async fn run(
    command: Command,
    cells: Vec<NamedCell>,
    mut settings: Settings,
    signals: Signals,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { allow_missing_token_keys } => {
            settings.tokens.allow_missing_keys = allow_missing_token_keys;
            serve(settings, signals).await?;
        }
        Command::Demo => run_demo(settings, signals).await?,
        Command::Job(job) if !cells.is_empty() => tokio::select! {
            done = commands::run_on_cells(settings, cells, job) => done?,
            code = signals.stopped() => return Ok(ExitCode::from(code)),
        },
        _ if !cells.is_empty() => bail!("--cell is for commands that read or change what is in a store"),
        command => tokio::select! {
            done = run_command(command, &settings) => done?,
            code = signals.stopped() => return Ok(ExitCode::from(code)),
        },
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_command(command: Command, settings: &Settings) -> anyhow::Result<()> {
    if let Command::Migrate | Command::Backup { .. } | Command::Job(_) = command {
        note(&format!("the store is {}", store::url::describe(settings.database.url.expose())?));
    }
    match command {
        Command::Serve { .. } | Command::Demo | Command::KeyGen => Ok(()),
        Command::Migrate => {
            open_store(settings, Create::Database).await?.close().await;
            Ok(())
        }
        Command::CheckConfig => print(&settings.explain()),
        Command::Backup { to } => back_up(settings, &to).await,
        Command::Healthcheck => health_check::run(settings),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut script);
            print(std::str::from_utf8(&script)?)
        }
        Command::Job(job) => commands::run(settings, job).await,
    }
}

/// A core dump would contain every secret in the memory of this process.
fn forbid_core_dumps() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        // Lowering a limit is always allowed.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    }
}

fn has_password(url: &str) -> bool {
    url::Url::parse(url)
        .is_ok_and(|url| url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password"))
}

fn sources(common: Common) -> Sources {
    let flag = |key, name, value: Option<String>| value.map(|value| Flag { key, name, value });
    Sources {
        file: common.config,
        environment: std::env::vars_os().collect(),
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

async fn serve(settings: Settings, signals: Signals) -> anyhow::Result<()> {
    let (app, listener) = tokio::select! {
        started = start(settings) => started?,
        _ = signals.stopped() => {
            tracing::info!("stopped during the start");
            return Ok(());
        }
    };
    tracing::info!(listen = %listener.local_addr()?, engine = ?app.core().store.engine(), "ready");
    service_manager::tell_ready();
    let watchdog = app.core().store.tasks().keep("watchdog", service_manager::feed_watchdog);
    let stop = async {
        signals.stopped().await;
        service_manager::tell_stopping();
    };
    app.reloading_at(signals.hangups()).run(listener, stop).await;
    watchdog.abort();
    tracing::info!("stopped");
    Ok(())
}

async fn start(mut settings: Settings) -> anyhow::Result<(App, TcpListener)> {
    descriptors::fit(&mut settings, descriptors::raise());
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
    Ok((app, listener))
}

async fn run_demo(mut settings: Settings, signals: Signals) -> anyhow::Result<()> {
    let prepared = async {
        let listener = bind_public(&mut settings).await?;
        let app = App::build(&settings, Create::Everything, Clock::System, Entropy::System).await?;
        print(&demo::prepare(app.core(), listener.local_addr()?).await?)?;
        anyhow::Ok((app, listener))
    };
    let (app, listener) = tokio::select! {
        prepared = prepared => prepared?,
        _ = signals.stopped() => return Ok(()),
    };
    app.run(listener, async {
        let _ = signals.stopped().await;
    })
    .await;
    Ok(())
}

/// Opens the public listener. If the issuer was made from port 0, it is made again with the port that the
/// system chose.
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
