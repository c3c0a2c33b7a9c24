//! Checks that the server on this machine is up. For containers, which have no curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use ipnet::IpNet;
use tollgate::config::Settings;
use tollgate::domain::address::{canonical, reachable};
use tollgate::http::proxy_protocol::OF_ITS_OWN;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Succeeds if `/healthz` answers 200. Asks the operations listener if there is one.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let has_tls = settings.server.tls_certificate_file.is_some();
    let address = match settings.ops.listen {
        Some(address) => address,
        None if has_tls => bail!("with TLS, this needs the operations listener: set ops.listen"),
        None => settings.server.listen,
    };
    let proxies: &[IpNet] = match settings.ops.listen {
        None if settings.server.proxy_protocol => &settings.server.edge.trusted_proxies,
        _ => &[],
    };
    let status = ask(reachable(address), proxies).with_context(|| format!("{address} does not answer"))?;
    if status.starts_with("HTTP/1.1 200 ") { Ok(()) } else { bail!("{address} answers {status:?}") }
}

/// The first line of the answer. A call from one of `proxies` must begin with a PROXY header.
fn ask(address: SocketAddr, proxies: &[IpNet]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let own = canonical(stream.local_addr()?.ip());
    if proxies.iter().any(|net| net.contains(&own)) {
        stream.write_all(OF_ITS_OWN)?;
    }
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
