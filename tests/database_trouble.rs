//! A database that is slow, locked, full or unreachable: callers get 503 in time, and everything works again
//! afterwards.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tollgate::config::Settings;
use tollgate::store::Engine;

use super::admin::Admin;
use super::support::{Call, Reply, TestApp, engines};

/// How long a call waits for the store in these tests.
const TIMEOUT: Duration = Duration::from_secs(1);

#[track_caller]
fn is_503_of_admin(reply: &Reply) {
    reply.problem(503, "temporarily_unavailable");
    assert!(reply.header("retry-after").is_some());
}

/// An answer that waits for the time-out must come within this time, even on a busy machine.
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
        // Another transaction has the lock that every write needs.
        // A longer time limit, or the server would end its transaction.
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
            // All connections are waiting.
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
        // The problem is gone. The next call may still wait for the rest of the last batch.
        until(async || app.send(merchant.authorize()).await.status == 200).await;
        app.send(merchant.refresh(&before.refresh)).await.tokens();
    }
}

#[tokio::test]
async fn a_pool_without_a_free_connection_is_503_within_the_time_out() {
    let app = impatient(Engine::Sqlite).await;
    let merchant = app.merchant().await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(app.core().store.read().await.expect("there are four readers"));
    }
    held.push(app.core().store.write().await.expect("there is one writer"));
    let started = Instant::now();
    is_503(&app.send(merchant.authorize()).await);
    assert!(started.elapsed() < LATEST, "{:?}", started.elapsed());
    let asked = Instant::now();
    assert_eq!(app.send(Call::get("/healthz")).await.status, 200);
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
    assert_eq!(app.send(Call::get("/readyz")).await.status, 503);
    // The metrics show it, and are not delayed for long.
    let metrics = app.send_to_ops(Call::get("/metrics")).await;
    assert!(metrics.text().contains("tollgate_store_up 0"), "{}", metrics.text());

    drop(held);
    until(async || app.send(merchant.authorize()).await.status == 200).await;
}

#[tokio::test]
async fn whoever_holds_all_other_connections_of_postgresql_holds_up_no_call_for_tokens() {
    let app = impatient(Engine::Postgres).await;
    let merchant = app.merchant().await;
    let operator = Admin::operator(&app).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(app.core().store.begin().await.expect("half of the four are for the rest"));
    }
    let started = Instant::now();
    is_503_of_admin(&operator.get("/merchants").await);
    assert!(started.elapsed() < LATEST, "{:?}", started.elapsed());
    let asked = Instant::now();
    let tokens = app.tokens(&merchant).await;
    let tokens = app.send(merchant.refresh(&tokens.refresh)).await.tokens();
    assert_eq!(app.send(merchant.verify(&tokens.access)).await.status, 200);
    assert_eq!(app.send(Call::get("/readyz")).await.status, 200);
    assert!(asked.elapsed() < TIMEOUT, "{:?}", asked.elapsed());

    drop(held);
    until(async || operator.get("/merchants").await.status == 200).await;
}

/// Repeats a check until it succeeds.
pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(30), "it does not come back");
    }
}

/// Forwards connections to `to` while it is switched on. Otherwise it accepts them and sends nothing, like a
/// network that drops packets. Switching it also drops the packets of existing connections.
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
    if *passing.borrow_and_update()
        && let Ok(mut server) = TcpStream::connect(to).await
    {
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = passing.changed() => {}
        }
        // Neither side notices: both sockets stay open.
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
    // The dead connections are closed and replaced, one by one.
    until(async || app.send(merchant.authorize()).await.status == 200).await;
    let replies = join_all((0..50).map(|_| app.send(merchant.authorize()))).await;
    replies.iter().for_each(|reply| assert_eq!(reply.status, 200, "{}", reply.text()));
}

#[tokio::test]
async fn idle_connections_that_a_firewall_forgot_cost_one_call_a_second() {
    let home = TestApp::new(Engine::Postgres).await;
    let url = &home.database.url;
    let to = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).expect("the URL has a host");
    let network = Network::to(to.parse().expect("the host is an address")).await;
    let app = home.replica_at(&url.replace(to, &network.address.to_string()), |_| {}).await;
    let merchant = app.merchant().await;
    let tokens = app.tokens(&merchant).await;
    // As many connections of the hot path as it has, all of them idle for long enough to be doubted.
    let idle = || app.core().store.pools()[0].idle;
    join_all(
        (0..100).map(|n| {
            app.send(if n % 2 == 0 { merchant.authorize() } else { merchant.verify(&tokens.access) })
        }),
    )
    .await;
    assert!(idle() > 1, "one connection is no test");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    network.passes.send_replace(true);

    let started = Instant::now();
    app.send(merchant.authorize()).await.tokens();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let started = Instant::now();
    assert_eq!(app.send(merchant.verify(&tokens.access)).await.status, 200);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}
