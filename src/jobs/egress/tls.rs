//! TLS for webhooks: the name that a certificate must have, and why a handshake failed.

use std::io;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error};

use crate::domain::delivery::SendError;
use crate::domain::destination::{Destination, WebhookUrl};

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
