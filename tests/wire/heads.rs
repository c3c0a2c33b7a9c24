//! Request heads over TCP: exactly one host, limited in size, and with our own errors even if hyper refuses
//! them.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Version};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate::http::head::{FIELDS_MAX, HEAD_BYTES_MAX, TARGET_BYTES_MAX};
use tollgate::store::Engine;

use crate::support::TestApp;
use crate::support::app::Served;

async fn server() -> Served {
    TestApp::new(Engine::Sqlite).await.serve().await
}

/// Sends bytes, and returns the status, the head in lower case and the body of the one answer.
async fn ask(address: SocketAddr, bytes: &[u8]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(bytes).await.expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("it closes in order");
    let answer = String::from_utf8(answer).expect("answers are text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase(), body.to_owned())
}

fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\n{fields}connection: close\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn exactly_one_good_host_is_needed() {
    let served = server().await;
    for good in ["a", "a:80", "a:", "pay.example", "192.0.2.1:8080", "[::1]", "[2001:db8::1]:443", "a_b"] {
        let (status, ..) = ask(served.address, &get("/healthz", &format!("host: {good}\r\n"))).await;
        assert_eq!(status, 200, "{good}");
    }
    let bad = ["", "host:\r\n", "host: a\r\nhost: a\r\n", "host: a\r\nhost: b\r\n", "host: u@a\r\n"];
    let worse = ["host: a b\r\n", "host: a/b\r\n", "host: a:x\r\n", "host: a:65536\r\n", "host: [::1\r\n"];
    for fields in bad.iter().chain(&worse) {
        // This comes before anything else, also for forward authentication.
        for path in ["/healthz", "/api/verify", "/api/authorize", "/console"] {
            let (status, ..) = ask(served.address, &get(path, fields)).await;
            assert_eq!(status, 400, "{path} {fields:?}");
        }
    }
    // HTTP/1.0 has no such rule, and health checks of load balancers use it.
    assert_eq!(ask(served.address, b"GET /healthz HTTP/1.0\r\n\r\n").await.0, 200);
    served.stop().await;
}

#[tokio::test]
async fn a_target_past_its_limit_is_414_before_anything_else() {
    let served = server().await;
    for (bytes, expected) in [
        (TARGET_BYTES_MAX, [404, 401]),
        (TARGET_BYTES_MAX + 1, [414, 414]),
        (HEAD_BYTES_MAX - 100, [414, 414]),
        // More than hyper reads of a head.
        (2 * HEAD_BYTES_MAX, [414, 414]),
    ] {
        for (start, expected) in ["/", "/api/verify/"].iter().zip(expected) {
            let target = format!("{start}{}", "a".repeat(bytes - start.len()));
            let (status, head, body) = ask(served.address, &get(&target, "host: a\r\n")).await;
            assert_eq!(status, expected, "{bytes} bytes: {body}");
            assert!(head.contains("\r\nx-request-id: "), "{head}");
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn what_hyper_refuses_by_itself_is_told_as_every_other_error() {
    let served = server().await;
    let many = format!("host: a\r\n{}", "a: b\r\n".repeat(FIELDS_MAX));
    let large = format!("host: a\r\na: {}\r\n", "b".repeat(HEAD_BYTES_MAX));
    let cases = [
        (get("/api/x", &many), 431),
        (get("/api/x", &large), 431),
        (get("/api/x?amount>10", "host: a\r\n"), 400),
        (get("/api/x?\0", "host: a\r\n"), 400),
        (get("/api/x", "host: a\r\nno field\r\n"), 400),
        (get("/api/x", "host: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n"), 400),
    ];
    for (bytes, expected) in cases {
        let (status, head, body) = ask(served.address, &bytes).await;
        assert_eq!(status, expected, "{body}");
        let id = head.split("x-request-id: ").nth(1).and_then(|rest| rest.lines().next());
        let json: Value = serde_json::from_str(&body).expect("errors are JSON");
        assert_eq!(json["request_id"].as_str(), Some(id.expect("every answer has an id")));
        assert_eq!(json["status"]["statusCode"], expected);
        assert!(head.contains("\r\nconnection: close") && head.contains("\r\ndate: "), "{head}");
        // The admin API has its own format, and forward authentication has only two refusals.
        let to = |path: &str| String::from_utf8_lossy(&bytes).replacen("/api/x", path, 1).into_bytes();
        let (status, head, _) = ask(served.address, &to("/admin/v1/x")).await;
        assert_eq!(status, expected);
        assert!(head.contains("application/problem+json"), "{head}");
        for path in ["/api/verify", "/api/verify/orders", "/api/verify-scope/a"] {
            let (status, head, _) = ask(served.address, &to(path)).await;
            assert_eq!(status, 401, "{path}");
            assert!(head.contains("www-authenticate: bearer"), "{head}");
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn a_nul_in_path_or_query_is_refused() {
    let served = server().await;
    for target in ["/api/authorize?a=%00", "/api/%00", "/admin/v1/merchants/a%00", "/console/%00"] {
        let (status, ..) = ask(served.address, &get(target, "host: a\r\n")).await;
        assert_eq!(status, 400, "{target}");
    }
    assert_eq!(ask(served.address, &get("/api/verify/%00?a", "host: a\r\n")).await.0, 401);
    served.stop().await;
}

#[tokio::test]
async fn heads_have_the_same_limits_over_both_versions() {
    let served = server().await;
    let stream = TcpStream::connect(served.address).await.expect("it listens");
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2 is spoken");
    tokio::spawn(connection);
    // The last of each is within the limits.
    let of = |fields: usize, bytes: usize| (0..fields).map(move |n| (format!("x-{n}"), "b".repeat(bytes)));
    let cases = [(FIELDS_MAX + 1, 1, true), (9, 4000, true), (FIELDS_MAX - 3, 1, false), (8, 4000, false)];
    for (fields, bytes, is_refused) in cases {
        for (path, refused, otherwise) in [("/healthz", 431, 200), ("/api/verify", 401, 401)] {
            let expected = if is_refused { refused } else { otherwise };
            let lines: String =
                of(fields, bytes).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let (status, ..) = ask(served.address, &get(path, &format!("host: a\r\n{lines}"))).await;
            assert_eq!(status, expected, "HTTP/1.1, {path}, {fields} fields of {bytes}");

            let mut request = Request::get(format!("http://a{path}")).version(Version::HTTP_2);
            for (name, value) in of(fields, bytes) {
                request = request.header(name, HeaderValue::from_str(&value).expect("plain text"));
            }
            let request = request.body(Body::empty()).expect("a plain request");
            sender.ready().await.expect("the connection goes on");
            let answer = sender.send_request(request).await.expect("an answer");
            assert_eq!(answer.status(), expected, "HTTP/2, {path}, {fields} fields of {bytes}");
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            assert_eq!(is_refused, String::from_utf8_lossy(&body).contains("200 fields"));
        }
    }
    served.stop().await;
}
