//! Clients that hold connections open: they are closed in time, and nobody has more than a share of the connections.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tollgate::config::Settings;
use tollgate::store::Engine;

use super::support::app::Served;
use super::support::tcp::Client;
use super::support::{Call, TestApp};
use super::transport::{PATIENCE, read_to_end};

fn impatient(settings: &mut Settings) {
    settings.server.limits.header_timeout = Duration::from_millis(500);
}

async fn impatient_server() -> Served {
    TestApp::with(Engine::Sqlite, impatient).await.serve().await
}

/// Holds a connection open after `sent` until the server closes it, while another caller is served.
async fn is_closed_while_others_are_served(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(sent).await.expect("it reads");
    let closed = read_to_end(&mut stream);
    tokio::pin!(closed);
    loop {
        let mut other = Client::connect(address).await.expect("another connection is accepted");
        let reply = other.send(Call::get("/healthz")).await.expect("another caller is served");
        assert_eq!(reply.status, 200);
        if let Ok(bytes) = tokio::time::timeout(Duration::from_millis(20), &mut closed).await {
            return bytes;
        }
    }
}

#[tokio::test]
async fn silent_and_slow_clients_are_closed_while_others_are_served() {
    let served = impatient_server().await;
    let stalls: [&[u8]; 6] = [
        b"",
        b"P",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"POST /api/authorize HTTP/1.1\r\nhost: a\r\nx-slow:",
        // HTTP/2 with its settings and no request, and with half a request.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x05\x01\0\0\0\0\x01\x82",
    ];
    for stall in stalls {
        is_closed_while_others_are_served(served.address, stall).await;
    }
    served.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_answered_408_while_others_are_served() {
    let app = TestApp::with(Engine::Sqlite, impatient).await;
    let merchant = app.merchant().await;
    let served = app.serve().await;
    let head = format!(
        "POST /api/authorize HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\ncontent-length: 100\r\n\r\nclient_id=",
        merchant.key
    );
    let answer = is_closed_while_others_are_served(served.address, head.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn connections_past_the_cap_wait_for_a_place() {
    let app = TestApp::with(Engine::Sqlite, |settings| settings.server.limits.connections_max = 2).await;
    let served = app.serve().await;
    let mut first = Client::connect(served.address).await.expect("a place");
    let mut second = Client::connect(served.address).await.expect("a place");
    for client in [&mut first, &mut second] {
        assert_eq!(client.send(Call::get("/healthz")).await.expect("an answer").status, 200);
    }
    let mut third = Client::connect(served.address).await.expect("the kernel takes it");
    let waiting = third.send(Call::get("/healthz"));
    tokio::pin!(waiting);
    for _ in 0..20 {
        // Open connections are served, and the one that waits is not.
        assert_eq!(first.send(Call::get("/healthz")).await.expect("an answer").status, 200);
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut waiting).await.is_err());
    }
    drop(second);
    let reply = tokio::time::timeout(PATIENCE, waiting).await.expect("its turn comes");
    assert_eq!(reply.expect("an answer").status, 200);
    drop(first);
    served.stop().await;
}

/// Connects from an address of this machine, and returns whether a call is answered.
async fn is_served_from(source: [u8; 4], address: SocketAddr) -> (TcpStream, bool) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("every 127.x.y.z is this machine");
    let mut stream = socket.connect(address).await.expect("the kernel takes it");
    let call = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    let is_served = stream.write_all(call).await.is_ok() && stream.read_u8().await.is_ok();
    (stream, is_served)
}

#[tokio::test]
async fn an_address_has_its_share_of_the_connections_and_no_more() {
    let app = TestApp::with(Engine::Sqlite, |settings| {
        settings.server.limits.connections_per_address_max = 2;
        settings.server.edge.trusted_proxies = vec!["127.0.0.3/32".parse().expect("a network")];
    })
    .await;
    let served = app.serve().await;
    let first = is_served_from([127, 0, 0, 1], served.address).await;
    let second = is_served_from([127, 0, 0, 1], served.address).await;
    assert!(first.1 && second.1);
    assert!(!is_served_from([127, 0, 0, 1], served.address).await.1, "a third one");
    assert!(is_served_from([127, 0, 0, 2], served.address).await.1, "another address");
    let mut of_proxy = Vec::new();
    for _ in 0..5 {
        of_proxy.push(is_served_from([127, 0, 0, 3], served.address).await);
    }
    assert!(of_proxy.iter().all(|(_, is_served)| *is_served), "a trusted proxy has everybody's");
    drop(first);
    // Its connection no longer counts once the server has noticed its end.
    while !is_served_from([127, 0, 0, 1], served.address).await.1 {}
    drop((second, of_proxy));
    served.stop().await;
}
