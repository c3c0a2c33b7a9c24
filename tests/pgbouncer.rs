//! Behind PgBouncer: which modes work, and that others report why they do not.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollgate::store::Engine;

use super::support::load::Load;
use super::support::program::{Server, run, tollgate};
use super::support::{Database, TestApp, postgres};

/// A PgBouncer in front of the server of a database, stopped when this is dropped.
struct PgBouncer {
    child: Child,
    /// The same database, through it.
    database: Arc<Database>,
    _directory: TempDir,
}

impl PgBouncer {
    fn before(database: &Database, pool_mode: &str, connections: u32) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .expect("the system has a free port")
            .port();
        let host = database.url.split('@').nth(1).and_then(|rest| rest.split('/').next());
        let (host, server_port) =
            host.and_then(|host| host.split_once(':')).expect("the URL has a host and port");
        let settings = directory.path().join("pgbouncer.ini");
        fs::write(
            &settings,
            format!(
                "[databases]\n* = host={host} port={server_port} user=postgres\n[pgbouncer]\n\
                 listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
                 pool_mode = {pool_mode}\ndefault_pool_size = {connections}\n\
                 ignore_startup_parameters = extra_float_digits, options\n"
            ),
        )
        .expect("the directory can be written to");
        let mut command = Command::new("/usr/sbin/pgbouncer");
        command.arg("--quiet").arg(&settings).stdin(Stdio::null()).stderr(Stdio::null());
        postgres::programs::run_unprivileged(&mut command, directory.path());
        let child = command.spawn().expect("tests/run installs PgBouncer");
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "PgBouncer does not listen");
        }
        let url = database.url.replace(&format!("{host}:{server_port}"), &format!("127.0.0.1:{port}"));
        Self { child, database: Database::reached_at(url), _directory: directory }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_pool_of_sessions_serves_under_load() {
    let app = TestApp::new(Engine::Postgres).await;
    let merchant = app.merchant().await;
    let pooler = PgBouncer::before(&app.database, "session", 40);
    let server = Server::serve(&pooler.database);
    let mut load = Load::start(server.address, &merchant, 16);
    load.acknowledged(300).await;
    assert!(load.stop().await.refused.is_empty());
    server.terminate();
    assert_eq!(server.ended_within(Duration::from_secs(30)).0.code(), Some(0));
}

#[tokio::test]
async fn a_pool_of_transactions_without_prepared_statements_is_refused_with_what_to_set() {
    let app = TestApp::new(Engine::Postgres).await;
    let pooler = PgBouncer::before(&app.database, "transaction", 2);
    // Each prepares its statements on one of the two connections, so the third finds those of another one.
    let url = format!("--database-url={}", pooler.database.url);
    let outputs = [(); 3].map(|()| {
        let keys = "5a".repeat(32);
        run(tollgate(&["operator", "add", "Ops", &url]).env("TOLLGATE__TOKENS__KEYS", keys))
    });
    let last = &outputs[2];
    let message = String::from_utf8_lossy(&last.stderr);
    assert!(!last.status.success());
    for word in ["pooler", "session", "max_prepared_statements"] {
        assert!(message.contains(word), "{message}");
    }
}

#[tokio::test]
async fn replicas_that_start_together_bring_the_schema_up_once() {
    let database = Database::without_schema(Engine::Postgres);
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let mut command = Server::command("migrate", &database);
            tokio::task::spawn_blocking(move || run(&mut command))
        })
        .collect();
    for start in starts {
        let output = start.await.expect("the command runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
