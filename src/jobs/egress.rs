//! The only way out: one HTTP request to a URL that a merchant chose, from inside our network.
//!
//! The name is resolved here, every address it has is checked, and the connection is made to the very
//! address that was checked, so there is no second resolution that could answer otherwise. A redirect is
//! just an answer that is not 2xx, and each webhook has a connection of its own.
//!
//! With `[webhooks] proxy` set, the proxy makes the connection, so it resolves the name as well. What can
//! be looked up here is held to the same rules before the proxy is asked.

mod answer;
mod names;
mod proxy;
mod race;
mod tls;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use self::names::Names;
use self::proxy::authorization;
use crate::config::ProxyUrl;
use crate::domain::delivery::{Answer, Received, SendError};
use crate::domain::destination::{Destination, DestinationRules, WebhookUrl};
use crate::domain::webhook::SignedMessage;

/// Name resolution, connection, sending and the head of the answer, all together.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

const AGENT: &str = concat!("Tollgate/", env!("CARGO_PKG_VERSION"));

/// Sends webhooks.
pub struct Egress {
    rules: DestinationRules,
    tls: TlsConnector,
    names: Names,
    proxy: Option<ProxyUrl>,
    timeout: Duration,
}

impl Egress {
    /// Trusts the certificate authorities that Mozilla does.
    pub fn new(rules: DestinationRules) -> Self {
        Self::trusting(rules, [])
    }

    /// Trusts `authorities` besides. One that is no certificate is left out.
    pub fn trusting(
        rules: DestinationRules,
        authorities: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Self {
        let tls = TlsConnector::from(Arc::new(client_tls(authorities)));
        Self { rules, tls, names: Names::default(), proxy: None, timeout: ATTEMPT_TIMEOUT }
    }

    /// Goes through a proxy, where one is given.
    pub fn through(self, proxy: Option<ProxyUrl>) -> Self {
        Self { proxy, ..self }
    }

    /// Gives an attempt another time than the usual.
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Makes one attempt. Whatever happens is an answer.
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
            let name = tls::server_name(url).ok_or(SendError::UrlNotAllowed)?;
            let stream = self.tls.connect(name, stream).await.map_err(|error| tls::reason(&error))?;
            return exchange(stream, &request(&message, url.request_target(), "")).await;
        }
        match &self.proxy {
            None => exchange(&mut stream, &request(&message, url.request_target(), "")).await,
            // The form that asks a proxy to pass a request on (RFC 9112 3.2.2).
            Some(proxy) => {
                exchange(&mut stream, &request(&message, url.as_str(), &authorization(proxy))).await
            }
        }
    }

    /// The addresses of the URL's host, each of which may be connected to.
    async fn destination(&self, url: &WebhookUrl) -> Result<Vec<SocketAddr>, SendError> {
        let addresses = match url.host() {
            Destination::Address(ip) => vec![ip],
            Destination::Name(name) => self.names.resolve(name).await?,
        };
        // One bad address among good ones is a name that somebody plays with: none of them is used.
        if addresses.iter().any(|ip| !self.rules.admit(*ip)) {
            return Err(SendError::AddressNotAllowed);
        }
        Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, url.port())).collect())
    }

    /// A connection to the proxy, and for https through it to the receiver.
    async fn reach(&self, proxy: &ProxyUrl, url: &WebhookUrl) -> Result<TcpStream, SendError> {
        match self.destination(url).await {
            // Where a proxy is needed, names of the internet are often not known inside.
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

/// TLS towards others: trusts the certificate authorities that Mozilla does, and `authorities` besides.
pub fn client_tls(authorities: impl IntoIterator<Item = CertificateDer<'static>>) -> ClientConfig {
    tls::client(authorities)
}

/// One request and its answer over a connection of its own.
async fn exchange<S>(stream: S, request: &[u8]) -> Result<Received, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (read, mut write) = tokio::io::split(stream);
    let send = async {
        // A receiver may answer before it has read everything, and close: then the answer counts.
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

/// `proxy_headers` are lines of their own, each with its end.
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
