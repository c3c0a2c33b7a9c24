//! Allow lists: which entries are valid, and which addresses they allow.

use tollgate::domain::allow_list::{AllowList, BadAllowList, RANGES_MAX};

use super::address::ip;

#[test]
fn a_list_lets_its_ranges_through_and_nothing_else() {
    let table: &[(&[&str], &[&str], &[&str])] = &[
        (&[], &["192.0.2.1", "2001:db8::1"], &[]),
        (&["192.0.2.1"], &["192.0.2.1", "::ffff:192.0.2.1"], &["192.0.2.0", "192.0.2.2", "::192.0.2.1"]),
        (&["192.0.2.0/30"], &["192.0.2.0", "192.0.2.3"], &["192.0.1.255", "192.0.2.4"]),
        (&["::ffff:192.0.2.1"], &["192.0.2.1"], &["192.0.2.2"]),
        (&["::ffff:192.0.2.0/120"], &["192.0.2.0", "192.0.2.255"], &["192.0.3.0"]),
        (&["2001:db8::/126"], &["2001:db8::3"], &["2001:db8::4", "192.0.2.1"]),
        (&["0.0.0.0/0"], &["255.255.255.255", "::ffff:1.1.1.1"], &["::1"]),
        (&["::/0"], &["::1", "2001:db8::1"], &["192.0.2.1"]),
        (&["198.51.100.7", "2001:db8::7"], &["198.51.100.7", "2001:db8::7"], &["198.51.100.8"]),
        (&[" 192.0.2.1 "], &["192.0.2.1"], &["192.0.2.2"]),
    ];
    for (ranges, inside, outside) in table {
        let list = AllowList::parse(ranges).expect("every range of this table is one");
        for address in *inside {
            assert!(list.allows(ip(address)), "{ranges:?} refuses {address}");
        }
        for address in *outside {
            assert!(!list.allows(ip(address)), "{ranges:?} lets {address} through");
        }
    }
}

#[test]
fn what_is_no_range_is_refused_by_name() {
    for text in [
        "",
        "*",
        "localhost",
        "192.0.2.1/33",
        "2001:db8::/129",
        "010.0.0.1",
        "192.0.2",
        "192.0.2.1-9",
        "192.0.2.*",
        "192.0.2.1/",
        "/24",
        "::ffff:192.0.2.0/95",
        "0x7f000001",
        "192.0.2.1:80",
        "[2001:db8::1]",
        "a,b",
    ] {
        let refused = AllowList::parse(&["192.0.2.1", text]);
        assert_eq!(refused, Err(BadAllowList::NotARange(text.to_owned())));
    }
}

#[test]
fn a_range_with_bits_past_its_prefix_is_a_question_to_its_owner() {
    for (given, meant) in [
        ("203.0.113.7/24", "203.0.113.0/24"),
        ("2001:db8::1/32", "2001:db8::/32"),
        ("10.0.0.1/0", "0.0.0.0/0"),
    ] {
        let refused = AllowList::parse(&[given]).expect_err("it is ambiguous");
        assert!(refused.to_string().contains(&format!("`{meant}`")), "{refused}");
    }
}

#[test]
fn a_list_has_an_end_and_keeps_each_range_once() {
    let many = |count: usize| (0..count).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect::<Vec<_>>();
    assert!(AllowList::parse(&many(RANGES_MAX)).is_ok());
    assert_eq!(AllowList::parse(&many(RANGES_MAX + 1)), Err(BadAllowList::TooMany));
    let list = AllowList::parse(&["192.0.2.1", "192.0.2.1/32", "::ffff:192.0.2.1"]).expect("all are ranges");
    assert_eq!(list.to_strings(), ["192.0.2.1/32"]);
}
