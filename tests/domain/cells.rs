//! What a cell makes shows the cell, and nothing else shows one.

use proptest::prelude::*;
use tollgate::domain::cell::{Cell, CellId};
use tollgate::domain::clock::Timestamp;
use tollgate::domain::credential::generate_client_id;
use tollgate::domain::entropy::Entropy;
use tollgate::domain::ids::SessionId;
use tollgate::domain::keyring::Keyring;
use tollgate::domain::secret::{PlainSecret, looks_like_admin_token, looks_like_api_key};
use tollgate::domain::token::{Claims, TokenKind};
use uuid::Uuid;

fn token(session: SessionId, kind: TokenKind, generation: u32) -> String {
    let signer = Keyring::new(&[[1; 32]]).expect("there is a key in it").signer();
    let expires_at = Timestamp::from_unix_secs(1_900_000_000);
    Claims { kind, session, generation, expires_at }.seal(&signer, &[3; 32]).expose().to_owned()
}

fn cell(number: u16) -> CellId {
    CellId::new(number).expect("the test gives a cell's number")
}

proptest! {
    #[test]
    fn everything_that_a_cell_makes_shows_it(number in 0..=CellId::MAX, seed: u64, secs in 0..4_000_000_000_i64, generation: u32) {
        let (own, entropy) = (cell(number), Entropy::seeded(seed).of_cell(cell(number)));
        let digits = format!("{number:03x}");

        let key = PlainSecret::api_key(&entropy);
        prop_assert!(looks_like_api_key(key.expose().as_bytes()) && key.expose().starts_with(&digits));
        prop_assert_eq!(CellId::of_api_key(key.expose()), Some(own));

        let client_id = generate_client_id(&entropy);
        prop_assert!(client_id.starts_with(&digits));
        prop_assert_eq!(CellId::of_client_id(&client_id), Some(own));

        let admin = PlainSecret::admin_token(&entropy);
        prop_assert!(looks_like_admin_token(admin.expose()) && admin.expose()[4..].starts_with(&digits));
        prop_assert_eq!(CellId::of_admin_token(admin.expose()), Some(own));

        let id = SessionId::generate(Timestamp::from_unix_secs(secs), &entropy);
        prop_assert_eq!(CellId::of_id(id.uuid()), Some(own));
        prop_assert_eq!(id.uuid().get_version_num(), 7);
        prop_assert_eq!(id.uuid().get_timestamp().map(|time| time.to_unix().0), Some(secs.unsigned_abs()));
        prop_assert_eq!(&id.to_string()[14..23], &format!("7{digits}-bce1"));

        for kind in [TokenKind::Access, TokenKind::Refresh] {
            let token = token(id, kind, generation);
            prop_assert_eq!(&token[10..12], &own.in_tokens());
            prop_assert!(&token[12..14] == "vO" && "EFGH".contains(&token[14..15]), "{}", token);
            prop_assert_eq!(CellId::of_token(&token), Some(own));
        }
    }

    #[test]
    fn an_id_shows_a_cell_only_with_the_mark(bits: u128) {
        let id = Uuid::from_u128(bits);
        let is_marked = id.to_string()[14..15] == *"7" && id.to_string()[19..23] == *"bce1";
        prop_assert_eq!(CellId::of_id(id).is_some(), is_marked);
    }

    #[test]
    fn no_text_makes_the_search_for_a_cell_panic(text in ".{0,70}") {
        let of = [CellId::of_api_key, CellId::of_client_id, CellId::of_admin_token, CellId::of_token];
        for of in of {
            of(&text);
        }
        Cell { id: cell(0), is_default: false }.elsewhere_in(&text);
    }
}

#[test]
fn what_was_made_without_cells_shows_none_and_belongs_to_the_default_cell() {
    let default = Cell { id: cell(1), is_default: true };
    for seed in 0..500 {
        let entropy = Entropy::seeded(seed);
        let id = SessionId::generate(Timestamp::from_unix_secs(1_800_000_000), &entropy);
        let shown = [
            CellId::of_api_key(PlainSecret::api_key(&entropy).expose()),
            CellId::of_client_id(&generate_client_id(&entropy)),
            CellId::of_admin_token(PlainSecret::admin_token(&entropy).expose()),
            CellId::of_id(id.uuid()),
            CellId::of_token(&token(id, TokenKind::Access, 1)),
        ];
        assert_eq!(shown, [None; 5], "seed {seed}");
        assert!(!default.is_elsewhere(None));
        assert!(Cell { is_default: false, ..default }.is_elsewhere(None));
    }
}

#[test]
fn an_id_in_a_path_tells_whether_it_was_made_elsewhere() {
    let here = Cell { id: cell(5), is_default: false };
    for (path, expected) in [
        ("/admin/v1/merchants", None),
        ("/admin/v1/merchants/01a20d60-fef6-7005-bce1-7286a391e4c4", None),
        ("/admin/v1/merchants/01a20d60-fef6-7006-bce1-7286a391e4c4/api-keys", Some(Some(cell(6)))),
        ("/admin/v1/merchants/01a20d60-fef6-7005-bce2-7286a391e4c4", Some(None)),
        ("/admin/v1/credentials/0056e77d57dab5d44b040c300e4bfa38f42", None),
        ("/admin/v1/credentials/0066e77d57dab5d44b040c300e4bfa38f42", Some(Some(cell(6)))),
        ("/admin/v1/credentials/6e77d57dab5d44b040c300e4bfa38f42", Some(None)),
    ] {
        assert_eq!(here.elsewhere_in(path), expected, "{path}");
    }
}
