//! PostgreSQL for the tests: a private cluster in a temporary directory, or databases on the server in
//! `TOLLGATE_TEST_POSTGRES_URL`.
//!
//! This module starts and stops the cluster and makes empty databases. It does not know Tollgate's tables.

mod cluster;
mod pooler;
pub(crate) mod programs;
mod watcher;

use std::collections::hash_map::RandomState;
use std::env;
use std::ffi::OsStr;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

pub(crate) use self::cluster::Cluster;
pub(crate) use self::pooler::{Pool, Pooler};
use self::programs::{execute, program, psql};
use self::watcher::Watcher;

/// Drops the databases that were made on a given server. `$1` is `psql`, `$2` the server's URL, and each line
/// of standard input a name.
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

/// The `postgres://` URL of a new, empty database on the server that all tests of this process share.
pub(crate) fn database() -> String {
    match SHARED.get_or_init(Shared::choose) {
        Shared::Private(cluster) => cluster.database(),
        Shared::Given(server) => server.database(),
    }
}

/// The URL of a new copy of a database made by [`database`]. Nobody may be connected to the original.
pub(crate) fn copy_of(url: &str) -> String {
    match SHARED.get_or_init(Shared::choose) {
        Shared::Private(cluster) => cluster.database_from(database_of(url)),
        Shared::Given(server) => server.database_from(database_of(url)),
    }
}

/// The URL at which an application reaches a database of [`copy_of`]: the same, or with `TOLLGATE_TEST_POOLED` that
/// of a PgBouncer in front of the server.
pub(crate) fn reached(url: String) -> String {
    static POOLER: OnceLock<Pooler> = OnceLock::new();
    if env::var_os("TOLLGATE_TEST_POOLED").is_none() {
        return url;
    }
    POOLER.get_or_init(|| Pooler::before(&url, Pool::Transactions { prepared_max: 200 }, 10)).url(&url)
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

/// A server that is not ours. When the test process ends, we drop the databases that we made, and nothing
/// else.
struct GivenServer {
    psql: PathBuf,
    url: String,
    watcher: Mutex<Watcher>,
}

impl GivenServer {
    fn new(url: String) -> Self {
        let psql = program("psql");
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

/// An empty template that nobody can connect to. A connection to the template would block the copy.
const EMPTY: &str = "template0";

fn create_database(psql: Command, name: &str, template: &str) {
    execute(psql, &format!("create database {name} template {template}"));
}

/// Splits a URL into the part before the database, the database, and the query with its `?`.
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

/// A database name that no other process or earlier run has used on the same server.
fn fresh_name() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(random);
    format!("tollgate_test_{process:016x}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The standard library's only source of random numbers is the seed of a hash map.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[test]
fn every_database_is_a_new_and_empty_one() {
    let (first, second) = (database(), database());
    assert_ne!(first, second);
    for url in [first, second] {
        let count = "select count(*) from pg_class where relnamespace = 'public'::regnamespace";
        assert_eq!(execute(psql(&program("psql"), &url), count), "0");
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
