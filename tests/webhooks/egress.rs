//! Sending webhooks: only to allowed addresses, and with limits on time and size.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tollgate::domain::api_key::WebhookFormat;
use tollgate::domain::clock::Timestamp;
use tollgate::domain::delivery::{Received, SendError};
use tollgate::domain::destination::{DestinationRules, WebhookUrl};
use tollgate::domain::entropy::Entropy;
use tollgate::domain::event::WebhookEvent;
use tollgate::domain::ids::{EventId, MerchantId};
use tollgate::domain::webhook::{SignedMessage, WebhookSecret};
use tollgate::jobs::egress::Egress;

use crate::support::receiver::{Answering, Closed, Receiver};

const OPEN: DestinationRules = DestinationRules { allow_private_networks: true, allow_http: true };
const PUBLIC: DestinationRules = DestinationRules { allow_private_networks: false, allow_http: true };

/// A message to a URL of which only the form was checked.
fn message(url: &str) -> SignedMessage {
    let now = Timestamp::from_unix_secs(1_795_453_557);
    let event = WebhookEvent {
        id: EventId::generate(now, &Entropy::System),
        merchant_id: MerchantId::generate(now, &Entropy::System),
        event_type: "ping".to_owned(),
        data: serde_json::json!({}).into(),
        idempotency_key: None,
        created_at: now,
    };
    let url = WebhookUrl::parse(url, OPEN).expect("the test gives a URL");
    let secrets = [WebhookSecret::generate(&Entropy::System)];
    SignedMessage::new(url, &event, WebhookFormat::SingleJson, &secrets, now.unix_secs())
}

async fn send(egress: &Egress, url: &str) -> Result<Received, SendError> {
    egress.send(message(url)).await.result
}

#[tokio::test]
async fn no_connection_is_made_to_this_machine_or_a_private_network_however_it_is_written() {
    let receiver = Receiver::open();
    let port = receiver.address.port();
    let egress = Egress::new(PUBLIC);
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "[::ffff:7f00:1]",
        "[::1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "10.0.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "[fe80::1]",
        "[fd00::1]",
        // A name that resolves to a private address.
        "localhost",
    ] {
        let outcome = send(&egress, &format!("http://{host}:{port}/")).await;
        assert_eq!(outcome.err(), Some(SendError::AddressNotAllowed), "{host}");
    }
    assert_eq!(receiver.connections(), 0);
    let outcome = send(&Egress::new(OPEN), &format!("http://localhost:{port}/")).await;
    assert_eq!(outcome.map(|received| received.status).ok(), Some(204), "the switch opens it");
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn plain_http_is_not_spoken_where_it_is_not_allowed() {
    let receiver = Receiver::open();
    let egress = Egress::new(DestinationRules { allow_http: false, ..OPEN });
    assert_eq!(send(&egress, &receiver.url()).await.err(), Some(SendError::UrlNotAllowed));
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_redirect_to_this_machine_is_an_answer_and_not_followed() {
    let (receiver, inside) = (Receiver::open(), Receiver::open());
    for status in [301, 302, 303, 307, 308] {
        let headers = vec![("location", inside.url())];
        receiver.answer(Answering::With { status, headers, body: "".into() });
        let received = send(&Egress::new(OPEN), &receiver.url()).await.expect("an answer");
        assert_eq!(received.status, status);
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn a_name_that_nobody_has_is_told_apart() {
    let outcome = send(&Egress::new(OPEN), "http://nobody.invalid/").await;
    assert_eq!(outcome.err(), Some(SendError::NameNotResolved));
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_left_after_the_time_out() {
    let receiver = Receiver::open();
    receiver.answer(Answering::Hang);
    let egress = Egress::new(OPEN).within(Duration::from_millis(200));
    assert_eq!(send(&egress, &receiver.url()).await.err(), Some(SendError::TimedOut));
}

/// Accepts one connection, reads the request, writes these bytes, and keeps the connection open.
async fn raw(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the system has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        read_request(&mut stream).await;
        // The other side may have closed in the meantime.
        let _ = stream.write_all(&answer).await;
        std::future::pending::<()>().await;
    });
    address
}

async fn read_request(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"{}}") {
        assert!(stream.read_buf(&mut bytes).await.expect("a request") > 0);
    }
}

#[tokio::test]
async fn a_body_that_never_ends_costs_a_kilobyte_and_its_status_counts() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n".to_vec();
    for (body, kept) in [(vec![b'x'; 4 << 20], 1024), (b"slow".to_vec(), 4)] {
        let address = raw([head.clone(), body].concat()).await;
        let received = send(&Egress::new(OPEN), &format!("http://{address}/")).await.expect("an answer");
        assert_eq!((received.status, received.text.len()), (200, kept));
    }
}

#[tokio::test]
async fn what_is_not_http_is_no_success() {
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_vec();
    for answer in [b"SSH-2.0-x\r\n\r\n".to_vec(), b"HTTP/1.1 999999 OK\r\n\r\n".to_vec()] {
        let address = raw(answer).await;
        let outcome = send(&Egress::new(OPEN), &format!("http://{address}/")).await;
        assert_eq!(outcome.err(), Some(SendError::AnswerMalformed));
    }
    let address = raw(switching).await;
    let outcome = send(&Egress::new(OPEN), &format!("http://{address}/")).await;
    assert_eq!(outcome.map(|received| received.status).ok(), Some(101), "which is not 2xx");
}

#[tokio::test]
async fn a_receiver_that_said_200_is_not_asked_again_for_an_odd_head() {
    let head = |rest: &[u8]| [b"HTTP/1.1 200 OK\r\n", rest].concat();
    for answer in [
        head(b"X-A: 1\r\n 2\r\ncontent-length: 0\r\n\r\n"),
        head(b"X-Powered-By : PHP\r\nPHP Warning in line 3\r\nx: \x01\r\ncontent-length: 0\r\n\r\n"),
        head(&[b"x: y\r\n".repeat(20_000), b"\r\n".to_vec()].concat()),
        // It never ends its head.
        head(b"x: y\r\n"),
    ] {
        let address = raw(answer).await;
        let outcome = send(&Egress::new(OPEN), &format!("http://{address}/")).await;
        assert_eq!(outcome.map(|received| received.status).ok(), Some(200));
    }
}

/// A receiver with TLS.
#[derive(Clone, Copy)]
struct Certified {
    name: &'static str,
    expired: bool,
    versions: &'static [&'static rustls::SupportedProtocolVersion],
}

const GOOD: Certified = Certified { name: "localhost", expired: false, versions: rustls::ALL_VERSIONS };

/// A certificate authority, and a receiver on TLS whose certificate is from it.
async fn over_tls(with: Certified) -> (CertificateDer<'static>, SocketAddr) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key can be made");
    let authority = CertifiedIssuer::self_signed(authority, key).expect("a certificate can be made");
    let key = KeyPair::generate().expect("a key can be made");
    let mut params = CertificateParams::new(vec![with.name.to_owned()]).expect("a name");
    if with.expired {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let certificate = params.signed_by(&key, &authority).expect("a certificate can be made");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(with.versions)
        .expect("the provider knows TLS")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).expect("the key is PKCS #8"),
        )
        .expect("the key is of the certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the system has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust the certificate closes the connection.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"{}}") {
                assert!(stream.read_buf(&mut bytes).await.expect("a request") > 0);
            }
            let _ = stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    (authority.der().clone(), address)
}

#[tokio::test]
async fn a_certificate_must_be_of_the_host_and_from_an_authority_and_a_fault_is_told_by_its_kind() {
    let (authority, address) = over_tls(GOOD).await;
    let url = format!("https://localhost:{}/", address.port());
    let trusting = Egress::trusting(OPEN, [authority]);
    assert_eq!(send(&trusting, &url).await.map(|received| received.status).ok(), Some(202));
    assert_eq!(send(&Egress::new(OPEN), &url).await.err(), Some(SendError::TlsUnknownAuthority));
    let by_address = format!("https://127.0.0.1:{}/", address.port());
    assert_eq!(send(&trusting, &by_address).await.err(), Some(SendError::TlsNameMismatch));

    let (authority, address) = over_tls(Certified { expired: true, ..GOOD }).await;
    let url = format!("https://localhost:{}/", address.port());
    let outcome = send(&Egress::trusting(OPEN, [authority]), &url).await;
    assert_eq!(outcome.err(), Some(SendError::TlsCertificateExpired));

    let plain = Receiver::open();
    let url = plain.url().replace("http:", "https:");
    assert_eq!(send(&trusting, &url).await.err(), Some(SendError::TlsProtocol), "no TLS at all");
    // handshake_failure, which is also what one without a common version sends.
    let address = raw_tls(b"\x15\x03\x01\x00\x02\x02\x28").await;
    let url = format!("https://{address}/");
    assert_eq!(send(&trusting, &url).await.err(), Some(SendError::TlsProtocol));
}

/// Answers the first bytes of a handshake with these.
async fn raw_tls(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the system has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.read_buf(&mut Vec::new()).await.expect("a handshake");
        stream.write_all(answer).await.expect("the client waits");
        std::future::pending::<()>().await;
    });
    address
}

/// A proxy that answers CONNECT with `status` and tunnels where that is 200, and answers any other request
/// itself. The heads of its requests arrive in the channel.
async fn proxy(status: u16) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the system has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let (heads, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let heads = heads.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    assert!(client.read_buf(&mut head).await.expect("a request") > 0);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let is_tunnel = head.starts_with("CONNECT ");
                heads.send(head).expect("the test waits");
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                client.write_all(answer.as_bytes()).await.expect("the client waits");
                if is_tunnel && status == 200 {
                    let mut receiver = TcpStream::connect(target).await.expect("the receiver is there");
                    let _ = copy_bidirectional(&mut client, &mut receiver).await;
                }
            });
        }
    });
    (address, seen)
}

#[tokio::test]
async fn with_a_proxy_nothing_goes_out_in_any_other_way() {
    let through = |egress: Egress, url: String| egress.through(Some(url.parse().expect("a proxy")));
    let (authority, receiver) = over_tls(GOOD).await;
    let url = format!("https://localhost:{}/hook", receiver.port());
    let (address, mut seen) = proxy(200).await;
    let egress =
        through(Egress::trusting(OPEN, [authority.clone()]), format!("http://us%65r:pass@{address}"));
    assert_eq!(send(&egress, &url).await.map(|received| received.status).ok(), Some(202));
    let head = seen.recv().await.expect("the proxy was asked");
    assert!(head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", receiver.port())), "{head}");
    assert!(head.contains("proxy-authorization: Basic dXNlcjpwYXNz\r\n"), "{head}");
    // A name that cannot be resolved here is left to the proxy, which may refuse.
    let (refusing, mut refused) = proxy(403).await;
    let egress = through(Egress::trusting(OPEN, [authority]), format!("http://{refusing}"));
    assert_eq!(send(&egress, "https://nobody.invalid/").await.err(), Some(SendError::ProxyRefused));
    assert!(refused.recv().await.is_some_and(|head| head.starts_with("CONNECT nobody.invalid:443 ")));

    let plain = Receiver::open();
    let egress = through(Egress::new(OPEN), format!("http://{address}"));
    assert_eq!(send(&egress, &plain.url()).await.map(|received| received.status).ok(), Some(200));
    let head = seen.recv().await.expect("the proxy was asked");
    assert!(
        head.starts_with(&format!("POST {} HTTP/1.1\r\nhost: {}\r\n", plain.url(), plain.address)),
        "{head}"
    );
    assert_eq!(plain.connections(), 0);

    let strict = through(Egress::new(PUBLIC), format!("http://{address}"));
    for url in [plain.url(), "http://localhost/".to_owned(), "http://169.254.169.254/".to_owned()] {
        assert_eq!(send(&strict, &url).await.err(), Some(SendError::AddressNotAllowed), "{url}");
    }
    assert!(seen.try_recv().is_err(), "the proxy is not asked for what may not be reached");
    let gone = through(Egress::new(OPEN), format!("http://{}", Closed::new().address));
    assert_eq!(send(&gone, &plain.url()).await.err(), Some(SendError::ProxyUnreachable));
}
