//! Below HTTP: TLS and certificates, and the PROXY protocol.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tollgate::config::Settings;
use tollgate::http::proxy_protocol;
use tollgate::store::Engine;

use super::support::merchant::plain_key;
use super::support::program::{Server, run, tollgate};
use super::support::{Database, TestApp};

/// Long enough for everything here, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A certificate for `localhost`, and the files that it is in.
pub(crate) struct Certificate {
    der: CertificateDer<'static>,
    pub(crate) certificate: String,
    key: String,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("ring makes keys");
        let parameters = CertificateParams::new(vec!["localhost".to_owned()]).expect("a plain name");
        let made = parameters.self_signed(&key).expect("a key signs its own certificate");
        Self { der: made.der().clone(), certificate: made.pem(), key: key.serialize_pem() }
    }

    /// Writes `tls.pem` and `tls.key`.
    pub(crate) fn write(&self, directory: &Path) {
        for (name, text) in [("tls.pem", &self.certificate), ("tls.key", &self.key)] {
            let mut file = std::fs::File::create(directory.join(name)).expect("a writable directory");
            file.write_all(text.as_bytes()).expect("a disk with room");
        }
    }

    async fn connect(
        &self,
        address: SocketAddr,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("the certificate was just made");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("ring has suites for both versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").expect("a plain name");
        TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
    }
}

/// The program, with a certificate in files.
fn serve_tls(database: &Database, directory: &TempDir) -> Server {
    let file = |name: &str| directory.path().join(name);
    Server::start(
        Server::command("serve", database)
            .env("TOLLGATE__SERVER__TLS_CERTIFICATE_FILE", file("tls.pem"))
            .env("TOLLGATE__SERVER__TLS_KEY_FILE", file("tls.key")),
    )
}

fn healthz(version: Version) -> Request<Body> {
    Request::get("https://localhost/healthz")
        .version(version)
        .header("host", "localhost")
        .body(Body::empty())
        .expect("a plain request")
}

#[tokio::test]
async fn https_speaks_the_version_of_http_that_the_client_negotiates() {
    let (directory, certificate) = (TempDir::new().expect("a temporary directory"), Certificate::new());
    certificate.write(directory.path());
    let database = Database::fresh(Engine::Sqlite).await;
    let server = serve_tls(&database, &directory);
    for version in [&TLS12, &TLS13] {
        let stream = certificate.connect(server.address, &[version], &["h2", "http/1.1"]).await;
        let stream = TokioIo::new(stream.expect("a handshake"));
        assert_eq!(stream.inner().get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .expect("HTTP/2 is spoken");
        tokio::spawn(connection);
        let reply = sender.send_request(healthz(Version::HTTP_2)).await.expect("an answer");
        assert_eq!((reply.status().as_u16(), reply.version()), (200, Version::HTTP_2));

        let stream = certificate.connect(server.address, &[version], &["http/1.1"]).await;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream.expect("a handshake")))
                .await
                .expect("HTTP/1.1 is spoken");
        tokio::spawn(connection);
        let reply = sender.send_request(healthz(Version::HTTP_11)).await.expect("an answer");
        assert_eq!((reply.status().as_u16(), reply.version()), (200, Version::HTTP_11));
    }
    // The port accepts only TLS. A client without TLS gets no answer.
    let mut plain = TcpStream::connect(server.address).await.expect("it listens");
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("it reads");
    let answer = read_to_end(&mut plain).await;
    assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_up_without_a_restart_and_a_broken_one_is_not() {
    let directory = TempDir::new().expect("a temporary directory");
    let (old, new) = (Certificate::new(), Certificate::new());
    old.write(directory.path());
    let database = Database::fresh(Engine::Sqlite).await;
    let server = serve_tls(&database, &directory);
    let handshake = async |certificate: &Certificate| {
        certificate.connect(server.address, &[&TLS13], &["http/1.1"]).await.is_ok()
    };
    assert!(handshake(&old).await && !handshake(&new).await);

    // An unfinished renewal: the new certificate with the old key.
    std::fs::write(directory.path().join("tls.pem"), &new.certificate).expect("a writable directory");
    server.signal("HUP");
    server.wait_for_log("the TLS certificate is not replaced");
    assert!(handshake(&old).await && !handshake(&new).await);

    new.write(directory.path());
    server.signal("HUP");
    server.wait_for_log("the TLS certificate was replaced");
    assert!(handshake(&new).await && !handshake(&old).await);
    assert!(!server.log().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn metrics_show_when_the_certificate_expires() {
    let (directory, certificate) = (TempDir::new().expect("a temporary directory"), Certificate::new());
    certificate.write(directory.path());
    let files = tollgate::http::tls::TlsFiles {
        certificate: directory.path().join("tls.pem"),
        key: directory.path().join("tls.key"),
    };
    let tls = tollgate::http::tls::Tls::load(files).expect("a pair that fits");
    // The default of rcgen: the start of the year 4096.
    assert_eq!(tls.expires_at().map(|time| time.to_rfc3339()).as_deref(), Some("4096-01-01T00:00:00.000Z"));
}

/// Reads everything until the other side closes. A reset counts as closed.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        Err(_) => panic!("the connection was not closed"),
    }
    bytes
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[tokio::test]
async fn proxy_headers_are_read_to_the_byte() {
    let v2 = |rest: &[u8]| [V2, rest].concat();
    let v6 = [&[0x21, 0x21, 0, 36][..], &[0x20, 1, 0xd, 0xb8], &[0; 11], &[1], &[0; 20]].concat();
    let good: [(Vec<u8>, Option<&str>); 9] = [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n".to_vec(), Some("192.0.2.7")),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n".to_vec(), Some("2001:db8::1")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
        (v2(&[0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 1, 2, 3, 4]), Some("192.0.2.7")),
        // With an extension after the addresses.
        (v2(&[0x21, 0x11, 0, 15, 192, 0, 2, 7, 198, 51, 100, 1, 1, 2, 3, 4, 4, 0, 0]), Some("192.0.2.7")),
        (v2(&v6), Some("2001:db8::1")),
        // LOCAL: a health check of the proxy itself, whatever else it says.
        (v2(&[0x20, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 1, 2, 3, 4]), None),
        (v2(&[0x21, 0, 0, 0]), None),
    ];
    for (header, address) in good {
        let mut bytes = [&header[..], b"GET /"].concat();
        let mut stream = &bytes[..];
        let read = proxy_protocol::read(&mut stream).await;
        let read = read.unwrap_or_else(|error| panic!("{error}: {}", header.escape_ascii()));
        assert_eq!(read, address.map(|text| text.parse().expect("an address")), "{}", header.escape_ascii());
        assert_eq!(stream, b"GET /", "{}", header.escape_ascii());
        // A header that is cut off anywhere is invalid.
        bytes.truncate(header.len() - 1);
        assert!(proxy_protocol::read(&mut &bytes[..]).await.is_err(), "{}", header.escape_ascii());
    }
    let bad: [Vec<u8>; 13] = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        b"proxy TCP4 192.0.2.7 198.51.100.1 4711 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 65536\r\n".to_vec(),
        b"PROXY TCP4 010.0.0.1 198.51.100.1 4711 443\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::1 2001:db8::2 4711 443\r\n".to_vec(),
        b"PROXY TCP4  192.0.2.7 198.51.100.1 4711 443\r\n".to_vec(),
        [&b"PROXY UNKNOWN "[..], &[b'a'; 200], b"\r\n"].concat(),
        v2(&[0x11, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 1, 2, 3, 4]),
        v2(&[0x22, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 1, 2, 3, 4]),
        v2(&[0x21, 0x11, 0, 4, 192, 0, 2, 7]),
        v2(&[&[0x21, 0x11, 0xff, 0xff][..], &[0; 65535]].concat()),
    ];
    for header in bad {
        let shown: String = header.escape_ascii().to_string().chars().take(80).collect();
        assert!(proxy_protocol::read(&mut &header[..]).await.is_err(), "{shown}");
    }
}

/// Sends a header and a request, and returns the status line of the answer, if there is any.
async fn behind_proxy(address: SocketAddr, header: &[u8], key: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request =
        format!("GET /api/verify HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\nconnection: close\r\n\r\n");
    stream.write_all(&[header, request.as_bytes()].concat()).await.expect("it reads");
    let answer = read_to_end(&mut stream).await;
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_trusted_proxy_must_say_who_the_client_is_and_others_cannot() {
    const HEADER: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    let start = async |configure: fn(&mut Settings)| {
        let app = TestApp::with(Engine::Sqlite, configure).await;
        let mut key = plain_key();
        key.allowed_ips = vec!["192.0.2.7".to_owned()];
        let merchant = app.merchant_with(key).await;
        app.switch(&merchant, false).await;
        (merchant, app.serve().await)
    };
    let (merchant, served) = start(|settings| {
        settings.server.proxy_protocol = true;
        settings.server.edge.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
    })
    .await;
    let (address, key) = (served.address, &merchant.key);
    assert_eq!(behind_proxy(address, HEADER, key).await, "HTTP/1.1 200 OK");
    let other = b"PROXY TCP4 192.0.2.8 198.51.100.1 4711 443\r\n";
    assert_eq!(behind_proxy(address, other, key).await, "HTTP/1.1 401 Unauthorized");
    assert_eq!(behind_proxy(address, b"PROXY UNKNOWN\r\n", key).await, "HTTP/1.1 401 Unauthorized");
    assert_eq!(behind_proxy(address, b"", key).await, "", "a trusted proxy without a header");
    served.stop().await;

    // A proxy that does not name its client is not the client, even if its address is on the list, and the
    // client's own headers are ignored. If every address is allowed, there is nothing to check.
    let (listed, served) = {
        let app = TestApp::with(Engine::Sqlite, |settings| {
            settings.server.proxy_protocol = true;
            settings.server.edge.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        })
        .await;
        let key = |ranges: &[&str]| {
            let allowed_ips = ranges.iter().map(|range| (*range).to_owned()).collect();
            tollgate::flows::manage_keys::NewApiKey { allowed_ips, ..plain_key() }
        };
        let listed = app.merchant_with(key(&["127.0.0.1", "192.0.2.7"])).await;
        let open = app.key_of(listed.id, key(&[])).await;
        for merchant in [&listed, &open] {
            app.switch(merchant, false).await;
        }
        ([listed.key, open.key], app.serve().await)
    };
    let address = served.address;
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x11\x00\x00";
    for header in [&b"PROXY UNKNOWN\r\n"[..], local] {
        let [listed, open] = &listed;
        assert_eq!(behind_proxy(address, header, listed).await, "HTTP/1.1 401 Unauthorized");
        let claims = format!("{listed}\r\nx-forwarded-for: 192.0.2.7");
        assert_eq!(behind_proxy(address, header, &claims).await, "HTTP/1.1 401 Unauthorized");
        assert_eq!(behind_proxy(address, header, open).await, "HTTP/1.1 200 OK");
    }
    assert_eq!(behind_proxy(address, HEADER, &listed[0]).await, "HTTP/1.1 200 OK");
    served.stop().await;

    let (merchant, served) = start(|settings| {
        settings.server.proxy_protocol = true;
        settings.server.edge.trusted_proxies = vec!["198.51.100.1/32".parse().expect("a network")];
    })
    .await;
    let (address, key) = (served.address, &merchant.key);
    assert_eq!(behind_proxy(address, b"", key).await, "HTTP/1.1 401 Unauthorized");
    assert_eq!(behind_proxy(address, HEADER, key).await, "HTTP/1.1 400 Bad Request");
    served.stop().await;
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_come_is_closed() {
    let (directory, certificate) = (TempDir::new().expect("a temporary directory"), Certificate::new());
    certificate.write(directory.path());
    let database = Database::fresh(Engine::Sqlite).await;
    let file = |name: &str| directory.path().join(name);
    let server = Server::start(
        Server::command("serve", &database)
            .env("TOLLGATE__SERVER__TLS_CERTIFICATE_FILE", file("tls.pem"))
            .env("TOLLGATE__SERVER__TLS_KEY_FILE", file("tls.key"))
            .env("TOLLGATE__SERVER__HEADER_TIMEOUT_SECS", "1"),
    );
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00"] {
        let mut stalled = TcpStream::connect(server.address).await.expect("it listens");
        stalled.write_all(sent).await.expect("it reads");
        assert!(certificate.connect(server.address, &[&TLS13], &["http/1.1"]).await.is_ok());
        read_to_end(&mut stalled).await;
    }
}

#[test]
fn plain_http_beyond_loopback_needs_permission() {
    let check = |permission: &str, listen: &str| {
        let mut command = tollgate(&["check-config", "--listen", listen]);
        let output = run(command.env("TOLLGATE__SERVER__ALLOW_PLAIN_HTTP", permission));
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for listen in ["0.0.0.0:8080", "[::]:8080", "192.0.2.7:8080", "[::ffff:192.0.2.7]:8080"] {
        let (is_fine, message) = check("false", listen);
        assert!(!is_fine, "{listen}");
        for word in ["server.allow_plain_http", "server.tls_certificate_file", "loopback"] {
            assert!(message.contains(word), "{message}");
        }
        assert!(check("true", listen).0, "{listen}");
    }
    for listen in ["127.0.0.1:8080", "127.0.0.2:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
        assert!(check("false", listen).0, "{listen}");
    }
}
