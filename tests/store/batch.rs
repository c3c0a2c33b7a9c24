//! Group commit: calls share a statement, but do not affect each other.

use std::pin::pin;

use chrono::TimeDelta;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tollgate::domain::ids::SessionId;
use tollgate::domain::session::Session;
use tollgate::store::hot::{Open, Rotate};
use tollgate::store::{Engine, StoreError, sessions};
use zeroize::Zeroizing;

use crate::support::database::engines;
use crate::support::{Merchant, TestApp, each_engine};

/// Sessions of a merchant as its record has it now, not yet written.
pub(super) async fn unwritten(app: &TestApp, merchant: &Merchant, count: usize) -> Vec<Open> {
    let (core, now) = (app.core(), app.now());
    let record = core.store.hot().load_record(merchant.id, now).await.expect("the store answers");
    let record = record.expect("the merchant was made before");
    let credential = record.credential_by_client_id(&merchant.client_id).expect("the client was made before");
    let open = |_| Open {
        session: Session {
            id: SessionId::generate(now, &core.entropy),
            merchant_id: merchant.id,
            credential_id: credential.id,
            epoch: credential.epoch,
            token_key_id: core.keyring.signer().id(),
            secret: Zeroizing::new(core.entropy.bytes::<32>().to_vec()),
            scopes: None,
            generation: 1,
            started_at: now,
            rotated_at: now,
            expires_at: now.plus(TimeDelta::days(1)),
            revoked_at: None,
        },
        revision: record.revision,
    };
    (0..count).map(open).collect()
}

/// Queues all calls before the worker sees the first one. On one thread they are one batch.
async fn open_at_once(app: &TestApp, opens: Vec<Open>) -> Vec<Result<bool, StoreError>> {
    join_all(opens.into_iter().map(|open| app.core().store.hot().open_session(open))).await
}

fn rotation_of(open: &Open, app: &TestApp) -> Rotate {
    Rotate { session: open.session.id, generation: 1, revision: open.revision, now: app.now() }
}

#[tokio::test]
async fn a_row_that_cannot_be_written_fails_alone() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let mut opens = unwritten(&app, &merchant, 10).await;
        opens[7].session.id = opens[3].session.id;
        let results = open_at_once(&app, opens).await;
        for (index, result) in results.iter().enumerate() {
            match (index, result) {
                (7, Err(StoreError::Conflict(_))) => {}
                (7, other) => panic!("{other:?} for the second row with one id"),
                (_, Ok(true)) => {}
                (_, other) => panic!("{other:?} for row {index}, with which nothing is wrong"),
            }
        }
        assert_eq!(app.number("select count(*) from sessions").await, 9);
    })
    .await;
}

#[tokio::test]
async fn a_session_of_a_stale_record_is_not_written_and_its_neighbours_are() {
    each_engine(async |app| {
        let (merchant, other) = (app.merchant().await, app.merchant().await);
        let stale = unwritten(&app, &merchant, 2).await;
        app.switch(&merchant, false).await;
        let mut opens = unwritten(&app, &other, 2).await;
        opens.splice(1..1, stale);
        let written: Vec<bool> = open_at_once(&app, opens)
            .await
            .into_iter()
            .map(|result| result.expect("nothing is wrong with the rows"))
            .collect();
        assert_eq!(written, [true, false, false, true]);
        assert_eq!(app.number("select count(*) from sessions").await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_batch_full_of_one_rotation_moves_the_session_once_and_tells_all() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let opens = unwritten(&app, &merchant, 2).await;
        open_at_once(&app, opens.clone()).await;
        app.advance(TimeDelta::seconds(5));
        let hot = app.core().store.hot();
        let same = (0..200).map(|_| hot.rotate_session(rotation_of(&opens[0], &app)));
        let mut told = 0;
        for result in join_all(same).await {
            // For one of the two batches the row has changed by then, so its callers decide again.
            if let Some(rotated) = result.expect("the store answers") {
                assert_eq!((rotated.generation, rotated.rotated_at), (2, app.now()));
                told += 1;
            }
        }
        assert!([128, 72].contains(&told), "{told}: all of one batch, whichever reached the row first");
        assert_eq!(app.number("select max(generation) + min(generation) from sessions").await, 3);
    })
    .await;
}

#[tokio::test]
async fn a_rotation_decided_from_a_stale_record_gains_nothing_from_a_fresh_one_beside_it() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let opens = unwritten(&app, &merchant, 1).await;
        open_at_once(&app, opens.clone()).await;
        let stale = rotation_of(&opens[0], &app);
        app.switch(&app.client_of(&merchant).await, false).await;
        let fresh = rotation_of(&unwritten(&app, &merchant, 1).await[0], &app);
        let fresh = Rotate { session: stale.session, ..fresh };

        let hot = app.core().store.hot();
        for order in [[&stale, &fresh, &stale], [&fresh, &stale, &stale]] {
            let results = join_all(order.map(|rotation| hot.rotate_session(rotation.clone()))).await;
            for (rotation, result) in order.iter().zip(results) {
                let rotated = result.expect("the store answers");
                let is_fresh = rotation.revision == fresh.revision;
                assert!(is_fresh || rotated.is_none(), "a stale record authorised a rotation");
            }
        }
        assert_eq!(app.number("select generation from sessions").await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_waits_for_a_lock_does_not_hold_up_the_next() {
    let app = TestApp::new(Engine::Postgres).await;
    let merchant = app.merchant().await;
    let opens = unwritten(&app, &merchant, 2).await;
    open_at_once(&app, opens.clone()).await;
    let store = &app.core().store;
    let mut tx = store.begin().await.expect("the store answers");
    assert!(sessions::revoke(&mut tx, opens[0].session.id, "test", app.now()).await.expect("it answers"));

    let mut held_up = pin!(store.hot().rotate_session(rotation_of(&opens[0], &app)));
    assert!(held_up.as_mut().now_or_never().is_none());
    while app.number("select count(*) from pg_locks where not granted").await == 0 {}
    let next = store.hot().rotate_session(rotation_of(&opens[1], &app)).await.expect("the store answers");
    assert_eq!(next.map(|rotated| rotated.generation), Some(2));

    assert!(held_up.as_mut().now_or_never().is_none(), "nothing held it up");
    tx.commit().await.expect("the store answers");
    assert!(held_up.await.expect("the store answers").is_none(), "the session was revoked before");
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_done() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let opens = unwritten(&app, &merchant, 2).await;
        let hot = app.core().store.hot();
        // After one poll it is in the queue. After the drop nobody waits for it.
        assert!(hot.open_session(opens[0].clone()).now_or_never().is_none());
        assert!(hot.open_session(opens[1].clone()).await.expect("the store answers"));
        assert_eq!(app.number("select count(*) from sessions").await, 1);
    })
    .await;
}

#[tokio::test]
async fn postgres_finds_the_rows_of_a_batch_by_key_also_if_the_table_was_small_when_it_made_the_plan() {
    if !engines().contains(&Engine::Postgres) {
        return;
    }
    let app = TestApp::new(Engine::Postgres).await;
    let merchant = app.merchant().await;
    app.run_sql("analyze merchants").await;
    let opens = unwritten(&app, &merchant, 20).await;
    let run = async |opens: &[Open]| {
        let hot = app.core().store.hot();
        assert!(
            open_at_once(&app, opens.to_vec()).await.into_iter().all(|opened| matches!(opened, Ok(true)))
        );
        for open in opens {
            assert!(hot.rotate_session(rotation_of(open, &app)).await.expect("the store answers").is_some());
            assert!(hot.look_up_session(open.session.id).await.expect("the store answers").is_some());
        }
    };
    run(&opens[..10]).await;
    app.run_sql(
        "insert into merchants select gen_random_uuid(), 'Shop', 'demo', 'active', 1, 1, 1 \
         from generate_series(1, 20000)",
    )
    .await;
    run(&opens[10..]).await;
    // A connection that ends hands in its counts.
    let other = app.replica().await;
    app.core().store.close().await;
    let read = "select seq_tup_read from pg_stat_user_tables where relname = 'merchants'";
    assert!(other.number(read).await < 20_000, "a statement read all merchants");
    let found = "select idx_scan from pg_stat_user_tables where relname = 'merchants'";
    assert!(other.number(found).await >= 20, "PostgreSQL has not counted yet");
}
