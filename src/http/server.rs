//! The listener: accepts connections within a cap, with time-outs, and stops gracefully.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::context::Peer;
use super::preface::Preface;
use super::proxy_protocol::{self, MissingHeaders};
use super::tls::Tls;
use crate::domain::address::canonical;

/// How long to wait after `accept` failed, for want of file descriptors say, before trying again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Requests that one HTTP/2 connection may have under way.
const HTTP2_STREAMS_MAX: u32 = 256;

/// What a listener allows.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// Connections open at a time; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// How long a PROXY header, a TLS handshake and a request's head may each take to arrive, and how
    /// long a connection may be without a request.
    pub header_timeout: Duration,
    /// How long connections may go on after the stop.
    pub shutdown_grace: Duration,
}

/// What connections speak below HTTP.
#[derive(Clone, Default)]
pub struct Transport {
    pub tls: Option<Arc<Tls>>,
    /// Peers that begin each connection with a PROXY header; all others must not.
    pub proxy_protocol_from: Arc<[IpNet]>,
}

/// What the tasks of one listener share.
struct Listener {
    router: Router,
    limits: ListenerLimits,
    transport: Transport,
    builder: auto::Builder<TokioExecutor>,
    stop: watch::Receiver<bool>,
    missing_headers: MissingHeaders,
}

/// Serves until `stop` resolves, then lets requests under way finish within the grace period.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ListenerLimits,
    transport: Transport,
    stop: impl Future<Output = ()>,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(HTTP2_STREAMS_MAX);
    let (stopping, stopped) = watch::channel(false);
    let missing_headers = MissingHeaders::default();
    let shared = Arc::new(Listener { router, limits, transport, builder, stop: stopped, missing_headers });
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let tasks = TaskTracker::new();
    let mut stop = pin!(stop);
    loop {
        let (stream, peer, permit) = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = &mut stop => break,
        };
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            shared.connection(stream, peer).await;
            drop(permit);
        });
    }
    drop(listener);
    let _ = stopping.send(true);
    tasks.close();
    if tokio::time::timeout(limits.shutdown_grace, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "connections were still open when the grace period ended");
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit) {
    let permit = Arc::clone(permits).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are one small write; waiting to fill a packet only adds latency.
                let _ = stream.set_nodelay(true);
                return (stream, peer, permit);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Listener {
    /// Returns once the listener is to stop.
    async fn stopped(&self) {
        // An error means that the listener is gone, which is as good.
        drop(self.stop.clone().wait_for(|is_stopping| *is_stopping).await);
    }

    /// From the first byte to the last. What goes wrong here is the client's affair; each request's
    /// own log line says the rest.
    async fn connection(&self, mut stream: TcpStream, peer: SocketAddr) {
        let peer = canonical(peer.ip());
        let Some(client) = self.in_time(self.client(&mut stream, peer)).await else { return };
        match &self.transport.tls {
            None => self.http(stream, client).await,
            Some(tls) => {
                if let Some(stream) = self.in_time(tls.acceptor().accept(stream)).await {
                    self.http(stream, client).await;
                }
            }
        }
    }

    /// Runs a step before HTTP: within the time for headers, and not beyond the stop.
    async fn in_time<T>(&self, step: impl Future<Output = std::io::Result<T>>) -> Option<T> {
        tokio::select! {
            done = tokio::time::timeout(self.limits.header_timeout, step) => match done {
                Ok(Ok(done)) => Some(done),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a connection ended before HTTP");
                    None
                }
                Err(_) => None,
            },
            () = self.stopped() => None,
        }
    }

    /// Whom a connection stands for: what a trusted proxy says, else the peer.
    async fn client(&self, stream: &mut TcpStream, peer: IpAddr) -> std::io::Result<Peer> {
        if !self.transport.proxy_protocol_from.iter().any(|net| net.contains(&peer)) {
            return Ok(Peer::client(peer));
        }
        let said =
            proxy_protocol::read(stream).await.inspect_err(|error| self.missing_headers.note(error, peer))?;
        Ok(said.map_or(Peer::proxy(peer), |client| Peer::client(canonical(client))))
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, client: Peer) {
        let limit = self.limits.header_timeout;
        let activity = Arc::new(Activity::default());
        let service = TowerToHyperService::new(counted(self.router.clone(), client, Arc::clone(&activity)));
        let stream = TokioIo::new(Preface::new(stream, limit));
        let mut connection = pin!(self.builder.serve_connection(stream, service));
        tokio::select! {
            _ = connection.as_mut() => return,
            () = activity.idle_for(limit) => {
                connection.as_mut().graceful_shutdown();
                // It has no request, so there is nothing to wait for but the client's farewell.
                let _ = tokio::time::timeout(limit, connection).await;
                return;
            }
            () = self.stopped() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// The requests of one connection.
#[derive(Default)]
struct Activity {
    begun: AtomicU64,
    under_way: AtomicUsize,
}

impl Activity {
    /// Returns once there has been no request for as long as `limit`, give or take another.
    async fn idle_for(&self, limit: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            tokio::time::sleep(limit).await;
            let is_quiet = self.under_way.load(Ordering::Relaxed) == 0;
            if is_quiet && self.begun.load(Ordering::Relaxed) == begun {
                return;
            }
        }
    }
}

/// A request under way, for as long as this lives.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn new(activity: Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        activity.under_way.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

fn counted(
    router: Router,
    client: Peer,
    activity: Arc<Activity>,
) -> impl tower::Service<
    Request<Incoming>,
    Response = axum::response::Response,
    Error = Infallible,
    Future = impl Future<Output = Result<axum::response::Response, Infallible>> + Send,
> + Clone {
    tower::service_fn(move |request: Request<Incoming>| {
        let under_way = UnderWay::new(Arc::clone(&activity));
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(client);
        let answer = router.clone().oneshot(request);
        async move {
            let answer = answer.await;
            drop(under_way);
            answer
        }
    })
}
