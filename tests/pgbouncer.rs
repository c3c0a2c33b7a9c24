//! Behind PgBouncer: which modes work, and that others report why they do not.

use std::time::Duration;

use tollgate::store::Engine;

use super::support::load::Load;
use super::support::postgres::{Cluster, Pool, Pooler};
use super::support::program::{Server, run, tollgate};
use super::support::tcp::Client;
use super::support::{Database, TestApp};

/// As config/operations.md asks for.
const TRANSACTIONS: Pool = Pool::Transactions { prepared_max: 200 };

#[tokio::test]
async fn a_pool_of_sessions_serves_under_load() {
    let app = TestApp::new(Engine::Postgres).await;
    let merchant = app.merchant().await;
    let pooler = Pooler::before(&app.database.url, Pool::Sessions, 40);
    let server = Server::serve(&Database::reached_at(pooler.url(&app.database.url)));
    let mut load = Load::start(server.address, &merchant, 16);
    load.acknowledged(300).await;
    assert!(load.stop().await.refused.is_empty());
    server.terminate();
    assert_eq!(server.ended_within(Duration::from_secs(30)).0.code(), Some(0));
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_a_pool_of_transactions_or_the_server_behind_it_crashes() {
    let cluster = Cluster::start();
    let app = TestApp::over(Database::reached_at(cluster.database())).await;
    let merchant = app.merchant().await;
    let pooler = Pooler::before(&app.database.url, TRANSACTIONS, 5);
    let pooled = Database::reached_at(pooler.url(&app.database.url));
    // PgBouncer lets callers wait while its server is gone.
    let server =
        Server::start(Server::command("serve", &pooled).env("TOLLGATE__DATABASE__TIMEOUT_SECS", "1"));
    let mut load = Load::that_reconnects(server.address, &merchant, 16);
    load.acknowledged(300).await;
    pooler.stop();
    load.unavailable(20).await;
    pooler.start();
    load.acknowledged(300).await;
    cluster.stop_immediate();
    load.unavailable(20).await;
    cluster.start_again();
    load.acknowledged(300).await;

    let outcome = load.stop().await;
    assert!(outcome.refused.iter().all(|(status, _)| *status == 503), "{:?}", outcome.refused);
    let mut client = Client::connect(server.address).await.expect("the server accepts");
    for tokens in &outcome.sessions {
        client.send(merchant.refresh(&tokens.refresh)).await.expect("the server answers").tokens();
    }
}

#[tokio::test]
async fn a_pool_of_transactions_without_prepared_statements_is_refused_with_what_to_set() {
    let app = TestApp::new(Engine::Postgres).await;
    let pooler = Pooler::before(&app.database.url, Pool::Transactions { prepared_max: 0 }, 2);
    // Each prepares its statements on one of the two connections, so the third finds those of another one.
    let url = format!("--database-url={}", pooler.url(&app.database.url));
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
    let [direct, other] = [(); 2].map(|()| Database::without_schema(Engine::Postgres));
    let pooler = Pooler::before(&other.url, TRANSACTIONS, 10);
    for database in [direct, Database::reached_at(pooler.url(&other.url))] {
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
}
