//! PgBouncer in front of a server, with the settings that config/operations.md asks for.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cluster::free_port;
use super::programs::run_unprivileged;
use super::watcher::Watcher;

/// Where `tests/run` puts the one that it builds, and where Debian puts its own.
const PROGRAMS: [&str; 2] =
    [concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin/pgbouncer"), "/usr/sbin/pgbouncer"];

/// Keeps one PgBouncer. `$1` is its directory. It ends only with the pipe.
const KEEP_POOLER: &str = r#"
trap '' HUP INT TERM PIPE
exec 2>/dev/null
while read -r request; do
    case $request in
        start) "$1/pgbouncer" --quiet "$1/pgbouncer.ini" </dev/null >>"$1/log" 2>&1 & ;;
        stop) kill -9 "$!" && wait "$!" ;;
    esac
    echo ok
done
kill -9 "$!"
rm -rf "$1"
"#;

/// How PgBouncer hands out its connections to the server.
#[derive(Clone, Copy)]
pub(crate) enum Pool {
    Sessions,
    Transactions {
        /// How many prepared statements it keeps for each connection. 0 means that it knows of none.
        prepared_max: u32,
    },
}

/// A running PgBouncer. Dropping it stops it and removes its files.
pub(crate) struct Pooler {
    /// `host:port` of the server.
    server: String,
    port: u16,
    watcher: Mutex<Watcher>,
}

impl Pooler {
    /// Starts one in front of the server of a URL, with this many connections to each database.
    pub(crate) fn before(url: &str, pool: Pool, connections: u32) -> Self {
        let server = url.split('@').nth(1).and_then(|rest| rest.split('/').next());
        let (host, server_port) =
            server.and_then(|server| server.split_once(':')).expect("the URL has a host and port");
        let (mode, prepared_max) = match pool {
            Pool::Sessions => ("session", 0),
            Pool::Transactions { prepared_max } => ("transaction", prepared_max),
        };
        let port = free_port();
        let directory = tempfile::tempdir().expect("a temporary directory can be made").keep();
        // It runs as a user who may not be able to read where the program is.
        fs::copy(program(), directory.join("pgbouncer")).expect("the directory can be written to");
        let settings = format!(
            "[databases]\n* = host={host} port={server_port} user=postgres\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {mode}\nmax_prepared_statements = {prepared_max}\nserver_login_retry = 1\n\
             default_pool_size = {connections}\nmax_client_conn = 1000\nserver_idle_timeout = 2\n\
             ignore_startup_parameters = extra_float_digits, options\n"
        );
        fs::write(directory.join("pgbouncer.ini"), settings).expect("the directory can be written to");
        let mut command = Watcher::command(KEEP_POOLER, [directory.as_os_str()]);
        run_unprivileged(&mut command, &directory);
        let server = format!("{host}:{server_port}");
        let pooler = Self { server, port, watcher: Mutex::new(Watcher::spawn(command)) };
        pooler.start();
        pooler
    }

    /// The URL of a database of the server, through the pooler.
    pub(crate) fn url(&self, of: &str) -> String {
        assert!(of.contains(&self.server), "the pooler is in front of another server");
        of.replace(&self.server, &format!("127.0.0.1:{}", self.port))
    }

    /// Ends it as a crash would: connections on both sides are cut.
    pub(crate) fn stop(&self) {
        self.ask("stop");
    }

    /// Starts it on its port, and waits until it listens.
    pub(crate) fn start(&self) {
        self.ask("start");
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "PgBouncer does not listen");
        }
    }

    fn ask(&self, request: &str) {
        assert!(self.watcher.lock().unwrap_or_else(PoisonError::into_inner).ask(request));
    }
}

/// A PgBouncer that can keep prepared statements: 1.21 or later.
fn program() -> PathBuf {
    let found = PROGRAMS.map(Path::new).into_iter().find(|path| path.exists());
    let program = found.expect("`tests/run pgbouncer` installs PgBouncer");
    let output = Command::new(program).arg("--version").output().expect("it was found");
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next().unwrap_or_default();
    let minor = version.strip_prefix("PgBouncer 1.").and_then(|rest| rest.split('.').next()?.parse().ok());
    assert!(
        minor.is_some_and(|minor: u32| minor >= 21),
        "{} is {version}: `tests/run pgbouncer` builds one that keeps prepared statements",
        program.display()
    );
    program.to_owned()
}
