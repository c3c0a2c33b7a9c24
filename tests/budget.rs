//! Limits on what one caller can make the server do: see the table of budgets in README.md
//! in this directory.

use std::collections::HashMap;

use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::json;
use tollgate::domain::admin::{Role, User};
use tollgate::domain::console::SESSIONS_MAX;
use tollgate::domain::ids::{MerchantId, UserId};
use tollgate::flows::audit_chain::ChainVerdict;
use tollgate::flows::manage_tokens::TOKENS_MAX;
use tollgate::flows::manage_users::USERS_MAX;
use tollgate::flows::principal::Principal;
use tollgate::store::users;

use super::admin::{Admin, text};
use super::console::people::{from_a_page, sign_in_form};
use super::support::merchant::done;
use super::support::{Reply, TestApp, each_engine};

/// How often each status was answered.
fn statuses(replies: &[Reply]) -> HashMap<u16, usize> {
    let mut counts = HashMap::new();
    for reply in replies {
        *counts.entry(reply.status).or_default() += 1;
    }
    counts
}

/// The refused sign-ins in the audit trail, with their address and detail.
async fn refused_sign_ins(app: &TestApp) -> Vec<(Option<String>, String)> {
    let mut db = app.core().store.read().await.expect("the store answers");
    db.query(
        "select client_ip, detail from audit_events where action = 'user.signed_in' and outcome = 'refused' \
         order by seq",
    )
    .all()
    .await
    .expect("the query is right")
}

#[tokio::test]
async fn made_up_sign_in_links_are_one_row_for_each_address_and_minute() {
    each_engine(async |app| {
        let made_up = "x".repeat(43);
        let attempt = |token: &str, ip| from_a_page("/console/once", &[("token", token)]).from(ip);
        for _ in 0..50 {
            assert_eq!(app.send(attempt(&made_up, "192.0.2.7")).await.status, 422);
        }
        assert_eq!(app.send(attempt("x", "192.0.2.7")).await.status, 422, "junk is refused unread");
        assert_eq!(app.send(attempt(&made_up, "2001:db8::1")).await.status, 422);
        assert_eq!(app.send(attempt(&made_up, "2001:db8::2")).await.status, 422);
        let core = app.core();
        core.write_refusals().await.expect("the store answers");
        assert_eq!(refused_sign_ins(&app).await, [], "the minute is not over");

        app.advance(TimeDelta::minutes(1));
        core.write_refusals().await.expect("the store answers");
        let why = "the link does not exist, has expired or was already used";
        let row = |ip: &str, attempts| {
            (Some(ip.to_owned()), json!({ "attempts": attempts, "why": { why: attempts } }).to_string())
        };
        assert_eq!(refused_sign_ins(&app).await, [row("192.0.2.7", 51), row("2001:db8::1", 2)]);
    })
    .await;
}

#[tokio::test]
async fn a_flood_from_everywhere_fills_no_more_than_a_thousand_rows_a_minute() {
    each_engine(async |app| {
        let attempt = |n: usize| {
            let ip = format!("2001:db8:{:x}::1", n);
            from_a_page("/console/once", &[("token", "x")]).from(&ip)
        };
        for reply in join_all((0..1_100).map(|n| app.send(attempt(n)))).await {
            assert_eq!(reply.status, 422);
        }
        app.flush().await;
        let rows = refused_sign_ins(&app).await;
        assert_eq!(rows.len(), 1_001);
        let rest = rows.iter().find(|(ip, _)| ip.is_none()).expect("the rest is told of together");
        assert!(rest.1.contains(r#""attempts":100"#), "{}", rest.1);
    })
    .await;
}

#[tokio::test]
async fn guesses_at_an_account_are_on_record_before_the_trail_is_read() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        app.user("ada@harbour.example", Role::MerchantAdmin, Some(merchant.id)).await;
        assert_eq!(app.send(sign_in_form("ada@harbour.example", "not this one, no")).await.status, 422);
        let operator = Admin::operator(&app).await;
        let read = operator.get(&format!("/merchants/{}/audit-events", merchant.id)).await.ok();
        let newest = &read["items"][0];
        assert_eq!(newest["action"], "user.signed_in");
        assert_eq!(newest["outcome"], "refused");
        assert_eq!(newest["detail"], json!({ "why": "wrong password" }));
    })
    .await;
}

#[tokio::test]
async fn refused_calls_share_transactions_and_the_chain_holds_over_them() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let viewer = Admin::of(&app, Role::MerchantViewer, Some(merchant.id)).await;
        let before = app.number("select count(*) from audit_events").await;
        let path = format!("/api-keys/{}", merchant.key_id);
        let replies = join_all((0..200).map(|_| viewer.delete(&path))).await;
        assert_eq!(statuses(&replies), HashMap::from([(403, 200)]));
        assert_eq!(app.number("select count(*) from audit_events").await, before + 200);
        let audit = app.core().store.queues().into_iter().find(|queue| queue.operation == "audit");
        let sizes = format!("{:?}", audit.expect("the audit trail has a queue").batch_sizes);
        let batches = sizes.split("count: ").nth(1).and_then(|rest| rest.split(',').next());
        let batches: u64 = batches.and_then(|count| count.parse().ok()).expect("a histogram has a count");
        assert!(batches < 100, "{batches} transactions for 200 refusals");
        let verdict = app.core().verify_audit_chain().await.expect("the store answers");
        assert_eq!(verdict, ChainVerdict::Holds { events: before + 200 });
    })
    .await;
}

#[tokio::test]
async fn one_password_is_hashed_at_a_time_and_sixteen_at_most_are_asked_for() {
    each_engine(async |app| {
        let sign_in = |n: usize| sign_in_form(&format!("a{n}@x.example"), "not a password at all");
        let replies = join_all((0..40).map(|n| app.send(sign_in(n)))).await;
        assert_eq!(statuses(&replies), HashMap::from([(422, 16), (503, 24)]));
        let refused = replies.iter().find(|reply| reply.status == 503).expect("there are 24");
        assert!(refused.header("retry-after").is_some());
        assert_eq!(app.send(sign_in(0)).await.status, 422, "once the others are done");
    })
    .await;
}

#[tokio::test]
async fn a_merchant_has_so_many_users_and_tokens_and_no_more() {
    each_engine(async |app| {
        let merchant = app.merchant().await.id;
        let admin = Admin::of(&app, Role::MerchantAdmin, Some(merchant)).await;
        let token = json!({ "name": "t", "role": "merchant_viewer", "merchant_id": merchant });
        let mut last = json!(null);
        for _ in 1..TOKENS_MAX {
            last = admin.post("/tokens", token.clone()).await.created();
        }
        admin.post("/tokens", token.clone()).await.problem(409, "conflict");
        assert_eq!(admin.delete(&format!("/tokens/{}", text(&last, "id"))).await.status, 204);
        admin.post("/tokens", token).await.created();

        let ada = app.user("ada@harbour.example", Role::MerchantAdmin, Some(merchant)).await;
        let mut tx = app.core().store.begin().await.expect("the store answers");
        let one = users::by_id(&mut tx, ada).await.expect("the store answers").expect("it was just made");
        for n in 1..USERS_MAX {
            let id = UserId::generate(app.now(), &app.core().entropy);
            let another = User { id, email: format!("a{n}@harbour.example"), ..one.clone() };
            users::insert(&mut tx, &another, "no password has this").await.expect("the store answers");
        }
        tx.commit().await.expect("the store answers");
        let user = json!({ "email": "b@x.example", "role": "merchant_viewer", "merchant_id": merchant, "password": "p".repeat(12) });
        admin.post("/users", user.clone()).await.problem(409, "conflict");
        let path = format!("/users/{ada}");
        admin.patch(&path, json!({ "disabled": true })).await.ok();
        admin.post("/users", user).await.created();
        admin.patch(&path, json!({ "disabled": false })).await.problem(409, "conflict");
    })
    .await;
}

#[tokio::test]
async fn a_user_has_one_link_and_so_many_sessions_and_no_more() {
    each_engine(async |app| {
        let person = app.person("ada@harbour.example", Role::Operator, None).await;
        let by = Principal::command_line();
        for _ in 0..SESSIONS_MAX {
            let link = done(app.core().make_sign_in_link(&by, person.id).await);
            assert_eq!(app.number("select count(*) from sign_in_links").await, 1);
            app.advance(TimeDelta::seconds(1));
            assert_eq!(app.send(from_a_page("/console/once", &[("token", link.expose())])).await.status, 303);
        }
        assert_eq!(app.number("select count(*) from console_sessions").await, SESSIONS_MAX);
        assert!(!app.is_signed_in(&person).await, "the oldest ended");
    })
    .await;
}

#[tokio::test]
async fn who_may_not_set_a_password_costs_no_hash() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let ada = app.user("ada@harbour.example", Role::MerchantAdmin, Some(merchant.id)).await;
        let viewer = Admin::of(&app, Role::MerchantViewer, Some(merchant.id)).await;
        let stranger = Admin::of(&app, Role::MerchantAdmin, Some(app.merchant().await.id)).await;
        let new = |merchant: MerchantId| {
            let id = merchant.to_string();
            json!({ "email": "b@x.example", "role": "merchant_viewer", "merchant_id": id, "password": "p".repeat(12) })
        };
        // If any of them were hashed, most would get 503.
        let replies = join_all((0..100).map(|_| viewer.post("/users", new(merchant.id)))).await;
        assert_eq!(statuses(&replies), HashMap::from([(403, 100)]));
        let replies = join_all((0..100).map(|_| stranger.post("/users", new(merchant.id)))).await;
        assert_eq!(statuses(&replies), HashMap::from([(404, 100)]));
        let path = format!("/users/{ada}");
        let patch = json!({ "password": "p".repeat(12) });
        let replies = join_all((0..100).map(|_| stranger.patch(&path, patch.clone()))).await;
        assert_eq!(statuses(&replies), HashMap::from([(404, 100)]));
    })
    .await;
}
