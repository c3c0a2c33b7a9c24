//! A database that is set back to an earlier state while replicas run: by a restore, or by a
//! fail-over that lost commits.

use tollgate::flows::principal::Principal;
use tollgate::store::Engine;

use super::support::merchant::done;
use super::support::{TestApp, each_engine};

const REVISION: &str = "select revision from merchants";

/// Undoes the last change of the only merchant, as far as replicas can tell.
async fn put_back(app: &TestApp, revision: i64) {
    let mut db = app.core().store.write().await.expect("the store answers");
    db.query("update merchants set revision = $1").bind(revision).execute().await.expect("there is one");
}

#[tokio::test]
async fn a_key_revoked_after_a_change_was_lost_is_refused_by_a_replica_that_remembers_that_change() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let client = app.client_of(&merchant).await;
        let tokens = app.tokens(&merchant).await;
        let before = app.number(REVISION).await;
        app.switch(&client, false).await;
        // This replica has cached the merchant after the change.
        assert_eq!(app.send(merchant.verify(&tokens.access)).await.status, 200);
        put_back(&app, before).await;

        let other = app.replica().await;
        done(other.core().revoke_api_key(&Principal::command_line(), merchant.key_id).await);
        assert_eq!(app.send(merchant.verify(&tokens.access)).await.status, 401);
        app.send(merchant.authorize()).await.refused(401, "invalid_client");
        app.send(merchant.refresh(&tokens.refresh)).await.refused(401, "invalid_client");
    })
    .await;
}

#[tokio::test]
async fn revisions_rise_also_where_the_clock_of_the_database_is_behind() {
    let app = TestApp::new(Engine::Sqlite).await;
    let merchant = app.merchant().await;
    let future = 4_000_000_000_000_000;
    put_back(&app, future).await;
    app.switch(&merchant, false).await;
    assert_eq!(app.number(REVISION).await, future + 1);
}
