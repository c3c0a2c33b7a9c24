//! Crashes of the program and of its database. Afterwards, everything acknowledged is still there,
//! and sessions that had ended stay ended.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sqlx::{Connection, SqliteConnection};
use tollgate::store::Engine;

use crate::support::load::{Load, Outcome};
use crate::support::postgres::Cluster;
use crate::support::program::Server;
use crate::support::tcp::Client;
use crate::support::{Call, Database, Merchant, Reply, TestApp, each_engine};

/// A server must be back within this time after a crash of itself or of its database.
const RECOVERY: Duration = Duration::from_secs(5);

/// How often the program is killed on each engine; `TOLLGATE_TEST_CYCLES` asks for less or more.
fn cycles() -> usize {
    std::env::var("TOLLGATE_TEST_CYCLES").ok().and_then(|cycles| cycles.parse().ok()).unwrap_or(50)
}

async fn call(client: &mut Client, call: Call) -> Reply {
    client.send(call).await.expect("the server answers")
}

async fn connect(address: SocketAddr) -> Client {
    Client::connect(address).await.expect("the server accepts")
}

/// The last token of a session that a replay has ended.
async fn ended_session(client: &mut Client, merchant: &Merchant) -> String {
    let first = call(client, merchant.authorize()).await.tokens();
    let second = call(client, merchant.refresh(&first.refresh)).await.tokens();
    let third = call(client, merchant.refresh(&second.refresh)).await.tokens();
    call(client, merchant.refresh(&first.refresh)).await.refused(400, "invalid_grant");
    third.refresh
}

/// Checks everything that was acknowledged: both tokens of each last pair work.
async fn holds(client: &mut Client, merchant: &Merchant, outcome: &Outcome) {
    assert!(!outcome.sessions.is_empty());
    for tokens in &outcome.sessions {
        let reply = call(client, merchant.introspect(&tokens.access)).await;
        assert_eq!(reply.json()["active"], true, "an acknowledged access token is lost");
        call(client, merchant.refresh(&tokens.refresh)).await.tokens();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_under_load_loses_nothing_that_was_acknowledged() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let mut ended: Vec<String> = Vec::new();
        let mut server = Server::serve(&app.database);
        for cycle in 0..cycles() {
            ended.push(ended_session(&mut connect(server.address).await, &merchant).await);
            let mut load = Load::start(server.address, &merchant, 16);
            load.acknowledged(150).await;
            server.kill();
            let outcome = load.until_gone().await;
            assert!(outcome.refused.is_empty(), "{:?}", outcome.refused);

            let killed_at = Instant::now();
            server = Server::serve(&app.database);
            let mut client = connect(server.address).await;
            assert_eq!(call(&mut client, Call::get("/readyz")).await.status, 200);
            assert!(killed_at.elapsed() < RECOVERY, "ready after {:?}", killed_at.elapsed());
            holds(&mut client, &merchant, &outcome).await;
            for token in &ended {
                call(&mut client, merchant.refresh(token)).await.refused(400, "invalid_grant");
            }
            let replays = "select count(*) from audit_events where action = 'session.replay_detected'";
            assert_eq!(app.number(replays).await, i64::try_from(cycle).expect("cycles are few") + 1);
        }
        server.kill();
        if app.database.engine == Engine::Sqlite {
            assert_eq!(integrity(&app.database).await, "ok");
        }
    })
    .await;
}

pub(crate) async fn integrity(database: &Database) -> String {
    let mut connection = SqliteConnection::connect(&database.url).await.expect("the file opens");
    let checked: (String,) = sqlx::query_as("pragma integrity_check")
        .fetch_one(&mut connection)
        .await
        .expect("the file can be read");
    checked.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_postgresql_under_load_is_503_while_it_lasts_and_nothing_more() {
    let cluster = Cluster::start();
    let database = Database::reached_at(cluster.database());
    let merchant = TestApp::over(database.clone()).await.merchant().await;
    let mut command = Server::command("serve", &database);
    let server = Server::start(command.env("TOLLGATE__DATABASE__TIMEOUT_SECS", "2"));
    let ended = ended_session(&mut connect(server.address).await, &merchant).await;
    let mut load = Load::start(server.address, &merchant, 16);
    load.acknowledged(200).await;

    cluster.stop_immediate();
    load.unavailable(32).await;
    let mut client = connect(server.address).await;
    assert_eq!(call(&mut client, Call::get("/healthz")).await.status, 200);
    call(&mut client, Call::get("/readyz")).await.refused(503, "temporarily_unavailable");

    cluster.start_again();
    let back_at = Instant::now();
    load.acknowledged(100).await;
    assert!(back_at.elapsed() < RECOVERY, "served again after {:?}", back_at.elapsed());
    let outcome = load.stop().await;
    for (status, body) in &outcome.refused {
        assert_eq!(*status, 503, "{body}");
    }
    assert_eq!(call(&mut client, Call::get("/readyz")).await.status, 200);
    holds(&mut client, &merchant, &outcome).await;
    call(&mut client, merchant.refresh(&ended)).await.refused(400, "invalid_grant");
}
