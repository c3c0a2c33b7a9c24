//! Limits: guessing is stopped per address, also in parallel, without affecting other callers.

use axum::http::Method;
use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::json;
use tollgate::config::Settings;
use tollgate::domain::admin::Role;

use super::admin::{Admin, introspect_as, service_token, text};
use super::console::people::sign_in_form;
use super::support::merchant::plain_key;
use super::support::{Call, Merchant, TestApp, each_engine, each_engine_with};

const HERE: &str = "192.0.2.7";
const ELSEWHERE: &str = "198.51.100.9";

fn three_failures(settings: &mut Settings) {
    settings.limits.failures_per_address_per_minute = 3;
}

fn wrong_secret(merchant: &Merchant) -> Call {
    Merchant { client_secret: "x".repeat(43), ..merchant.clone() }.authorize()
}

fn wrong_client(merchant: &Merchant) -> Call {
    Merchant { client_id: "0".repeat(32), ..merchant.clone() }.authorize()
}

fn wrong_key(merchant: &Merchant) -> Call {
    Merchant { key: "0".repeat(64), ..merchant.clone() }.authorize()
}

/// The status, error and reason of every recorded call, oldest first.
async fn records(app: &TestApp) -> Vec<(i64, Option<String>, Option<String>)> {
    app.flush().await;
    let mut db = app.core().store.read().await.expect("the store answers");
    db.query("select status, error, reason from exchanges order by id")
        .all()
        .await
        .expect("the query is right")
}

#[tokio::test]
async fn failures_lock_what_fails_out_until_their_minute_is_over() {
    each_engine_with(three_failures, async |app| {
        let merchant = app.merchant().await;
        let wrong = || [wrong_secret(&merchant), wrong_client(&merchant), wrong_key(&merchant)];
        for wrong in wrong() {
            app.send(wrong.from(HERE)).await.refused(401, "invalid_client");
        }
        for wrong in wrong() {
            let reply = app.send(wrong.from(HERE)).await;
            reply.refused(429, "slow_down");
            assert_eq!(reply.header("retry-after").as_deref(), Some("60"));
        }
        app.send(wrong_key(&merchant).from(ELSEWHERE)).await.refused(401, "invalid_client");

        app.advance(TimeDelta::seconds(59));
        let reply = app.send(wrong_key(&merchant).from(HERE)).await;
        reply.refused(429, "slow_down");
        assert_eq!(reply.header("retry-after").as_deref(), Some("1"));
        app.advance(TimeDelta::seconds(1));
        app.send(wrong_key(&merchant).from(HERE)).await.refused(401, "invalid_client");
    })
    .await;
}

#[tokio::test]
async fn who_knows_a_secret_goes_on_from_an_address_where_others_fail() {
    each_engine_with(three_failures, async |app| {
        let merchant = app.merchant().await;
        let token = app.tokens(&merchant).await.access;
        let operator = Admin::operator(&app).await;
        operator.get("/merchants").await.ok();
        let service = service_token(&app).await;
        assert_eq!(app.send(introspect_as(&service, &token)).await.status, 200);
        let wrong_token = || operator.call(Method::GET, "/merchants").without("authorization");
        let wrong_token = || wrong_token().header("authorization", format!("Bearer tga_{}", "x".repeat(43)));
        for _ in 0..4 {
            app.send(wrong_key(&merchant)).await;
            app.send(wrong_token()).await;
            app.send(sign_in_form("nobody@x.example", "no such password")).await;
        }
        app.send(wrong_key(&merchant)).await.refused(429, "slow_down");
        assert_eq!(app.send(wrong_token()).await.status, 429);

        for _ in 0..5 {
            app.send(merchant.authorize()).await.tokens();
            assert_eq!(app.send(merchant.verify(&token)).await.status, 200);
            operator.get("/merchants").await.ok();
            assert_eq!(app.send(introspect_as(&service, &token)).await.status, 200);
        }
        // A key that this replica has only made but never used, and one that was rotated in the meantime.
        let path = format!("/api-keys/{}/rotate", merchant.key_id);
        let rotated = operator.post(&path, json!({ "overlap_secs": 60 })).await.created();
        app.send(merchant.authorize()).await.tokens();
        let key = text(&rotated, "key").to_owned();
        app.send(Merchant { key, ..merchant.clone() }.authorize()).await.tokens();
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_has_not_met_a_good_secret_lets_it_in_from_an_address_where_others_fail() {
    each_engine_with(three_failures, async |app| {
        let merchant = app.merchant().await;
        let operator = Admin::operator(&app).await;
        let replica = app.replica().await;
        let flooded = async || {
            for _ in 0..3 {
                replica.send(wrong_key(&merchant)).await;
                replica.send(Call::get("/admin/v1/merchants").header("authorization", "Bearer tga_x")).await;
            }
            replica.send(wrong_key(&merchant)).await.refused(429, "slow_down");
        };
        flooded().await;
        replica.core().learn_secrets(None).await.expect("the store answers");
        replica.send(merchant.authorize()).await.tokens();
        assert_eq!(replica.send(operator.call(Method::GET, "/merchants")).await.status, 200);

        let later = app.key_of(merchant.id, plain_key()).await;
        replica.send(later.authorize()).await.refused(429, "slow_down");
        replica.core().learn_secrets(Some(app.now())).await.expect("the store answers");
        replica.send(later.authorize()).await.tokens();
        replica.send(wrong_key(&merchant)).await.refused(429, "slow_down");
    })
    .await;
}

#[tokio::test]
async fn a_good_admin_token_is_no_longer_good_once_it_is_revoked() {
    each_engine_with(three_failures, async |app| {
        let merchant = app.merchant().await;
        let operator = Admin::operator(&app).await;
        let made = operator.post("/tokens", json!({ "name": "t", "role": "operator" })).await.created();
        let token = Admin { app: &app, token: text(&made, "token").to_owned() };
        token.get("/merchants").await.ok();
        operator.delete(&format!("/tokens/{}", text(&made, "id"))).await;
        for _ in 0..3 {
            assert_eq!(token.get("/merchants").await.status, 401);
        }
        assert_eq!(token.get("/merchants").await.status, 429);
        app.send(wrong_key(&merchant)).await.refused(401, "invalid_client");
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_by_a_limit_costs_no_look_at_the_store() {
    each_engine_with(three_failures, async |app| {
        let merchant = app.merchant().await;
        let guess = || {
            let token = format!("Bearer tga_{}", "x".repeat(43));
            Call::get("/admin/v1/merchants").header("authorization", token)
        };
        for _ in 0..3 {
            app.send(wrong_key(&merchant)).await.refused(401, "invalid_client");
            assert_eq!(app.send(guess()).await.status, 401);
            assert_eq!(app.send(sign_in_form("nobody@x.example", "no such password")).await.status, 422);
        }
        app.core().store.close().await;
        app.send(wrong_key(&merchant)).await.refused(429, "slow_down");
        assert_eq!(app.send(guess()).await.status, 429);
        assert_eq!(app.send(sign_in_form("nobody@x.example", "no such password")).await.status, 429);
    })
    .await;
}

#[tokio::test]
async fn a_token_of_the_admin_api_has_so_many_calls_a_minute() {
    fn two_calls(settings: &mut Settings) {
        settings.limits.admin_calls_per_token_per_minute = 2;
    }
    each_engine_with(two_calls, async |app| {
        let operator = Admin::operator(&app).await;
        let other = Admin::operator(&app).await;
        for _ in 0..2 {
            operator.get("/merchants").await.ok();
        }
        let reply = operator.get("/merchants").await;
        assert_eq!((reply.status, reply.header("retry-after").as_deref()), (429, Some("60")));
        assert_eq!(reply.json()["code"], "slow_down");
        other.get("/merchants").await.ok();
        app.advance(TimeDelta::seconds(60));
        operator.get("/merchants").await.ok();
    })
    .await;
}

#[tokio::test]
async fn a_user_and_an_address_have_so_many_calls_of_the_console_a_minute() {
    each_engine(async |app| {
        let ada = app.person("ada@harbour.example", Role::Operator, None).await;
        for _ in 0..600 {
            assert_eq!(app.send(ada.get("/console/account").from(HERE)).await.status, 200);
        }
        let reply = app.send(ada.get("/console/account").from(ELSEWHERE)).await;
        assert_eq!((reply.status, reply.header("retry-after").as_deref()), (429, Some("60")));
        let link = || Call::get("/console/once?token=x").from(HERE);
        for _ in 0..5_400 {
            assert_eq!(app.send(link()).await.status, 200);
        }
        assert_eq!(app.send(link()).await.status, 429);
        assert_eq!(app.send(link().from(ELSEWHERE)).await.status, 200);
        app.advance(TimeDelta::seconds(60));
        assert_eq!(app.send(ada.get("/console/account").from(HERE)).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn only_wrong_secrets_count_as_failures() {
    each_engine_with(three_failures, async |app| {
        let merchant = app.merchant().await;
        for _ in 0..5 {
            app.send(merchant.authorize().without("x-api-key").from(HERE))
                .await
                .refused(401, "invalid_client");
            app.send(merchant.refresh("junk").from(HERE)).await.refused(400, "invalid_grant");
            app.send(merchant.call().form(&[]).from(HERE)).await.refused(401, "invalid_client");
            app.send(merchant.authorize().from(HERE)).await.tokens();
        }
    })
    .await;
}

#[tokio::test]
async fn guesses_in_parallel_are_no_more_than_guesses_in_a_row() {
    each_engine_with(three_failures, async |app| {
        let merchant = app.merchant().await;
        for guess in [wrong_key, wrong_secret] {
            let guesses = (0..200).map(|_| app.send(guess(&merchant).from(HERE)));
            let statuses: Vec<u16> = join_all(guesses).await.iter().map(|reply| reply.status).collect();
            let looked_at = statuses.iter().filter(|&&status| status == 401).count();
            let refused = statuses.iter().filter(|&&status| status == 429).count();
            assert_eq!((looked_at, refused), (3, 197));
            app.advance(TimeDelta::minutes(1));
        }
    })
    .await;
}

#[tokio::test]
async fn callers_in_parallel_who_know_their_secret_are_never_refused() {
    each_engine_with(three_failures, async |app| {
        let merchant = app.merchant().await;
        // A replica with an empty cache, so each call needs a query.
        let cold = app.replica().await;
        for reply in join_all((0..100).map(|_| cold.send(merchant.authorize().from(HERE)))).await {
            reply.tokens();
        }
    })
    .await;
}

#[tokio::test]
async fn an_ipv6_network_counts_as_one_address() {
    each_engine_with(three_failures, async |app| {
        let merchant = app.merchant().await;
        for host in ["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff::"] {
            app.send(wrong_secret(&merchant).from(host)).await.refused(401, "invalid_client");
        }
        app.send(wrong_secret(&merchant).from("2001:db8:0:1::4")).await.refused(429, "slow_down");
        app.send(wrong_secret(&merchant).from("2001:db8:0:2::1")).await.refused(401, "invalid_client");

        for host in [HERE, "::ffff:192.0.2.7", HERE] {
            app.send(wrong_secret(&merchant).from(host)).await.refused(401, "invalid_client");
        }
        app.send(wrong_secret(&merchant).from("::ffff:192.0.2.7")).await.refused(429, "slow_down");
        app.send(wrong_secret(&merchant).from("::ffff:192.0.2.8")).await.refused(401, "invalid_client");
    })
    .await;
}

#[tokio::test]
async fn forward_authentication_never_answers_429() {
    fn tight(settings: &mut Settings) {
        three_failures(settings);
        settings.limits.calls_per_key_per_second = 2;
    }
    each_engine_with(tight, async |app| {
        let merchant = app.merchant().await;
        let verify = |merchant: &Merchant| Call::get("/api/verify").key(&merchant.key).from(HERE);
        let token = app.tokens(&merchant).await.access;
        let good = || verify(&merchant).header("access-token", &token);
        assert_eq!(app.send(good()).await.status, 200);
        let reply = app.send(good()).await;
        reply.refused(403, "unauthorized_client");
        assert_eq!(reply.header("retry-after"), None);

        app.advance(TimeDelta::seconds(1));
        for _ in 0..3 {
            app.send(wrong_key(&merchant).to("/api/verify").from(HERE)).await.refused(401, "invalid_client");
        }
        let reply = app.send(wrong_key(&merchant).to("/api/verify").from(HERE)).await;
        reply.refused(401, "invalid_client");
        assert_eq!(reply.header("retry-after"), None);
        assert_eq!(app.send(good()).await.status, 200);
        let reasons: Vec<_> = records(&app).await.into_iter().filter_map(|(_, _, reason)| reason).collect();
        assert_eq!(reasons, ["too_many_calls"]);
    })
    .await;
}

#[tokio::test]
async fn a_key_has_so_many_calls_a_second() {
    fn two_calls(settings: &mut Settings) {
        settings.limits.calls_per_key_per_second = 2;
    }
    each_engine_with(two_calls, async |app| {
        let merchant = app.merchant().await;
        let other_key = app.key_of(merchant.id, super::support::merchant::plain_key()).await;
        app.send(merchant.authorize()).await.tokens();
        app.send(merchant.authorize().from(ELSEWHERE)).await.tokens();
        let reply = app.send(merchant.authorize()).await;
        reply.refused(429, "slow_down");
        assert_eq!(reply.header("retry-after").as_deref(), Some("1"));
        app.send(other_key.authorize()).await.tokens();
        app.advance(TimeDelta::seconds(1));
        app.send(merchant.authorize()).await.tokens();

        let reasons = records(&app).await;
        let refused = (429, Some("slow_down".to_owned()), Some("too_many_calls".to_owned()));
        assert_eq!(reasons.iter().filter(|record| **record == refused).count(), 1, "{reasons:?}");
    })
    .await;
}

#[tokio::test]
async fn an_outsider_cannot_use_up_the_calls_of_a_key() {
    fn one_call(settings: &mut Settings) {
        settings.limits.calls_per_key_per_second = 1;
    }
    each_engine_with(one_call, async |app| {
        let mut key = super::support::merchant::plain_key();
        key.allowed_ips = vec![HERE.to_owned()];
        let merchant = app.merchant_with(key).await;
        for _ in 0..3 {
            app.send(merchant.authorize().from(ELSEWHERE)).await.refused(401, "invalid_client");
        }
        app.send(merchant.authorize().from(HERE)).await.tokens();
    })
    .await;
}

#[tokio::test]
async fn a_client_starts_so_many_sessions_a_minute_and_refreshes_as_it_likes() {
    fn two_sessions(settings: &mut Settings) {
        settings.limits.new_sessions_per_client_per_minute = 2;
    }
    each_engine_with(two_sessions, async |app| {
        let merchant = app.merchant().await;
        let other_client = app.client_of(&merchant).await;
        let mut tokens = app.tokens(&merchant).await;
        app.send(wrong_secret(&merchant)).await.refused(401, "invalid_client");
        app.tokens(&merchant).await;
        let reply = app.send(merchant.authorize()).await;
        reply.refused(429, "slow_down");
        assert_eq!(reply.header("retry-after").as_deref(), Some("30"));
        for _ in 0..3 {
            tokens = app.send(merchant.refresh(&tokens.refresh)).await.tokens();
        }
        app.tokens(&other_client).await;
        assert_eq!(app.number("select count(*) from sessions").await, 3);
        app.advance(TimeDelta::seconds(30));
        app.tokens(&merchant).await;

        let reasons = records(&app).await;
        let refused = (429, Some("slow_down".to_owned()), Some("too_many_sessions".to_owned()));
        assert_eq!(reasons.iter().filter(|record| **record == refused).count(), 1, "{reasons:?}");
    })
    .await;
}

#[tokio::test]
async fn the_owner_of_a_key_sees_that_its_address_was_locked_out() {
    each_engine_with(three_failures, async |app| {
        let merchant = app.merchant().await;
        for _ in 0..3 {
            app.send(wrong_key(&merchant).from(HERE)).await.refused(401, "invalid_client");
        }
        app.send(merchant.authorize().from(ELSEWHERE)).await.tokens();
        app.send(wrong_secret(&merchant).from(HERE)).await.refused(429, "slow_down");
        let locked_out = (429, Some("slow_down".to_owned()), Some("too_many_failures".to_owned()));
        assert!(records(&app).await.contains(&locked_out));
    })
    .await;
}

#[tokio::test]
async fn guesses_at_admin_tokens_count_as_well() {
    each_engine_with(three_failures, async |app| {
        let guess = || {
            let token = format!("Bearer tga_{}", "x".repeat(43));
            Call::get("/admin/v1/merchants").header("authorization", token).from(HERE)
        };
        for _ in 0..3 {
            assert_eq!(app.send(guess()).await.status, 401);
        }
        let reply = app.send(guess()).await;
        assert_eq!((reply.status, reply.header("retry-after").as_deref()), (429, Some("60")));
        assert_eq!(reply.json()["code"], "slow_down");
        assert_eq!(app.send(guess().from(ELSEWHERE)).await.status, 401);
    })
    .await;
}

#[tokio::test]
async fn quiet_callers_are_forgotten() {
    fn all_limits(settings: &mut Settings) {
        three_failures(settings);
        settings.limits.calls_per_key_per_second = 1000;
        settings.limits.new_sessions_per_client_per_minute = 1000;
    }
    each_engine_with(all_limits, async |app| {
        let merchant = app.merchant().await;
        for host in 0..50 {
            app.send(wrong_secret(&merchant).from(&format!("192.0.2.{host}")))
                .await
                .refused(401, "invalid_client");
            app.send(merchant.authorize().from(&format!("198.51.100.{host}"))).await.tokens();
        }
        let limits = &app.core().limits;
        limits.tidy();
        assert_eq!(limits.tracked(), 52, "addresses that failed within the minute, the key and the client");
        app.advance(TimeDelta::minutes(2));
        limits.tidy();
        assert_eq!(limits.tracked(), 0);
    })
    .await;
}
