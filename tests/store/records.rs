//! The records that decide about calls.

use tollgate::domain::ids::{MerchantId, SessionId};
use tollgate::domain::secret::SecretHash;
use tollgate::domain::session::Session;
use tollgate::flows::principal::Principal;
use tollgate::store::hot::{Wanted, records};

use super::batch::unwritten;
use crate::support::each_engine;
use crate::support::merchant::{done, made, plain_key};

#[tokio::test]
async fn the_records_of_many_merchants_take_one_statement_and_are_those_that_load_alone() {
    each_engine(async |app| {
        let (core, by) = (app.core(), Principal::command_line());
        let mut merchants = Vec::new();
        for number in 0..20 {
            let merchant = app.merchant().await;
            // Some have another key, one that is revoked, a secret that was replaced, and one that has ended.
            if number % 2 == 0 {
                let key = app.key_of(merchant.id, plain_key()).await.key_id;
                made(core.rotate_api_key(&by, key, 3600).await);
                made(core.rotate_api_key(&by, key, 0).await);
            }
            if number % 3 == 0 {
                let key = app.key_of(merchant.id, plain_key()).await.key_id;
                done(core.revoke_api_key(&by, key).await);
            }
            merchants.push(merchant);
        }
        let mut db = core.store.read().await.expect("the store answers");
        let mut load = async |wanted: &[Wanted]| {
            let before = core.store.statements();
            let loaded = records::load(&mut db, wanted, app.now()).await.expect("the store answers");
            assert_eq!(core.store.statements() - before, 1);
            loaded
        };
        let ids: Vec<MerchantId> = merchants.iter().map(|merchant| merchant.id).collect();
        // Asked for by their ids and by their keys, and several times.
        let by_id = ids.iter().map(|id| Wanted::Merchant(*id));
        let by_key = merchants.iter().map(|merchant| Wanted::OwnerOf(SecretHash::of(&merchant.key)));
        let together = load(&Vec::from_iter(by_id.clone().chain(by_key.clone()))).await;
        assert_eq!(together.len(), ids.len());
        for (number, (id, key)) in by_id.zip(by_key).enumerate() {
            let alone = load(&[id]).await;
            assert_eq!(format!("{alone:?}"), format!("{:?}", load(&[key]).await));
            let record = alone[&ids[number]].here().expect("this cell serves it");
            assert_eq!(
                format!("{record:?}"),
                format!("{:?}", together[&ids[number]].here().expect("it does"))
            );
            let keys = if number % 2 == 0 { 2 } else { 1 };
            assert_eq!((record.api_keys.len(), record.credentials.len()), (keys, keys));
            let mut secrets: Vec<_> = record.api_keys.iter().map(|key| key.secrets.len()).collect();
            secrets.sort_unstable();
            assert_eq!(secrets, if number % 2 == 0 { vec![1, 3] } else { vec![1] });
            assert_eq!(record.credentials[0].secrets.len(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn every_live_secret_is_kept_however_old_and_few_that_have_ended() {
    each_engine(async |app| {
        let (core, by) = (app.core(), Principal::command_line());
        let merchant = app.merchant().await;
        for _ in 0..30 {
            let secrets = made(core.rotate_api_key(&by, merchant.key_id, 3600).await).object.secrets;
            // End the one before, but never the first.
            if secrets.len() > 2 {
                done(core.end_api_key_secret(&by, merchant.key_id, secrets[1].id).await);
            }
        }
        let hash = SecretHash::of(&merchant.key);
        // Those that are shown, and the first.
        let kept = "select count(*) from secrets where owner_kind = 'api_key'";
        assert_eq!(app.number(kept).await, 21);
        let mut db = core.store.read().await.expect("the store answers");
        let loaded = records::load(&mut db, &[Wanted::OwnerOf(hash)], app.now()).await;
        let loaded = loaded.expect("the store answers");
        let record = loaded[&merchant.id].here().expect("this cell serves it");
        let secrets = &record.api_keys[0].secrets;
        assert_eq!(secrets.iter().filter(|secret| secret.is_live(app.now())).count(), 2);
        assert_eq!(secrets.len(), 9);
        assert!(secrets.last().is_some_and(|oldest| oldest.hash.matches(&hash)));
        drop(db);
        app.send(merchant.authorize()).await.tokens();
    })
    .await;
}

#[tokio::test]
async fn the_sessions_of_one_merchant_do_not_push_out_the_key_of_another() {
    each_engine(async |app| {
        let (busy, quiet) = (app.merchant().await, app.merchant().await);
        let (core, hot) = (app.core(), app.core().store.hot());
        core.learn_secrets(None).await.expect("the store answers");
        let one = unwritten(&app, &busy, 1).await.remove(0).session;
        // Several times as many as fit.
        for _ in 0..20_000 {
            let session = Session { id: SessionId::generate(app.now(), &core.entropy), ..one.clone() };
            hot.remember_session(session);
        }
        assert!(hot.known_owner(SecretHash::of(&quiet.key)).is_some());
    })
    .await;
}
