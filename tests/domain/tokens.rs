//! Sealed tokens: only our own tokens are accepted.

use std::collections::HashSet;

use tollgate::domain::clock::Timestamp;
use tollgate::domain::entropy::Entropy;
use tollgate::domain::ids::SessionId;
use tollgate::domain::keyring::{Keyring, TokenForm};
use tollgate::domain::token::{Claims, SealedToken, TOKEN_CHARS, TokenKind};
use uuid::Uuid;

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const SECRET: &[u8] = &[3; 32];

const FORMS: [TokenForm; 2] = [TokenForm::First, TokenForm::Current];
const KINDS: [TokenKind; 2] = [TokenKind::Access, TokenKind::Refresh];

fn keyring(byte: u8, form: TokenForm) -> Keyring {
    let keyring = Keyring::new(&[[byte; 32]]).expect("there is a key in it");
    keyring.settle(keyring.signing().id(), form, []);
    keyring
}

fn each_form_and_kind() -> impl Iterator<Item = (TokenForm, TokenKind)> {
    FORMS.into_iter().flat_map(|form| KINDS.map(|kind| (form, kind)))
}

fn claims(kind: TokenKind) -> Claims {
    let now = Timestamp::from_unix_secs(1_800_000_000);
    Claims { kind, session: SessionId::generate(now, &Entropy::seeded(5)), generation: 9, expires_at: now }
}

fn sealed(form: TokenForm, kind: TokenKind) -> String {
    claims(kind).seal(&keyring(1, form).signer(), SECRET).expose().to_owned()
}

fn is_ours(form: TokenForm, token: &str) -> bool {
    SealedToken::parse(token).is_some_and(|token| token.is_genuine(&keyring(1, form).signer(), SECRET))
}

#[test]
fn a_token_is_sixty_url_safe_characters_and_says_what_was_sealed() {
    for (form, kind) in each_form_and_kind() {
        let token = sealed(form, kind);
        assert_eq!(token.len(), TOKEN_CHARS);
        assert!(token.bytes().all(|byte| ALPHABET.contains(&byte)), "{token}");
        assert_eq!(SealedToken::parse(&token).map(|token| token.claims()), Some(claims(kind)));
        assert!(is_ours(form, &token));
        assert_eq!(token, sealed(form, kind), "sealing is not drawing");
    }
}

#[test]
fn no_character_of_a_token_can_be_changed() {
    for (form, kind) in each_form_and_kind() {
        let token = sealed(form, kind);
        for place in 0..token.len() {
            for byte in ALPHABET {
                let mut altered = token.clone().into_bytes();
                if altered[place] != *byte {
                    altered[place] = *byte;
                    let altered = String::from_utf8(altered).expect("the alphabet is ASCII");
                    assert!(!is_ours(form, &altered), "{altered} passes for {token}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_sixty_characters_of_the_alphabet_is_not_even_parsed() {
    let token = sealed(TokenForm::Current, TokenKind::Refresh);
    for length in 0..token.len() {
        assert!(SealedToken::parse(&token[..length]).is_none(), "{length} characters");
    }
    for junk in [
        format!("{token}A"),
        format!("{token}="),
        format!(" {}", &token[1..]),
        format!("{}\n", &token[1..]),
        format!("{}+", &token[1..]),
        format!("{}/", &token[1..]),
        format!("{}é", &token[2..]),
        "\0".repeat(60),
        // Kinds 0 and 3.
        "A".repeat(60),
        format!("Aw{}", &token[2..]),
    ] {
        assert!(SealedToken::parse(&junk).is_none(), "{junk:?}");
    }
}

#[test]
fn a_token_is_of_one_form_one_kind_one_key_and_one_session() {
    for (form, other) in [(FORMS[0], FORMS[1]), (FORMS[1], FORMS[0])] {
        let [access, refresh] = KINDS.map(|kind| sealed(form, kind));
        let token = SealedToken::parse(&access).expect("it was just sealed");
        assert!(!token.is_genuine(&keyring(1, other).signer(), SECRET), "another form");
        assert!(!token.is_genuine(&keyring(2, form).signer(), SECRET), "another key");
        assert!(!token.is_genuine(&keyring(1, form).signer(), &[4; 32]), "another session's secret");
        assert!(!token.is_genuine(&keyring(1, form).signer(), &[]), "no secret");

        // The first byte is the kind.
        let relabelled = format!("{}{}", &refresh[..2], &access[2..]);
        let parsed = SealedToken::parse(&relabelled).expect("it is well-formed");
        assert_eq!(parsed.claims().kind, TokenKind::Refresh);
        assert!(!is_ours(form, &relabelled));
    }
}

#[test]
fn a_token_is_made_as_the_module_says() {
    let claims = Claims { session: SessionId::from_uuid(Uuid::from_u128(7)), ..claims(TokenKind::Access) };
    // Made with the modules hmac and hashlib of Python.
    for (form, token) in [
        (TokenForm::First, "AQAAAAAAAAAAAAAAAAAAAAcAAAAJa0nSAMGKGEIL5WoDpyY4C2EHGHZonRzw"),
        (TokenForm::Current, "AQAAAAAAAAAAAAAAAAAAAAcAAAAJa0nSAFDe7t71OXHf0xxD4LVB5XearvVV"),
    ] {
        assert_eq!(claims.seal(&keyring(1, form).signer(), SECRET).expose(), token, "{form:?}");
    }
}

#[test]
fn a_hundred_thousand_tokens_are_all_different() {
    let (entropy, keyring, now) =
        (Entropy::System, keyring(1, TokenForm::Current), Timestamp::from_unix_secs(1_800_000_000));
    let mut seen = HashSet::new();
    for number in 0..25_000_u32 {
        let (session, secret) = (SessionId::generate(now, &entropy), entropy.bytes::<32>());
        for kind in [TokenKind::Access, TokenKind::Refresh] {
            for generation in [number, number + 1] {
                let claims = Claims { kind, session, generation, expires_at: now };
                let token = claims.seal(&keyring.signer(), &secret).expose().to_owned();
                assert!(seen.insert(token), "a token came twice");
            }
        }
    }
    assert_eq!(seen.len(), 100_000);
}
