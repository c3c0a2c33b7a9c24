//! A database that is slow, locked, full or out of reach: 503 in time, and whole again afterwards.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tollgate::config::Settings;
use tollgate::store::Engine;

use super::support::{Call, Reply, TestApp, engines};

/// What a call is to wait for the store, in these tests.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Until when an answer has come that had to wait for the time-out, on a busy machine.
const LATEST: Duration = Duration::from_secs(8);

fn four_connections(settings: &mut Settings) {
    settings.database.timeout = TIMEOUT;
    settings.database.connections_max = 4;
}

async fn impatient(engine: Engine) -> TestApp {
    TestApp::with(engine, four_connections).await
}

#[track_caller]
fn is_503(reply: &Reply) {
    reply.refused(503, "temporarily_unavailable");
    assert!(reply.header("retry-after").is_some());
}

#[tokio::test]
async fn calls_that_wait_for_a_lock_are_told_to_come_back_and_health_is_not_held_up() {
    for engine in engines() {
        let app = impatient(engine).await;
        let merchant = app.merchant().await;
        let before = app.tokens(&merchant).await;
        // Somebody else holds what every write needs.
        // With more patience, or the server would end its transaction.
        let other = app.replica_at(&app.database.url, |_| {}).await;
        let mut tx = other.core().store.begin().await.expect("the store answers");
        let lock = match engine {
            Engine::Sqlite => "select 1",
            Engine::Postgres => "lock table sessions in access exclusive mode",
        };
        tx.query(lock).execute().await.expect("nobody else holds the lock");

        let started = Instant::now();
        let calls = join_all((0..200).map(|_| app.send(merchant.authorize())));
        let health = async {
            // While every connection is waiting.
            while app.core().store.pools().iter().all(|pool| pool.idle > 0) {
                tokio::task::yield_now().await;
            }
            let asked = Instant::now();
            assert_eq!(app.send(Call::get("/healthz")).await.status, 200);
            assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
        };
        let (replies, ()) = tokio::join!(calls, health);
        assert!(started.elapsed() < LATEST, "{engine:?}: {:?}", started.elapsed());
        replies.iter().for_each(is_503);

        drop(tx);
        // It was nothing that stays: the next one may wait for the rest of the last batch.
        until(async || app.send(merchant.authorize()).await.status == 200).await;
        app.send(merchant.refresh(&before.refresh)).await.tokens();
    }
}

#[tokio::test]
async fn a_pool_without_a_free_connection_is_503_within_the_time_out() {
    for engine in engines() {
        let app = impatient(engine).await;
        let merchant = app.merchant().await;
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(app.core().store.read().await.expect("the pool has four"));
        }
        let writer = match engine {
            Engine::Sqlite => Some(app.core().store.write().await.expect("there is one writer")),
            Engine::Postgres => None,
        };
        let started = Instant::now();
        is_503(&app.send(merchant.authorize()).await);
        assert!(started.elapsed() < LATEST, "{engine:?}: {:?}", started.elapsed());
        let asked = Instant::now();
        assert_eq!(app.send(Call::get("/healthz")).await.status, 200);
        assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
        assert_eq!(app.send(Call::get("/readyz")).await.status, 503);
        // Metrics say so, and are not held up by it for long.
        let metrics = app.send_to_ops(Call::get("/metrics")).await;
        assert!(metrics.text().contains("tollgate_store_up 0"), "{}", metrics.text());

        drop((held, writer));
        until(async || app.send(merchant.authorize()).await.status == 200).await;
    }
}

/// Runs it again and again until it holds.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(30), "it does not come back");
    }
}

/// Passes connections on to `to` while it is told to; otherwise it accepts them and says nothing, as a
/// network does that swallows packets.
struct Network {
    address: SocketAddr,
    passes: watch::Sender<bool>,
}

impl Network {
    async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (passes, passing) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, to, passing.clone()));
            }
        });
        Self { address, passes }
    }
}

async fn pass(mut client: TcpStream, to: SocketAddr, mut passing: watch::Receiver<bool>) {
    if *passing.borrow()
        && let Ok(mut server) = TcpStream::connect(to).await
    {
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = passing.wait_for(|passes| !passes) => {}
        }
        // Neither side learns anything: both sockets stay open, for ever.
        std::future::pending::<()>().await;
    }
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_network_that_swallows_everything_holds_nobody_for_ever() {
    let home = TestApp::new(Engine::Postgres).await;
    let merchant = home.merchant().await;
    let url = &home.database.url;
    let to = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).expect("the URL has a host");
    let network = Network::to(to.parse().expect("the host is an address")).await;
    let app = home.replica_at(&url.replace(to, &network.address.to_string()), four_connections).await;
    app.send(merchant.authorize()).await.tokens();

    network.passes.send_replace(false);
    for _ in 0..3 {
        let started = Instant::now();
        let replies = join_all((0..50).map(|_| app.send(merchant.authorize()))).await;
        replies.iter().for_each(is_503);
        assert!(started.elapsed() < LATEST, "{:?}", started.elapsed());
    }
    network.passes.send_replace(true);
    // The dead connections are given up, one by one, and replaced.
    until(async || app.send(merchant.authorize()).await.status == 200).await;
    let replies = join_all((0..50).map(|_| app.send(merchant.authorize()))).await;
    replies.iter().for_each(|reply| assert_eq!(reply.status, 200, "{}", reply.text()));
}
