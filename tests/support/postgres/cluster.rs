//! A private PostgreSQL cluster, which can be stopped as in a crash and started again.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::programs::{self, directory_of, forget_libpq_settings, unprivileged_user};
use super::watcher::Watcher;
use super::{EMPTY, create_database, fresh_name, random};

/// Durable as in production, because the fault tests crash the server, but otherwise small. The pools of many
/// parallel tests fit into 300 connections. Merchants move between clusters by logical replication.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
max_connections = 300
shared_buffers = 32MB
fsync = on
synchronous_commit = on
wal_level = logical
";

/// Keeps one cluster. `$1` is the directory of the PostgreSQL programs, `$2` the settings. Its first answer
/// is the cluster's directory. Then there is one line for each request. It ignores signals and ends only with
/// the pipe. It closes standard error, so that a reader of our standard error does not wait for it.
const KEEP_CLUSTER: &str = r#"
trap '' HUP INT TERM PIPE
bin=$1 settings=$2
name=tollgate-postgres.XXXXXX
directory=$(mktemp -d "${TMPDIR:-/tmp}/$name" 2>/dev/null || mktemp -d "/tmp/$name") || exit 1
exec 2>/dev/null
data=$directory/data log=$directory/log
init() {
    "$bin/initdb" --pgdata="$data" --username=postgres --auth=trust --encoding=UTF8 --locale=C \
        --no-sync &&
        printf '%s\n' "$settings" "unix_socket_directories = '$directory'" >>"$data/postgresql.conf"
}
start() { "$bin/pg_ctl" start --pgdata="$data" --log="$log" --options="-p $1"; }
stop() { "$bin/pg_ctl" stop --pgdata="$data" --mode=immediate; }
echo "$directory"
while read -r request argument; do
    if "$request" "$argument" </dev/null >>"$log" 2>&1; then echo ok; else echo failed; fi
done
stop </dev/null >/dev/null
rm -rf "$directory"
"#;

/// A running private PostgreSQL cluster. Dropping it stops the server and removes its files.
pub(crate) struct Cluster {
    psql: PathBuf,
    directory: PathBuf,
    port: u16,
    watcher: Mutex<Watcher>,
}

impl Cluster {
    /// Makes a cluster and waits until it accepts connections, on 127.0.0.1 and on a Unix socket in its
    /// directory.
    pub(crate) fn start() -> Self {
        Self::start_in(&env::temp_dir())
    }

    /// Like [`Cluster::start`], with its files in a directory below `parent`.
    pub(crate) fn start_in(parent: &Path) -> Self {
        let bin = directory_of("initdb");
        let mut command = Watcher::command(KEEP_CLUSTER, [bin.as_os_str(), OsStr::new(SETTINGS)]);
        command.env("TMPDIR", parent);
        forget_libpq_settings(&mut command);
        if let Some(user) = unprivileged_user() {
            command.uid(user.uid).gid(user.gid);
        }
        let mut watcher = Watcher::spawn(command);
        let mut cluster = Self {
            psql: programs::program("psql"),
            directory: PathBuf::from(watcher.answer()),
            port: 0,
            watcher: Mutex::new(watcher),
        };

        cluster.require("init");
        // Another process may take the port between our check and the start of the server.
        let started = (0..5).any(|_| {
            cluster.port = free_port();
            cluster.ask(&format!("start {}", cluster.port))
        });
        assert!(started, "PostgreSQL did not start:\n{}", cluster.log());
        cluster
    }

    /// The `postgres://` URL of a new, empty database in this cluster. It survives restarts.
    pub(crate) fn database(&self) -> String {
        self.database_from(EMPTY)
    }

    pub(super) fn database_from(&self, template: &str) -> String {
        let name = fresh_name();
        create_database(self.psql(&self.url("postgres")), &name, template);
        self.url(&name)
    }

    /// Stops the server as in a crash: connections are cut, and nothing else is flushed.
    pub(crate) fn stop_immediate(&self) {
        self.require("stop");
    }

    /// Starts a stopped server on its old port, and waits until it has recovered and accepts connections.
    pub(crate) fn start_again(&self) {
        self.require(&format!("start {}", self.port));
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn psql(&self, url: &str) -> Command {
        let mut command = programs::psql(&self.psql, url);
        forget_libpq_settings(&mut command);
        command
    }

    fn require(&self, request: &str) {
        assert!(self.ask(request), "PostgreSQL: `{request}` failed:\n{}", self.log());
    }

    fn ask(&self, request: &str) -> bool {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner).ask(request)
    }

    /// The output of `initdb`, `pg_ctl` and the server.
    fn log(&self) -> String {
        let path = self.directory.join("log");
        fs::read_to_string(&path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
    }
}

/// A free port on 127.0.0.1. It is below the ports that the kernel assigns itself (from 32768 on Linux), so
/// that no connection takes it while a cluster is stopped.
pub(super) fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 17_000;
    static FROM: OnceLock<u16> = OnceLock::new();
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let from = FROM.get_or_init(|| u16::try_from(random() % u64::from(COUNT)).expect("the remainder fits"));
    (0..COUNT)
        .map(|_| FIRST + from.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("one of 17,000 ports is free")
}

#[test]
fn a_cluster_stopped_as_by_a_crash_comes_back_at_the_same_url_with_all_that_was_committed() {
    let cluster = Cluster::start();
    let url = cluster.database();
    programs::execute(cluster.psql(&url), "create table kept (id integer)");
    programs::execute(cluster.psql(&url), "insert into kept values (7)");

    cluster.stop_immediate();
    let refused = cluster.psql(&url).args(["--command", "select 1"]).output().expect("psql was found before");
    assert!(!refused.status.success(), "a stopped server answered");

    cluster.start_again();
    assert_eq!(programs::execute(cluster.psql(&url), "select id from kept"), "7");
}

#[test]
fn a_dropped_cluster_leaves_neither_a_server_nor_files() {
    let cluster = Cluster::start();
    let (directory, port) = (cluster.directory.clone(), cluster.port);
    assert!(directory.join("data/postmaster.pid").is_file());

    drop(cluster);
    assert!(!directory.exists(), "{} is still there", directory.display());
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the server's port is free again");
}
