//! A client that speaks HTTP/1.1 over real TCP, one connection at a time.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Call, Reply};

/// The server closed the connection or did not accept it.
#[derive(Debug)]
pub(crate) struct Gone;

/// A keep-alive connection.
pub(crate) struct Client {
    address: SocketAddr,
    sender: SendRequest<Body>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self, Gone> {
        let stream = TcpStream::connect(address).await.map_err(|_| Gone)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| Gone)?;
        // If the connection ends, the next call reports it.
        tokio::spawn(connection);
        Ok(Self { address, sender })
    }

    /// Sends a call and reads the complete reply, so that its result counts as acknowledged.
    pub(crate) async fn send(&mut self, call: Call) -> Result<Reply, Gone> {
        self.send_to(&self.address.to_string(), call).await
    }

    /// Like [`Client::send`], with another name in `Host`.
    pub(crate) async fn send_to(&mut self, host: &str, call: Call) -> Result<Reply, Gone> {
        self.sender.ready().await.map_err(|_| Gone)?;
        let mut request = call.into_request();
        let host = HeaderValue::from_str(host).expect("a host is plain ASCII");
        request.headers_mut().insert(header::HOST, host);
        let response = self.sender.send_request(request).await.map_err(|_| Gone)?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|_| Gone)?.to_bytes();
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}
