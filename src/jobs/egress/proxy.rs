//! Sends webhooks through an HTTP proxy. For https, the proxy opens a tunnel to the receiver (RFC 9110
//! 9.3.6), so it sees neither the event nor its signature.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::answer;
use crate::config::ProxyUrl;
use crate::domain::delivery::SendError;
use crate::domain::destination::WebhookUrl;

/// The header line with our credentials for the proxy. Empty if it needs none.
pub(super) fn authorization(proxy: &ProxyUrl) -> String {
    let line = |credentials| format!("proxy-authorization: Basic {}\r\n", STANDARD.encode(credentials));
    proxy.credentials().map(line).unwrap_or_default()
}

/// Asks the proxy to connect to the receiver.
pub(super) async fn open_tunnel(
    stream: &mut TcpStream,
    proxy: &ProxyUrl,
    url: &WebhookUrl,
) -> Result<(), SendError> {
    let host = url.host_text();
    let (port, authorization) = (url.port(), authorization(proxy));
    let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|_| SendError::ProxyUnreachable)?;
    match answer::read_status(stream).await {
        Ok(200..=299) => Ok(()),
        Ok(_) | Err(SendError::AnswerMalformed) => Err(SendError::ProxyRefused),
        Err(_) => Err(SendError::ProxyUnreachable),
    }
}
