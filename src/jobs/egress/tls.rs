//! TLS for webhooks: the trusted authorities, and why a handshake failed.

use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};

use crate::domain::delivery::SendError;
use crate::domain::destination::{Destination, WebhookUrl};

pub(super) fn client(authorities: impl IntoIterator<Item = CertificateDer<'static>>) -> ClientConfig {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.add_parsable_certificates(authorities);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the ring provider knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The name that must be in the receiver's certificate.
pub(super) fn server_name(url: &WebhookUrl) -> Option<ServerName<'static>> {
    match url.host() {
        Destination::Name(name) => ServerName::try_from(name.to_owned()).ok(),
        Destination::Address(ip) => Some(ServerName::IpAddress(ip.into())),
    }
}

/// Why a handshake failed, as precisely as the person who can fix it needs to know.
pub(super) fn reason(error: &io::Error) -> SendError {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return SendError::TlsFailed;
    };
    tracing::debug!(%error, "TLS handshake failed");
    match error {
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
    }
}
