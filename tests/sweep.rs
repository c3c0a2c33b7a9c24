//! The sweeper removes old rows, in limited steps, on any number of replicas, and keeps all
//! others. `audit_chain` tests cutting the audit trail.

use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::json;
use strum::VariantArray;
use tollgate::domain::clock::Clock;
use tollgate::jobs::pace::STEP;
use tollgate::jobs::sweep::Kind;
use tollgate::store::{Engine, exchange_days};

use super::admin::{Admin, text};
use super::ops::scrape;
use super::support::merchant::plain_key;
use super::support::{Merchant, TestApp, Tokens, each_engine, each_engine_with};

const STEP_ROWS: usize = STEP as usize;
const SECOND: TimeDelta = TimeDelta::seconds(1);

/// When an idle session can be removed: after its refresh lifetime and a day.
const IDLE_END: TimeDelta = TimeDelta::days(31);

async fn open(app: &TestApp, merchant: &Merchant, number: usize) -> Vec<Tokens> {
    join_all((0..number).map(|_| app.tokens(merchant))).await
}

async fn sessions(app: &TestApp) -> i64 {
    app.number("select count(*) from sessions").await
}

#[tokio::test]
async fn live_sessions_stay_and_refresh_and_dead_ones_go() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let idle = app.tokens(&merchant).await;
        let revoked = app.tokens(&merchant).await;
        let mut kept = app.tokens(&merchant).await;
        app.send(merchant.revoke(&revoked.access)).await;
        app.advance(TimeDelta::days(20));
        kept = app.send(merchant.refresh(&kept.refresh)).await.tokens();
        app.advance(IDLE_END - TimeDelta::days(20) - SECOND);
        assert_eq!(app.sweep(Kind::Sessions).await, 0, "a day after their end they are still there");
        app.advance(SECOND * 2);
        assert_eq!(app.sweep(Kind::Sessions).await, 2);

        kept = app.send(merchant.refresh(&kept.refresh)).await.tokens();
        for gone in [&idle, &revoked] {
            app.send(merchant.refresh(&gone.refresh)).await.refused(400, "invalid_grant");
        }
        for _ in 0..17 {
            app.advance(TimeDelta::days(19));
            kept = app.send(merchant.refresh(&kept.refresh)).await.tokens();
            assert_eq!(app.sweep(Kind::Sessions).await, 0, "it is refreshed in time");
        }
        // This is 354 days after its start. However often it is refreshed, it ends after 365.
        app.advance(TimeDelta::days(12) - SECOND * 2);
        assert_eq!(app.sweep(Kind::Sessions).await, 0);
        app.advance(SECOND * 2);
        assert_eq!(app.sweep(Kind::Sessions).await, 1, "a day after its end, though it is not idle yet");
        app.send(merchant.refresh(&kept.refresh)).await.refused(400, "invalid_grant");
        assert_eq!(sessions(&app).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_replay_ends_the_session_for_as_long_as_a_token_of_it_could_be_used() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let first = app.tokens(&merchant).await;
        let second = app.send(merchant.refresh(&first.refresh)).await.tokens();
        let third = app.send(merchant.refresh(&second.refresh)).await.tokens();
        app.advance(TimeDelta::days(30) - SECOND);
        assert_eq!(app.sweep(Kind::Sessions).await, 0);
        app.send(merchant.refresh(&first.refresh)).await.refused(400, "invalid_grant");
        app.send(merchant.refresh(&third.refresh)).await.refused(400, "invalid_grant");
        let replays = "select count(*) from audit_events where action = 'session.replay_detected'";
        assert_eq!(app.number(replays).await, 1);

        app.advance(TimeDelta::days(31));
        assert_eq!(app.sweep(Kind::Sessions).await, 1);
        for token in [&first, &second, &third] {
            app.send(merchant.refresh(&token.refresh)).await.refused(400, "invalid_grant");
            let reply = app.send(merchant.introspect(&token.access)).await;
            assert_eq!(reply.text(), r#"{"active":false}"#);
        }
        assert_eq!(app.number(replays).await, 1, "nothing is left to be ended");
    })
    .await;
}

#[tokio::test]
async fn a_step_looks_at_so_many_rows_and_no_more() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        open(&app, &merchant, STEP_ROWS + 10).await;
        app.flush().await;
        app.advance(IDLE_END + SECOND);
        for kind in [Kind::Sessions, Kind::Exchanges] {
            let step = app.sweep_step(kind).await;
            assert_eq!((step.removed, step.is_last), (STEP as u64, false), "{kind:?}");
            assert_eq!(app.sweep(kind).await, 10, "{kind:?}");
        }
        // The walk skips sessions that stay, and reaches the ones after them.
        let merchant_sessions = open(&app, &merchant, STEP_ROWS + 10).await;
        app.advance(TimeDelta::milliseconds(5));
        open(&app, &merchant, 10).await;
        app.advance(TimeDelta::days(20));
        join_all(merchant_sessions.iter().map(|tokens| app.send(merchant.refresh(&tokens.refresh)))).await;
        app.advance(IDLE_END - TimeDelta::days(20) + SECOND);
        let step = app.sweep_step(Kind::Sessions).await;
        assert_eq!((step.removed, step.is_last), (0, false));
        assert_eq!(app.sweep(Kind::Sessions).await, 10);
    })
    .await;
}

#[tokio::test]
async fn replicas_that_sweep_at_once_remove_each_row_once_and_nothing_else() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        open(&app, &merchant, 2 * STEP_ROWS).await;
        app.advance(TimeDelta::days(2));
        let live = open(&app, &merchant, 20).await;
        app.flush().await;
        app.advance(IDLE_END - TimeDelta::days(2) + SECOND);
        let other = app.replica().await;
        for (kind, dead) in [(Kind::Sessions, 2 * STEP), (Kind::Exchanges, 2 * STEP)] {
            let (here, there) = tokio::join!(app.sweep(kind), other.sweep(kind));
            assert_eq!(here + there, dead as u64, "{kind:?}");
        }
        assert_eq!(sessions(&app).await, 20);
        // It began days ago and was not idle for too long.
        for tokens in &live {
            assert_eq!(app.send(merchant.refresh(&tokens.refresh)).await.status, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn metrics_show_how_far_the_sweep_is_behind_and_what_it_removed() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        app.tokens(&merchant).await;
        assert_eq!(scrape(&app).await.value("tollgate_sweep_lag_seconds"), 0.0);
        app.advance(IDLE_END - SECOND);
        assert_eq!(scrape(&app).await.value("tollgate_sweep_lag_seconds"), 0.0);
        app.advance(SECOND * 8);
        assert_eq!(scrape(&app).await.value("tollgate_sweep_lag_seconds"), 7.0);
        app.sweep(Kind::Sessions).await;
        let metrics = scrape(&app).await;
        assert_eq!(metrics.value("tollgate_sweep_lag_seconds"), 0.0);
        assert_eq!(metrics.value("tollgate_sweep_walks_total"), 1.0);
        assert_eq!(metrics.value(r#"tollgate_swept_rows_total{kind="sessions"}"#), 1.0);
        assert_eq!(metrics.value(r#"tollgate_swept_rows_total{kind="exchanges"}"#), 0.0);
    })
    .await;
}

#[tokio::test]
async fn exchanges_of_every_merchant_go_by_age() {
    each_engine(async |app| {
        // PostgreSQL keeps whole days.
        let rest_of_day = match app.core().store.engine() {
            Engine::Sqlite => TimeDelta::zero(),
            Engine::Postgres => exchange_days::midnight(app.now().plus(TimeDelta::days(1))).since(app.now()),
        };
        let merchants = [app.merchant().await, app.merchant().await];
        for merchant in &merchants {
            app.tokens(merchant).await;
        }
        app.flush().await;
        app.advance(TimeDelta::days(30) + rest_of_day - SECOND);
        app.tokens(&merchants[0]).await;
        app.flush().await;
        assert_eq!(app.sweep(Kind::Exchanges).await, 0);
        app.advance(SECOND * 2);
        assert_eq!(app.sweep(Kind::Exchanges).await, 2);
        assert_eq!(app.number("select count(*) from exchanges").await, 1);
    })
    .await;
}

#[tokio::test]
async fn kept_answers_go_after_a_day() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let create = |key: &str| {
            let body = json!({ "name": "Acme", "gateway": "g" });
            operator
                .call(axum::http::Method::POST, "/merchants")
                .header("idempotency-key", key)
                .json_value(&body)
        };
        app.send(create("one")).await.created();
        app.advance(TimeDelta::hours(24) - SECOND);
        app.send(create("two")).await.created();
        assert_eq!(app.sweep(Kind::IdempotencyKeys).await, 0);
        app.advance(SECOND);
        assert_eq!(app.sweep(Kind::IdempotencyKeys).await, 1);
        app.send(create("two")).await.created();
        assert_eq!(
            app.number("select count(*) from merchants").await,
            2,
            "the second is still answered again"
        );
    })
    .await;
}

#[tokio::test]
async fn sign_ins_and_links_go_when_they_end() {
    each_engine(async |app| {
        app.merchant().await;
        app.run_sql(
            "insert into users (id, email, role, password_hash, failed_logins, version, created_at, updated_at) \
             select id, 'a@example.com', 'operator', '', 0, 1, 0, 0 from merchants limit 1",
        )
        .await;
        // Both end an hour after the merchant was made.
        app.run_sql(
            "insert into console_sessions (hash, user_id, awaits_totp, by_link, created_at, last_seen_at, \
             expires_at, client_ip) \
             select hash, users.id, false, false, 0, 0, merchants.created_at + 3600000000, '' \
             from users join merchants on merchants.id = users.id \
             join secrets on secrets.merchant_id = users.id limit 1",
        )
        .await;
        app.run_sql(
            "insert into sign_in_links (hash, user_id, created_at, expires_at) \
             select hash, user_id, 0, expires_at from console_sessions",
        )
        .await;
        app.advance(TimeDelta::hours(1) - SECOND);
        for kind in [Kind::ConsoleSessions, Kind::SignInLinks] {
            assert_eq!(app.sweep(kind).await, 0, "{kind:?}");
        }
        app.advance(SECOND);
        for kind in [Kind::ConsoleSessions, Kind::SignInLinks] {
            assert_eq!(app.sweep(kind).await, 1, "{kind:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn webhooks_go_by_age_once_they_are_finished() {
    each_engine(async |app| {
        let mut key = plain_key();
        key.webhook_url = Some("https://hooks.example/".to_owned());
        let merchant = app.merchant_with(key).await;
        app.switch(&merchant, false).await;
        let rows = app.number("select count(*) from webhook_deliveries").await;
        assert!(rows >= 3, "{rows}");
        // One is delivered with one attempt, one is given up a day later, and the others are pending.
        app.run_sql(
            "update webhook_deliveries set state = 'delivered', attempts = 1, finished_at = created_at \
             where id in (select id from webhook_deliveries order by id limit 1)",
        )
        .await;
        app.run_sql(
            "insert into webhook_attempts (delivery_id, number, at, latency_us, response) \
             select id, 1, created_at, 5, '' from webhook_deliveries where state = 'delivered'",
        )
        .await;
        app.run_sql(
            "update webhook_deliveries set state = 'failed', finished_at = created_at + 86400000000 \
             where id in (select id from webhook_deliveries where state = 'pending' order by id limit 1)",
        )
        .await;
        let events = app.number("select count(*) from webhook_events").await;
        app.advance(TimeDelta::days(30) - SECOND);
        assert_eq!(app.sweep(Kind::WebhookDeliveries).await, 0);
        app.advance(SECOND * 2);
        assert_eq!(app.sweep(Kind::WebhookDeliveries).await, 1);
        assert_eq!(app.number("select count(*) from webhook_attempts").await, 0);
        let alone = app
            .number("select count(*) from webhook_events e where not exists (select 1 from webhook_deliveries d where d.event_id = e.id)")
            .await;
        assert!(alone >= 1);
        assert_eq!(app.sweep(Kind::WebhookEvents).await, alone as u64);
        app.advance(TimeDelta::days(1));
        assert_eq!(app.sweep(Kind::WebhookDeliveries).await, 1);
        assert_eq!(app.sweep(Kind::WebhookEvents).await, 1);
        assert_eq!(app.number("select count(*) from webhook_deliveries").await, rows - 2);
        assert_eq!(app.number("select count(*) from webhook_events").await, events - alone - 1);
    })
    .await;
}

#[tokio::test]
async fn of_a_client_with_too_many_sessions_the_longest_unused_end() {
    each_engine_with(
        |settings| settings.limits.sessions_per_client_max = 5,
        async |app| {
            let merchant = app.merchant().await;
            let other_client = app.client_of(&merchant).await;
            let others = open(&app, &other_client, 5).await;
            let oldest = app.tokens(&merchant).await;
            let mut opened = Vec::new();
            for _ in 0..7 {
                app.advance(SECOND);
                opened.push(app.tokens(&merchant).await);
            }
            app.advance(SECOND);
            let used = app.send(merchant.refresh(&oldest.refresh)).await.tokens();
            // No call is refused. The sweep, on two replicas at once, leaves exactly the allowed number.
            let other = app.replica().await;
            let (here, there) =
                tokio::join!(app.sweep(Kind::SurplusSessions), other.sweep(Kind::SurplusSessions));
            assert_eq!(here + there, 3);
            app.send(merchant.refresh(&used.refresh)).await.tokens();
            for gone in &opened[..3] {
                app.send(merchant.refresh(&gone.refresh)).await.refused(400, "invalid_grant");
            }
            for kept in &opened[3..] {
                app.send(merchant.refresh(&kept.refresh)).await.tokens();
            }
            for kept in &others {
                app.send(other_client.refresh(&kept.refresh)).await.tokens();
            }
            assert_eq!(app.sweep(Kind::SurplusSessions).await, 0);
        },
    )
    .await;
}

#[tokio::test]
async fn any_number_of_sessions_may_be_had_where_the_limit_is_off() {
    each_engine_with(
        |settings| settings.limits.sessions_per_client_max = 0,
        async |app| {
            let merchant = app.merchant().await;
            open(&app, &merchant, 20).await;
            assert_eq!(app.sweep(Kind::SurplusSessions).await, 0);
            assert_eq!(sessions(&app).await, 20);
        },
    )
    .await;
}

#[tokio::test]
async fn a_client_that_opens_sessions_instead_of_refreshing_shows_in_its_record() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = app.merchant().await;
        let other = app.replica().await;
        let shown = async || {
            let record = operator.get(&format!("/credentials/{}", merchant.client_id)).await.ok();
            assert_eq!(text(&record, "client_id"), merchant.client_id);
            (record["sessions_opened_last_hour"].clone(), record["refreshes_last_hour"].clone())
        };
        assert_eq!(shown().await, (json!(0), json!(0)));
        let tokens = open(&app, &merchant, 3).await;
        open(&other, &merchant, 2).await;
        app.send(merchant.call().form(&merchant.fields(&[("refresh_token", &tokens[0].refresh)])))
            .await
            .tokens();
        // A repetition does not count.
        app.send(merchant.refresh(&tokens[0].refresh)).await.tokens();
        app.flush().await;
        other.flush().await;
        assert_eq!(shown().await, (json!(5), json!(1)), "over both replicas");
        app.advance(TimeDelta::minutes(30));
        app.tokens(&merchant).await;
        app.flush().await;
        assert_eq!(shown().await, (json!(6), json!(1)));
        app.advance(TimeDelta::minutes(31));
        assert_eq!(shown().await, (json!(1), json!(0)), "what is longer ago than an hour is left out");
        assert_eq!(app.sweep(Kind::ClientActivity).await, 0);
        app.advance(TimeDelta::hours(3));
        assert_eq!(app.sweep(Kind::ClientActivity).await, 2);
        let list = operator.get(&format!("/api-keys/{}/credentials", merchant.key_id)).await.ok();
        assert_eq!(list["items"][0].get("sessions_opened_last_hour"), None);
    })
    .await;
}

#[tokio::test]
async fn a_replica_whose_clock_is_wrong_removes_nothing() {
    each_engine(async |app| {
        // Uses the clock of the machine, like PostgreSQL.
        let right = app.replica_by(Clock::System).await;
        let merchant = right.merchant().await;
        let tokens = right.tokens(&merchant).await;
        let rows = async || {
            let audited = app.number("select count(*) from audit_events").await;
            (sessions(&app).await, audited)
        };
        right.look_at_clock().await;
        right.replica_by(Clock::Wrong(TimeDelta::days(-500))).await.tokens(&merchant).await;
        let before = rows().await;
        for days in [500, -500] {
            let wrong = right.replica_by(Clock::Wrong(TimeDelta::days(days))).await;
            for kind in Kind::VARIANTS {
                assert_eq!(wrong.sweep(*kind).await, 0, "{kind:?}, {days} days");
            }
            // On SQLite, the replica with the right time must write again to show that it still runs.
            right.look_at_clock().await;
            wrong.look_at_clock().await;
            let skew = scrape(&wrong).await.value("tollgate_clock_skew_seconds");
            assert!((skew / 86_400.0 - days as f64).abs() < 0.01, "{skew}");
            assert_eq!(wrong.sweep(Kind::Sessions).await, 0, "{days} days");
        }
        assert_eq!(rows().await, before);
        right.send(merchant.refresh(&tokens.refresh)).await.tokens();
        assert_eq!(right.sweep(Kind::Sessions).await, 1, "the one from 500 days ago");
    })
    .await;
}
