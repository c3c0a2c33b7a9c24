//! TLS of outgoing connections, to webhooks, the collector of traces and other cells: which authorities are trusted, and
//! why a handshake failed.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};

use crate::domain::delivery::SendError;

/// Trusts the certificate authorities that Mozilla trusts, and `authorities`.
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

/// Why a handshake failed, as precisely as the person who can fix it needs to know. `None` if `error` has another cause
/// than TLS.
pub fn handshake_fault(error: &(dyn StdError + 'static)) -> Option<SendError> {
    let error = of_tls(error)?;
    tracing::debug!(%error, "TLS handshake failed");
    Some(match error {
        Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                SendError::TlsNameMismatch
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => SendError::TlsCertificateExpired,
            // This includes certificates without a chain, such as an authority's own certificate.
            _ => SendError::TlsUnknownAuthority,
        },
        // No TLS version or cipher in common, or no TLS at all.
        Error::PeerIncompatible(_)
        | Error::PeerMisbehaved(_)
        | Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::AlertReceived(
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity
            | AlertDescription::NoApplicationProtocol,
        ) => SendError::TlsProtocol,
        _ => SendError::TlsFailed,
    })
}

/// The error of TLS that `error` is, or that caused it.
fn of_tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    if let Some(error) = error.downcast_ref() {
        return Some(error);
    }
    // The source of an I/O error skips the error that is inside.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inside) => of_tls(inside),
        None => of_tls(error.source()?),
    }
}
