//! Sends hostile requests to the real program. Each must be refused in time, and memory must stay small.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate::store::Engine;

use crate::admin::Admin;
use crate::support::program::Server;
use crate::support::{Database, Merchant, TestApp};

/// How much the program's memory may grow in all.
const GROWTH_MAX: u64 = 32 * 1024 * 1024;

/// Within which every one is refused, all of them at once on a busy machine. A second is what one takes.
const LATEST: Duration = Duration::from_secs(10);

/// How many of each kind are sent at once.
const AT_ONCE: usize = 8;

const GIBIBYTE: usize = 1 << 30;

/// A body that is sent piece by piece for as long as the server reads it.
#[derive(Clone)]
struct Abuse {
    what: &'static str,
    label: &'static str,
    first: Vec<u8>,
    again: Vec<u8>,
    times: usize,
    is_chunked: bool,
}

impl Abuse {
    fn of(what: &'static str, label: &'static str, first: &str, again: &str, times: usize) -> Self {
        // Single bytes would take minutes to send.
        let per_piece = (16 * 1024 / again.len()).clamp(1, times);
        let again = again.repeat(per_piece).into_bytes();
        Self { what, label, first: first.into(), again, times: times.div_ceil(per_piece), is_chunked: false }
    }

    fn chunked(self) -> Self {
        Self { is_chunked: true, ..self }
    }

    fn head(&self, path: &str, credentials: &str) -> String {
        let length = if self.is_chunked {
            "transfer-encoding: chunked".to_owned()
        } else {
            format!("content-length: {}", self.first.len() + self.again.len() * self.times)
        };
        let label = self.label;
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\n{credentials}\r\ncontent-type: {label}\r\n{length}\r\n\r\n"
        )
    }

    fn piece(&self, bytes: &[u8]) -> Vec<u8> {
        if self.is_chunked {
            [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
        } else {
            bytes.to_vec()
        }
    }
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=x";
const PART: &str = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n";

fn abuses() -> Vec<Abuse> {
    let spaces = " ".repeat(16 * 1024);
    vec![
        Abuse::of("a gibibyte of JSON", JSON, "{\"client_id\":\"", &spaces, GIBIBYTE / spaces.len()),
        Abuse::of("a gibibyte of form", FORM, "client_id=", &spaces, GIBIBYTE / spaces.len()),
        Abuse::of("chunks without end", FORM, "client_id=", &spaces, GIBIBYTE / spaces.len()).chunked(),
        Abuse::of("a million fields", FORM, "", "a=b&", 1_000_000),
        Abuse::of("a million fields in chunks", FORM, "", "a=b&", 1_000_000).chunked(),
        Abuse::of("a million members", JSON, "{", "\"a\":1,", 1_000_000),
        Abuse::of("arrays a hundred thousand deep", JSON, "", "[", 100_000),
        Abuse::of("objects a hundred thousand deep", JSON, "", "{\"a\":", 100_000),
        Abuse::of("a hundred thousand parts", MULTIPART, "", PART, 100_000),
        Abuse::of("a part's head without end", MULTIPART, "--x\r\n", "X-A: b\r\n", 1_000_000),
        Abuse::of("a part's value without end", MULTIPART, PART, "b", 10_000_000).chunked(),
    ]
}

/// The status of the answer. `None` if the connection was closed without one.
async fn send(address: SocketAddr, abuse: &Abuse, path: &str, credentials: &str) -> Option<u16> {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let (mut answer, mut stream) = stream.into_split();
    let sending = async {
        stream.write_all(abuse.head(path, credentials).as_bytes()).await?;
        stream.write_all(&abuse.piece(&abuse.first)).await?;
        let again = abuse.piece(&abuse.again);
        for _ in 0..abuse.times {
            stream.write_all(&again).await?;
        }
        // None of these has an empty chunk, which would be the end.
        std::future::pending::<std::io::Result<()>>().await
    };
    let reading = async {
        let mut head = Vec::new();
        let mut byte = [0; 1024];
        loop {
            match answer.read(&mut byte).await {
                Ok(0) => break,
                Ok(length) => head.extend(&byte[..length]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                    break;
                }
            }
            if head.windows(4).any(|window| window == b"\r\n\r\n") {
                break;
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        text.split(' ').nth(1).and_then(|status| status.parse().ok())
    };
    // When the server closes, sending ends. Its answer can still be read.
    tokio::pin!(reading);
    tokio::select! {
        status = &mut reading => status,
        sent = sending => {
            drop(sent);
            reading.await
        }
    }
}

/// Memory from `/proc`, in bytes.
fn memory(server: &Server, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(what)).expect("Linux tells it");
    let kibibytes: u64 =
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of kibibytes");
    kibibytes * 1024
}

/// Makes a few calls of each kind first, so that everything that is made only once exists.
async fn warm_up(server: &Server, merchant: &Merchant) {
    let calls = (0..64).map(async |_| {
        let mut client = crate::support::tcp::Client::connect(server.address).await.expect("it listens");
        client.send(merchant.authorize()).await.expect("it answers").tokens();
    });
    join_all(calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_body_of_any_size_or_shape_costs_more_than_a_refusal() {
    let database = Database::fresh(Engine::Sqlite).await;
    let app = TestApp::over(database.clone()).await;
    let merchant = app.merchant().await;
    let operator = Admin::operator(&app).await.token;
    let server = Server::serve(&database);
    warm_up(&server, &merchant).await;
    let before = memory(&server, "VmRSS");

    let doors = [
        ("/api/authorize", format!("x-api-key: {}", merchant.key)),
        ("/api/introspect", format!("x-api-key: {}", merchant.key)),
        ("/api/authorize", "x-api-key: none".to_owned()),
        ("/admin/v1/merchants", format!("authorization: Bearer {operator}")),
        ("/console/sign-in", "origin: http://a".to_owned()),
    ];
    for abuse in abuses() {
        for (path, credentials) in &doors {
            let started = Instant::now();
            let all = join_all((0..AT_ONCE).map(|_| send(server.address, &abuse, path, credentials)));
            let statuses = tokio::time::timeout(LATEST, all).await;
            let what = abuse.what;
            let statuses = statuses.unwrap_or_else(|_| panic!("{what} at {path}: no answer in time"));
            // Some connections may break before their answer is read, but not all of them.
            let answered = statuses.iter().flatten().count();
            assert!(answered > 0, "{what} at {path}: never an answer");
            for status in statuses {
                assert!(
                    status.is_none_or(|status| (400..500).contains(&status)),
                    "{what} at {path}: {status:?}"
                );
            }
            assert!(started.elapsed() < LATEST);
        }
    }
    let grown = memory(&server, "VmHWM").saturating_sub(before);
    assert!(grown < GROWTH_MAX, "grown by {} KiB", grown / 1024);
    warm_up(&server, &merchant).await;
    server.terminate();
    let (status, log) = server.ended_within(Duration::from_secs(30));
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}
