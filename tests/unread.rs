//! Answers before the body was read: the answer arrives, and the next call on the connection works.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Version, header};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tollgate::store::Engine;

use super::support::TestApp;
use super::support::app::Served;

/// Calls that are answered without reading their body, and their answers.
const REFUSED: [(&str, &str, u16); 6] = [
    ("POST", "/api/authorize", 401),
    ("POST", "/api/introspect", 401),
    ("POST", "/api/nothing", 404),
    ("POST", "/healthz", 405),
    ("POST", "/admin/v1/merchants", 401),
    ("PUT", "/api/verify", 401),
];

async fn server() -> Served {
    TestApp::new(Engine::Sqlite).await.serve().await
}

/// Reads one answer: its status, and whether it says that the connection ends.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> (u16, bool) {
    let mut lines = BufReader::with_capacity(1, stream);
    let (mut status, mut is_last, mut bytes) = (0, false, 0);
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).await.expect("an answer arrives");
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest[..3].parse().expect("a status");
        }
        is_last |= line == "connection: close";
        if let Some(length) = line.strip_prefix("content-length: ") {
            bytes = length.parse().expect("a length");
        }
    }
    lines.read_exact(&mut vec![0; bytes]).await.expect("the body of the answer");
    (status, is_last)
}

#[tokio::test]
async fn after_a_refusal_the_same_connection_takes_the_next_call() {
    let served = server().await;
    let mut stream = TcpStream::connect(served.address).await.expect("it listens");
    for (method, path, expected) in REFUSED {
        for length in [1, 27, 20_000, 200_000] {
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: a\r\nx-api-key: x\r\ncontent-length: {length}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.expect("it reads");
            // The answer does not wait for the body, and the client sends the body anyway.
            assert_eq!(read_answer(&mut stream).await, (expected, false), "{method} {path} {length}");
            stream.write_all(&vec![b'a'; length]).await.expect("it reads");
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it reads");
            assert_eq!(read_answer(&mut stream).await, (200, false), "after {method} {path} {length}");
        }
        let chunked = format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        );
        stream.write_all(chunked.as_bytes()).await.expect("it reads");
        assert_eq!(read_answer(&mut stream).await, (expected, false), "{method} {path} in chunks");
    }
    drop(stream);
    served.stop().await;
}

#[tokio::test]
async fn a_refusal_of_a_large_body_says_that_it_hangs_up_and_arrives() {
    const LARGE: usize = 8 * 1024 * 1024;
    let served = server().await;
    for (method, path, expected) in REFUSED {
        let mut stream = TcpStream::connect(served.address).await.expect("it listens");
        let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        // Like a client that reads only after it has sent everything.
        stream.write_all(&vec![b'a'; LARGE]).await.expect("the rest is read and dropped");
        assert_eq!(read_answer(&mut stream).await, (expected, true), "{method} {path}");
        assert_eq!(stream.read(&mut [0]).await.expect("it closes in order"), 0);
    }
    served.stop().await;
}

#[tokio::test]
async fn nobody_is_asked_for_a_body_that_will_not_be_read() {
    let served = server().await;
    // The body of this call may contain a service token, so the server asks for it.
    for (method, path, expected) in REFUSED.into_iter().filter(|(_, path, _)| *path != "/api/introspect") {
        let mut stream = TcpStream::connect(served.address).await.expect("it listens");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 100\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("it reads");
        assert_eq!(read_answer(&mut stream).await, (expected, true), "{method} {path}");
    }
    served.stop().await;
}

#[tokio::test]
async fn over_http2_a_refusal_costs_neither_its_stream_nor_another() {
    let served = server().await;
    let stream = TcpStream::connect(served.address).await.expect("it listens");
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2 is spoken");
    tokio::spawn(connection);
    for (method, path, expected) in REFUSED {
        for chunks in [1, 10, 1000] {
            let chunk = || Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![b'a'; 8192])));
            let body = StreamBody::new(stream::iter(std::iter::repeat_with(chunk).take(chunks)));
            let request = Request::builder()
                .method(method)
                .uri(format!("http://a{path}"))
                .version(Version::HTTP_2)
                .header(header::CONTENT_LENGTH, chunks * 8192)
                .body(Body::new(body))
                .expect("a plain request");
            sender.ready().await.expect("the connection goes on");
            let answer = sender.send_request(request).await.expect("an answer");
            assert_eq!(answer.status(), expected, "{method} {path}, {chunks} chunks");
            answer.into_body().collect().await.expect("the whole answer");
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn a_connection_lives_between_calls_for_the_idle_time_and_not_the_time_of_a_head() {
    let app = TestApp::with(Engine::Sqlite, |settings| {
        settings.server.limits.header_timeout = Duration::from_millis(200);
        settings.server.limits.idle_timeout = Duration::from_secs(1);
    })
    .await;
    let served = app.serve().await;
    let mut stream = TcpStream::connect(served.address).await.expect("it listens");
    let call = b"POST /api/nothing HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    for _ in 0..3 {
        stream.write_all(call).await.expect("it reads");
        assert_eq!(read_answer(&mut stream).await, (404, false));
        let closed = tokio::time::timeout(Duration::from_millis(600), stream.read_u8()).await;
        assert!(closed.is_err(), "closed after the time for a head");
    }
    // For half a head there is less time.
    stream.write_all(&call[..20]).await.expect("it reads");
    let closed = tokio::time::timeout(Duration::from_millis(700), stream.read_u8()).await;
    assert!(closed.expect("closed in time").is_err());

    let mut stream = TcpStream::connect(served.address).await.expect("it listens");
    stream.write_all(call).await.expect("it reads");
    read_answer(&mut stream).await;
    let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await;
    assert!(closed.expect("closed in time").is_err());
    served.stop().await;
}

#[tokio::test]
async fn a_trusted_proxy_may_open_a_connection_that_it_needs_later() {
    let app = TestApp::with(Engine::Sqlite, |settings| {
        settings.server.limits.header_timeout = Duration::from_millis(200);
        settings.server.limits.idle_timeout = Duration::from_secs(2);
        settings.server.edge.trusted_proxies = vec!["127.0.0.1/32".parse().expect("it is a network")];
    })
    .await;
    let served = app.serve().await;
    let mut stream = TcpStream::connect(served.address).await.expect("it listens");
    let closed = tokio::time::timeout(Duration::from_millis(700), stream.read_u8()).await;
    assert!(closed.is_err(), "closed after the time for a head");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it reads");
    assert_eq!(read_answer(&mut stream).await, (200, false));

    // Once it has sent something, it has no more time than others.
    let mut stream = TcpStream::connect(served.address).await.expect("it listens");
    stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("it reads");
    let closed = tokio::time::timeout(Duration::from_millis(1500), stream.read_u8()).await;
    assert!(closed.expect("closed in time").is_err());
    served.stop().await;
}
