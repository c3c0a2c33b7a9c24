//! TLS 1.2 and 1.3 with rustls and ring, HTTP/2 or HTTP/1.1 by ALPN (RFC 7301). The certificate can be
//! replaced without a restart.
//!
//! We compare the contents of the files and not their times, because a renewal may rename, copy or change a
//! link. If the certificate and the key do not fit, the renewal is probably not finished. The old pair then
//! stays in use, and we look at the files again later.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use zeroize::Zeroizing;

use crate::domain::clock::Timestamp;

/// How often we look at the files. This is fast enough, because certificates are renewed weeks before they
/// expire.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Why TLS cannot be used. The text is for the operator, and shows nothing from the key file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0}: contains no PEM certificate")]
    NoCertificate(PathBuf),
    #[error("{0}: contains no PEM private key")]
    NoKey(PathBuf),
    #[error("{certificate} and {key} cannot be used together: {source}")]
    Unusable { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// The PEM files with the certificate chain and its key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The TLS settings of the listener, with the current certificate.
pub struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

/// The current certificate and key, and the digest of their files.
struct Current(RwLock<(Arc<CertifiedKey>, [u8; 32])>);

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Current(redacted)")
    }
}

impl Current {
    fn pair(&self) -> (Arc<CertifiedKey>, [u8; 32]) {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&current.0), current.1)
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair().0)
    }
}

impl Tls {
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let contents = Contents::read(&files)?;
        let pair = Arc::new(contents.pair(&files, &provider)?);
        let current = Arc::new(Current(RwLock::new((pair, contents.digest()))));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .expect("ring has suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { files, current, config: Arc::new(config) })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Loads the files again. Returns `false` if they have not changed. After an error, the old certificate
    /// stays in use.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let contents = Contents::read(&self.files)?;
        let digest = contents.digest();
        if self.current.pair().1 == digest {
            return Ok(false);
        }
        let pair = Arc::new(contents.pair(&self.files, self.config.crypto_provider())?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = (pair, digest);
        Ok(true)
    }

    /// When the current certificate expires. `None` if its date cannot be read.
    pub fn expires_at(&self) -> Option<Timestamp> {
        let (pair, _) = self.current.pair();
        let certificate = Certificate::from_der(pair.end_entity_cert().ok()?).ok()?;
        let expiry = certificate.tbs_certificate().validity().not_after.to_unix_duration();
        Some(Timestamp::from_unix_secs(i64::try_from(expiry.as_secs()).ok()?))
    }

    /// Looks at the files regularly until it is aborted.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            self.look();
        }
    }

    /// Loads the files again and logs the result.
    pub fn look(&self) {
        match self.reload() {
            Ok(true) => {
                let expires_at = self.expires_at().map(|time| time.to_rfc3339());
                tracing::info!(expires_at, "the TLS certificate was replaced");
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the TLS certificate is not replaced"),
        }
    }
}

struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { certificate: read(&files.certificate)?, key: Zeroizing::new(read(&files.key)?) })
    }

    fn digest(&self) -> [u8; 32] {
        let certificate = Sha256::digest(&self.certificate);
        Sha256::new().chain_update(certificate).chain_update(&*self.key).finalize().into()
    }

    fn pair(&self, files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&files.certificate, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError::NoKey(files.key.clone()))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Unusable {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        })
    }
}

/// The certificates in a PEM file, at least one.
pub fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(path, &read(path)?)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| TlsError::NoCertificate(path.to_owned()))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}
