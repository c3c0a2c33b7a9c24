//! The caller's address, and the trusted proxies that the call came through.
//!
//! Anyone can start an `X-Forwarded-For` list. Our own proxies wrote only its right end. So we walk from
//! the right, and the first hop that is not trusted is the client. We never simply believe the leftmost
//! entry (RFC 7239 8.1).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::parameters::{self, is_token};

/// The caller's address, and the proxies between the caller and us, nearest last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    pub ip: IpAddr,
    pub hops: Vec<IpAddr>,
    /// False when a trusted proxy did not name the caller. `ip` is then the proxy's own address, and no
    /// allow list matches it.
    pub is_known: bool,
}

impl ClientAddress {
    pub const fn direct(ip: IpAddr) -> Self {
        Self { ip, hops: Vec::new(), is_known: true }
    }

    /// A caller that `proxy` did not name.
    pub const fn unknown(proxy: IpAddr) -> Self {
        Self { ip: proxy, hops: Vec::new(), is_known: false }
    }
}

/// A trusted proxy sent a forwarding header without a usable address, so the caller is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Turns an IPv4-mapped IPv6 address into the IPv4 address (RFC 4291 2.5.5.2).
pub const fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => ip,
        },
        IpAddr::V4(_) => ip,
    }
}

/// The unit that callers are counted by: an IPv4 address or an IPv6 /64, which is what one client
/// commonly has.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match canonical(ip) {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Like [`canonical`], for a range: `::ffff:192.0.2.0/120` becomes `192.0.2.0/24`.
///
/// `None` for a range that is larger than the mapped block. Addresses are compared unmapped, so such a
/// range could never match.
pub fn canonical_range(range: IpNet) -> Option<IpNet> {
    match range {
        IpNet::V6(v6) => match v6.addr().to_ipv4_mapped() {
            Some(v4) => IpNet::new(v4.into(), v6.prefix_len().checked_sub(96)?).ok(),
            None => Some(range),
        },
        IpNet::V4(_) => Some(range),
    }
}

/// Decides the client's address.
///
/// `forwarded` holds the entries of the configured header in the order received, with all header lines
/// joined. An untrusted peer is the client, whatever it sent.
///
/// # Errors
/// [`Unreadable`] when the walk reaches an entry that is not an address.
pub fn decide<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = Cow<'a, str>>,
    trusted: &[IpNet],
) -> Result<ClientAddress, Unreadable> {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    let mut client = ClientAddress::direct(canonical(peer));
    for entry in forwarded.rev() {
        if !is_trusted(client.ip) {
            break;
        }
        let ip = parse_hop(&entry).ok_or(Unreadable)?;
        client.hops.insert(0, std::mem::replace(&mut client.ip, ip));
    }
    Ok(client)
}

/// The entries of `X-Forwarded-For` header lines.
pub fn x_forwarded_for_entries(line: &str) -> Vec<Cow<'_, str>> {
    line.split(',').map(|entry| Cow::Borrowed(entry.trim())).collect()
}

/// The `for=` values of a `Forwarded` header line (RFC 7239 4).
///
/// An element without `for=` yields an empty entry, so that it is refused and not skipped. A malformed
/// line yields one empty entry: after an unclosed quotation mark, we cannot tell what the proxy wrote
/// from what its caller wrote.
pub fn forwarded_entries(line: &str) -> Vec<Cow<'_, str>> {
    well_formed(line).unwrap_or_else(|| vec![Cow::Borrowed("")])
}

fn well_formed(mut line: &str) -> Option<Vec<Cow<'_, str>>> {
    let mut entries = Vec::new();
    loop {
        let (element, rest) = parameters::read(line, is_token)?;
        let mut addresses = element.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case("for"));
        entries.push(addresses.next().map_or(Cow::Borrowed(""), |(_, value)| value));
        if addresses.next().is_some() {
            return None;
        }
        match rest.strip_prefix(',') {
            Some(rest) => line = rest,
            None => return Some(entries),
        }
    }
}

/// Accepts `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` and `[2001:db8::1]:4711`, and
/// nothing else: no names, no `unknown`, no octal.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let ip = if let Some(rest) = text.strip_prefix('[') {
        let (inside, port) = rest.split_once(']')?;
        let port_is_fine = port.is_empty() || port.strip_prefix(':')?.parse::<u16>().is_ok();
        port_is_fine.then(|| inside.parse().ok()).flatten().map(IpAddr::V6)?
    } else if let Ok(ip) = text.parse::<IpAddr>() {
        ip
    } else {
        // Only IPv4 can have a port here: `SocketAddr` takes IPv6 only in brackets.
        text.parse::<SocketAddr>().ok()?.ip()
    };
    Some(canonical(ip))
}

/// The address to reach a listener at from its own machine, also when it listens on every address.
pub fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}
