//! The delivery log: deliveries, answers and redelivery.

use chrono::TimeDelta;
use serde_json::json;
use tollgate::domain::admin::Role;
use tollgate::domain::clock::Timestamp;
use tollgate::store::{Engine, Tx, delivery_log};

use super::{Call, Hooked, each, ok};
use crate::support::receiver::{Answering, Receiver};

#[tokio::test]
async fn the_log_tells_what_was_sent_and_what_came_back() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        app.deliver().await;
        let body = format!("{}é\0 and what goes on after the first KiB", "x".repeat(1021));
        receiver.answer(Answering::With { status: 500, headers: Vec::new(), body: body.into() });
        // Ids of the same millisecond are not ordered.
        app.advance(TimeDelta::milliseconds(1));
        let id = app.publish(&hooked, "payment.settled").await;
        let at = app.now();
        app.deliver().await;

        let log = app.log(&hooked).await;
        assert_eq!(log.len(), 2);
        let delivery = &log[0];
        assert_eq!(delivery["event_id"], id);
        assert_eq!(delivery["type"], "payment.settled");
        assert_eq!(delivery["data"], json!({ "payment": "payment.settled" }));
        assert_eq!(delivery["api_key_id"], hooked.key.to_string());
        assert_eq!(delivery["state"], "pending");
        assert_eq!(delivery["created_at"], at.to_string());
        assert!(delivery["next_attempt_at"].as_str() > Some(at.to_string().as_str()));
        let attempt = &delivery["attempts"][0];
        assert_eq!(attempt["number"], 1);
        assert_eq!(attempt["at"], at.to_string());
        assert_eq!(attempt["status"], 500);
        assert!(attempt["latency_us"].as_i64() > Some(0));
        assert_eq!(attempt["response"], format!("{}é\u{fffd}", "x".repeat(1021)));
        assert_eq!(log[1]["type"], "api_key.created");
        assert_eq!(log[1]["state"], "delivered");
        assert_eq!(log[1]["next_attempt_at"], json!(null));
    })
    .await;
}

#[tokio::test]
async fn the_log_is_read_page_by_page_and_by_key_and_state() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        app.deliver().await;
        let mut expected = Vec::new();
        for number in 0..4 {
            expected.insert(0, app.publish(&hooked, &format!("payment.n{number}")).await);
        }
        let mut read = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("webhook-deliveries?limit=2&state=pending&api_key_id={}{cursor}", hooked.key);
            let page = ok(&app.send(hooked.call(Call::get, &path)).await);
            let items = page["items"].as_array().expect("a list");
            read.extend(items.iter().filter_map(|item| item["event_id"].as_str().map(str::to_owned)));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        read.sort();
        expected.sort();
        assert_eq!(read, expected);
        let other = app.hooked(&receiver.url()).await;
        let path = format!("webhook-deliveries?api_key_id={}", other.key);
        let page = ok(&app.send(hooked.call(Call::get, &path)).await);
        assert_eq!(page["items"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn what_was_delivered_can_be_sent_again_under_the_same_id() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        app.deliver().await;
        let first = receiver.take();
        let delivery = app.log(&hooked).await[0]["id"].as_str().expect("an id").to_owned();
        app.advance(TimeDelta::days(3));
        let call = hooked.call(Call::post, &format!("webhook-deliveries/{delivery}/redeliver"));
        let reply = app.send(call).await;
        assert_eq!((reply.status, &ok(&reply)["state"]), (202, &"pending".into()));
        app.deliver().await;
        let second = receiver.take();
        hooked.verify(&second);
        assert_eq!(second[0].id(), first[0].id());
        assert_eq!(second[0].body, first[0].body);
        assert!(second[0].timestamp() > first[0].timestamp());
        let log = app.log(&hooked).await;
        let numbers: Vec<_> =
            log[0]["attempts"].as_array().expect("a list").iter().map(|a| a["number"].as_i64()).collect();
        assert_eq!(numbers, [Some(1), Some(2)]);
    })
    .await;
}

#[tokio::test]
async fn the_log_of_another_merchant_does_not_exist() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        let other = app.hooked(&receiver.url()).await;
        let delivery = app.log(&hooked).await[0]["id"].as_str().expect("an id").to_owned();
        let redeliver = format!("webhook-deliveries/{delivery}/redeliver");
        // Not even an operator finds it under the wrong merchant.
        assert_eq!(app.send(other.call(Call::post, &redeliver)).await.status, 404);
        let failed = r#"{"since":"2026-01-01T00:00:00Z"}"#;
        for (role, merchant, look, change) in [
            (Role::MerchantAdmin, &other, 404, 404),
            (Role::MerchantViewer, &hooked, 200, 403),
            (Role::MerchantAdmin, &hooked, 200, 202),
        ] {
            let operator = app.admin_token(role, Some(merchant.merchant)).await;
            let actor = Hooked { operator, api_key: String::new(), secret: String::new(), ..hooked };
            assert_eq!(app.send(actor.call(Call::get, "webhook-deliveries")).await.status, look);
            assert_eq!(app.send(actor.call(Call::post, &redeliver)).await.status, change);
            let call = actor.call(Call::post, "webhook-deliveries/redeliver-failed");
            assert_eq!(app.send(call.body(Some("application/json"), failed)).await.status, change);
            let may_test = if change == 202 { 200 } else { change };
            assert_eq!(app.send(actor.key_call(Call::post, "/test-webhook")).await.status, may_test);
            let may_rotate = if change == 202 { 201 } else { change };
            let rotated = app.send(actor.key_call(Call::post, "/rotate-webhook-secret")).await;
            assert_eq!(rotated.status, may_rotate, "{}", rotated.text());
        }
    })
    .await;
}

#[tokio::test]
async fn two_who_send_all_failed_again_at_once_send_each_once() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        app.publish(&hooked, "payment.settled").await;
        app.run_sql("update webhook_deliveries set state = 'failed', finished_at = created_at").await;
        let redeliver = async |tx: &mut Tx| {
            let (since, now) = (Timestamp::from_unix_secs(0), app.now());
            let made_due = delivery_log::redeliver_failed(tx, hooked.merchant, None, since, now, 100).await;
            made_due.expect("the store answers")
        };
        let store = &app.core().store;
        let mut first = store.begin().await.expect("the store answers");
        assert_eq!(redeliver(&mut first).await, 2);
        let second = async {
            let mut second = store.begin().await.expect("the store answers");
            let made_due = redeliver(&mut second).await;
            second.commit().await.expect("the store answers");
            made_due
        };
        let first_ends = async {
            // On SQLite the second one cannot begin before the first ends.
            let waits = "select count(*) from pg_stat_activity where datname = current_database() \
                         and wait_event_type = 'Lock'";
            while app.database.engine == Engine::Postgres && app.number(waits).await == 0 {}
            first.commit().await.expect("the store answers");
        };
        assert_eq!(tokio::join!(second, first_ends).0, 0);
    })
    .await;
}

#[tokio::test]
async fn all_that_failed_is_ten_thousand_at_most_and_the_page_that_asks_says_so() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        let id = match app.database.engine {
            Engine::Sqlite => "randomblob(16)",
            Engine::Postgres => "gen_random_uuid()",
        };
        let more = format!(
            "insert into webhook_deliveries (id, event_id, merchant_id, api_key_id, state, attempts, tries, \
             next_attempt_at, created_at) \
             with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < 10002) \
             select {id}, event_id, merchant_id, api_key_id, state, attempts, tries, next_attempt_at, created_at \
             from (select * from webhook_deliveries limit 1) as one, numbers"
        );
        app.run_sql(more.leak()).await;
        app.run_sql("update webhook_deliveries set state = 'failed', finished_at = created_at").await;
        let pending = async || app.number("select count(*) from webhook_deliveries where state = 'pending'").await;
        let operator = app.person("ops@gate.example", Role::Operator, None).await;
        let path = format!("/console/m/{}/webhooks/resend-failed", hooked.merchant);
        let question = app.page(&operator, &path).await;
        assert!(question.contains("10000 or more; the oldest 10000 are sent"), "{question}");
        assert_eq!(pending().await, 0, "asking sends nothing");
        let sent = app.send(operator.post(&path, &[])).await;
        let after = app.page(&operator, &sent.header("location").expect("a redirect")).await;
        assert!(after.contains("10000 webhooks are being sent again."), "{after}");
        assert_eq!(pending().await, 10_000);
        let question = app.page(&operator, &path).await;
        assert!(question.contains("<dd>3</dd>"), "{question}");
    })
    .await;
}
