//! The PROXY protocol, versions 1 and 2, with which a TCP load balancer names the client of a connection.
//!
//! Only trusted peers may send the header, and they must send it. If the header were optional, a client could
//! write its own. Follows "The PROXY protocol, versions 1 & 2", 2.1 to 2.3.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};

const V1_START: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, including CR LF.
const V1_BYTES_MAX: usize = 107;

/// The most bytes of addresses and extensions in version 2. Two addresses of Unix sockets take 216 bytes. The
/// rest is for what proxies add about TLS.
const V2_BYTES_MAX: usize = 4096;

/// The header of a caller that is itself the client, such as a health check on this machine.
pub const OF_ITS_OWN: &[u8] = b"PROXY UNKNOWN\r\n";

/// Reads the header, and not a byte more. `None` if the header names no IP address, as in a proxy's health
/// checks.
///
/// # Errors
/// `InvalidData` if there is no valid header, or the error of reading.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    // No valid header of either version is shorter.
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    if start == *V2_SIGNATURE {
        let mut fixed = [0; 4];
        stream.read_exact(&mut fixed).await?;
        let [version_command, family, high, low] = fixed;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > V2_BYTES_MAX {
            return Err(invalid());
        }
        let mut addresses = vec![0; length];
        stream.read_exact(&mut addresses).await?;
        return parse_v2(version_command, family, &addresses).ok_or_else(invalid);
    }
    if !start.starts_with(V1_START) {
        return Err(invalid());
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == V1_BYTES_MAX {
            return Err(invalid());
        }
        line.push(stream.read_u8().await?);
    }
    parse_v1(&line).ok_or_else(invalid)
}

/// Warns about trusted proxies that do not send the header. Either our setting or the proxy's is wrong, and
/// every call fails.
#[derive(Default)]
pub struct MissingHeaders(Mutex<Option<Instant>>);

impl MissingHeaders {
    const EVERY: Duration = Duration::from_secs(60);

    /// Logs at most once a minute. A connection that was closed without any bytes is not a mistake.
    pub fn note(&self, error: &io::Error, peer: IpAddr) {
        if error.kind() != io::ErrorKind::InvalidData {
            return;
        }
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= Self::EVERY) {
            *last = Some(Instant::now());
            tracing::warn!(%peer, "a trusted proxy sent no valid PROXY header, so its connection was closed (logged at most once a minute)");
        }
    }
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a trusted proxy sent no valid PROXY header")
}

/// Parses a complete line. The outer `None` means that it is not valid.
#[expect(clippy::option_option, reason = "not valid, and valid but without an address, are two things")]
fn parse_v1(line: &[u8]) -> Option<Option<IpAddr>> {
    let line = std::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let mut words = line.split(' ');
    (words.next()? == "PROXY").then_some(())?;
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let (source_port, destination_port) = (words.next()?, words.next()?);
    let is_whole = words.next().is_none()
        && source_port.parse::<u16>().is_ok()
        && destination_port.parse::<u16>().is_ok();
    is_whole.then_some(())?;
    match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            Some(Some(source.parse::<Ipv4Addr>().ok()?.into()))
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            Some(Some(source.parse::<Ipv6Addr>().ok()?.into()))
        }
        _ => None,
    }
}

/// Parses what follows the signature. The outer `None` means that it is not valid.
#[expect(clippy::option_option, reason = "not valid, and valid but without an address, are two things")]
fn parse_v2(version_command: u8, family: u8, addresses: &[u8]) -> Option<Option<IpAddr>> {
    match version_command {
        // LOCAL: the rest must be ignored.
        0x20 => Some(None),
        0x21 => match family >> 4 {
            1 => {
                let source: [u8; 4] = addresses.get(..12)?.get(..4)?.try_into().ok()?;
                Some(Some(Ipv4Addr::from(source).into()))
            }
            2 => {
                let source: [u8; 16] = addresses.get(..36)?.get(..16)?.try_into().ok()?;
                Some(Some(Ipv6Addr::from(source).into()))
            }
            // Unspecified, or a Unix socket.
            0 | 3 => Some(None),
            _ => None,
        },
        _ => None,
    }
}
