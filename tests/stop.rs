//! A graceful stop of the real program: not ready, drained, finished, flushed, exit 0.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate::store::Engine;

use super::support::load::Load;
use super::support::program::Server;
use super::support::tcp::Client;
use super::support::{Call, TestApp, engines};

/// A stop must be finished within this time, whatever is going on.
const GRACE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_stop_under_load_loses_nothing_that_was_acknowledged() {
    for engine in engines() {
        let app = TestApp::new(engine).await;
        let merchant = app.merchant().await;
        let server = Server::serve(&app.database);
        let mut load = Load::start(server.address, &merchant, 16);
        load.acknowledged(300).await;
        server.terminate();
        let outcome = load.until_gone().await;
        let (status, log) = server.ended_within(GRACE);
        assert_eq!(status.code(), Some(0), "{engine:?}\n{log}");
        assert!(!log.contains("grace period ended"), "{engine:?}\n{log}");
        assert!(outcome.refused.is_empty(), "{engine:?}: {:?}", outcome.refused);

        let active = r#""active":true"#;
        for tokens in &outcome.sessions {
            let reply = app.send(merchant.introspect(&tokens.refresh)).await;
            assert!(
                reply.text().contains(active),
                "{engine:?}: an acknowledged pair is lost: {}",
                reply.text()
            );
        }
        // Everything was flushed, so each of those calls is recorded.
        let recorded = app.number("select count(*) from exchanges where status = 200").await;
        assert!(recorded >= 300, "{engine:?}: {recorded}");
    }
}

/// Stops and replaces each replica in turn while the other one serves.
#[tokio::test]
async fn a_rolling_restart_of_two_replicas_loses_nothing_that_was_acknowledged() {
    let app = TestApp::new(Engine::Postgres).await;
    let merchant = app.merchant().await;
    let mut replicas = [Server::serve(&app.database), Server::serve(&app.database)];
    let mut sessions = Vec::new();
    for turn in 0..2 {
        let [mut leaving, mut staying] =
            [turn, 1 - turn].map(|replica| Load::start(replicas[replica].address, &merchant, 8));
        leaving.acknowledged(100).await;
        replicas[turn].terminate();
        let left = leaving.until_gone().await;
        let stopped = std::mem::replace(&mut replicas[turn], Server::serve(&app.database));
        assert_eq!(stopped.ended_within(GRACE).0.code(), Some(0));
        staying.acknowledged(100).await;
        for outcome in [left, staying.stop().await] {
            assert!(outcome.refused.is_empty(), "{:?}", outcome.refused);
            sessions.extend(outcome.sessions);
        }
    }
    // The last pair of each session can be refreshed, wherever it was issued.
    let mut client = Client::connect(replicas[0].address).await.expect("it listens");
    for tokens in &sessions {
        client.send(merchant.refresh(&tokens.refresh)).await.expect("an answer").tokens();
    }
}

#[tokio::test]
async fn a_request_under_way_at_the_stop_is_finished() {
    let app = TestApp::new(Engine::Sqlite).await;
    let merchant = app.merchant().await;
    let server = Server::serve(&app.database);
    let body = format!("client_id={}&client_secret={}", merchant.client_id, merchant.client_secret);
    let (first, second) = body.split_at(20);
    let head = format!(
        "POST /api/authorize HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n{first}",
        merchant.key,
        body.len()
    );
    let mut stream = TcpStream::connect(server.address).await.expect("it listens");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    // Make another call, to be sure that the first one was read.
    let mut other = Client::connect(server.address).await.expect("it listens");
    assert_eq!(other.send(Call::get("/healthz")).await.expect("an answer").status, 200);
    server.terminate();
    server.wait_for_log("no longer ready");
    stream.write_all(second.as_bytes()).await.expect("it still reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers and closes");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(server.ended_within(GRACE).0.code(), Some(0));
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_and_still_serves() {
    let app = TestApp::new(Engine::Sqlite).await;
    let merchant = app.merchant().await;
    let server =
        Server::start(Server::command("serve", &app.database).env("TOLLGATE__SERVER__DRAIN_DELAY_SECS", "2"));
    let mut client = Client::connect(server.address).await.expect("it listens");
    assert_eq!(client.send(Call::get("/readyz")).await.expect("an answer").status, 200);
    server.terminate();
    server.wait_for_log("no longer ready");
    let mut new = Client::connect(server.address).await.expect("it still accepts");
    let reply = new.send(Call::get("/readyz")).await.expect("an answer");
    assert_eq!(reply.status, 503);
    assert!(reply.header("retry-after").is_some());
    assert_eq!(new.send(Call::get("/healthz")).await.expect("an answer").status, 200);
    client.send(merchant.authorize()).await.expect("an answer").tokens();
    assert_eq!(server.ended_within(GRACE).0.code(), Some(0));
}
