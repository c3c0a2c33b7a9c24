//! Clients that hang up in the middle of a request: nothing stays open, and the call is in the log and the metrics.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate::config::Settings;
use tollgate::flows::audit_chain::ChainVerdict;
use tollgate::store::Engine;

use crate::admin::Admin;
use crate::support::app::Served;
use crate::support::program::Server;
use crate::support::tcp::Client;
use crate::support::{Call, Merchant, TestApp, each_engine};

const HANG_UPS: usize = 2_000;

/// How many clients are connected at a time.
const AT_ONCE: usize = 50;

/// The delay of each answer of the database.
const DELAY: Duration = Duration::from_millis(5);

/// Few connections, so that some clients hang up while they wait for one.
fn four_connections(settings: &mut Settings) {
    settings.database.connections_max = 4;
    settings.limits.failures_per_address_per_minute = 1_000_000;
}

/// A proxy to `to` that delays every answer.
async fn slow_way(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(to).await else { continue };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(carry(from_client, to_server, Duration::ZERO));
            tokio::spawn(carry(from_server, to_client, DELAY));
        }
    });
    address
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        tokio::time::sleep(delay).await;
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Requests that read, that share a transaction, and that have their own.
fn requests(merchant: &Merchant, token: &str, refresh: &str, operator: &str) -> Vec<String> {
    let own = format!("client_id={}&client_secret={}", merchant.client_id, merchant.client_secret);
    let api = |path: &str, more: &str| {
        let body = format!("{own}{more}");
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
            merchant.key,
            body.len()
        )
    };
    let body = format!(r#"{{"name":"{}"}}"#, "Till");
    vec![
        api("/api/authorize", ""),
        api("/api/refresh_token", &format!("&refresh_token={refresh}")),
        api("/api/introspect", &format!("&token={token}")),
        api("/api/revoke", &format!("&token={token}")),
        format!(
            "PATCH /admin/v1/api-keys/{} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {operator}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            merchant.key_id,
            body.len()
        ),
    ]
}

/// Sends a request and hangs up after a while. Each client waits a little longer than the previous one, so
/// that they hang up at every point of a request.
async fn hang_up(address: SocketAddr, request: &str, number: usize) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    tokio::time::sleep(DELAY / 4 * u32::try_from(number % 40).expect("it is small")).await;
    // Either with a reset or silently, before or during the answer.
    stream.set_zero_linger().expect("the socket is open");
}

async fn hang_up_often(address: SocketAddr, requests: &[String]) {
    let mut under_way = FuturesUnordered::new();
    for number in 0..HANG_UPS {
        if under_way.len() == AT_ONCE {
            under_way.next().await;
        }
        under_way.push(hang_up(address, &requests[number % requests.len()], number));
    }
    while under_way.next().await.is_some() {}
}

/// Checks that every connection was returned and the pool serves as many callers as before.
async fn is_whole(served: &Served, merchant: &Merchant) {
    let started = Instant::now();
    while served.core.store.pools().iter().any(|pool| pool.idle != pool.open) {
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", served.core.store.pools());
        tokio::task::yield_now().await;
    }
    let calls = (0..32).map(async |_| {
        let mut client = Client::connect(served.address).await.expect("it listens");
        client.send(merchant.authorize()).await.expect("it answers").tokens();
    });
    join_all(calls).await;
}

async fn setting(home: &TestApp) -> (Merchant, Vec<String>) {
    let merchant = home.merchant().await;
    let tokens = home.tokens(&merchant).await;
    let operator = Admin::operator(home).await.token;
    let requests = requests(&merchant, &tokens.access, &tokens.refresh, &operator);
    (merchant, requests)
}

#[tokio::test]
async fn a_call_whose_client_hung_up_counts_like_any_other() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        app.hang_up(merchant.authorize()).await;
        let started = Instant::now();
        let series = r#"tollgate_http_requests_total{route="/api/authorize",status="200"} 1"#;
        while !app.send_to_ops(Call::get("/metrics")).await.text().contains(series) {
            assert!(started.elapsed() < Duration::from_secs(30), "it never counts");
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_whose_client_hung_up_is_in_the_log_as_such() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let server = Server::serve(&app.database);
        let mut tx = app.core().store.begin().await.expect("the store answers");
        tx.query(match app.core().store.engine() {
            Engine::Sqlite => "select 1",
            Engine::Postgres => "lock table sessions in access exclusive mode",
        })
        .execute()
        .await
        .expect("nobody else holds the lock");
        let body = format!("client_id={}&client_secret={}", merchant.client_id, merchant.client_secret);
        let head = format!(
            "POST /api/authorize HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\ncontent-length: {}\r\n\
             expect: 100-continue\r\n\r\n",
            merchant.key,
            body.len()
        );
        let mut stream = TcpStream::connect(server.address).await.expect("it listens");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        // It asks for the body once the call has begun.
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).await.expect("it asks for the body");
        stream.write_all(body.as_bytes()).await.expect("it reads");
        // A client that closes only its own side counts as gone too, so this one sees when the server has noticed.
        stream.shutdown().await.expect("the socket is open");
        assert_eq!(
            stream.read(&mut [0]).await.expect("it closes"),
            0,
            "it answered before the lock was free"
        );
        tx.commit().await.expect("the store answers");
        server.wait_for_log("has_hung_up=true");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_hang_ups_leave_no_transaction_open_and_the_pool_whole() {
    let home = TestApp::new(Engine::Postgres).await;
    let (merchant, requests) = setting(&home).await;
    let url = &home.database.url;
    let to = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).expect("the URL has a host");
    let way = slow_way(to.parse().expect("the host is an address")).await;
    let served = home.replica_at(&url.replace(to, &way.to_string()), four_connections).await.serve().await;

    hang_up_often(served.address, &requests).await;
    is_whole(&served, &merchant).await;
    let open = "select count(*) from pg_stat_activity \
                where datname = current_database() and state like 'idle in transaction%'";
    // Background jobs have their own transactions, which last as long as a slow statement.
    let started = Instant::now();
    while home.number(open).await != 0 {
        assert!(started.elapsed() < Duration::from_secs(3), "a transaction stays open");
    }
    // The work of each client that left was done completely or not at all.
    let verdict = home.core().verify_audit_chain().await.expect("the store answers");
    assert!(matches!(verdict, ChainVerdict::Holds { .. }), "{verdict:?}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_hang_ups_while_others_write_leave_sqlite_whole() {
    let home = TestApp::new(Engine::Sqlite).await;
    let (merchant, requests) = setting(&home).await;
    let served = home.replica_at(&home.database.url, four_connections).await.serve().await;
    // Another connection takes the write lock again and again.
    let holding = async {
        loop {
            let tx = home.core().store.begin().await.expect("the store answers");
            tokio::time::sleep(DELAY).await;
            drop(tx);
            tokio::time::sleep(DELAY).await;
        }
    };
    tokio::select! {
        () = hang_up_often(served.address, &requests) => {}
        () = holding => {}
    }
    is_whole(&served, &merchant).await;
    let mut client = Client::connect(served.address).await.expect("it listens");
    assert_eq!(client.send(Call::get("/readyz")).await.expect("it answers").status, 200);
    served.stop().await;
}
