//! The way out: only to where it may go, and only for as long and as much as it takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
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

use crate::support::receiver::{Answering, Receiver};

const OPEN: DestinationRules = DestinationRules { allow_private_networks: true, allow_http: true };
const PUBLIC: DestinationRules = DestinationRules { allow_private_networks: false, allow_http: true };

/// A message to a URL that nobody has checked beyond its form.
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
        // A name that has a private address by the time it is resolved.
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
        // The other side may have had enough in between.
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
    let endless_head = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".repeat(10_000)].concat();
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_vec();
    for answer in [b"SSH-2.0-x\r\n\r\n".to_vec(), endless_head, b"HTTP/1.1 999999 OK\r\n\r\n".to_vec()] {
        let address = raw(answer).await;
        let outcome = send(&Egress::new(OPEN), &format!("http://{address}/")).await;
        assert_eq!(outcome.err(), Some(SendError::AnswerMalformed));
    }
    let address = raw(switching).await;
    let outcome = send(&Egress::new(OPEN), &format!("http://{address}/")).await;
    assert!(outcome.is_err() || outcome.is_ok_and(|received| received.status == 101));
}

/// A certificate authority, and a receiver on TLS whose certificate for `name` is from it.
async fn over_tls(name: &str) -> (CertificateDer<'static>, SocketAddr) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key can be made");
    let authority = CertifiedIssuer::self_signed(authority, key).expect("a certificate can be made");
    let key = KeyPair::generate().expect("a key can be made");
    let certificate = CertificateParams::new(vec![name.to_owned()])
        .and_then(|params| params.signed_by(&key, &authority))
        .expect("a certificate can be made");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
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
            // Whoever does not trust the certificate hangs up.
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
async fn a_certificate_must_be_of_the_host_and_from_an_authority_that_is_trusted() {
    let (authority, address) = over_tls("localhost").await;
    let url = format!("https://localhost:{}/", address.port());
    let trusting = Egress::trusting(OPEN, [authority]);
    assert_eq!(send(&trusting, &url).await.map(|received| received.status).ok(), Some(202));
    assert_eq!(send(&Egress::new(OPEN), &url).await.err(), Some(SendError::TlsFailed), "not trusted");
    let by_address = format!("https://127.0.0.1:{}/", address.port());
    assert_eq!(send(&trusting, &by_address).await.err(), Some(SendError::TlsFailed), "another host");
    let plain = Receiver::open();
    let url = plain.url().replace("http:", "https:");
    assert_eq!(send(&trusting, &url).await.err(), Some(SendError::TlsFailed), "no TLS at all");
}
