//! Asks a running server on this machine whether it is up: for a container, which has no curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use tollgate::config::Settings;
use tollgate::domain::address::reachable;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Succeeds if `/healthz` answers 200, on the operations listener where there is one.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let has_tls = settings.server.tls_certificate_file.is_some();
    let address = match settings.ops.listen {
        Some(address) => address,
        None if has_tls => bail!("with TLS, this needs the operations listener: set ops.listen"),
        None => settings.server.listen,
    };
    let status = ask(reachable(address)).with_context(|| format!("{address} does not answer"))?;
    if status.starts_with("HTTP/1.1 200 ") { Ok(()) } else { bail!("{address} answers {status:?}") }
}

/// The first line of the answer.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
