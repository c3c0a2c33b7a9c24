//! Who is calling: an address, and the trusted proxies it came through.
//!
//! `X-Forwarded-For` is a list that anyone may start; only its right end was written by proxies we
//! know. So the walk goes from the right and stops at the first hop that is not trusted: that one is
//! the client. The leftmost entry is never believed (RFC 7239 8.1).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::parameters::{self, is_token};

/// The address of a caller as decided, and the hops between it and us, nearest last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    pub ip: IpAddr,
    pub hops: Vec<IpAddr>,
    /// False where a proxy did not say for whom it speaks: `ip` is the proxy's own, and no allow list holds it.
    pub is_known: bool,
}

impl ClientAddress {
    pub const fn direct(ip: IpAddr) -> Self {
        Self { ip, hops: Vec::new(), is_known: true }
    }

    /// Whoever it is that calls through `proxy`.
    pub const fn unknown(proxy: IpAddr) -> Self {
        Self { ip: proxy, hops: Vec::new(), is_known: false }
    }
}

/// A forwarding header that a trusted proxy sent, but that names no address: the caller is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// An IPv4-mapped IPv6 address is the IPv4 address (RFC 4291 2.5.5.2).
pub const fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => ip,
        },
        IpAddr::V4(_) => ip,
    }
}

/// What one client commonly has: an IPv4 address, an IPv6 /64. Whoever is counted is counted by it.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match canonical(ip) {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The same for a range: `::ffff:192.0.2.0/120` is `192.0.2.0/24`. `None` for one that covers more than the
/// mapped block: addresses are compared unmapped, so it means nothing.
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
/// `forwarded` holds the entries of the one configured header, in the order in which they were
/// received, all header lines joined. An untrusted peer is the client, whatever it sent.
///
/// # Errors
/// [`Unreadable`] when the walk meets an entry that is no address.
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

/// The `for=` values of a `Forwarded` header line (RFC 7239 4). An element without one yields an entry that is
/// no address, so that it is refused and not skipped. A malformed line yields such an entry alone: where a
/// quotation mark is left open, nobody can say what the proxy wrote and what its caller.
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

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`. Nothing else:
/// no names, no `unknown`, no octal.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let ip = if let Some(rest) = text.strip_prefix('[') {
        let (inside, port) = rest.split_once(']')?;
        let port_is_fine = port.is_empty() || port.strip_prefix(':')?.parse::<u16>().is_ok();
        port_is_fine.then(|| inside.parse().ok()).flatten().map(IpAddr::V6)?
    } else if let Ok(ip) = text.parse::<IpAddr>() {
        ip
    } else {
        // Only IPv4 may carry a bare port; `SocketAddr` takes IPv6 in brackets alone.
        text.parse::<SocketAddr>().ok()?.ip()
    };
    Some(canonical(ip))
}

/// Where a listener is reached from its own machine, should it listen on every address.
pub fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}
