//! The process and its environment: the reader of its log, signals, the service manager, limits.

use std::fs::{self, File};
use std::io::pipe;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tollgate::store::Engine;

use super::support::app::TOKEN_KEY;
use super::support::program::{Server, tollgate};
use super::support::tcp::Client;
use super::support::{Call, Database, Merchant, TestApp, each_engine};

/// A server that nothing delays ends within this time.
const GRACE: Duration = Duration::from_secs(30);

async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the system has a free port");
    listener.local_addr().expect("a bound socket has an address")
}

/// A connection, as soon as one can be made.
async fn client(address: SocketAddr) -> Client {
    loop {
        match Client::connect(address).await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A server whose log goes to `log`, and a connection to each of its listeners.
async fn server_that_logs_to(app: &TestApp, log: impl Into<Stdio>) -> (Server, Client, Client) {
    let (address, ops) = (free_address().await, free_address().await);
    let directory = app.database.directory().display();
    let mut command =
        tollgate(&["serve", &format!("--listen={address}"), &format!("--data-dir={directory}")]);
    command
        .env("TOLLGATE__TOKENS__KEYS", hex::encode(TOKEN_KEY))
        .env("TOLLGATE__OPS__LISTEN", ops.to_string());
    let server = Server::with_log_to(command, address, log);
    (server, client(address).await, client(ops).await)
}

/// Logs more lines than any pipe can hold, ends the server, and returns how many lines were lost.
async fn serves_and_stops(server: Server, merchant: &Merchant, public: &mut Client, ops: &mut Client) -> u64 {
    for _ in 0..800 {
        assert_eq!(public.send(Call::get("/healthz")).await.expect("an answer").status, 200);
    }
    public.send(merchant.authorize()).await.expect("an answer").tokens();
    let metrics = ops.send(Call::get("/metrics")).await.expect("an answer").text();
    server.terminate();
    let (status, _) = server.ended_within(GRACE);
    assert_eq!(status.code(), Some(0));
    let lost = metrics.lines().find_map(|line| line.strip_prefix("tollgate_log_lines_lost_total "));
    lost.and_then(|lost| lost.parse().ok()).expect("the metric is there")
}

#[tokio::test]
async fn a_reader_of_the_log_that_stands_still_holds_up_no_call_and_no_stop() {
    let app = TestApp::new(Engine::Sqlite).await;
    let merchant = app.merchant().await;
    let (_unread, log) = pipe().expect("the system has pipes");
    let (server, mut public, mut ops) = server_that_logs_to(&app, log).await;
    serves_and_stops(server, &merchant, &mut public, &mut ops).await;
    assert_eq!(app.number("select count(*) from exchanges where status = 200").await, 1);
}

#[tokio::test]
async fn a_reader_of_the_log_that_has_gone_costs_the_lines_and_nothing_else() {
    let app = TestApp::new(Engine::Sqlite).await;
    let merchant = app.merchant().await;
    let (reader, log) = pipe().expect("the system has pipes");
    let (server, mut public, mut ops) = server_that_logs_to(&app, log).await;
    drop(reader);
    assert!(serves_and_stops(server, &merchant, &mut public, &mut ops).await > 0);
    assert_eq!(app.number("select count(*) from exchanges where status = 200").await, 1);
}

#[tokio::test]
async fn a_full_disk_under_the_log_costs_the_lines_and_nothing_else() {
    let app = TestApp::new(Engine::Sqlite).await;
    let merchant = app.merchant().await;
    let log = File::options().write(true).open("/dev/full").expect("Linux has it");
    let (server, mut public, mut ops) = server_that_logs_to(&app, log).await;
    assert!(serves_and_stops(server, &merchant, &mut public, &mut ops).await > 0);
    assert_eq!(app.number("select count(*) from exchanges where status = 200").await, 1);
}

#[tokio::test]
async fn a_hangup_ends_nothing_with_tls_or_without() {
    let database = Database::fresh(Engine::Sqlite).await;
    let server = Server::serve(&database);
    server.signal("HUP");
    server.wait_for_log("files are read again");
    let mut client = Client::connect(server.address).await.expect("it listens");
    assert_eq!(client.send(Call::get("/readyz")).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let database = Database::fresh(Engine::Sqlite).await;
    let mut command = Server::command("serve", &database);
    let server = Server::start(command.env("TOLLGATE__SERVER__DRAIN_DELAY_SECS", "300"));
    server.terminate();
    server.wait_for_log("no longer ready");
    server.terminate();
    assert_eq!(server.ended_within(GRACE).0.code(), Some(128 + 15));
}

/// A database that accepts a connection and never answers.
#[tokio::test]
async fn a_start_that_waits_for_the_database_ends_at_the_first_signal() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("the system has a free port");
    let port = silent.local_addr().expect("a bound socket has an address").port();
    let url = format!("--database-url=postgres://u:p@127.0.0.1:{port}/d");
    for (arguments, code) in [(&["serve", "--listen=127.0.0.1:0"][..], 0), (&["migrate"], 128 + 15)] {
        let mut command = tollgate(&[arguments, &[url.as_str()]].concat());
        command
            .env("TOLLGATE__TOKENS__KEYS", hex::encode(TOKEN_KEY))
            .env("TOLLGATE__DATABASE__TIMEOUT_SECS", "60");
        let server = Server::begin(&mut command);
        let _asked = silent.accept().await.expect("it connects");
        server.terminate();
        let (status, log) = server.ended_within(GRACE);
        assert_eq!(status.code(), Some(code), "{log}");
    }
}

#[tokio::test]
async fn systemd_is_told_of_the_start_the_stop_and_that_it_still_runs() {
    let database = Database::fresh(Engine::Sqlite).await;
    let path = database.directory().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket can be made in a temporary directory");
    manager.set_read_timeout(Some(GRACE)).expect("a time-out can be set");
    let mut command = Server::command("serve", &database);
    let server = Server::start(command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000"));
    let next = || {
        let mut text = [0; 100];
        let length = manager.recv(&mut text).expect("it tells in time");
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    assert_eq!([next(), next(), next()], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    server.terminate();
    while next() != "STOPPING=1" {}
    assert_eq!(server.ended_within(GRACE).0.code(), Some(0));
}

#[tokio::test]
async fn silent_connections_beyond_the_limit_of_open_files_lock_nobody_out() {
    let database = Database::fresh(Engine::Sqlite).await;
    let serve = Server::command("serve", &database);
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"ulimit -S -n 64 && exec "$0" "$@""#])
        .arg(serve.get_program())
        .args(serve.get_args());
    command.env_clear().envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let server = Server::start(&mut command);
    let mut silent = Vec::new();
    for _ in 0..120 {
        silent.push(TcpStream::connect(server.address).await.expect("it listens"));
    }
    let mut client = Client::connect(server.address).await.expect("it listens");
    assert_eq!(client.send(Call::get("/healthz")).await.expect("an answer").status, 200);
    assert!(!server.log().contains("accept failed"), "{}", server.log());
}

#[tokio::test]
async fn connections_are_fewer_than_the_hard_limit_of_open_files() {
    let database = Database::fresh(Engine::Sqlite).await;
    let serve = Server::command("serve", &database);
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"ulimit -n 100 && exec "$0" "$@""#])
        .arg(serve.get_program())
        .args(serve.get_args());
    command.env_clear().envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let server = Server::start(command.env("TOLLGATE__SERVER__HEADER_TIMEOUT_SECS", "1"));
    let mut silent = Vec::new();
    for _ in 0..120 {
        silent.push(TcpStream::connect(server.address).await.expect("it listens"));
    }
    // It waits until the time of the silent clients is over.
    let mut client = Client::connect(server.address).await.expect("it listens");
    assert_eq!(client.send(Call::get("/healthz")).await.expect("an answer").status, 200);
    let log = server.log();
    assert!(log.contains("connections_max=50") && !log.contains("accept failed"), "{log}");
}

#[tokio::test]
async fn probes_that_are_answered_well_need_not_have_a_line() {
    let database = Database::fresh(Engine::Sqlite).await;
    let mut command = Server::command("serve", &database);
    let server = Server::start(command.env("TOLLGATE__LOG__PROBES", "false"));
    let mut client = Client::connect(server.address).await.expect("it listens");
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(client.send(Call::get(path)).await.expect("an answer").status, 200);
    }
    server.terminate();
    let (_, log) = server.ended_within(GRACE);
    assert!(log.contains("/openapi.json") && !log.contains("/healthz") && !log.contains("/readyz"), "{log}");
}

#[tokio::test]
async fn a_log_that_another_database_left_is_refused_beside_a_restored_copy() {
    let app = TestApp::new(Engine::Sqlite).await;
    let merchant = app.merchant().await;
    let tokens = app.tokens(&merchant).await;
    let file = app.database.directory().join("tollgate.db");
    let copy = app.database.directory().join("copy.db");
    tollgate::store::backup::backup(&app.database.url, &copy, GRACE).await.expect("it can be copied");
    // Kill it, so that its write-ahead log stays. It must start again with its own file.
    for _ in 0..2 {
        let server = Server::serve(&app.database);
        let mut client = Client::connect(server.address).await.expect("it listens");
        client.send(merchant.authorize()).await.expect("an answer").tokens();
        server.kill();
    }
    let database = std::sync::Arc::clone(&app.database);
    let log = app.database.directory().join("tollgate.db-wal");
    let left = fs::read(&log).expect("a killed server leaves its log");
    app.stopped().await;

    fs::copy(&copy, &file).expect("files can be copied");
    fs::write(&log, left).expect("it can be put back");
    let (status, said) = Server::begin(&mut Server::command("serve", &database)).ended_within(GRACE);
    assert!(!status.success() && said.contains("tollgate.db-wal") && said.contains("remove"), "{said}");

    fs::remove_file(&log).expect("it is there");
    let _ = fs::remove_file(database.directory().join("tollgate.db-shm"));
    let server = Server::serve(&database);
    let mut client = Client::connect(server.address).await.expect("it listens");
    client.send(merchant.refresh(&tokens.refresh)).await.expect("an answer").tokens();
    server.kill();
    // By now the copy has its own log.
    drop(Server::serve(&database));
}

#[tokio::test]
async fn a_start_on_the_schema_of_a_newer_release_says_so() {
    each_engine(async |app| {
        app.run_sql(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
             select 9999, description, success, checksum, execution_time from _sqlx_migrations where version = 1",
        )
        .await;
        let server = Server::serve(&app.database);
        server.wait_for_log("a newer release has changed the schema");
        assert_eq!(server.log().matches("newer=[9999]").count(), 1, "{}", server.log());
    })
    .await;
}
