//! One function for each parser of untrusted text. It must not panic on any bytes, and its result must
//! satisfy the assertions here. Included by the fuzzers and by `tests/fuzz_corpus.rs`.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt;
use tollgate::domain::address::{
    ClientAddress, canonical, decide, forwarded_entries, x_forwarded_for_entries,
};
use tollgate::domain::allow_list::AllowList;
use tollgate::domain::destination::{Destination, DestinationRules, WebhookUrl};
use tollgate::domain::entropy::Entropy;
use tollgate::domain::keyring::Keyring;
use tollgate::domain::token::{SealedToken, TOKEN_CHARS};
use tollgate::http::admin::page;
use tollgate::http::{basic, form};

/// The target of this name.
pub(crate) fn target(name: &str) -> fn(&[u8]) {
    match name {
        "basic" => basic_credentials,
        "body" => body,
        "cidr" => cidr,
        "cursor" => cursor,
        "forwarded" => forwarded,
        "token" => token,
        "webhook_url" => webhook_url,
        _ => panic!("there is no target {name}"),
    }
}

fn text(data: &[u8]) -> &str {
    match std::str::from_utf8(data) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&data[..error.valid_up_to()]).expect("it is valid up to here"),
    }
}

fn keyring() -> Keyring {
    Keyring::new(&[[7; 32]]).expect("there is a key in it")
}

/// A content type, a line break, and a body.
fn body(data: &[u8]) {
    let split = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (label, body) = (text(&data[..split]), data.get(split + 1..).unwrap_or_default());
    let label = (!label.is_empty()).then_some(label);
    // The body is complete, so the parser never waits.
    let parsed = form::parse(label, Bytes::copy_from_slice(body)).now_or_never();
    match parsed.expect("the parser waits for nothing") {
        Ok(mut fields) => {
            assert!(fields.get("client_id").is_none_or(|value| !value.is_empty() && value.len() <= 4096));
            let secret = fields.take_secret("client_secret");
            assert!(secret.is_none_or(|secret| !secret.expose().is_empty()));
            assert!(fields.take_secret("client_secret").is_none(), "a field is there once");
        }
        Err(failure) => {
            assert!(failure.status.is_client_error(), "{failure:?}");
            // RFC 6749 5.2.
            let is_plain = |c: char| matches!(c, ' ' | '!' | '#'..='[' | ']'..='~');
            assert!(failure.description.chars().all(is_plain), "{failure:?}");
        }
    }
}

fn basic_credentials(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(header::AUTHORIZATION, value);
        }
    }
    if let Ok(Some((user, password))) = basic::credentials(&headers) {
        assert_eq!(headers.len(), 1);
        // Printed and parsed again, it is the same.
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let inside = format!("{}:{}", encode(&user), encode(password.expose()));
        let value = format!("Basic {}", STANDARD.encode(inside));
        headers.insert(header::AUTHORIZATION, value.parse().expect("base64 is plain ASCII"));
        match basic::credentials(&headers) {
            Ok(Some(again)) => assert!(again.0 == user && again.1.expose() == password.expose()),
            _ => panic!("what was written in full cannot be read"),
        }
    }
}

fn forwarded(data: &[u8]) {
    let (is_standard, lines) = match data.split_first() {
        Some((first, rest)) => (first % 2 == 0, text(rest)),
        None => return,
    };
    let proxy = IpAddr::from(Ipv4Addr::new(10, 0, 0, 1));
    let seen = IpAddr::from(Ipv4Addr::new(192, 0, 2, 77));
    let trusted = ["10.0.0.0/8".parse().expect("a network")];
    let decided = |peer: IpAddr, more: &str| {
        let lines = lines.split('\n').chain((!more.is_empty()).then_some(more));
        let entries: Vec<Cow<'_, str>> = if is_standard {
            lines.flat_map(forwarded_entries).collect()
        } else {
            lines.flat_map(x_forwarded_for_entries).collect()
        };
        decide(peer, entries.into_iter(), &trusted)
    };
    // An untrusted peer is itself the client, and nothing can override the entry of a proxy.
    assert_eq!(decided(seen, ""), Ok(ClientAddress::direct(seen)));
    let entry = if is_standard { "for=192.0.2.77" } else { "192.0.2.77" };
    assert_eq!(decided(proxy, entry), Ok(ClientAddress { hops: vec![proxy], ..ClientAddress::direct(seen) }));
    if let Ok(client) = decided(proxy, "") {
        assert!(client.hops.iter().all(|hop| trusted[0].contains(hop)), "{client:?}");
    }
}

fn cidr(data: &[u8]) {
    let ranges: Vec<&str> = text(data).split('\n').collect();
    let Ok(list) = AllowList::parse(&ranges) else { return };
    assert_eq!(AllowList::parse(&list.to_strings()).as_ref(), Ok(&list), "it does not read back");
    for range in list.ranges() {
        for ip in [range.network(), range.broadcast()] {
            // What a wide IPv6 range holds of the IPv4-mapped block is IPv4, which it does not allow.
            assert!(canonical(ip) != ip || list.allows(ip), "{range}");
        }
    }
}

fn token(data: &[u8]) {
    let text = text(data);
    let Some(token) = SealedToken::parse(text) else { return };
    assert_eq!(text.len(), TOKEN_CHARS);
    let keyring = keyring();
    let secret = b"the secret of a session, 32 byte";
    assert!(!token.is_genuine(&keyring.signer(), secret), "a forgery");
    let sealed = token.claims().seal(&keyring.signer(), secret);
    let again = SealedToken::parse(sealed.expose()).expect("what was sealed parses");
    assert!(again.claims() == token.claims() && again.is_genuine(&keyring.signer(), secret));
}

fn cursor(data: &[u8]) {
    let keyring = keyring();
    let text = text(data);
    assert!(page::opened::<(i64, String)>(&keyring, "merchants", text).is_none(), "a forgery");
    let position = (i64::try_from(text.len()).expect("it is short"), text.to_owned());
    let sealed = page::sealed(&keyring, "merchants", &position, &Entropy::seeded(1));
    assert_eq!(page::opened(&keyring, "merchants", &sealed), Some(position));
    assert!(page::opened::<(i64, String)>(&keyring, "users", &sealed).is_none(), "of another list");
    if let Some(at) = data.first().map(|byte| usize::from(*byte) % sealed.len()) {
        let mut altered = sealed.into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).expect("one letter for another");
        assert!(page::opened::<(i64, String)>(&keyring, "merchants", &altered).is_none(), "{altered}");
    }
}

fn webhook_url(data: &[u8]) {
    let strict = DestinationRules::default();
    let text = text(data);
    let Ok(url) = WebhookUrl::parse(text, strict) else { return };
    assert!(url.is_https() && url.request_target().starts_with('/'), "{text}");
    assert!(!url.authority().contains('@') && !url.as_str().contains('#'), "{text}");
    match url.host() {
        Destination::Address(ip) => assert!(strict.admit(ip), "{text}"),
        // A text that a resolver takes for an address was parsed as an address.
        Destination::Name(name) => assert!(!name.is_empty() && name.parse::<IpAddr>().is_err(), "{text}"),
    }
    let again = WebhookUrl::parse(url.as_str(), strict);
    assert_eq!(again.map(|again| again.as_str().to_owned()), Ok(url.as_str().to_owned()), "{text}");
}
