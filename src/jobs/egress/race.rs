//! Connects to the first address of a host that answers (RFC 8305 section 5). The addresses are tried in
//! order. If one does not answer soon, the next one is tried as well.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::domain::delivery::SendError;

/// The most addresses of a host that are tried.
const ADDRESSES_MAX: usize = 16;

/// The most connections that are opened at a time. Each is a socket.
const RACING_MAX: usize = 3;

/// How long to wait for one address before the next one is tried as well.
const HEAD_START: Duration = Duration::from_millis(250);

/// The time for one address. Another one may still answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// The first connection that succeeds. The error is that of the last address.
pub(super) async fn connect(addresses: Vec<SocketAddr>) -> Result<TcpStream, SendError> {
    first_of(addresses.into_iter().take(ADDRESSES_MAX).map(connect_to)).await
}

async fn first_of<T>(
    attempts: impl Iterator<Item = impl Future<Output = Result<T, SendError>>>,
) -> Result<T, SendError> {
    let mut waiting = attempts.peekable();
    let mut racing = FuturesUnordered::new();
    let mut failure = SendError::NameNotResolved;
    loop {
        if racing.len() < RACING_MAX {
            racing.extend(waiting.next());
        }
        let may_start_another = racing.len() < RACING_MAX && waiting.peek().is_some();
        let wait = if may_start_another { HEAD_START } else { CONNECT_TIMEOUT };
        match timeout(wait, racing.next()).await {
            Ok(Some(Ok(connected))) => return Ok(connected),
            Ok(Some(Err(error))) => failure = error,
            // All addresses have failed.
            Ok(None) => return Err(failure),
            Err(_) => {}
        }
    }
}

async fn connect_to(address: SocketAddr) -> Result<TcpStream, SendError> {
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(SendError::ConnectionRefused)
        }
        Ok(Err(_)) => Err(SendError::ConnectFailed),
        Err(_) => Err(SendError::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures_util::future::BoxFuture;

    use super::*;

    #[tokio::test]
    async fn an_address_that_does_not_answer_holds_up_no_other() {
        let silent = || -> BoxFuture<'_, Result<u8, SendError>> { Box::pin(std::future::pending()) };
        let refusing = || -> BoxFuture<'_, _> { Box::pin(async { Err(SendError::ConnectionRefused) }) };
        let begun = Instant::now();
        let attempts = [refusing(), refusing(), refusing(), silent(), Box::pin(async { Ok(4) })];
        assert_eq!(first_of(attempts.into_iter()).await, Ok(4));
        assert!(begun.elapsed() < CONNECT_TIMEOUT);
        assert_eq!(first_of([refusing(), refusing()].into_iter()).await, Err(SendError::ConnectionRefused));
        assert_eq!(first_of(std::iter::repeat_with(silent).take(0)).await, Err(SendError::NameNotResolved));
    }
}
