//! The platform's whole audit trail: its order, filters, following it, and who may read it.

use axum::http::Method;
use chrono::TimeDelta;
use serde_json::{Value, json};
use tollgate::domain::admin::Role;

use super::{Admin, text};
use crate::support::{TestApp, each_engine};

fn seqs(list: &Value) -> Vec<i64> {
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| item["seq"].as_i64().expect("a number")).collect()
}

async fn reads(app: &TestApp) -> i64 {
    app.number("select count(*) from audit_events where action = 'audit_events.read'").await
}

#[tokio::test]
async fn the_whole_trail_is_listed_in_order_with_what_concerns_no_merchant() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let token = operator.post("/tokens", json!({ "name": "t", "role": "operator" })).await.created();
        let all = operator.get("/audit-events").await.ok();
        let seqs_of_all = seqs(&all);
        assert_eq!(seqs_of_all, (1..=i64::try_from(seqs_of_all.len()).expect("few")).collect::<Vec<_>>());
        let after = operator.get("/audit-events?after=3").await.ok();
        assert_eq!(seqs(&after), seqs_of_all[3..]);
        let first = operator.get("/audit-events?limit=2").await.ok();
        let next = format!("/audit-events?limit=2&cursor={}", text(&first, "next_cursor"));
        assert_eq!(seqs(&operator.get(&next).await.ok()), [3, 4]);

        let of = async |query: &str| operator.get(&format!("/audit-events?{query}")).await.ok();
        let made = of(&format!("object={}", text(&token, "id"))).await;
        assert_eq!(made["items"][0]["action"], "admin_token.created");
        assert_eq!(made["items"][0]["merchant_id"], Value::Null);
        let actor = text(&made["items"][0]["actor"], "id").to_owned();
        assert!(seqs(&of(&format!("actor={actor}")).await).len() >= 4);
        let merchants = of(&format!("action=merchant.created&object={merchant}&outcome=done")).await;
        assert_eq!(seqs(&merchants).len(), 1);
        assert!(seqs(&of("outcome=refused").await).is_empty());
        for bad in ["after=-1", "after=x", "outcome=odd", "nothing=1", "limit=0", "wait=-1"] {
            operator.get(&format!("/audit-events?{bad}")).await.problem(400, "invalid_request");
        }
        let lines = operator.call(Method::GET, "/audit-events").header("accept", "application/x-ndjson");
        let lines = app.send(lines).await;
        assert_eq!(lines.header("content-type").as_deref(), Some("application/x-ndjson"));
        let text = lines.text();
        let parsed: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON a line")).collect();
        assert_eq!(parsed.len(), seqs(&operator.get("/audit-events").await.ok()).len());
    })
    .await;
}

#[tokio::test]
async fn the_latest_events_come_first_with_the_names_of_what_they_mention() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let bound = json!({
            "name": "siem", "role": "service", "permissions": ["audit.read"], "merchant_id": merchant,
        });
        let bound = operator.post("/tokens", bound).await.created();
        let bound = Admin { app: &app, token: text(&bound, "token").to_owned() };
        operator.licensed_merchant("g").await;

        let of = async |by: &Admin, query: &str| by.get(&format!("/audit-events/latest?{query}")).await.ok();
        let all = of(&operator, "").await;
        let mut in_order = seqs(&operator.get("/audit-events").await.ok());
        in_order.reverse();
        assert_eq!(seqs(&all), in_order);
        assert_eq!(all["names"][text(&key, "id")], "Till");
        assert_eq!(all["names"][&merchant], "Acme");
        let first = of(&operator, "limit=2").await;
        let next = of(&operator, &format!("limit=2&cursor={}", text(&first, "next_cursor"))).await;
        assert_eq!([seqs(&first), seqs(&next)].concat(), in_order[..4]);
        let before = of(&operator, &format!("before={}", in_order[1])).await;
        assert_eq!(seqs(&before), in_order[2..]);

        let actor = text(&all["items"][0]["actor"], "name").replace(' ', "%20");
        let made = format!("actor={actor}&action=api_key.created&outcome=done&object={}", text(&key, "id"));
        assert_eq!(seqs(&of(&operator, &made).await).len(), 1);
        let of_nobody = of(&operator, "of_platform=true").await;
        let items = of_nobody["items"].as_array().expect("a list");
        assert!(!items.is_empty() && items.iter().all(|item| item["merchant_id"].is_null()), "{of_nobody}");
        for bad in ["before=x", "outcome=odd", "of_platform=1", "after=1", "limit=0"] {
            operator.get(&format!("/audit-events/latest?{bad}")).await.problem(400, "invalid_request");
        }

        let seen = of(&bound, "").await;
        let items = seen["items"].as_array().expect("a list");
        assert!(
            items.len() >= 3 && items.iter().all(|item| item["merchant_id"] == json!(merchant)),
            "{seen}"
        );
        for query in ["of_platform=true", "of_platform=true&outcome=done"] {
            assert!(seqs(&of(&bound, query).await).is_empty(), "it sees events of its merchant alone");
        }
        assert_eq!(reads(&app).await, 2, "once for each reader");
    })
    .await;
}

#[tokio::test]
async fn a_follower_is_on_record_once_an_hour_and_hears_of_the_next_event() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let last = async || *seqs(&operator.get("/audit-events?limit=200").await.ok()).last().expect("some");
        let after = last().await;
        for _ in 0..5 {
            operator.get(&format!("/audit-events?after={after}")).await.ok();
        }
        assert_eq!(reads(&app).await, 1);
        app.advance(TimeDelta::hours(1));
        let after = last().await;
        assert_eq!(reads(&app).await, 2);

        let path = format!("/audit-events?after={after}&wait=20&action=merchant.created");
        let there = app.replica().await;
        let making = async {
            let elsewhere = Admin { app: &there, token: operator.token.clone() };
            elsewhere.post("/merchants", json!({ "name": "B", "gateway": "g" })).await.created()
        };
        let (heard, merchant) = tokio::join!(operator.get(&path), making);
        assert_eq!(heard.ok()["items"][0]["object_id"], merchant["id"]);
    })
    .await;
}

#[tokio::test]
async fn the_trail_is_for_operators_and_a_bound_token_sees_its_merchant_alone() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        operator.licensed_merchant("g").await;
        let admin = Admin::of(&app, Role::MerchantAdmin, merchant.parse().ok()).await;
        admin.get("/audit-events").await.problem(403, "forbidden");
        let body = json!({
            "name": "siem", "role": "service", "permissions": ["audit.read"], "merchant_id": merchant,
        });
        let bound = operator.post("/tokens", body).await.created();
        let bound = Admin { app: &app, token: text(&bound, "token").to_owned() };
        let seen = bound.get("/audit-events").await.ok();
        let items = seen["items"].as_array().expect("a list");
        assert!(items.len() >= 3, "{seen}");
        assert!(items.iter().all(|item| item["merchant_id"] == json!(merchant)), "{seen}");
    })
    .await;
}
