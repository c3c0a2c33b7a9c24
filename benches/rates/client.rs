//! A cheap client: prepared requests over keep-alive connections, with one task for each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use crate::Operation;
use crate::bare::Bare;
use crate::merchants::{self, CLIENT_ID_CHARS, CLIENT_SECRET_CHARS, KEY_CHARS};
use crate::server::Server;

/// The length of a token.
const TOKEN_CHARS: usize = 60;

/// How many sessions are introspected again and again, or one for each merchant if that is more.
const SESSIONS: usize = 4096;

/// Connections that open them.
const OPENERS: usize = 64;

/// How many sessions each connection refreshes in turn, so that not all connections update the same page. More if
/// there are more merchants.
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

/// A session, with the number of its merchant.
#[derive(Clone, Copy)]
pub(crate) struct Session {
    merchant: usize,
    access: Token,
    refresh: Token,
}

impl<'a> Client<'a> {
    pub(crate) fn new(server: &'a Server, bare: &'a Bare) -> Self {
        // One thread, so that an answer does not wake a thread on the other core.
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime needs a thread");
        Self { server, bare, runtime }
    }

    /// The sessions that calls of this operation need. Opening many takes a while, so it comes before [`Client::connect`]:
    /// the server closes connections that are silent.
    pub(crate) fn sessions_for(&self, operation: Operation, merchants: usize) -> Vec<Session> {
        match operation {
            Operation::Introspect | Operation::Verify | Operation::Refresh => self.sessions(merchants),
            Operation::Bare | Operation::Issue => Vec::new(),
        }
    }

    /// Opens connections whose calls are spread over `merchants` in turns. Each has its own part of the sessions.
    pub(crate) fn connect(
        &self,
        operation: Operation,
        connections: usize,
        merchants: usize,
        sessions: &[Session],
    ) -> Load<'_> {
        let max = match operation {
            Operation::Refresh => REFRESHED.max(merchants / connections),
            _ => sessions.len(),
        };
        let connections = (0..connections)
            .map(|number| {
                let own = sessions.iter().skip(number).step_by(connections).take(max).copied().collect();
                self.connection(operation, (number, connections), merchants, own)
            })
            .collect();
        Load { runtime: &self.runtime, connections, operation }
    }

    /// Gives each merchant a turn, so that caches have what they will have.
    pub(crate) fn warm_up(&self, merchants: usize) {
        let mut load = self.connect(Operation::Issue, OPENERS, merchants, &[]);
        let mut calls = 0;
        while calls < merchants {
            calls += load.run(Duration::from_millis(300)).calls;
        }
    }

    /// New sessions, to be asked about: earlier ones may be more than a client may have by now, and swept away.
    fn sessions(&self, merchants: usize) -> Vec<Session> {
        let mut load = self.connect(Operation::Issue, OPENERS, merchants, &[]);
        let wanted = SESSIONS.max(merchants).div_ceil(OPENERS);
        for connection in &mut load.connections {
            connection.issued_max = wanted;
        }
        while load.connections.iter().any(|connection| connection.issued.len() < wanted) {
            load.run(Duration::from_millis(100));
        }
        // In turns over the merchants, as they were opened.
        let turns =
            (0..wanted).flat_map(|turn| load.connections.iter().map(move |opener| opener.issued[turn]));
        turns.collect()
    }

    fn connection(
        &self,
        operation: Operation,
        (number, connections): (usize, usize),
        merchants: usize,
        sessions: Vec<Session>,
    ) -> Connection {
        let address = match operation {
            Operation::Bare => self.bare.address,
            _ => self.server.address,
        };
        let stream = self.runtime.block_on(TcpStream::connect(address));
        let stream = stream.expect("the server accepts connections");
        stream.set_nodelay(true).expect("a socket that is open");
        Connection {
            stream,
            request: Request::new(operation, address),
            merchants,
            merchant: number % merchants,
            connections,
            sessions,
            turn: 0,
            answer: Vec::with_capacity(4096),
            latencies: Vec::new(),
            issued: Vec::new(),
            issued_max: 0,
        }
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

/// A prepared request with places for a merchant's secrets and a token.
struct Request {
    bytes: Vec<u8>,
    key_at: usize,
    client_id_at: Option<usize>,
    client_secret_at: Option<usize>,
    token_at: Option<usize>,
}

impl Request {
    fn new(operation: Operation, host: SocketAddr) -> Self {
        let [key, id, secret, token] =
            [("K", KEY_CHARS), ("I", CLIENT_ID_CHARS), ("S", CLIENT_SECRET_CHARS), ("T", TOKEN_CHARS)]
                .map(|(letter, chars)| letter.repeat(chars));
        let client = format!("client_id={id}&client_secret={secret}");
        let (line, header, body) = match operation {
            Operation::Bare | Operation::Issue => ("POST /api/authorize", String::new(), client),
            Operation::Refresh => {
                ("POST /api/refresh_token", String::new(), format!("{client}&refresh_token={token}"))
            }
            Operation::Introspect => {
                ("POST /api/introspect", String::new(), format!("{client}&token={token}"))
            }
            Operation::Verify => ("GET /api/verify", format!("access-token: {token}\r\n"), String::new()),
        };
        let body_headers = match body.len() {
            0 => String::new(),
            length => {
                format!("content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n")
            }
        };
        let text = format!(
            "{line} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\n{header}{body_headers}\r\n{body}"
        );
        Self {
            key_at: text.find(&key).expect("every call has a key"),
            client_id_at: text.find(&id),
            client_secret_at: text.find(&secret),
            token_at: text.find(&token),
            bytes: text.into_bytes(),
        }
    }

    fn put(&mut self, at: Option<usize>, text: &[u8]) {
        if let Some(at) = at {
            self.bytes[at..at + text.len()].copy_from_slice(text);
        }
    }

    fn put_merchant(&mut self, number: usize) {
        self.put(Some(self.key_at), merchants::key(number).as_bytes());
        self.put(self.client_id_at, merchants::client_id(number).as_bytes());
        self.put(self.client_secret_at, merchants::client_secret(number).as_bytes());
    }
}

struct Connection {
    stream: TcpStream,
    request: Request,
    /// How many merchants take turns, and whose turn it is.
    merchants: usize,
    merchant: usize,
    /// How many connections take turns.
    connections: usize,
    sessions: Vec<Session>,
    turn: usize,
    answer: Vec<u8>,
    latencies: Vec<Duration>,
    /// The first sessions that it was given.
    issued: Vec<Session>,
    issued_max: usize,
}

impl Connection {
    async fn call(&mut self, operation: Operation) {
        let merchant = if self.sessions.is_empty() {
            let next = (self.merchant + self.connections) % self.merchants;
            std::mem::replace(&mut self.merchant, next)
        } else {
            self.turn = (self.turn + 1) % self.sessions.len();
            let session = self.sessions[self.turn];
            let token = if operation == Operation::Refresh { session.refresh } else { session.access };
            self.request.put(self.request.token_at, &token);
            session.merchant
        };
        self.request.put_merchant(merchant);
        let started = Instant::now();
        self.stream.write_all(&self.request.bytes).await.expect("the server reads");
        let body_at = self.read_answer().await;
        self.latencies.push(started.elapsed());
        let text = || String::from_utf8_lossy(&self.answer);
        assert!(self.answer.starts_with(b"HTTP/1.1 200 "), "{operation:?}: {}", text());
        let body = &self.answer[body_at..];
        match operation {
            Operation::Issue if self.issued.len() < self.issued_max => {
                let [access, refresh] = ["access_token", "refresh_token"].map(|name| token_in(body, name));
                self.issued.push(Session { merchant, access, refresh });
            }
            Operation::Refresh => self.sessions[self.turn].refresh = token_in(body, "refresh_token"),
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
