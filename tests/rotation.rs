//! The rotation contract, end to end: a retry gets the same pair, a replay ends the session, and sessions do
//! not fork.

use chrono::TimeDelta;

use crate::support::{Merchant, Reply, TestApp, each_engine, each_engine_with};

const WINDOW: TimeDelta = TimeDelta::seconds(60);
const MOMENT: TimeDelta = TimeDelta::microseconds(1);

async fn refresh(app: &TestApp, merchant: &Merchant, token: &str) -> Reply {
    app.send(merchant.refresh(token)).await
}

/// Sessions revoked as replayed, audit events and webhook events of it.
async fn replays_on_record(app: &TestApp) -> [i64; 3] {
    [
        app.number(
            "select count(*) from sessions where revoked_reason = 'replayed' and revoked_at is not null",
        )
        .await,
        app.number("select count(*) from audit_events where action = 'session.replay_detected'").await,
        app.number("select count(*) from webhook_events where type = 'session.replay_detected'").await,
    ]
}

#[tokio::test]
async fn each_refresh_gives_a_fresh_pair_and_the_next_takes_its_token() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let first = app.tokens(&merchant).await;
        let second = refresh(&app, &merchant, &first.refresh).await.tokens();
        let third = refresh(&app, &merchant, &second.refresh).await.tokens();

        let all =
            [&first.access, &first.refresh, &second.access, &second.refresh, &third.access, &third.refresh];
        for (index, token) in all.iter().enumerate() {
            assert!(!all[..index].contains(token), "token {index} was issued before");
        }
        assert_eq!(app.number("select count(*) from sessions").await, 1);
        assert_eq!(app.number("select generation from sessions").await, 3);
    })
    .await;
}

#[tokio::test]
async fn authorize_with_a_refresh_token_renews_its_session_and_without_one_starts_another() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let first = app.tokens(&merchant).await;
        let renewal = merchant.call().form(&merchant.fields(&[("refresh_token", &first.refresh)]));
        app.send(renewal).await.tokens();
        assert_eq!(app.number("select count(*) from sessions").await, 1);
        app.tokens(&merchant).await;
        assert_eq!(app.number("select count(*) from sessions").await, 2);
    })
    .await;
}

#[tokio::test]
async fn what_a_replica_remembers_of_a_session_lets_nothing_pass_that_the_row_does_not() {
    each_engine(async |app| {
        let other = app.replica().await;
        let merchant = app.merchant().await;
        let first = app.tokens(&merchant).await;
        // From here on, this replica has the session in its cache.
        let second = refresh(&app, &merchant, &first.refresh).await.tokens();
        let mut forged = second.refresh.clone();
        let last_of_mac = forged.pop().expect("a token is not empty");
        forged.push(if last_of_mac == 'A' { 'Q' } else { 'A' });
        refresh(&app, &merchant, &forged).await.refused(400, "invalid_grant");
        assert_eq!(app.number("select generation from sessions").await, 2);

        let third = refresh(&other, &merchant, &second.refresh).await.tokens();
        assert_eq!(refresh(&app, &merchant, &second.refresh).await.tokens(), third);
        let fourth = refresh(&app, &merchant, &third.refresh).await.tokens();
        assert_eq!(other.send(merchant.revoke(&fourth.access)).await.status, 200);
        refresh(&app, &merchant, &fourth.refresh).await.refused(400, "invalid_grant");
        assert_eq!(app.number("select generation from sessions").await, 4);
    })
    .await;
}

#[tokio::test]
async fn a_retry_within_the_window_gets_the_same_bytes_even_from_another_replica() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let first = app.tokens(&merchant).await;
        let answer = refresh(&app, &merchant, &first.refresh).await;
        let retry = refresh(&app, &merchant, &first.refresh).await;
        assert_eq!(answer.body, retry.body);
        let other = app.replica().await;
        assert_eq!(answer.body, refresh(&other, &merchant, &first.refresh).await.body);
    })
    .await;
}

#[tokio::test]
async fn the_window_ends_at_its_very_second() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let first = app.tokens(&merchant).await;
        let second = refresh(&app, &merchant, &first.refresh).await.tokens();

        app.advance(WINDOW - MOMENT);
        assert_eq!(refresh(&app, &merchant, &first.refresh).await.tokens(), second);

        app.advance(MOMENT);
        refresh(&app, &merchant, &first.refresh).await.refused(400, "invalid_grant");
        refresh(&app, &merchant, &second.refresh).await.refused(400, "invalid_grant");
        assert_eq!(replays_on_record(&app).await, [1, 1, 1]);
    })
    .await;
}

#[tokio::test]
async fn a_window_of_zero_makes_every_second_use_a_replay() {
    each_engine_with(
        |settings| settings.tokens.lifetimes.retry_window = TimeDelta::zero(),
        async |app| {
            let merchant = app.merchant().await;
            let first = app.tokens(&merchant).await;
            let second = refresh(&app, &merchant, &first.refresh).await.tokens();
            refresh(&app, &merchant, &first.refresh).await.refused(400, "invalid_grant");
            refresh(&app, &merchant, &second.refresh).await.refused(400, "invalid_grant");
            assert_eq!(replays_on_record(&app).await, [1, 1, 1]);
        },
    )
    .await;
}

#[tokio::test]
async fn a_replayed_refresh_token_ends_the_session_and_is_on_record_once() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let first = app.tokens(&merchant).await;
        let second = refresh(&app, &merchant, &first.refresh).await.tokens();
        let third = refresh(&app, &merchant, &second.refresh).await.tokens();

        let call = merchant.refresh(&first.refresh).header("x-request-id", "the-thief");
        app.send(call).await.refused(400, "invalid_grant");
        assert_eq!(replays_on_record(&app).await, [1, 1, 1]);
        let by_request_id = "select count(*) from audit_events where request_id = 'the-thief' \
                             and outcome = 'done' and client_ip = '127.0.0.1' and object_kind = 'session'";
        assert_eq!(app.number(by_request_id).await, 1);

        for token in [&first.refresh, &second.refresh, &third.refresh] {
            refresh(&app, &merchant, token).await.refused(400, "invalid_grant");
        }
        assert_eq!(replays_on_record(&app).await, [1, 1, 1], "a dead session is not replayed again");
    })
    .await;
}

#[tokio::test]
async fn a_replay_ends_its_own_session_alone() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let other = app.tokens(&merchant).await;
        let first = app.tokens(&merchant).await;
        let second = refresh(&app, &merchant, &first.refresh).await.tokens();
        refresh(&app, &merchant, &second.refresh).await.tokens();
        refresh(&app, &merchant, &first.refresh).await.refused(400, "invalid_grant");
        refresh(&app, &merchant, &other.refresh).await.tokens();
    })
    .await;
}

#[tokio::test]
async fn an_older_generation_is_recognised_after_a_restart_and_after_years_of_rotations() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let first = app.tokens(&merchant).await;
        let mut current = first.clone();
        for _ in 0..12 {
            app.advance(TimeDelta::days(29));
            current = refresh(&app, &merchant, &current.refresh).await.tokens();
        }
        let app = app.restarted().await;
        let current = refresh(&app, &merchant, &current.refresh).await.tokens();
        refresh(&app, &merchant, &first.refresh).await.refused(400, "invalid_grant");
        assert_eq!(replays_on_record(&app).await, [1, 1, 1]);

        let app = app.restarted().await;
        refresh(&app, &merchant, &current.refresh).await.refused(400, "invalid_grant");
    })
    .await;
}

#[tokio::test]
async fn another_client_learns_nothing_from_a_refresh_token_and_harms_nobody() {
    each_engine(async |app| {
        let owner = app.merchant().await;
        let (same_key, stranger) = (app.client_of(&owner).await, app.merchant().await);
        let first = app.tokens(&owner).await;
        let second = refresh(&app, &owner, &first.refresh).await.tokens();
        app.advance(WINDOW);
        for thief in [&same_key, &stranger] {
            for token in [&first.refresh, &second.refresh] {
                refresh(&app, thief, token).await.refused(400, "invalid_grant");
            }
        }
        assert_eq!(replays_on_record(&app).await, [0, 0, 0]);
        refresh(&app, &owner, &second.refresh).await.tokens();
    })
    .await;
}

#[tokio::test]
async fn what_is_no_refresh_token_of_ours_is_refused_alike_and_changes_nothing() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let tokens = app.tokens(&merchant).await;
        let mut altered = tokens.refresh.clone();
        altered.replace_range(59.., if altered.ends_with('A') { "B" } else { "A" });
        let stranger = TestApp::new(app.database.engine).await;
        let of_another_server = stranger.tokens(&stranger.merchant().await).await.refresh;
        let long = "x".repeat(4096);
        let junk = ["x", "\0", "-", &long, &altered, &tokens.access, &of_another_server, &"A".repeat(60)];

        let mut answers = Vec::new();
        for token in junk {
            let reply = refresh(&app, &merchant, token).await;
            reply.refused(400, "invalid_grant");
            answers.push(reply.text_without_id());
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:?}");
        refresh(&app, &merchant, &tokens.refresh).await.tokens();
        assert_eq!(app.number("select count(*) from audit_events where action like 'session.%'").await, 0);
    })
    .await;
}
