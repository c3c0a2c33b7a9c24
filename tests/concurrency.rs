//! Many concurrent callers: sessions do not fork, and no caller gets a 5xx or notices a lock.

use futures_util::future::join_all;
use tollgate::store::Engine;

use crate::support::{TestApp, each_engine};

/// Rounds of the races; `TOLLGATE_TEST_ROUNDS` asks for fewer or more.
pub(crate) fn rounds() -> usize {
    std::env::var("TOLLGATE_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_refresh_token_from_fifty_callers_of_two_replicas_gives_one_pair() {
    let here = TestApp::new(Engine::Postgres).await;
    let there = here.replica().await;
    let merchant = here.merchant().await;
    let mut tokens = here.tokens(&merchant).await;
    for round in 0..rounds() {
        let calls = (0..50).map(|caller| {
            let replica = if caller % 2 == 0 { &here } else { &there };
            replica.send(merchant.refresh(&tokens.refresh))
        });
        let replies = join_all(calls).await;
        for reply in &replies {
            assert_eq!(reply.tokens(), replies[0].tokens(), "round {round}");
            assert_eq!(reply.body, replies[0].body, "round {round}");
        }
        let generation = here.number("select generation from sessions").await;
        assert_eq!(generation, i64::try_from(round).expect("rounds are few") + 2, "one generation a round");
        tokens = replies[0].tokens();
    }
    assert_eq!(here.number("select count(*) from sessions where revoked_at is null").await, 1);
    assert_eq!(here.number("select count(*) from audit_events where action like 'session.%'").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_writers_get_what_they_asked_for() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let writer = async || {
            let mut tokens = app.tokens(&merchant).await;
            for _ in 0..5 {
                tokens = app.send(merchant.refresh(&tokens.refresh)).await.tokens();
            }
        };
        // The merchant is changed at the same time, which makes cached records outdated.
        let changer = async {
            for _ in 0..10 {
                app.client_of(&merchant).await;
            }
        };
        tokio::join!(join_all((0..64).map(|_| writer())), changer);
        assert_eq!(app.number("select count(*) from sessions where generation = 6").await, 64);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replayed_token_from_many_callers_is_on_record_once() {
    each_engine(async |app| {
        let other = app.replica().await;
        let merchant = app.merchant().await;
        let first = app.tokens(&merchant).await;
        let second = app.send(merchant.refresh(&first.refresh)).await.tokens();
        app.send(merchant.refresh(&second.refresh)).await.tokens();
        let calls = (0..50).map(|caller| {
            let replica = if caller % 2 == 0 { &app } else { &other };
            replica.send(merchant.refresh(&first.refresh))
        });
        for reply in join_all(calls).await {
            reply.refused(400, "invalid_grant");
        }
        let on_record = "select count(*) from audit_events where action = 'session.replay_detected'";
        assert_eq!(app.number(on_record).await, 1);
        let told = "select count(*) from webhook_events where type = 'session.replay_detected'";
        assert_eq!(app.number(told).await, 1);
    })
    .await;
}
