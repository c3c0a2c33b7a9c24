//! The application: builds it from the settings, runs it and stops it gracefully.

mod open;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use opentelemetry_otlp::ExporterBuildError;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::config::{self, Settings};
use crate::domain::cell::CellId;
use crate::domain::clock::Clock;
use crate::domain::entropy::Entropy;
use crate::flows::SharedCore;
use crate::http::console::cells::OtherCells;
use crate::http::front::Front;
use crate::http::metrics::EdgeMetrics;
use crate::http::server::{ListenerLimits, Transport, serve};
use crate::http::tls::{Tls, TlsError, TlsFiles};
use crate::http::{self, Shared};
use crate::jobs::audit_head::HeadReporter;
use crate::jobs::deliver::Deliverer;
use crate::jobs::egress::Egress;
use crate::jobs::exchange_log::{ExchangeLog, Sample};
use crate::jobs::sweep::Sweeper;
use crate::jobs::{learn, notices, tidy, token_keys, usage};
use crate::store::StoreError;
use crate::telemetry::traces::Traces;

use open::join;
pub use open::{key_file, open_core, open_store};

/// Which missing files may be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// None: for commands that only read.
    Nothing,
    /// Token keys, if the database uses none yet: for commands that change what is in a store. The store must
    /// exist, and its schema must be up to date.
    Beside,
    /// Like [`Create::Embedded`], but no token keys if the database already uses some: for commands that may be
    /// the first on a new store.
    First,
    /// The files of an embedded installation: the data directory, its database and its token keys.
    Embedded,
    /// Also a SQLite file that a URL names: for `migrate`.
    Database,
    /// Also token keys for a PostgreSQL database: for a demo, or for a single machine.
    Everything,
}

/// Why the application cannot start. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "PostgreSQL needs token keys that are the same on all replicas: make one with `tollgate key-gen` \
         and set tokens.keys_file or TOLLGATE__TOKENS__KEYS_FILE"
    )]
    NoTokenKeys,
    #[error("the database belongs to {}, and the settings are for {}: look at database.url and [cell]", name_of(*.of), name_of(*.wanted))]
    ForeignCell { of: Option<CellId>, wanted: Option<CellId> },
    #[error(
        "the database has merchants from before there were cells, so it can only be the default cell: set \
         cell.default to true"
    )]
    NotDefaultCell,
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("traces: {0}")]
    Traces(#[from] ExporterBuildError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0}: not a token keys file: it must have one key of 64 hex characters per line, newest first")]
    BadTokenKeys(PathBuf),
    #[error(
        "the database needs token keys that are missing: {0}. Put them back into the key file. If nobody has them \
         any more, start once with --allow-missing-token-keys: everything that they sealed is then lost for good"
    )]
    MissingTokenKeys(String),
}

fn name_of(cell: Option<CellId>) -> String {
    cell.map_or("no cell".to_owned(), |cell| format!("cell {}", cell.number()))
}

/// The application, ready to run.
pub struct App {
    shared: Arc<Shared>,
    deliverer: Arc<Deliverer>,
    head_reporter: Option<Arc<HeadReporter>>,
    limits: ListenerLimits,
    proxy_protocol_from: Arc<[IpNet]>,
    drain_delay: Duration,
    ops: Option<TcpListener>,
    hangups: Option<watch::Receiver<()>>,
}

impl App {
    /// Opens the store, brings its schema up to date and starts the workers.
    pub async fn build(
        settings: &Settings,
        create: Create,
        clock: Clock,
        entropy: Entropy,
    ) -> Result<Self, BuildError> {
        let core = Arc::new(open_core(settings, create, clock, entropy).await?);
        join(&core, settings.tokens.allow_missing_keys).await?;
        core.seal_audit_trail().await?;
        let egress = Arc::new(Egress::new(core.destinations).through(settings.webhooks.proxy.clone()));
        let head_reporter = HeadReporter::new(Arc::clone(&core), &settings.webhooks);
        let deliverer = Deliverer::new(Arc::clone(&core), Arc::clone(&egress));
        let shared = Arc::new(Shared {
            exchanges: ExchangeLog::start(
                Arc::clone(&core),
                Sample::of_successes(settings.retention.exchange_success_sample),
            ),
            sweeper: Sweeper::new(
                Arc::clone(&core),
                settings.retention,
                settings.limits.sessions_per_client_max,
            ),
            core,
            other_cells: OtherCells::new(&settings.console)?,
            egress,
            edge: settings.server.edge.clone(),
            logs_probes: settings.log.probes,
            tasks: TaskTracker::new(),
            is_draining: AtomicBool::new(false),
            metrics: EdgeMetrics::default(),
            traces: Traces::start(&settings.traces)?,
            tls: load_tls(&settings.server)?,
        });
        let proxies: &[IpNet] =
            if settings.server.proxy_protocol { &settings.server.edge.trusted_proxies } else { &[] };
        Ok(Self {
            shared,
            deliverer,
            head_reporter,
            limits: settings.server.limits,
            proxy_protocol_from: proxies.into(),
            drain_delay: settings.server.drain_delay,
            ops: None,
            hangups: None,
        })
    }

    pub fn core(&self) -> &SharedCore {
        &self.shared.core
    }

    /// The task that sends webhooks. [`App::run`] runs it.
    pub fn deliverer(&self) -> &Arc<Deliverer> {
        &self.deliverer
    }

    /// The task that removes old rows. [`App::run`] runs it.
    pub fn sweeper(&self) -> &Sweeper {
        &self.shared.sweeper
    }

    pub fn front(&self) -> Front {
        http::front(Arc::clone(&self.shared))
    }

    pub fn ops_front(&self) -> Front {
        http::ops::router(Arc::clone(&self.shared)).into()
    }

    /// Serves metrics and health on `listener` while [`App::run`] runs.
    pub fn with_ops(self, listener: TcpListener) -> Self {
        Self { ops: Some(listener), ..self }
    }

    /// Reads files again whenever `hangups` changes, while [`App::run`] runs.
    pub fn reloading_at(self, hangups: watch::Receiver<()>) -> Self {
        Self { hangups: Some(hangups), ..self }
    }

    /// Writes all exchange records, last-used times and refused sign-ins so far.
    pub async fn flush(&self) {
        self.shared.exchanges.flush().await;
        if let Err(error) = self.shared.core.write_uses().await {
            tracing::warn!(%error, "last-used times were lost");
        }
        if let Err(error) = self.shared.core.write_all_refusals().await {
            tracing::warn!(%error, "refused sign-ins could not be written to the audit trail");
        }
    }

    /// Serves on `listener` until `stop` resolves. Then drains, finishes the work under way, and closes.
    pub async fn run(mut self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let ops = self.ops.take().map(|listener| {
            let limits = ListenerLimits {
                connections_max: http::ops::CONNECTIONS_MAX,
                connections_per_address_max: 0,
                ..self.limits
            };
            // Runs until the process ends, so that monitoring sees the whole shutdown.
            let transport = Transport::default();
            tokio::spawn(serve(listener, self.ops_front(), limits, transport, std::future::pending()))
        });
        let loops = self.start_loops();
        let deliverer = Arc::clone(&self.deliverer);
        let delivering = self.core().store.tasks().keep("webhooks", move || Arc::clone(&deliverer).run());
        let deliverer = Arc::clone(&self.deliverer);
        let (draining, drain_delay) = (Arc::clone(&self.shared), self.drain_delay);
        let stop = async move {
            stop.await;
            draining.is_draining.store(true, Ordering::Relaxed);
            tracing::info!(delay_secs = drain_delay.as_secs(), "stopping: no longer ready");
            tokio::time::sleep(drain_delay).await;
            deliverer.stop();
        };
        let transport = Transport {
            tls: self.shared.tls.clone(),
            proxy_protocol_from: Arc::clone(&self.proxy_protocol_from),
            trusted_proxies: self.shared.edge.trusted_proxies.as_slice().into(),
        };
        serve(listener, self.front(), self.limits, transport, stop).await;
        for job in loops {
            job.abort();
        }
        // Record the started attempts, or they would be made again.
        if let Err(error) = delivering.await {
            tracing::error!(%error, "webhook deliveries ended early");
        }
        self.close().await;
        if let Some(ops) = ops {
            ops.abort();
        }
    }

    /// Starts the background tasks that run until they are aborted.
    fn start_loops(&self) -> Vec<JoinHandle<()>> {
        let (shared, tasks) = (&self.shared, self.core().store.tasks());
        let with_core = || Arc::clone(&shared.core);
        let (uses, limits, notes, keys) = (with_core(), with_core(), with_core(), with_core());
        let secrets = with_core();
        let sweeper = Arc::clone(&shared.sweeper);
        let mut loops = vec![
            tasks.keep("last_used", move || usage::run(Arc::clone(&uses))),
            tasks.keep("limits", move || tidy::run(Arc::clone(&limits))),
            tasks.keep("notices", move || notices::run(Arc::clone(&notes))),
            tasks.keep("new_secrets", move || learn::run(Arc::clone(&secrets))),
            tasks.keep("token_keys", move || token_keys::run(Arc::clone(&keys))),
            tasks.keep("sweep", move || Arc::clone(&sweeper).run()),
        ];
        if let Some(reporter) = self.head_reporter.clone() {
            loops.push(tasks.keep("audit_head", move || Arc::clone(&reporter).run()));
        }
        if let Some(tls) = shared.tls.clone() {
            loops.push(tasks.keep("tls_certificate", move || Arc::clone(&tls).watch()));
        }
        if let Some(hangups) = self.hangups.clone() {
            let shared = Arc::clone(shared);
            loops.push(tasks.keep("reload", move || reload_at(hangups.clone(), Arc::clone(&shared))));
        }
        loops
    }

    /// Finishes the work under way, writes what is collected in memory, and closes the store.
    pub async fn close(self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.flush().await;
        if let Err(error) = self.shared.core.leave().await {
            tracing::debug!(%error, "the other replicas were not told that this one stops");
        }
        if let Some(traces) = &self.shared.traces {
            traces.stop().await;
        }
        self.shared.core.store.close().await;
    }
}

/// Reads the certificate, keys and other files again at each SIGHUP.
async fn reload_at(mut hangups: watch::Receiver<()>, shared: Arc<Shared>) {
    while hangups.changed().await.is_ok() {
        tracing::info!("files are read again");
        if let Some(tls) = &shared.tls {
            tls.look();
        }
        shared.core.store.read_url_again();
        shared.core.key_source.wanted.notify_one();
    }
}

fn load_tls(settings: &config::Server) -> Result<Option<Arc<Tls>>, TlsError> {
    match (&settings.tls_certificate_file, &settings.tls_key_file) {
        (Some(certificate), Some(key)) => {
            let files = TlsFiles { certificate: certificate.clone(), key: key.clone() };
            Ok(Some(Arc::new(Tls::load(files)?)))
        }
        _ => Ok(None),
    }
}
