//! Sends one HTTP request to a URL that a merchant chose. No other code calls such URLs.
//!
//! We run inside the platform's network, so the merchant must not be able to reach internal addresses
//! through us. We resolve the name, check every address it has, and connect to an address that we checked.
//! There is no second resolution that could give another answer. Redirects are not followed: they count as
//! failures, like any answer that is not 2xx. Each webhook has its own connection.
//!
//! With `[webhooks] proxy` set, the proxy connects and resolves the name itself. If we can resolve the name
//! too, we still check its addresses before we ask the proxy.

mod answer;
mod names;
mod proxy;
mod race;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use self::names::Names;
use self::proxy::authorization;
use crate::client_tls::{client_tls, handshake_fault};
use crate::config::ProxyUrl;
use crate::domain::delivery::{Answer, Received, SendError};
use crate::domain::destination::{Destination, DestinationRules, WebhookUrl};
use crate::domain::webhook::SignedMessage;

/// The time for a whole attempt: name resolution, connection, sending and the head of the answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

const AGENT: &str = concat!("Tollgate/", env!("CARGO_PKG_VERSION"));

pub struct Egress {
    rules: DestinationRules,
    tls: TlsConnector,
    names: Names,
    proxy: Option<ProxyUrl>,
    timeout: Duration,
}

impl Egress {
    /// Trusts the certificate authorities that Mozilla trusts.
    pub fn new(rules: DestinationRules) -> Self {
        Self::trusting(rules, [])
    }

    /// Trusts `authorities` as well. An entry that is not a valid certificate is ignored.
    pub fn trusting(
        rules: DestinationRules,
        authorities: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Self {
        let tls = TlsConnector::from(Arc::new(client_tls(authorities)));
        Self { rules, tls, names: Names::default(), proxy: None, timeout: ATTEMPT_TIMEOUT }
    }

    /// Sets the proxy, if there is one.
    pub fn through(self, proxy: Option<ProxyUrl>) -> Self {
        Self { proxy, ..self }
    }

    /// Sets the time for an attempt.
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Makes one attempt. A failure is also an answer.
    pub async fn send(&self, message: SignedMessage) -> Answer {
        let started = Instant::now();
        let result = timeout(self.timeout, self.attempt(message)).await;
        let result = result.unwrap_or(Err(SendError::TimedOut));
        let latency_us = i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX);
        Answer { result, latency_us }
    }

    async fn attempt(&self, message: SignedMessage) -> Result<Received, SendError> {
        let url = &message.url;
        if !url.is_https() && !self.rules.allow_http {
            return Err(SendError::UrlNotAllowed);
        }
        let mut stream = match &self.proxy {
            None => race::connect(self.destination(url).await?).await?,
            Some(proxy) => self.reach(proxy, url).await?,
        };
        if url.is_https() {
            let name = server_name(url).ok_or(SendError::UrlNotAllowed)?;
            let stream = self.tls.connect(name, stream).await;
            let stream = stream.map_err(|error| handshake_fault(&error).unwrap_or(SendError::TlsFailed))?;
            return exchange(stream, &request(&message, url.request_target(), "")).await;
        }
        match &self.proxy {
            None => exchange(&mut stream, &request(&message, url.request_target(), "")).await,
            // The absolute form, which asks a proxy to forward the request (RFC 9112 3.2.2).
            Some(proxy) => {
                exchange(&mut stream, &request(&message, url.as_str(), &authorization(proxy))).await
            }
        }
    }

    /// The addresses of the URL's host, if we may connect to all of them.
    async fn destination(&self, url: &WebhookUrl) -> Result<Vec<SocketAddr>, SendError> {
        let addresses = match url.host() {
            Destination::Address(ip) => vec![ip],
            Destination::Name(name) => self.names.resolve(name).await?,
        };
        // A name with both good and bad addresses looks like an attack, so we use none of them.
        if addresses.iter().any(|ip| !self.rules.admit(*ip)) {
            return Err(SendError::AddressNotAllowed);
        }
        Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, url.port())).collect())
    }

    /// A connection to the proxy. For https it is a tunnel to the receiver.
    async fn reach(&self, proxy: &ProxyUrl, url: &WebhookUrl) -> Result<TcpStream, SendError> {
        match self.destination(url).await {
            // In a network that needs a proxy, names from the internet often cannot be resolved.
            Ok(_) | Err(SendError::NameNotResolved) => {}
            Err(error) => return Err(error),
        }
        let addresses = match proxy.host().parse() {
            Ok(ip) => vec![ip],
            Err(_) => self.names.resolve(proxy.host()).await.map_err(|_| SendError::ProxyUnreachable)?,
        };
        let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, proxy.port())).collect();
        let mut stream = race::connect(addresses).await.map_err(|_| SendError::ProxyUnreachable)?;
        if url.is_https() {
            proxy::open_tunnel(&mut stream, proxy, url).await?;
        }
        Ok(stream)
    }
}

/// The name that must be in the receiver's certificate.
fn server_name(url: &WebhookUrl) -> Option<ServerName<'static>> {
    match url.host() {
        Destination::Name(name) => ServerName::try_from(name.to_owned()).ok(),
        Destination::Address(ip) => Some(ServerName::IpAddress(ip.into())),
    }
}

/// Sends one request and reads its answer.
async fn exchange<S>(stream: S, request: &[u8]) -> Result<Received, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (read, mut write) = tokio::io::split(stream);
    let send = async {
        // A receiver may answer and close before it has read everything. The answer still counts.
        if write.write_all(request).await.is_ok() {
            let _ = write.flush().await;
        }
        std::future::pending().await
    };
    tokio::select! {
        received = answer::read(read) => received,
        never = send => never,
    }
}

/// Writes the request. `proxy_headers` are complete header lines, each with its line end.
fn request(message: &SignedMessage, target: &str, proxy_headers: &str) -> Vec<u8> {
    let mut head = format!("POST {target} HTTP/1.1\r\nhost: {}\r\n{proxy_headers}", message.url.authority());
    let _ = write!(
        head,
        "user-agent: {AGENT}\r\naccept: */*\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\nwebhook-id: {}\r\nwebhook-timestamp: {}\r\nwebhook-signature: {}\r\n\r\n",
        message.body.len(),
        message.id,
        message.timestamp_secs,
        message.signature,
    );
    [head.as_bytes(), message.body.as_bytes()].concat()
}
