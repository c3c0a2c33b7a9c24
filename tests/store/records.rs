//! The records that decide about calls.

use tollgate::domain::ids::MerchantId;
use tollgate::flows::principal::Principal;
use tollgate::store::merchants;

use crate::support::each_engine;
use crate::support::merchant::{done, made, plain_key};

#[tokio::test]
async fn records_that_load_together_are_those_that_load_alone_and_take_as_many_statements_as_one() {
    each_engine(async |app| {
        let (core, by) = (app.core(), Principal::command_line());
        let mut ids: Vec<MerchantId> = Vec::new();
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
            ids.push(merchant.id);
        }
        let mut db = core.store.read().await.expect("the store answers");
        let statements = || core.store.statements();
        let mut alone = Vec::new();
        let mut of_one = 0;
        for id in &ids {
            let before = statements();
            let mut record = merchants::records(&mut db, &[*id], app.now()).await.expect("the store answers");
            of_one = statements() - before;
            alone.push(record.remove(id).expect("it is there"));
        }
        let before = statements();
        let together = merchants::records(&mut db, &ids, app.now()).await.expect("the store answers");
        assert_eq!((statements() - before, together.len()), (of_one, ids.len()));
        for record in alone {
            let other = &together[&record.merchant.id];
            assert!(!record.api_keys.is_empty() && !record.credentials.is_empty());
            assert_eq!(format!("{other:?}"), format!("{record:?}"));
        }
    })
    .await;
}
