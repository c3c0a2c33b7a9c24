//! TLS for webhooks: the name that a certificate must have.

use rustls::pki_types::ServerName;

use crate::domain::destination::{Destination, WebhookUrl};

/// The name that must be in the receiver's certificate.
pub(super) fn server_name(url: &WebhookUrl) -> Option<ServerName<'static>> {
    match url.host() {
        Destination::Name(name) => ServerName::try_from(name.to_owned()).ok(),
        Destination::Address(ip) => Some(ServerName::IpAddress(ip.into())),
    }
}
