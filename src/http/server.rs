//! The listener: accepts a limited number of connections, applies time-outs, and stops gracefully.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::connection::{self, Activity};
use super::context::Peer;
use super::front::Front;
use super::head::{FIELDS_MAX, HEAD_BYTES_MAX};
use super::places::Places;
use super::proxy_protocol::{self, MissingHeaders};
use super::refusal::Refuser;
use super::stream::Stream;
use super::tls::Tls;
use super::unfinished::{SILENT_BYTES, TLS_BYTES, Unfinished};
use crate::domain::address::{canonical, network_of};

/// How long to wait after `accept` failed, for example because there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The most concurrent requests on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 256;

/// hyper refuses a larger head by itself, without a body. This is larger than [`HEAD_BYTES_MAX`], so that our
/// own check comes first and can send a proper error. HTTP/2 also counts 32 extra bytes for each field.
const HTTP2_HEAD_BYTES_MAX: u32 = 64 * 1024;

/// How much a client may send before we read it, which is also how much we may have to buffer: several bodies
/// of clients for a connection, and one for each stream. A service's body may be larger. Its rest is sent once we have
/// read the start.
const HTTP2_CONNECTION_WINDOW: u32 = 256 * 1024;
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;

#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// The most open connections. Further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// The most open connections of one address (or IPv6 /64). Zero means no limit. Trusted proxies have no
    /// limit.
    pub connections_per_address_max: u32,
    /// The most memory of all unfinished requests together.
    pub unfinished_bytes_max: usize,
    /// How long each of these may take: a PROXY header, a TLS handshake, the head of a request.
    pub header_timeout: Duration,
    /// How long a connection may be idle after it has had a request.
    pub idle_timeout: Duration,
    /// How long connections may take to finish after a stop.
    pub shutdown_grace: Duration,
}

/// The settings below HTTP.
#[derive(Clone, Default)]
pub struct Transport {
    pub tls: Option<Arc<Tls>>,
    /// These peers must begin each connection with a PROXY header. All others must not.
    pub proxy_protocol_from: Arc<[IpNet]>,
    /// Connections of these peers are not counted by address, because many clients come through them.
    pub trusted_proxies: Arc<[IpNet]>,
}

/// Shared by all tasks of one listener.
struct Listener {
    front: Front,
    limits: ListenerLimits,
    transport: Transport,
    builder: auto::Builder<TokioExecutor>,
    places: Places,
    unfinished: Arc<Unfinished>,
    stop: watch::Receiver<bool>,
    missing_headers: MissingHeaders,
}

/// Serves until `stop` resolves. Then lets open requests finish within the grace period.
pub async fn serve(
    listener: TcpListener,
    front: Front,
    limits: ListenerLimits,
    transport: Transport,
    stop: impl Future<Output = ()>,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // [`Stream`] checks the time for a head, because it can tell an idle connection from a slow one.
    builder.http1().header_read_timeout(None).max_buf_size(HEAD_BYTES_MAX).max_headers(FIELDS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HTTP2_HEAD_BYTES_MAX)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW);
    let (stopping, stopped) = watch::channel(false);
    let shared = Arc::new(Listener {
        front,
        limits,
        transport,
        builder,
        places: Places::new(limits.connections_per_address_max),
        unfinished: Unfinished::new(limits.unfinished_bytes_max),
        stop: stopped,
        missing_headers: MissingHeaders::default(),
    });
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
                // An answer is one small write. Waiting to fill a packet would only add latency.
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
        // An error means that the listener is gone, so this task should stop too.
        drop(self.stop.clone().wait_for(|is_stopping| *is_stopping).await);
    }

    /// Serves a connection. Errors of the connection are not logged: each request has its own log line.
    async fn connection(&self, mut stream: TcpStream, peer: SocketAddr) {
        let peer = canonical(peer.ip());
        let client = if self.transport.proxy_protocol_from.iter().any(|net| net.contains(&peer)) {
            let Some(client) = self.in_time(None, SILENT_BYTES, self.named(&mut stream, peer)).await else {
                return;
            };
            client
        } else {
            Peer::client(peer)
        };
        let is_proxy = self.transport.trusted_proxies.iter().any(|net| net.contains(&client.ip));
        let network = (!is_proxy).then(|| network_of(client.ip));
        let place = if is_proxy { None } else { Some(self.places.take(client.ip)) };
        if let Some(None) = place {
            return;
        }
        match &self.transport.tls {
            None => self.http(stream, client, network, SILENT_BYTES).await,
            Some(tls) => {
                if let Some(stream) = self.in_time(network, TLS_BYTES, tls.acceptor().accept(stream)).await {
                    self.http(stream, client, network, SILENT_BYTES + TLS_BYTES).await;
                }
            }
        }
    }

    /// Runs a step before HTTP. `None` if it fails, takes longer than the header time-out, its memory is
    /// needed, or the listener stops.
    async fn in_time<T>(
        &self,
        network: Option<IpAddr>,
        bytes: usize,
        step: impl Future<Output = std::io::Result<T>>,
    ) -> Option<T> {
        tokio::select! {
            done = tokio::time::timeout(self.limits.header_timeout, step) => match done {
                Ok(Ok(done)) => Some(done),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a connection ended before HTTP");
                    None
                }
                Err(_) => None,
            },
            () = self.unfinished.waits_of(network).begin(bytes) => None,
            () = self.stopped() => None,
        }
    }

    /// The client that a proxy names in its PROXY header, or the proxy itself.
    async fn named(&self, stream: &mut TcpStream, peer: IpAddr) -> std::io::Result<Peer> {
        let said =
            proxy_protocol::read(stream).await.inspect_err(|error| self.missing_headers.note(error, peer))?;
        Ok(said.map_or(Peer::proxy(peer), |client| Peer::client(canonical(client))))
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        client: Peer,
        network: Option<IpAddr>,
        own_bytes: usize,
    ) {
        let ListenerLimits { header_timeout, idle_timeout, .. } = self.limits;
        // Only a trusted proxy counts for no network.
        let silence_timeout = if network.is_none() { idle_timeout } else { header_timeout };
        let activity = Arc::new(Activity::default());
        let waits = self.unfinished.waits_of(network);
        let service = connection::service(self.front.clone(), client, Arc::clone(&activity), waits.clone());
        let refuser = Refuser { front: self.front.clone(), client };
        let stream = Stream::new(
            stream,
            Arc::clone(&activity),
            refuser,
            header_timeout,
            silence_timeout,
            waits,
            own_bytes,
        );
        let stream = TokioIo::new(stream);
        let mut connection = pin!(self.builder.serve_connection(stream, service));
        tokio::select! {
            // Nearly every wake is for the connection.
            biased;
            _ = connection.as_mut() => return,
            () = activity.idle_for(idle_timeout) => {
                connection.as_mut().graceful_shutdown();
                // There is no open request, so we only wait for the client to close.
                let _ = tokio::time::timeout(header_timeout, connection).await;
                return;
            }
            () = self.stopped() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}
