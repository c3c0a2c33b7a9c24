//! A cheap client: prepared requests over keep-alive connections, with one task for each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use crate::Operation;
use crate::bare::Bare;
use crate::server::{Caller, Server};

/// The length of a token.
const TOKEN_CHARS: usize = 60;

/// How many sessions of each caller are introspected again and again.
const SESSIONS: usize = 256;

/// How many sessions each connection refreshes in turn, so that not all connections update the same page.
const REFRESHED: usize = 64;

/// One round of calls.
pub(crate) struct Round {
    pub(crate) calls: usize,
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

pub(crate) struct Client<'a> {
    server: &'a Server,
    bare: &'a Bare,
    runtime: Runtime,
}

type Token = [u8; TOKEN_CHARS];

impl<'a> Client<'a> {
    pub(crate) fn new(server: &'a Server, bare: &'a Bare) -> Self {
        // One thread, so that an answer does not wake a thread on the other core.
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime needs a thread");
        Self { server, bare, runtime }
    }

    pub(crate) fn connect(&self, operation: Operation, connections: usize) -> Load<'_> {
        let sessions = match operation {
            Operation::Introspect | Operation::Verify => self.sessions(),
            Operation::Bare | Operation::Issue | Operation::Refresh => Vec::new(),
        };
        let connections =
            (0..connections).map(|number| self.connection(operation, number, &sessions)).collect();
        Load { runtime: &self.runtime, connections, operation }
    }

    /// New sessions of each caller, to be asked about: earlier ones may be more than a client may have by
    /// now, and swept away.
    fn sessions(&self) -> Vec<Vec<[Token; 2]>> {
        let mut load = self.connect(Operation::Issue, self.server.callers.len());
        while load.connections.iter().any(|connection| connection.issued.len() < SESSIONS) {
            load.run(Duration::from_millis(100));
        }
        load.connections.into_iter().map(|connection| connection.issued).collect()
    }

    fn connection(&self, operation: Operation, number: usize, sessions: &[Vec<[Token; 2]>]) -> Connection {
        let address = match operation {
            Operation::Bare => self.bare.address,
            _ => self.server.address,
        };
        let stream = self.runtime.block_on(TcpStream::connect(address));
        let stream = stream.expect("the server accepts connections");
        stream.set_nodelay(true).expect("a socket that is open");
        let tokens: Vec<Token> = match operation {
            Operation::Bare | Operation::Issue => Vec::new(),
            Operation::Refresh => self.fresh_refresh_tokens(number),
            // Spread the calls over the sessions of the caller.
            _ => {
                let sessions = &sessions[number % sessions.len()];
                (0..SESSIONS).map(|turn| sessions[(number + turn * 7) % SESSIONS][0]).collect()
            }
        };
        let request = Request::new(operation, address, self.server.caller(number));
        Connection::new(stream, request, tokens)
    }

    /// Refresh tokens of new sessions. The introspected sessions are not refreshed.
    fn fresh_refresh_tokens(&self, number: usize) -> Vec<Token> {
        let mut connection = self.connection(Operation::Issue, number, &[]);
        self.runtime.block_on(async {
            for _ in 0..REFRESHED {
                connection.call(Operation::Issue).await;
            }
        });
        connection.issued.iter().map(|[_, refresh]| *refresh).collect()
    }
}

/// Open connections that wait for the next round.
pub(crate) struct Load<'a> {
    runtime: &'a Runtime,
    connections: Vec<Connection>,
    operation: Operation,
}

impl Load<'_> {
    /// Makes calls on every connection, one after the other, for this long.
    pub(crate) fn run(&mut self, time: Duration) -> Round {
        let operation = self.operation;
        let started = Instant::now();
        let tasks: Vec<_> = self
            .connections
            .drain(..)
            .map(|mut connection| {
                self.runtime.spawn(async move {
                    while started.elapsed() < time {
                        connection.call(operation).await;
                    }
                    connection
                })
            })
            .collect();
        self.connections = self.runtime.block_on(async {
            let mut connections = Vec::with_capacity(tasks.len());
            for task in tasks {
                connections.push(task.await.expect("a call that is answered does not panic"));
            }
            connections
        });
        let elapsed = started.elapsed();
        let mut latencies: Vec<Duration> =
            self.connections.iter_mut().flat_map(|connection| connection.latencies.drain(..)).collect();
        latencies.sort_unstable();
        let at = |hundredths: usize| {
            latencies
                .get(latencies.len() * hundredths / 100)
                .map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
        };
        Round {
            calls: latencies.len(),
            rate: latencies.len() as f64 / elapsed.as_secs_f64(),
            p50_ms: at(50),
            p99_ms: at(99),
        }
    }
}

/// A prepared request with a place for a token.
struct Request {
    bytes: Vec<u8>,
    token_at: Option<usize>,
}

impl Request {
    fn new(operation: Operation, host: SocketAddr, caller: &Caller) -> Self {
        let placeholder = "T".repeat(TOKEN_CHARS);
        let client = format!("client_id={}&client_secret={}", caller.client_id, caller.client_secret);
        let (line, header, body) = match operation {
            Operation::Bare | Operation::Issue => ("POST /api/authorize", String::new(), client),
            Operation::Refresh => {
                ("POST /api/refresh_token", String::new(), format!("{client}&refresh_token={placeholder}"))
            }
            Operation::Introspect => {
                ("POST /api/introspect", String::new(), format!("{client}&token={placeholder}"))
            }
            Operation::Verify => {
                ("GET /api/verify", format!("access-token: {placeholder}\r\n"), String::new())
            }
        };
        let body_headers = match body.len() {
            0 => String::new(),
            length => {
                format!("content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n")
            }
        };
        let key = &caller.key;
        let text = format!(
            "{line} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\n{header}{body_headers}\r\n{body}"
        );
        Self { token_at: text.find(&placeholder), bytes: text.into_bytes() }
    }

    fn put(&mut self, token: &Token) {
        if let Some(at) = self.token_at {
            self.bytes[at..at + TOKEN_CHARS].copy_from_slice(token);
        }
    }
}

struct Connection {
    stream: TcpStream,
    request: Request,
    tokens: Vec<Token>,
    turn: usize,
    answer: Vec<u8>,
    latencies: Vec<Duration>,
    /// The first sessions that it was given.
    issued: Vec<[Token; 2]>,
}

impl Connection {
    fn new(stream: TcpStream, request: Request, tokens: Vec<Token>) -> Self {
        Self {
            stream,
            request,
            tokens,
            turn: 0,
            answer: Vec::with_capacity(4096),
            latencies: Vec::new(),
            issued: Vec::new(),
        }
    }

    async fn call(&mut self, operation: Operation) {
        if !self.tokens.is_empty() {
            self.turn = (self.turn + 1) % self.tokens.len();
            self.request.put(&self.tokens[self.turn]);
        }
        let started = Instant::now();
        self.stream.write_all(&self.request.bytes).await.expect("the server reads");
        let body_at = self.read_answer().await;
        self.latencies.push(started.elapsed());
        let text = || String::from_utf8_lossy(&self.answer);
        assert!(self.answer.starts_with(b"HTTP/1.1 200 "), "{operation:?}: {}", text());
        let body = &self.answer[body_at..];
        match operation {
            Operation::Issue if self.issued.len() < SESSIONS => {
                self.issued.push(["access_token", "refresh_token"].map(|name| token_in(body, name)));
            }
            Operation::Refresh => self.tokens[self.turn] = token_in(body, "refresh_token"),
            Operation::Introspect => assert!(body.starts_with(b"{\"active\":true"), "{}", text()),
            Operation::Bare | Operation::Issue | Operation::Verify => {}
        }
    }

    /// Reads one complete answer, and returns where its body begins.
    async fn read_answer(&mut self) -> usize {
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await.expect("the server answers");
            assert!(read > 0, "the server closed a connection");
            let Some(end) = find(&self.answer, b"\r\n\r\n") else { continue };
            let (head, body_at) = (&self.answer[..end], end + 4);
            let name = b"content-length: ";
            let length = find(head, name).map_or(0, |at| {
                let digits = head[at + name.len()..].iter().take_while(|byte| byte.is_ascii_digit());
                digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
            });
            if self.answer.len() >= body_at + length {
                return body_at;
            }
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The token in the field `name` of a JSON body.
fn token_in(body: &[u8], name: &str) -> Token {
    let start = format!("\"{name}\":\"");
    let at = find(body, start.as_bytes()).expect("a pair of tokens") + start.len();
    body[at..at + TOKEN_CHARS].try_into().expect("as long as a token")
}
