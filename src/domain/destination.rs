//! Where webhooks may go: which URLs are accepted, and which addresses we connect to.
//!
//! A merchant chooses the URL, and we call it from inside the platform's network, so it must not become a
//! way into that network. We check the URL when it is set. We check the addresses of its host again at
//! each connection, because the name may point somewhere else by then.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// The most characters that a webhook URL may have.
pub const URL_MAX: usize = 2048;

/// What the settings allow beyond HTTPS to public addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DestinationRules {
    /// Allows loopback, private and link-local addresses, for development.
    pub allow_private_networks: bool,
    pub allow_http: bool,
}

/// A webhook URL whose text passed the checks. Its host still has to be resolved and checked.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Url);

/// Why a URL is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWebhookUrl {
    #[error("must have at most {URL_MAX} characters")]
    TooLong,
    #[error("must be an absolute URL without spaces or control characters")]
    Malformed,
    #[error("must begin with https://")]
    NotHttps,
    #[error("must not hold a user name or password")]
    UserInfo,
    #[error("must not have a fragment")]
    Fragment,
    #[error("must name a host on the public internet")]
    Address,
}

impl DestinationRules {
    /// For URLs that the operator chose.
    pub const OPEN: Self = Self { allow_private_networks: true, allow_http: true };
}

impl WebhookUrl {
    /// # Errors
    /// [`BadWebhookUrl`].
    pub fn parse(text: &str, rules: DestinationRules) -> Result<Self, BadWebhookUrl> {
        if text.len() > URL_MAX {
            return Err(BadWebhookUrl::TooLong);
        }
        // The parser silently drops some of these characters. We want to store exactly the URL that is used.
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err(BadWebhookUrl::Malformed);
        }
        let url = Url::parse(text).map_err(|_| BadWebhookUrl::Malformed)?;
        // We store the URL in ASCII, which is longer when the host has other characters.
        if url.as_str().len() > URL_MAX {
            return Err(BadWebhookUrl::TooLong);
        }
        match url.scheme() {
            "https" => {}
            "http" if rules.allow_http => {}
            _ => return Err(BadWebhookUrl::NotHttps),
        }
        // The parser also accepts fewer or more than two slashes. The host would then not be what it seems
        // to be.
        let after_scheme = text.split_once(':').and_then(|(_, rest)| rest.strip_prefix("//"));
        let authority = after_scheme.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
        if authority.is_empty() {
            return Err(BadWebhookUrl::Malformed);
        }
        if authority.contains('@') || !url.username().is_empty() || url.password().is_some() {
            return Err(BadWebhookUrl::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(BadWebhookUrl::Fragment);
        }
        let url = Self(url);
        // This also catches `0x7f000001`, `2130706433` and `127.1`: the parser turns them into addresses.
        match url.host() {
            Destination::Address(ip) if !rules.admit(ip) => Err(BadWebhookUrl::Address),
            Destination::Name("") => Err(BadWebhookUrl::Malformed),
            Destination::Address(_) | Destination::Name(_) => Ok(url),
        }
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub fn host(&self) -> Destination<'_> {
        match self.0.host() {
            Some(Host::Domain(name)) => Destination::Name(name),
            Some(Host::Ipv4(ip)) => Destination::Address(ip.into()),
            Some(Host::Ipv6(ip)) => Destination::Address(ip.into()),
            None => Destination::Name(""),
        }
    }

    /// The host as written in a URL, with brackets around an IPv6 address.
    pub fn host_text(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(443)
    }

    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The value for the `Host` header. It has the port only if that is not the scheme's default.
    pub fn authority(&self) -> &str {
        self.0.authority()
    }

    /// The path and query.
    pub fn request_target(&self) -> &str {
        &self.0[url::Position::BeforePath..url::Position::AfterQuery]
    }
}

impl fmt::Debug for WebhookUrl {
    /// Leaves out the path and query, because they may hold one of the receiver's secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({}://{}/..)", self.0.scheme(), self.0.authority())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    Name(&'a str),
    Address(IpAddr),
}

impl DestinationRules {
    /// Whether we may connect to this address.
    pub fn admit(self, ip: IpAddr) -> bool {
        match reach(ip) {
            Reach::Public => true,
            Reach::Private => self.allow_private_networks,
            Reach::Nowhere => false,
        }
    }
}

/// Who can reach an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Public,
    /// This machine or an internal network, which is what an attacker would like to reach through us.
    Private,
    /// Not a host: multicast, documentation, reserved.
    Nowhere,
}

/// Looks an address up in the special-purpose registries (RFC 6890). An IPv6 address that contains an IPv4
/// address is judged by that one.
pub fn reach(ip: IpAddr) -> Reach {
    match ip {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

const fn reach_v4(ip: Ipv4Addr) -> Reach {
    match ip.octets() {
        // Public by number, but internal to clouds: Azure's host, Google's private API addresses, IBM's
        // service endpoints.
        [168, 63, 129, 16] | [199, 36, 153, 4..=11] | [161, 26, ..] | [166, 8..=11, ..] => Reach::Private,
        // Private (RFC 1918), shared by carriers (RFC 6598), loopback, link-local, benchmarking.
        [10 | 127, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [100, 64..=127, ..]
        | [169, 254, ..]
        | [198, 18 | 19, ..] => Reach::Private,
        // "This network", protocol assignments, documentation, 6to4 relays, multicast, reserved, broadcast.
        [0 | 224..=255, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Reach::Nowhere,
        _ => Reach::Public,
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    let inner = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        reach_v4(Ipv4Addr::new(a, b, c, d))
    };
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Reach::Nowhere,
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Private,
        // IPv4-mapped, IPv4-translated, IPv4-compatible and NAT64 (RFC 6052): judged by the IPv4 address.
        [0, 0, 0, 0, 0 | 0xffff, 0xffff | 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            inner(high, low)
        }
        // A network's own NAT64 (RFC 8215), unique local, link-local, and the old site-local.
        [0x64, 0xff9b, 1, ..] | [0xfc00..=0xfdff, ..] | [0xfe80..=0xfeff, ..] => Reach::Private,
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => inner(high, low),
        // ISATAP (RFC 5214): an IPv4 address as the interface id, under any prefix.
        [.., 0 | 0x200, 0x5efe, high, low] => inner(high, low),
        // Teredo and other protocol assignments (RFC 2928), documentation (RFC 3849, RFC 9637).
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Reach::Nowhere,
        // Google's private API addresses.
        [0x2600, 0x2d00, 2, 0x1000..=0x10ff | 0x2000..=0x20ff, ..] => Reach::Private,
        // The block that IANA has assigned to global unicast.
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: DestinationRules = DestinationRules { allow_private_networks: false, allow_http: false };
    const OPEN: DestinationRules = DestinationRules { allow_private_networks: true, allow_http: true };

    #[test]
    fn urls_are_held_to_their_rules() {
        let too_long = format!("https://example.com/{}", "a".repeat(URL_MAX));
        let too_long_in_ascii = format!("https://example.com/{}", "\u{416}".repeat(URL_MAX / 3));
        for (text, expected) in [
            (too_long.as_str(), BadWebhookUrl::TooLong),
            (too_long_in_ascii.as_str(), BadWebhookUrl::TooLong),
            ("", BadWebhookUrl::Malformed),
            ("example.com", BadWebhookUrl::Malformed),
            ("https://", BadWebhookUrl::Malformed),
            ("https://exa mple.com", BadWebhookUrl::Malformed),
            ("https://example.com/\n", BadWebhookUrl::Malformed),
            ("https:\\\\example.com", BadWebhookUrl::Malformed),
            ("https://example.com:99999/", BadWebhookUrl::Malformed),
            ("http://example.com/", BadWebhookUrl::NotHttps),
            ("ftp://example.com/", BadWebhookUrl::NotHttps),
            ("file:///etc/passwd", BadWebhookUrl::NotHttps),
            ("https:example.com", BadWebhookUrl::Malformed),
            ("https:/example.com", BadWebhookUrl::Malformed),
            ("https:///user@example.com/", BadWebhookUrl::Malformed),
            ("https:user:pass@example.com://a", BadWebhookUrl::Malformed),
            ("https://user@example.com/", BadWebhookUrl::UserInfo),
            ("https://user:pass@example.com/", BadWebhookUrl::UserInfo),
            ("https://:@example.com/", BadWebhookUrl::UserInfo),
            ("https://@example.com/", BadWebhookUrl::UserInfo),
            ("https://example.com/#a", BadWebhookUrl::Fragment),
            ("https://example.com/#", BadWebhookUrl::Fragment),
        ] {
            assert_eq!(WebhookUrl::parse(text, STRICT), Err(expected), "{text}");
        }
        for text in ["https://example.com", "https://example.com:8443/a%20b?c=d", "https://[2600::1]/x@y"] {
            assert!(WebhookUrl::parse(text, STRICT).is_ok(), "{text}");
        }
        assert!(WebhookUrl::parse("http://127.0.0.1:8080/", OPEN).is_ok());
    }

    #[test]
    fn every_way_to_write_an_inner_address_is_refused() {
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f000001",
            "0x7f.1",
            "2130706433",
            "017700000001",
            "0",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "[::ffff:168.63.129.16]",
            "100.100.100.200",
            "199.36.153.8",
            "161.26.0.10",
            "166.9.12.1",
            "[2600:2d00:2:2000::1]",
            "[fd00:ec2::254]",
            "１２７.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "[::]",
            "[::1]",
            "[::ffff:7f00:1]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[::ffff:0:7f00:1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::1]",
            "[2002:7f00:1::1]",
            "[2002:a00:1::1]",
            "[2001:0:1234::1]",
            "[2001:db8::1]",
            "[3fff::1]",
            "[fc00::1]",
            "[fd12:3456::1]",
            "[fe80::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[100::1]",
            "[2600::5efe:a00:1]",
            "[2600::200:5efe:10.0.0.1]",
            "[5f00::1]",
        ] {
            let text = format!("https://{host}/");
            assert_eq!(WebhookUrl::parse(&text, STRICT), Err(BadWebhookUrl::Address), "{host}");
        }
    }

    #[test]
    fn the_switch_opens_private_networks_and_nothing_else() {
        for (ip, expected) in [
            ("127.0.0.1", true),
            ("10.0.0.1", true),
            ("169.254.1.1", true),
            ("::1", true),
            ("fd00::1", true),
            ("::ffff:127.0.0.1", true),
            ("8.8.8.8", true),
            ("2600::1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("224.0.0.1", false),
            ("ff02::1", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(OPEN.admit(ip.parse().expect("an address")), expected, "{ip}");
        }
        for ip in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2600::1", "2002:808:808::1", "64:ff9b::808:808"] {
            assert!(STRICT.admit(ip.parse().expect("an address")), "{ip}");
        }
    }

    #[test]
    fn a_url_tells_nothing_of_its_path_to_the_log() {
        let url = WebhookUrl::parse("https://example.com/secret?token=1", STRICT).expect("a good URL");
        assert_eq!(format!("{url:?}"), "WebhookUrl(https://example.com/..)");
        assert_eq!(url.request_target(), "/secret?token=1");
    }
}
