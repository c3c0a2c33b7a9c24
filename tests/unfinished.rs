//! Requests and connections that wait for their client share a limited memory. The ones that have waited longest give it up.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tollgate::config::Settings;
use tollgate::store::Engine;

use super::support::{Merchant, TestApp};
use super::transport::{PATIENCE, read_to_end};

/// More than one MiB takes of heads or bodies.
const MANY: usize = 100;

const ATTACKER: [u8; 4] = [127, 0, 0, 2];

fn small(settings: &mut Settings) {
    settings.server.limits.unfinished_bytes_max = 1024 * 1024;
}

/// A client of 127.0.0.1.
async fn connected(address: SocketAddr, sent: &[u8]) -> TcpStream {
    connected_from([127, 0, 0, 1], address, sent).await
}

async fn connected_from(source: [u8; 4], address: SocketAddr, sent: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("every 127.x.y.z is this machine");
    let mut stream = socket.connect(address).await.expect("it listens");
    stream.write_all(sent).await.expect("it reads");
    stream
}

const LAST: &str = "connection: close\r\n";

fn form_of(merchant: &Merchant) -> String {
    format!("client_id={}&client_secret={}", merchant.client_id, merchant.client_secret)
}

/// The head of a call for tokens, with `more` fields and the length of its body.
fn head_of(merchant: &Merchant, more: &str, bytes: usize) -> String {
    format!(
        "POST /api/authorize HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n{more}content-length: {bytes}\r\n\
         content-type: application/x-www-form-urlencoded\r\n\r\n",
        merchant.key
    )
}

/// Sends the rest of a request, and returns all of the answer.
async fn finished(stream: &mut TcpStream, rest: &[u8]) -> String {
    stream.write_all(rest).await.expect("it reads");
    let answer = tokio::time::timeout(PATIENCE, read_to_end(stream)).await.expect("it answers");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_request_that_comes_in_one_piece_never_counts() {
    // Too little for a head or a body that waits.
    let tiny = |settings: &mut Settings| settings.server.limits.unfinished_bytes_max = 4096;
    let app = TestApp::with(Engine::Sqlite, tiny).await;
    let merchant = app.merchant().await;
    let served = app.serve().await;
    let form = form_of(&merchant);
    let mut stream = connected(served.address, &[]).await;
    for _ in 0..3 {
        let whole = head_of(&merchant, "", form.len()) + &form;
        stream.write_all(whole.as_bytes()).await.expect("it reads");
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.expect("it answers");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..read]));
    }
    served.stop().await;
}

#[tokio::test]
async fn heads_that_do_not_go_on_make_room_for_those_that_do() {
    let served = TestApp::with(Engine::Sqlite, small).await.serve().await;
    let half = [b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: ".as_slice(), &[b'x'; 20_000]].concat();
    let mut held = Vec::new();
    for _ in 0..MANY {
        held.push(connected(served.address, &half).await);
        // An honest client, whose head comes in two parts, is served however many wait.
        let mut honest = connected(served.address, b"GET /healthz HTTP/1.1\r\nhost: a\r\n").await;
        let answer = finished(&mut honest, b"connection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let ended = tokio::time::timeout(PATIENCE, held[0].read_u8()).await.expect("the first is ended");
    assert!(ended.is_err(), "without an answer");
    let answer = finished(&mut held[MANY - 1], b"\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "the last: {answer}");
    served.stop().await;
}

#[tokio::test]
async fn bodies_that_do_not_go_on_are_answered_503_to_make_room_for_those_that_do() {
    let app = TestApp::with(Engine::Sqlite, small).await;
    let merchant = app.merchant().await;
    let served = app.serve().await;
    let form = form_of(&merchant);
    let half = head_of(&merchant, "", 16_000) + &"a=b&".repeat(3_000);
    let mut held = Vec::new();
    for _ in 0..MANY {
        held.push(connected(served.address, half.as_bytes()).await);
        let mut honest = connected(served.address, head_of(&merchant, LAST, form.len()).as_bytes()).await;
        let answer = finished(&mut honest, form.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let answer = finished(&mut held[0], b"").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
    assert!(answer.contains("temporarily_unavailable"), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn silent_connections_make_room_for_new_ones() {
    let served = TestApp::with(Engine::Sqlite, small).await.serve().await;
    let mut held = Vec::new();
    for _ in 0..6 * MANY {
        held.push(connected(served.address, b"").await);
    }
    for mut stream in held.drain(..MANY / 2) {
        let ended = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("it is ended");
        assert!(ended.is_err(), "without an answer");
    }
    let answer =
        finished(&mut held[5 * MANY], b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn an_address_that_fills_the_memory_takes_nothing_from_others() {
    let app = TestApp::with(Engine::Sqlite, small).await;
    let merchant = app.merchant().await;
    let served = app.serve().await;
    let form = form_of(&merchant);
    let head = head_of(&merchant, LAST, form.len());
    // They began to wait before the attacker did.
    let mut silent = connected(served.address, b"").await;
    let mut half_a_head = connected(served.address, &head.as_bytes()[..60]).await;
    let mut half_a_body =
        connected(served.address, [head.as_bytes(), &form.as_bytes()[..9]].concat().as_slice()).await;
    let half = [b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: ".as_slice(), &[b'x'; 20_000]].concat();
    let mut held = Vec::new();
    for _ in 0..MANY {
        held.push(connected_from(ATTACKER, served.address, &half).await);
    }
    let ended =
        tokio::time::timeout(PATIENCE, held[0].read_u8()).await.expect("the attacker's first is ended");
    assert!(ended.is_err(), "without an answer");
    let whole = head.clone() + &form;
    let rests = [whole.as_bytes(), &whole.as_bytes()[60..], &whole.as_bytes()[head.len() + 9..]];
    for (stream, rest) in [&mut silent, &mut half_a_head, &mut half_a_body].into_iter().zip(rests) {
        let answer = finished(stream, rest).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_trusted_proxy_with_many_clients_is_not_who_holds_the_most() {
    let app = TestApp::with(Engine::Sqlite, |settings| {
        small(settings);
        settings.server.edge.trusted_proxies = vec!["127.0.0.3/32".parse().expect("a network")];
    })
    .await;
    let merchant = app.merchant().await;
    let served = app.serve().await;
    let form = form_of(&merchant);
    let through = format!("x-forwarded-for: 203.0.113.9\r\n{LAST}");
    let head = head_of(&merchant, &through, form.len());
    let mut through_proxy = Vec::new();
    for _ in 0..MANY / 2 {
        through_proxy.push(connected_from([127, 0, 0, 3], served.address, head.as_bytes()).await);
    }
    let half = [b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: ".as_slice(), &[b'x'; 10_000]].concat();
    let mut held = Vec::new();
    for _ in 0..MANY {
        held.push(connected_from(ATTACKER, served.address, &half).await);
    }
    let ended =
        tokio::time::timeout(PATIENCE, held[0].read_u8()).await.expect("the attacker's first is ended");
    assert!(ended.is_err(), "without an answer");
    for stream in &mut through_proxy {
        let answer = finished(stream, form.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    served.stop().await;
}
