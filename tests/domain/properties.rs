//! Properties that hold for any input.

use bytes::Bytes;
use std::borrow::Cow;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use tokio::runtime::Runtime;
use tollgate::domain::address::decide;
use tollgate::domain::allow_list::AllowList;
use tollgate::domain::clock::Timestamp;
use tollgate::domain::ids::SessionId;
use tollgate::domain::keyring::Keyring;
use tollgate::domain::token::{Claims, SealedToken, TokenKind};
use tollgate::http::form;

use super::address::{ip, trusted};
use crate::support::call::{BOUNDARY, json_object, multipart_body};

fn any_claims() -> impl Strategy<Value = Claims> {
    let kind = prop_oneof![Just(TokenKind::Access), Just(TokenKind::Refresh)];
    (kind, any::<u128>(), any::<u32>(), any::<u32>()).prop_map(|(kind, session, generation, secs)| Claims {
        kind,
        session: SessionId::from_uuid(uuid::Uuid::from_u128(session)),
        generation,
        expires_at: Timestamp::from_unix_secs(secs.into()),
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made")
}

/// Any body with any content type.
fn any_label() -> impl Strategy<Value = Option<String>> {
    let known = [
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "multipart/form-data; boundary=\"",
    ];
    prop_oneof![
        Just(None),
        proptest::sample::select(known.to_vec()).prop_map(|label| Some(label.to_owned())),
        "multipart/form-data; ?boundary=.{0,80}".prop_map(Some),
        ".{0,40}".prop_map(Some),
    ]
}

/// Bytes that are often almost a valid body.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let piece = proptest::sample::select(vec![
        "--x\r\n",
        "--x--",
        "\r\n",
        "\r\n\r\n",
        "Content-Disposition: form-data; name=\"",
        "\"",
        "client_id",
        "{",
        "}",
        "\"client_id\":",
        "\"\\ud800\"",
        ",",
        "[",
        "=",
        "&",
        "%",
        "%FF",
        "%00",
        "\0",
        "\u{feff}",
        "null",
        "1e999",
    ]);
    prop_oneof![vec(any::<u8>(), 0..400), vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes()),]
}

proptest! {
    #[test]
    fn what_was_sealed_is_genuine_under_its_key_and_secret_alone(
        claims in any_claims(), key in any::<[u8; 32]>(), other in any::<[u8; 32]>(), secret in any::<[u8; 32]>(),
    ) {
        prop_assume!(key != other);
        let keyring = Keyring::new(&[key, other]).expect("there are keys in it");
        let token = claims.seal(&keyring.signer(), &secret);
        let parsed = SealedToken::parse(token.expose()).expect("what was sealed parses");
        prop_assert_eq!(parsed.claims(), claims);
        prop_assert!(parsed.is_genuine(&keyring.signer(), &secret));
        let other = Keyring::new(&[other]).expect("there is a key in it");
        prop_assert!(!parsed.is_genuine(&other.signer(), &secret));
    }

    #[test]
    fn no_text_makes_the_token_parser_panic(text in ".{0,70}", exact in "[A-Za-z0-9_-]{60}") {
        let _ = SealedToken::parse(&text);
        let keyring = Keyring::new(&[[1; 32]]).expect("there is a key in it");
        prop_assert!(SealedToken::parse(&exact).is_none_or(|token| !token.is_genuine(&keyring.signer(), &[])));
    }

    #[test]
    fn an_allow_list_reads_back_what_it_writes(ranges in vec("[0-9a-f.:/]{0,20}|(25[0-5]|1?[0-9]{1,2})(\\.[0-9]{1,2}){3}(/[0-9]{1,2})?", 0..6)) {
        if let Ok(list) = AllowList::parse(&ranges) {
            prop_assert_eq!(AllowList::parse(&list.to_strings()), Ok(list));
        }
    }

    #[test]
    fn nothing_that_a_client_puts_before_it_hides_the_address_a_proxy_saw(
        forged in vec(".{0,30}|10\\.0\\.0\\.[0-9]|([0-9]{1,3}\\.){3}[0-9]{1,3}", 0..6),
    ) {
        let seen = "192.0.2.77";
        let entries: Vec<Cow<'_, str>> = forged.iter().map(String::as_str).chain([seen]).map(Cow::from).collect();
        let decided = decide(ip("10.0.0.1"), entries.into_iter(), &trusted()).expect("the last entry is an address");
        prop_assert_eq!(decided.ip, ip(seen));
        prop_assert_eq!(decided.hops, vec![ip("10.0.0.1")]);
    }

    #[test]
    fn no_body_makes_the_parser_panic_or_wait(label in any_label(), body in any_body()) {
        let parsed = runtime().block_on(form::parse(label.as_deref(), Bytes::from(body)));
        if let Err(failure) = parsed {
            prop_assert!(failure.status.is_client_error(), "{:?}", failure);
        }
    }

    #[test]
    fn the_three_encodings_carry_the_same_fields(fields in btree_map("[a-z_]{1,12}", "\\PC{0,40}", 0..8)) {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        let urlencoded = fields
            .iter()
            .map(|(name, value)| {
                format!("{name}={}", percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC))
            })
            .collect::<Vec<_>>()
            .join("&");
        let bodies = [
            ("application/x-www-form-urlencoded".to_owned(), urlencoded),
            ("application/json".to_owned(), json_object(&fields)),
            (format!("multipart/form-data; boundary={BOUNDARY}"), multipart_body(&fields)),
        ];
        for (label, body) in bodies {
            let parsed = runtime().block_on(form::parse(Some(&label), Bytes::from(body)));
            let parsed = parsed.map_err(|failure| TestCaseError::fail(format!("{label}: {failure:?}")))?;
            for (name, value) in &fields {
                prop_assert_eq!(parsed.get(name).unwrap_or(""), *value, "{} in {}", name, &label);
            }
        }
    }
}
