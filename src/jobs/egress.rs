//! The only way out: one HTTP request to a URL that a merchant chose, from inside our network.
//!
//! The name is resolved here, every address it has is checked, and the connection is made to the very
//! address that was checked, so there is no second resolution that could answer otherwise. There is
//! no client library in between that could follow a redirect, take a proxy from the environment or
//! reuse a connection to somewhere else: a redirect is just an answer that is not 2xx.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::domain::delivery::{ANSWER_MAX, Answer, Received, SendError};
use crate::domain::destination::{Destination, DestinationRules, WebhookUrl};
use crate::domain::webhook::SignedMessage;

/// Name resolution, connection, sending and the head of the answer, all together.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// One address of a host; another may answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// The body of an answer that has its status already: it is only for the log.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 3;

/// Bytes of the head of an answer.
const HEAD_MAX: usize = 16 * 1024;

const AGENT: &str = concat!("Tollgate/", env!("CARGO_PKG_VERSION"));

/// Sends webhooks.
pub struct Egress {
    rules: DestinationRules,
    tls: TlsConnector,
    timeout: Duration,
}

impl Egress {
    /// Trusts the certificate authorities that Mozilla does.
    #[must_use]
    pub fn new(rules: DestinationRules) -> Self {
        Self::trusting(rules, [])
    }

    /// Trusts `authorities` besides. One that is no certificate is left out.
    #[must_use]
    pub fn trusting(
        rules: DestinationRules,
        authorities: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Self {
        let tls = TlsConnector::from(Arc::new(client_tls(authorities)));
        Self { rules, tls, timeout: ATTEMPT_TIMEOUT }
    }

    /// Gives an attempt another time than the usual.
    #[must_use]
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
        if !message.url.is_https() && !self.rules.allow_http {
            return Err(SendError::UrlNotAllowed);
        }
        let stream = self.connect(&message.url).await?;
        if !message.url.is_https() {
            return exchange(stream, message).await;
        }
        let name = match message.url.host() {
            Destination::Name(name) => {
                ServerName::try_from(name.to_owned()).map_err(|_| SendError::UrlNotAllowed)?
            }
            Destination::Address(ip) => ServerName::IpAddress(ip.into()),
        };
        let stream = self.tls.connect(name, stream).await.map_err(|_| SendError::TlsFailed)?;
        exchange(stream, message).await
    }

    /// Connects to an address of the host that was checked, and to no other.
    async fn connect(&self, url: &WebhookUrl) -> Result<TcpStream, SendError> {
        let addresses = resolve(url).await?;
        // One bad address among good ones is a name that somebody plays with: none of them is used.
        if addresses.iter().any(|ip| !self.rules.admit(*ip)) {
            return Err(SendError::AddressNotAllowed);
        }
        let mut failure = SendError::NameNotResolved;
        for ip in addresses.into_iter().take(ADDRESSES_MAX) {
            let address = SocketAddr::new(ip, url.port());
            failure = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    SendError::ConnectionRefused
                }
                Ok(Err(_)) => SendError::ConnectFailed,
                Err(_) => SendError::TimedOut,
            };
        }
        Err(failure)
    }
}

/// TLS towards others: trusts the certificate authorities that Mozilla does, and `authorities` besides.
pub fn client_tls(authorities: impl IntoIterator<Item = CertificateDer<'static>>) -> ClientConfig {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.add_parsable_certificates(authorities);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the ring provider knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn resolve(url: &WebhookUrl) -> Result<Vec<IpAddr>, SendError> {
    match url.host() {
        Destination::Address(ip) => Ok(vec![ip]),
        Destination::Name(name) => {
            let found = tokio::net::lookup_host((name, url.port())).await;
            let found = found.map_err(|_| SendError::NameNotResolved)?;
            Ok(found.map(|address| address.ip()).collect())
        }
    }
}

/// One request and its answer over a connection of its own.
async fn exchange<S>(stream: S, message: SignedMessage) -> Result<Received, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let lost = |error: hyper::Error| {
        if error.is_parse() { SendError::AnswerMalformed } else { SendError::ConnectionLost }
    };
    let request = request(message).ok_or(SendError::UrlNotAllowed)?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(lost)?;
    // Dropped with this attempt, however it ends: the connection goes with it.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = sender.send_request(request).await.map_err(lost)?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.map(str::to_owned);
    let text = beginning(response).await;
    Ok(Received { status, retry_after, text })
}

/// `None` when a part of the message cannot be written as HTTP, which its types rule out.
fn request(message: SignedMessage) -> Option<Request<Full<Bytes>>> {
    Request::post(message.url.request_target())
        .header(HOST, message.url.authority())
        .header(USER_AGENT, AGENT)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(CONNECTION, HeaderValue::from_static("close"))
        .header("webhook-id", message.id)
        .header("webhook-timestamp", message.timestamp_secs)
        .header("webhook-signature", message.signature)
        .body(Full::new(Bytes::from(message.body)))
        .ok()
}

/// The first bytes of the body as text that both engines store. The status is known by now, so a body
/// that is slow or breaks off changes nothing.
async fn beginning(response: Response<Incoming>) -> String {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    let read = async {
        while bytes.len() < ANSWER_MAX {
            let Some(Ok(frame)) = body.frame().await else { break };
            if let Some(data) = frame.data_ref() {
                bytes.extend_from_slice(data);
            }
        }
    };
    let _ = timeout(BODY_TIMEOUT, read).await;
    bytes.truncate(ANSWER_MAX);
    // A character that the cut went through is left out.
    if let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
    String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}")
}
