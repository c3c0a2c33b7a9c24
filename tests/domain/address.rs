//! The caller's address behind trusted and untrusted proxies.

use std::net::IpAddr;

use ipnet::IpNet;
use tollgate::domain::address::{
    Unreadable, canonical, decide, forwarded_entries, reachable, x_forwarded_for_entries,
};

const PROXY: &str = "10.0.0.1";

pub(super) fn trusted() -> Vec<IpNet> {
    ["10.0.0.0/8", "2001:db8:ffff::/48"].map(|net| net.parse().expect("it is a CIDR")).to_vec()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("it is an address")
}

/// The client and the hops, nearest last, as text, or that the header is unreadable.
type Decision = Result<String, Unreadable>;

fn shown(decided: Result<tollgate::domain::address::ClientAddress, Unreadable>) -> Decision {
    decided.map(|client| {
        let hops: String = client.hops.iter().map(|hop| format!(" < {hop}")).collect();
        format!("{}{hops}", client.ip)
    })
}

fn by_x_forwarded_for(peer: &str, lines: &[&str]) -> Decision {
    let entries: Vec<_> = lines.iter().flat_map(|line| x_forwarded_for_entries(line)).collect();
    shown(decide(ip(peer), entries.into_iter(), &trusted()))
}

fn by_forwarded(peer: &str, lines: &[&str]) -> Decision {
    let entries: Vec<_> = lines.iter().flat_map(|line| forwarded_entries(line)).collect();
    shown(decide(ip(peer), entries.into_iter(), &trusted()))
}

#[test]
fn an_untrusted_peer_is_the_client_whatever_it_says() {
    for lines in
        [&["6.6.6.6, 192.0.2.1"][..], &["10.0.0.2"], &["unknown"], &["1.1.1.1", "2.2.2.2"], &[""], &[]]
    {
        assert_eq!(by_x_forwarded_for("203.0.113.9", lines), Ok("203.0.113.9".to_owned()), "{lines:?}");
        assert_eq!(by_forwarded("203.0.113.9", lines), Ok("203.0.113.9".to_owned()), "{lines:?}");
    }
}

#[test]
fn x_forwarded_for_is_walked_from_the_right_past_trusted_hops() {
    let table: &[(&[&str], &str)] = &[
        (&[], "10.0.0.1"),
        (&["192.0.2.1"], "192.0.2.1 < 10.0.0.1"),
        // The leftmost entry is never trusted.
        (&["6.6.6.6, 192.0.2.1"], "192.0.2.1 < 10.0.0.1"),
        (&["6.6.6.6, 10.0.0.9, 192.0.2.1"], "192.0.2.1 < 10.0.0.1"),
        (&["6.6.6.6, 192.0.2.1, 10.2.3.4"], "192.0.2.1 < 10.2.3.4 < 10.0.0.1"),
        (&["10.9.9.9"], "10.9.9.9 < 10.0.0.1"),
        // Several header lines count as one list, in order.
        (&["6.6.6.6", "192.0.2.1"], "192.0.2.1 < 10.0.0.1"),
        (&["6.6.6.6", "192.0.2.1", "10.2.3.4"], "192.0.2.1 < 10.2.3.4 < 10.0.0.1"),
        // Spellings of one address.
        (&["::ffff:1.2.3.4"], "1.2.3.4 < 10.0.0.1"),
        (&["192.0.2.1, ::ffff:10.0.0.7"], "192.0.2.1 < 10.0.0.7 < 10.0.0.1"),
        (&["192.0.2.1:54321"], "192.0.2.1 < 10.0.0.1"),
        (&["[2001:db8::1]:4711"], "2001:db8::1 < 10.0.0.1"),
        (&["[2001:db8::1]"], "2001:db8::1 < 10.0.0.1"),
        (&["2001:db8::1"], "2001:db8::1 < 10.0.0.1"),
        (&["192.0.2.1, 2001:db8:ffff::2"], "192.0.2.1 < 2001:db8:ffff::2 < 10.0.0.1"),
        (&["  192.0.2.1\t"], "192.0.2.1 < 10.0.0.1"),
        // Entries before the client are ignored.
        (&["unknown, 192.0.2.1"], "192.0.2.1 < 10.0.0.1"),
        (&["'; drop table, , 192.0.2.1"], "192.0.2.1 < 10.0.0.1"),
    ];
    for (lines, expected) in table {
        assert_eq!(by_x_forwarded_for(PROXY, lines), Ok((*expected).to_owned()), "{lines:?}");
    }
}

#[test]
fn forwarded_is_walked_the_same_way() {
    let table: &[(&[&str], &str)] = &[
        (&["for=192.0.2.1"], "192.0.2.1 < 10.0.0.1"),
        (&["for=\"[2001:db8::1]:4711\""], "2001:db8::1 < 10.0.0.1"),
        (&["For=\"192.0.2.1:8080\";proto=https;by=10.0.0.1"], "192.0.2.1 < 10.0.0.1"),
        (&["proto=https; for=192.0.2.1"], "192.0.2.1 < 10.0.0.1"),
        (&["for=6.6.6.6, for=192.0.2.1"], "192.0.2.1 < 10.0.0.1"),
        (&["for=6.6.6.6", "for=192.0.2.1, for=10.2.3.4"], "192.0.2.1 < 10.2.3.4 < 10.0.0.1"),
        (&["for=unknown, for=192.0.2.1"], "192.0.2.1 < 10.0.0.1"),
        // Text in quotation marks is neither an element nor a parameter.
        (&["for=192.0.2.1;host=\"a,for=6.6.6.6\""], "192.0.2.1 < 10.0.0.1"),
        (&["for=192.0.2.1;host=\"a, for=6.6.6.6\";proto=https"], "192.0.2.1 < 10.0.0.1"),
        (&["host=\"a;for=6.6.6.6\";for=192.0.2.1"], "192.0.2.1 < 10.0.0.1"),
        (&["host=\"a\\\",for=6.6.6.6\";for=192.0.2.1"], "192.0.2.1 < 10.0.0.1"),
        (&["for=\"192.0.\\2.1\";host=\"api.example:8443\""], "192.0.2.1 < 10.0.0.1"),
        (&[";for=192.0.2.1;;proto=http;"], "192.0.2.1 < 10.0.0.1"),
        // Each header line is parsed by itself.
        (&["for=\"6.6.6.6", "for=192.0.2.1"], "192.0.2.1 < 10.0.0.1"),
    ];
    for (lines, expected) in table {
        assert_eq!(by_forwarded(PROXY, lines), Ok((*expected).to_owned()), "{lines:?}");
    }
}

#[test]
fn an_entry_that_is_no_address_is_refused_and_not_skipped() {
    for entry in [
        "unknown",
        "_hidden",
        "010.0.0.1",
        "1.2.3",
        "1.2.3.4.5",
        "0x7f000001",
        "2130706433",
        "localhost",
        "proxy.example",
        "1.2.3.4/32",
        "1.2.3.4:",
        "1.2.3.4:99999",
        "[::1",
        "::1]",
        "[1.2.3.4]",
        "[::1]:x",
        "",
        "fe80::1%eth0",
        "１.2.3.4",
    ] {
        assert_eq!(by_x_forwarded_for(PROXY, &[entry]), Err(Unreadable), "{entry:?}");
        assert_eq!(by_x_forwarded_for(PROXY, &["192.0.2.1", entry]), Err(Unreadable), "{entry:?}");
        assert_eq!(by_forwarded(PROXY, &[&format!("for=\"{entry}\"")]), Err(Unreadable), "{entry:?}");
    }
    for line in [
        "",
        "proto=https",
        "for",
        "for=",
        "192.0.2.1",
        "for=192.0.2.1,",
        "for=192.0.2.1, by=10.0.0.2",
        // An unclosed quotation mark hides everything after it.
        "for=\"6.6.6.6, for=192.0.2.1",
        "for=6.6.6.6;x=\", for=192.0.2.1;host=\",for=6.6.6.6;y=\\\"\"",
        "for=192.0.2.1;host=\"a\"b",
        "for=192.0.2.1;host=a b",
        "for=192.0.2.1;for=6.6.6.6",
        "for=192.0.2.1:80",
        "for=[2001:db8::1]",
        "for =192.0.2.1",
        "for= 192.0.2.1",
        "for=192.0.2.1;=x",
        "for=192.0.2.1;proto",
    ] {
        assert_eq!(by_forwarded(PROXY, &[line]), Err(Unreadable), "{line:?}");
    }
}

#[test]
fn a_mapped_peer_is_the_address_inside() {
    assert_eq!(canonical(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    assert_eq!(canonical(ip("::10.0.0.1")), ip("::10.0.0.1"), "compatible is not mapped");
    assert_eq!(by_x_forwarded_for("::ffff:10.0.0.1", &["192.0.2.1"]), Ok("192.0.2.1 < 10.0.0.1".to_owned()));
    assert_eq!(by_x_forwarded_for("::ffff:203.0.113.9", &["192.0.2.1"]), Ok("203.0.113.9".to_owned()));
}

#[test]
fn a_listener_on_every_address_is_called_by_one_that_can_be_called() {
    for (listen, called) in
        [("0.0.0.0:8080", "127.0.0.1:8080"), ("[::]:8080", "[::1]:8080"), ("192.0.2.7:80", "192.0.2.7:80")]
    {
        let listen = listen.parse().expect("it is an address");
        assert_eq!(reachable(listen).to_string(), called);
    }
}
