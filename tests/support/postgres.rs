//! The PostgreSQL that the tests run on: a private cluster in a temporary directory, or databases
//! on a server that `TOLLGATE_TEST_POSTGRES_URL` names.
//!
//! It owns the life of that cluster and the making of empty databases in it, and must know nothing
//! of Tollgate's tables.
//!
//! Nothing of it may outlive the test process, however that ends, and Rust drops no statics. So a
//! cluster is kept by a small shell, the watcher, whose standard input is a pipe that only the test
//! process holds: when the pipe closes, by a drop or by the kernel after a `kill -9`, the watcher
//! stops the server and removes the directory. It also does the starting, one request at a time, so
//! that it cannot miss a server that is only just coming up, and makes the directory, so that there
//! is none before somebody watches it.

use std::{
    collections::hash_map::RandomState,
    env,
    ffi::OsStr,
    fs,
    hash::{BuildHasher, Hasher},
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{self, Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
};

/// Durable as in production, because the fault tests pull the plug; otherwise small. The pools of
/// many tests in parallel fit into 300 connections.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
max_connections = 300
shared_buffers = 32MB
fsync = on
synchronous_commit = on
";

/// Keeps one cluster: `$1` is the directory of the PostgreSQL programs, `$2` the settings. Its
/// first answer is the cluster's directory; then follows one line per request. Signals are ignored:
/// only the pipe counts. Standard error is let go, so that whoever reads ours need not wait for it.
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

/// Drops the databases that were made on a given server: `$1` is `psql`, `$2` the server's URL, and
/// each line of standard input a name.
const DROP_DATABASES: &str = r#"
trap '' HUP INT TERM PIPE
exec 2>/dev/null
names=
while read -r name; do
    names="$names $name"
    echo ok
done
for name in $names; do
    "$1" --no-psqlrc --quiet --dbname="$2" --command="drop database if exists $name with (force)"
done >/dev/null
"#;

/// The `postgres://` URL of a fresh, empty database on the server that all tests of this process
/// share.
pub(crate) fn database() -> String {
    match SHARED.get_or_init(Shared::choose) {
        Shared::Private(cluster) => cluster.database(),
        Shared::Given(server) => server.database(),
    }
}

/// The URL of a fresh copy of a database made by [`database`], to which nobody may be connected.
pub(crate) fn copy_of(url: &str) -> String {
    match SHARED.get_or_init(Shared::choose) {
        Shared::Private(cluster) => cluster.database_from(database_of(url)),
        Shared::Given(server) => server.database_from(database_of(url)),
    }
}

static SHARED: OnceLock<Shared> = OnceLock::new();

enum Shared {
    Private(Cluster),
    Given(GivenServer),
}

impl Shared {
    fn choose() -> Self {
        match env::var("TOLLGATE_TEST_POSTGRES_URL") {
            Ok(url) if !url.is_empty() => Self::Given(GivenServer::new(url)),
            _ => Self::Private(Cluster::start()),
        }
    }
}

/// A running PostgreSQL cluster of one's own; dropping it stops the server and removes its files.
pub(crate) struct Cluster {
    psql: PathBuf,
    directory: PathBuf,
    port: u16,
    watcher: Mutex<Watcher>,
}

impl Cluster {
    /// Makes a cluster and waits until it accepts connections, on 127.0.0.1 and on a Unix socket in
    /// its directory.
    pub(crate) fn start() -> Self {
        Self::start_in(&env::temp_dir())
    }

    /// As [`Cluster::start`], with its files in a directory of `parent`.
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
            psql: bin.join("psql"),
            directory: PathBuf::from(watcher.answer()),
            port: 0,
            watcher: Mutex::new(watcher),
        };

        cluster.require("init");
        // Between the probe of a port and its use by the server, somebody else may take it.
        let started = (0..5).any(|_| {
            cluster.port = free_port();
            cluster.ask(&format!("start {}", cluster.port))
        });
        assert!(started, "PostgreSQL did not start:\n{}", cluster.log());
        cluster
    }

    /// The `postgres://` URL of a fresh, empty database in this cluster. It survives restarts.
    pub(crate) fn database(&self) -> String {
        self.database_from(EMPTY)
    }

    fn database_from(&self, template: &str) -> String {
        let name = fresh_name();
        create_database(self.psql(&self.url("postgres")), &name, template);
        self.url(&name)
    }

    /// Stops the server as a crash would: sessions are cut, and nothing is flushed that was not
    /// durable already.
    pub(crate) fn stop_immediate(&self) {
        self.require("stop");
    }

    /// Starts a stopped server on its old port and waits until it has recovered and accepts
    /// connections.
    pub(crate) fn start_again(&self) {
        self.require(&format!("start {}", self.port));
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn psql(&self, url: &str) -> Command {
        let mut command = psql(&self.psql, url);
        forget_libpq_settings(&mut command);
        command
    }

    fn require(&self, request: &str) {
        assert!(self.ask(request), "PostgreSQL: `{request}` failed:\n{}", self.log());
    }

    fn ask(&self, request: &str) -> bool {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner).ask(request)
    }

    /// What `initdb`, `pg_ctl` and the server had to say.
    fn log(&self) -> String {
        let path = self.directory.join("log");
        fs::read_to_string(&path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
    }
}

/// A server that is not ours: the databases made on it are dropped when the test process ends, and
/// nothing else is touched.
struct GivenServer {
    psql: PathBuf,
    url: String,
    watcher: Mutex<Watcher>,
}

impl GivenServer {
    fn new(url: String) -> Self {
        let psql = directory_of("psql").join("psql");
        let url = if database_of(&url).is_empty() { with_database(&url, "postgres") } else { url };
        let watcher = Watcher::spawn(Watcher::command(DROP_DATABASES, [psql.as_os_str(), OsStr::new(&url)]));
        Self { psql, url, watcher: Mutex::new(watcher) }
    }

    fn database(&self) -> String {
        self.database_from(EMPTY)
    }

    fn database_from(&self, template: &str) -> String {
        let name = fresh_name();
        let noted = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).ask(&name);
        assert!(noted, "nobody would drop the database {name}");
        create_database(psql(&self.psql, &self.url), &name, template);
        with_database(&self.url, &name)
    }
}

/// A shell that acts on requests while this process lives, and cleans up once it does not.
struct Watcher {
    shell: Child,
    answers: BufReader<ChildStdout>,
}

impl Watcher {
    fn command<'a>(script: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg("tollgate-test-watcher").args(arguments);
        command
    }

    /// In a process group of its own, so that what kills the tests' group does not take it along,
    /// and in a working directory that any user may read.
    fn spawn(mut command: Command) -> Self {
        let mut shell = command
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("every Unix has a shell");
        let answers = BufReader::new(shell.stdout.take().expect("it was piped above"));
        Self { shell, answers }
    }

    fn ask(&mut self, request: &str) -> bool {
        let stdin = self.shell.stdin.as_mut().expect("it is closed only by the drop");
        writeln!(stdin, "{request}").expect("the watcher reads until its input ends");
        self.answer() == "ok"
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the watcher writes UTF-8");
        assert!(
            line.ends_with('\n'),
            "the watcher ended before it answered; its message is on standard error"
        );
        line.truncate(line.len() - 1);
        line
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Waiting closes the pipe first, which is the signal to clean up. There is nobody to tell
        // of a failure.
        self.shell.wait().ok();
    }
}

fn psql(program: &Path, url: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--dbname", url]);
    command
}

/// The template that is empty and to which nobody can be connected: a connection to the template
/// would block the copy.
const EMPTY: &str = "template0";

fn create_database(psql: Command, name: &str, template: &str) {
    execute(psql, &format!("create database {name} template {template}"));
}

fn execute(mut psql: Command, sql: &str) -> String {
    let output = psql.arg("--command").arg(sql).stdin(Stdio::null()).output().expect("psql was found before");
    assert!(output.status.success(), "psql: `{sql}` failed:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// The developer's own `PGHOST`, `PGOPTIONS` and the like are for other servers.
fn forget_libpq_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
}

/// Splits a URL into what comes before its database, the database, and the query with its `?`.
fn split(url: &str) -> (&str, &str, &str) {
    let (url, query) = url.split_at(url.find('?').unwrap_or(url.len()));
    let authority = url.find("://").map_or(0, |at| at + "://".len());
    let path = url[authority..].find('/').map_or(url.len(), |at| authority + at);
    (&url[..path], url[path..].trim_start_matches('/'), query)
}

fn database_of(url: &str) -> &str {
    split(url).1
}

fn with_database(url: &str, database: &str) -> String {
    let (server, _, query) = split(url);
    format!("{server}/{database}{query}")
}

/// A name for a database that no other process, nor an earlier run, has used on the same server.
fn fresh_name() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(random);
    format!("tollgate_test_{process:016x}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A port on 127.0.0.1 that nobody listens on. It lies below those that the kernel hands out by
/// itself (from 32768 on Linux), so that no connection takes it while a cluster is stopped.
fn free_port() -> u16 {
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

/// The seed of a hash map is the randomness that the standard library has to offer.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

struct User {
    uid: u32,
    gid: u32,
}

/// Has a command run as somebody who is not root, with a directory of its own.
pub(crate) fn run_unprivileged(command: &mut Command, directory: &Path) {
    if let Some(user) = unprivileged_user() {
        std::os::unix::fs::chown(directory, Some(user.uid), Some(user.gid))
            .expect("root may give files away");
        command.uid(user.uid).gid(user.gid);
    }
}

/// Whom the server is to run as, when that is not ourselves: PostgreSQL refuses to run as root.
fn unprivileged_user() -> Option<User> {
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let user = ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| Some(User { uid: id(&["-u", name])?, gid: id(&["-g", name])? }))
        .expect("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`");
    Some(user)
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().expect("every Unix has `id`");
    str::from_utf8(&output.stdout).ok()?.trim().parse().ok()
}

/// The directory of the PostgreSQL programs: `PGBIN`; if that is unset, the newest version that the
/// distribution's packages have installed, else the first on `PATH` that has `program`.
/// Where one of the programs of PostgreSQL is.
pub(crate) fn program(name: &str) -> PathBuf {
    directory_of(name).join(name)
}

fn directory_of(program: &str) -> PathBuf {
    let candidates: Vec<PathBuf> = match env::var_os("PGBIN") {
        Some(given) => path::absolute(given).into_iter().collect(),
        None => packaged_versions()
            .into_iter()
            .chain(
                env::split_paths(&env::var_os("PATH").unwrap_or_default()).filter(|path| path.is_absolute()),
            )
            .collect(),
    };
    candidates.into_iter().find(|directory| directory.join(program).is_file()).unwrap_or_else(|| {
        panic!(
            "the tests need PostgreSQL, and `{program}` is neither in PGBIN nor, if that is \
                 unset, in /usr/lib/postgresql/*/bin or on PATH: `apt-get install postgresql-15`, \
                 or set TOLLGATE_TEST_POSTGRES_URL to a server on which they may create databases \
                 (`psql`, and the package for the tests that stop a server, are still needed)"
        )
    })
}

/// Debian's layout, the highest version first.
fn packaged_versions() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable_by(|left, right| right.cmp(left));
    versions.into_iter().map(|(_, bin)| bin).collect()
}

#[test]
fn a_cluster_stopped_as_by_a_crash_comes_back_at_the_same_url_with_all_that_was_committed() {
    let cluster = Cluster::start();
    let url = cluster.database();
    execute(cluster.psql(&url), "create table kept (id integer)");
    execute(cluster.psql(&url), "insert into kept values (7)");

    cluster.stop_immediate();
    let refused = cluster.psql(&url).args(["--command", "select 1"]).output().expect("psql was found before");
    assert!(!refused.status.success(), "a stopped server answered");

    cluster.start_again();
    assert_eq!(execute(cluster.psql(&url), "select id from kept"), "7");
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

#[test]
fn every_database_is_a_new_and_empty_one() {
    let (first, second) = (database(), database());
    assert_ne!(first, second);
    for url in [first, second] {
        let program = directory_of("psql").join("psql");
        let count = "select count(*) from pg_class where relnamespace = 'public'::regnamespace";
        assert_eq!(execute(psql(&program, &url), count), "0");
    }
}

#[test]
fn only_the_database_of_a_servers_url_is_replaced() {
    for (url, expected) in [
        ("postgres://u:p@host:5432/old", "postgres://u:p@host:5432/new"),
        ("postgres://u@host/old?sslmode=require", "postgres://u@host/new?sslmode=require"),
        ("postgres://host", "postgres://host/new"),
        ("postgres://host?sslmode=disable", "postgres://host/new?sslmode=disable"),
        ("postgres:///old?host=/run/postgresql", "postgres:///new?host=/run/postgresql"),
    ] {
        assert_eq!(with_database(url, "new"), expected);
    }
}
