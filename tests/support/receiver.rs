//! A webhook receiver on 127.0.0.1. It stores the webhooks, and answers as the test says.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How a receiver answers.
#[derive(Clone, Debug)]
pub(crate) enum Answering {
    Status(u16),
    With {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    },
    /// Reset the connection.
    Reset,
    /// Do not answer until the test sets another answer.
    Hang,
}

/// One request as it was received.
#[derive(Clone, Debug)]
pub(crate) struct Hook {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Hook {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        value.to_str().expect("a webhook's headers are text")
    }

    #[track_caller]
    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    #[track_caller]
    pub(crate) fn timestamp(&self) -> i64 {
        self.header("webhook-timestamp").parse().expect("the timestamp is a number")
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    #[track_caller]
    pub(crate) fn event_type(&self) -> String {
        self.json()["type"].as_str().expect("every event has a type").to_owned()
    }

    /// Whether one of its signatures matches the one that an independent library makes with `secret`.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let library = Webhook::new(secret).expect("the library takes the secret");
        let expected = library.sign(self.id(), self.timestamp(), &self.body).expect("the body is text");
        self.header("webhook-signature").split(' ').any(|signature| signature == expected)
    }
}

struct State {
    answering: watch::Sender<Answering>,
    received: watch::Sender<Vec<Hook>>,
    connections: AtomicUsize,
}

/// A receiver that listens until it is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address that refuses connections until the receiver is opened.
pub(crate) struct Closed {
    pub(crate) address: SocketAddr,
    socket: TcpSocket,
}

impl Closed {
    pub(crate) fn new() -> Self {
        let bound = || -> io::Result<_> {
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
            Ok((socket.local_addr()?, socket))
        };
        let (address, socket) = bound().expect("the system has a free port");
        Self { address, socket }
    }

    pub(crate) fn open(self) -> Receiver {
        let listener = self.socket.listen(64).expect("the socket is bound");
        Receiver::on(listener, self.address)
    }
}

impl Receiver {
    /// A receiver that answers 204.
    pub(crate) fn open() -> Self {
        Closed::new().open()
    }

    fn on(listener: TcpListener, address: SocketAddr) -> Self {
        let state = Arc::new(State {
            answering: watch::Sender::new(Answering::Status(204)),
            received: watch::Sender::new(Vec::new()),
            connections: AtomicUsize::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state))).abort_handle();
        Self { address, state, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?till=1", self.address)
    }

    /// Sets the answer for later requests, and for those that hang.
    pub(crate) fn answer(&self, answering: Answering) {
        self.state.answering.send_replace(answering);
    }

    /// Everything received so far, in order.
    pub(crate) fn received(&self) -> Vec<Hook> {
        self.state.received.borrow().clone()
    }

    /// Everything received since the last call.
    pub(crate) fn take(&self) -> Vec<Hook> {
        self.state.received.send_replace(Vec::new())
    }

    /// Waits until this many have been received.
    pub(crate) async fn until_received(&self, count: usize) -> Vec<Hook> {
        let mut received = self.state.received.subscribe();
        let reached = received.wait_for(|hooks| hooks.len() >= count);
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .expect("webhooks arrive")
            .expect("the receiver is there")
            .clone()
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(|request| answer(request, Arc::clone(&state)));
    // This is an error if the test asked for a reset.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> io::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let hook = Hook { path, headers: parts.headers, body };
    state.received.send_modify(|hooks| hooks.push(hook));
    let mut answering = state.answering.subscribe();
    let answering = answering.wait_for(|answering| !matches!(answering, Answering::Hang)).await;
    let answering = answering.map_err(io::Error::other)?.clone();
    let (status, headers, body) = match answering {
        Answering::Status(status) => (status, Vec::new(), Bytes::new()),
        Answering::With { status, headers, body } => (status, headers, body),
        Answering::Reset | Answering::Hang => return Err(io::ErrorKind::ConnectionReset.into()),
    };
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Full::new(body)).map_err(io::Error::other)
}
