//! The settings: their names, their allowed values, and the types that the rest of the server uses.
//!
//! Settings are read once, at start. Defaults, file, environment and flags are layers, and a higher layer
//! wins (`layers`). Each key is read (`reader`) and converted to a type (`values`). We check every value in
//! every layer, even if a higher layer replaces it (except for secrets), and report all mistakes together.
//!
//! `config/default.toml` has the defaults and the list of keys. No `Debug`, explanation or mistake made here
//! shows a secret.

mod console;
mod layers;
mod mistakes;
mod reader;
mod tokens;
mod values;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use console::{CellTokens, CellUrl, Console};
pub use layers::{Flag, Sources};
pub use mistakes::{Mistake, Mistakes};
pub use reader::read_secret;
pub use tokens::Tokens;
pub use values::{BadValue, DatabaseUrl, ProxyUrl, TokenKeys};

use crate::domain::cell::{Cell, CellId};
use crate::domain::destination::{DestinationRules, WebhookUrl};
use crate::domain::session::Lifetimes;
use crate::domain::webhook::WebhookSecret;
use crate::flows::limits::LimitSettings;
use crate::http::Edge;
use crate::http::server::ListenerLimits;
use crate::jobs::sweep::Retention;
use crate::store::url::is_on_this_machine;

use layers::near_misses;
use reader::{Origin, Reader};
use values::{address, directory, file, log_level, network, one_of, operator_url, optional, web_url};

/// Enough to list every proxy or its network. Each is compared with every hop of every request.
const TRUSTED_PROXIES_MAX: usize = 256;

/// All settings, checked. The fields are public so that tests can change them.
#[derive(Debug)]
pub struct Settings {
    pub server: Server,
    /// The threads that work on calls.
    pub worker_threads: usize,
    pub ops: Ops,
    pub database: Database,
    pub tokens: Tokens,
    pub webhooks: Webhooks,
    pub limits: LimitSettings,
    pub retention: Retention,
    pub console: Console,
    pub log: Log,
    pub traces: Traces,
    /// `[cell]`. `None` if there are no cells.
    pub cell: Option<Cell>,
    origins: Vec<Origin>,
    warnings: Vec<String>,
}

/// `[server]`: the public listener.
#[derive(Debug)]
pub struct Server {
    pub listen: SocketAddr,
    /// An http or https URL without a trailing slash. Made from `listen` if it is not set.
    pub issuer: String,
    pub data_dir: PathBuf,
    /// The certificate chain and its key, in PEM: both are set or neither.
    pub tls_certificate_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
    pub allow_plain_http: bool,
    /// Whether trusted proxies begin each connection with a PROXY header.
    pub proxy_protocol: bool,
    pub edge: Edge,
    pub limits: ListenerLimits,
    pub drain_delay: Duration,
}

/// The header that trusted proxies use to name the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedHeader {
    XForwardedFor,
    /// RFC 7239
    Forwarded,
}

/// `[ops]`: the listener for metrics and health.
#[derive(Debug)]
pub struct Ops {
    pub listen: Option<SocketAddr>,
}

/// `[database]`: the store.
#[derive(Debug)]
pub struct Database {
    /// A SQLite file in `server.data_dir` if it is not set.
    pub url: DatabaseUrl,
    /// The file that the URL came from, if any.
    pub url_file: Option<PathBuf>,
    pub connections_max: u32,
    /// How long a call waits for the store.
    pub timeout: Duration,
    /// The most memory for merchants, keys and sessions that were used last.
    pub cache_bytes_max: u64,
}

/// `[webhooks]`: where they may go.
#[derive(Debug)]
pub struct Webhooks {
    pub destinations: DestinationRules,
    /// The HTTP proxy to send webhooks through, if any.
    pub proxy: Option<ProxyUrl>,
    /// Where to send the head of the audit trail. If it is set, so is `operator_secret`.
    pub operator_url: Option<WebhookUrl>,
    pub operator_secret: Option<WebhookSecret>,
}

/// `[log]`: what is logged, and in which format.
#[derive(Debug)]
pub struct Log {
    /// A directive string that `tracing_subscriber::EnvFilter` takes.
    pub level: String,
    pub format: LogFormat,
    /// Whether successful probes and scrapes are logged too.
    pub probes: bool,
}

/// `[traces]`: where spans are sent.
#[derive(Debug)]
pub struct Traces {
    /// The base URL of a collector that speaks OTLP over HTTP.
    pub otlp_endpoint: Option<String>,
    pub sample_percent: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Settings {
    /// Combines the defaults with the sources, and checks every value.
    ///
    /// Reads the settings file and the files with secrets. The error contains the mistakes from all sources.
    pub fn load(sources: &Sources) -> Result<Settings, Mistakes> {
        let mut reader = Reader::new(sources);
        let server = Server::read(&mut reader);
        let database = Database::read(&mut reader, &server.data_dir);
        let settings = Settings {
            worker_threads: worker_threads(&mut reader, &database.url),
            ops: Ops::read(&mut reader),
            database,
            tokens: Tokens::read(&mut reader),
            webhooks: Webhooks::read(&mut reader),
            limits: limits(&mut reader),
            retention: retention(&mut reader),
            console: Console::read(&mut reader),
            log: Log::read(&mut reader),
            traces: Traces::read(&mut reader),
            cell: cell(&mut reader),
            server,
            origins: Vec::new(),
            warnings: near_misses(&sources.environment),
        };
        settings.check_together(&mut reader);
        let origins = reader.finish()?;
        Ok(Settings { origins, ..settings })
    }

    /// Only the defaults.
    pub fn with_defaults() -> Settings {
        Settings::load(&Sources::default()).expect("config/default.toml passes its own checks")
    }

    /// One line for each key, with its value (or "(set)" for a secret) and where it came from.
    pub fn explain(&self) -> String {
        let line = |Origin { key, shown, place }: &Origin| format!("{key} = {shown}  # {place}\n");
        self.origins.iter().map(line).collect()
    }

    /// Settings that are valid, but probably not what was meant. For the log.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn check_together(&self, reader: &mut Reader) {
        let Lifetimes { access_ttl, refresh_ttl, session_ttl, retry_window } = self.tokens.lifetimes;
        let [access, refresh, session] =
            ["tokens.access_ttl_secs", "tokens.refresh_ttl_secs", "tokens.session_ttl_secs"];
        reader.relate(access, "must be at most", refresh, access_ttl <= refresh_ttl);
        reader.relate(refresh, "must be at most", session, refresh_ttl <= session_ttl);
        let window = "tokens.refresh_retry_window_secs";
        reader.relate(window, "must be less than", access, retry_window < access_ttl);
        let (certificate, key) = ("server.tls_certificate_file", "server.tls_key_file");
        let server = &self.server;
        let (has_certificate, has_key) =
            (server.tls_certificate_file.is_some(), server.tls_key_file.is_some());
        reader.relate(certificate, "must be set together with", key, has_certificate == has_key);
        let is_private = server.listen.ip().to_canonical().is_loopback();
        reader.relate(
            "server.listen",
            "is not a loopback address, and without TLS everybody on the way can read the secrets: set \
             server.tls_certificate_file and server.tls_key_file, or, if a proxy in front ends TLS, set to true",
            "server.allow_plain_http",
            is_private || has_certificate || server.allow_plain_http,
        );
        reader.relate(
            "server.proxy_protocol",
            "needs the proxies that it is believed from in",
            "server.trusted_proxies",
            !server.proxy_protocol || !server.edge.trusted_proxies.is_empty(),
        );
        let is_shared = self.ops.listen == Some(self.server.listen) && self.server.listen.port() != 0;
        reader.relate("ops.listen", "must differ from", "server.listen", !is_shared);
    }
}

impl Server {
    fn read(reader: &mut Reader) -> Self {
        let listen = reader.text("server.listen", address);
        let tls_certificate_file = reader.text("server.tls_certificate_file", optional(file));
        let scheme = if tls_certificate_file.is_some() { "https" } else { "http" };
        let issuer =
            reader.text("server.issuer", optional(web_url)).unwrap_or_else(|| format!("{scheme}://{listen}"));
        reader.show("server.issuer", format!("{issuer:?}"));
        let headers =
            [("x-forwarded-for", ForwardedHeader::XForwardedFor), ("forwarded", ForwardedHeader::Forwarded)];
        Self {
            listen,
            issuer,
            data_dir: reader.text("server.data_dir", directory),
            tls_certificate_file,
            tls_key_file: reader.text("server.tls_key_file", optional(file)),
            allow_plain_http: reader.switch("server.allow_plain_http"),
            proxy_protocol: reader.switch("server.proxy_protocol"),
            edge: Edge {
                trusted_proxies: reader.list("server.trusted_proxies", TRUSTED_PROXIES_MAX, network),
                forwarded_header: reader.text("server.forwarded_header", one_of(&headers)),
                request_timeout: reader.duration("server.request_timeout_secs", 1..=600),
            },
            limits: ListenerLimits {
                connections_max: reader.number("server.connections_max", 1..=100_000) as usize,
                connections_per_address_max: reader.number("server.connections_per_address_max", 0..=100_000),
                unfinished_bytes_max: reader.number("server.unfinished_mib_max", 1..=16_384) as usize
                    * 1024
                    * 1024,
                header_timeout: reader.duration("server.header_timeout_secs", 1..=300),
                idle_timeout: reader.duration("server.idle_timeout_secs", 1..=3600),
                shutdown_grace: reader.duration("server.shutdown_grace_secs", 1..=600),
            },
            drain_delay: reader.duration("server.drain_delay_secs", 0..=300),
        }
    }
}

impl Ops {
    fn read(reader: &mut Reader) -> Self {
        Self { listen: reader.text("ops.listen", optional(address)) }
    }
}

impl Database {
    fn read(reader: &mut Reader, data_dir: &Path) -> Self {
        let url = reader.secret("database.url", "database.url_file").unwrap_or_else(|| {
            let url = DatabaseUrl::sqlite_in(data_dir);
            reader.show("database.url", format!("{:?}", url.expose()));
            url
        });
        Self {
            url,
            url_file: reader.secret_file("database.url", "database.url_file"),
            connections_max: reader.number("database.connections_max", 1..=1000),
            timeout: reader.duration("database.timeout_secs", 1..=60),
            cache_bytes_max: u64::from(reader.number("database.cache_mib_max", 1..=16_384)) << 20,
        }
    }
}

impl Webhooks {
    fn read(reader: &mut Reader) -> Self {
        let webhooks = Self {
            destinations: DestinationRules {
                allow_private_networks: reader.switch("webhooks.allow_private_networks"),
                allow_http: reader.switch("webhooks.allow_http"),
            },
            proxy: reader.secret("webhooks.proxy", "webhooks.proxy_file"),
            operator_url: reader.text("webhooks.operator_url", optional(operator_url)),
            operator_secret: reader.secret("webhooks.operator_secret", "webhooks.operator_secret_file"),
        };
        let is_signed = webhooks.operator_url.is_none() || webhooks.operator_secret.is_some();
        reader.relate("webhooks.operator_url", "needs", "webhooks.operator_secret", is_signed);
        webhooks
    }
}

fn limits(reader: &mut Reader) -> LimitSettings {
    LimitSettings {
        failures_per_address_per_minute: reader
            .number("limits.failures_per_address_per_minute", 1..=1_000_000),
        calls_per_key_per_second: reader.number("limits.calls_per_key_per_second", 0..=1_000_000),
        new_sessions_per_client_per_minute: reader
            .number("limits.new_sessions_per_client_per_minute", 0..=1_000_000),
        admin_calls_per_token_per_minute: reader
            .number("limits.admin_calls_per_token_per_minute", 0..=1_000_000),
        sessions_per_client_max: reader.number("limits.sessions_per_client_max", 0..=1_000_000),
    }
}

fn retention(reader: &mut Reader) -> Retention {
    Retention {
        audit: reader.days("retention.audit_days", 1..=3650),
        exchanges: reader.days("retention.exchanges_days", 1..=3650),
        exchange_success_sample: reader.share("retention.exchange_success_sample"),
    }
}

/// A database on this machine needs processors too. Beside it, more threads of ours only wake each other.
fn worker_threads(reader: &mut Reader, database: &DatabaseUrl) -> usize {
    let asked = reader.number("server.worker_threads", 0..=1024) as usize;
    if asked > 0 {
        return asked;
    }
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = if is_on_this_machine(database.expose()) { processors.div_ceil(2) } else { processors };
    reader.show("server.worker_threads", threads.to_string());
    threads
}

fn cell(reader: &mut Reader) -> Option<Cell> {
    let id = reader.number_if_any("cell.id", CellId::MAX.into());
    let is_default = reader.switch("cell.default");
    reader.relate("cell.default", "needs", "cell.id", id.is_some() || !is_default);
    let id = CellId::new(id?.try_into().ok()?)?;
    Some(Cell { id, is_default })
}

impl Log {
    fn read(reader: &mut Reader) -> Self {
        Self {
            level: reader.text("log.level", log_level),
            format: reader
                .text("log.format", one_of(&[("text", LogFormat::Text), ("json", LogFormat::Json)])),
            probes: reader.switch("log.probes"),
        }
    }
}

impl Traces {
    fn read(reader: &mut Reader) -> Self {
        Self {
            otlp_endpoint: reader.text("traces.otlp_endpoint", optional(web_url)),
            sample_percent: reader.number("traces.sample_percent", 0..=100),
        }
    }
}
