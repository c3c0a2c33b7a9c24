//! The endpoint of a key: disabling, enabling again, rotating its secret, and tests.

use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::json;

use tollgate::domain::admin::Role;
use tollgate::flows::manage_keys::NewApiKey;

use super::{Call, Hooked, delete, each, ids, ok, patch, types};
use crate::support::merchant::plain_key;
use crate::support::receiver::{Answering, Receiver};
use crate::support::{TestApp, each_engine_with};

async fn disabled_events(app: &TestApp) -> i64 {
    app.number("select count(*) from audit_events where action = 'webhook.disabled'").await
}

async fn show(app: &TestApp, hooked: &Hooked) -> serde_json::Value {
    ok(&app.send(hooked.key_call(Call::get, "")).await)
}

async fn set_url(app: &TestApp, hooked: &Hooked, url: &str) -> serde_json::Value {
    let call =
        hooked.key_call(patch, "").body(Some("application/json"), format!(r#"{{"webhook_url":"{url}"}}"#));
    ok(&app.send(call).await)
}

#[tokio::test]
async fn gone_disables_the_endpoint_at_once_and_nothing_of_it_is_lost() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        app.deliver().await;
        receiver.take();
        let since = app.now();

        receiver.answer(Answering::Status(410));
        let first = app.publish(&hooked, "payment.one").await;
        app.deliver().await;
        assert_eq!(receiver.take().len(), 1);
        assert_eq!(disabled_events(&app).await, 1);
        assert!(show(&app, &hooked).await["webhook_disabled_at"].is_string());

        // While it is disabled, nothing is sent, but the log has the deliveries.
        receiver.answer(Answering::Status(204));
        let second = app.publish(&hooked, "payment.two").await;
        app.advance(TimeDelta::hours(2));
        app.deliver().await;
        assert!(receiver.take().is_empty());
        let failed = app.send(hooked.call(Call::get, "webhook-deliveries?state=failed")).await;
        assert_eq!(ok(&failed)["items"].as_array().map(Vec::len), Some(2));
        let delivery = ok(&failed)["items"][0]["id"].as_str().expect("an id").to_owned();
        let refused =
            app.send(hooked.call(Call::post, &format!("webhook-deliveries/{delivery}/redeliver"))).await;
        assert_eq!(refused.status, 409);

        // Setting the URL enables it again. Failed deliveries are sent again with their first ids.
        set_url(&app, &hooked, &receiver.url()).await;
        assert!(show(&app, &hooked).await["webhook_disabled_at"].is_null());
        let body = format!(r#"{{"since":"{since}"}}"#);
        let call = hooked.call(Call::post, "webhook-deliveries/redeliver-failed");
        let reply = app.send(call.body(Some("application/json"), body)).await;
        assert_eq!((reply.status, &ok(&reply)["deliveries"]), (202, &2.into()));
        app.deliver().await;
        let hooks = receiver.take();
        hooked.verify(&hooks);
        assert_eq!(types(&hooks), ["api_key.updated", "payment.one", "payment.two"]);
        assert!(ids(&hooks).contains(&first.as_str()) && ids(&hooks).contains(&second.as_str()));
    })
    .await;
}

#[tokio::test]
async fn a_week_of_nothing_but_failures_disables_the_endpoint_and_one_success_starts_it_anew() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        let fail_for = async |days: i64| {
            receiver.answer(Answering::Status(500));
            for day in 0..days {
                app.publish(&hooked, &format!("payment.day{day}")).await;
                app.deliver().await;
                app.advance(TimeDelta::days(1));
            }
        };
        fail_for(6).await;
        receiver.answer(Answering::Status(204));
        app.deliver().await;
        fail_for(7).await;
        assert_eq!(disabled_events(&app).await, 0, "the seventh day is not over");
        // The deliveries that are due now are a day old, so they are given up.
        app.deliver().await;
        assert_eq!(disabled_events(&app).await, 1);
        let key = show(&app, &hooked).await;
        assert!(key["webhook_disabled_at"].is_string(), "{key}");
        assert_eq!(app.number("select count(*) from webhook_deliveries where state = 'pending'").await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_was_left_alone_for_a_week_is_given_a_whole_round() {
    each(async |app| {
        let receiver = Receiver::open();
        receiver.answer(Answering::Status(503));
        let hooked = app.hooked(&receiver.url()).await;
        app.deliver().await;
        app.advance(TimeDelta::hours(25));
        app.deliver().await;
        assert_eq!(app.log(&hooked).await[0]["state"], "failed");
        app.advance(TimeDelta::days(8));

        app.publish(&hooked, "payment.settled").await;
        app.deliver().await;
        assert!(show(&app, &hooked).await["webhook_disabled_at"].is_null(), "it failed but once since");
        assert_eq!(app.log(&hooked).await[0]["state"], "pending");
        app.advance(TimeDelta::hours(25));
        app.deliver().await;
        assert!(show(&app, &hooked).await["webhook_disabled_at"].is_string(), "its round is over");
    })
    .await;
}

#[tokio::test]
async fn a_change_of_the_url_takes_what_is_pending_along() {
    each(async |app| {
        let (old, new) = (Receiver::open(), Receiver::open());
        old.answer(Answering::Status(500));
        let hooked = app.hooked(&old.url()).await;
        app.deliver().await;
        let changed = set_url(&app, &hooked, &new.url()).await;
        assert!(changed.get("webhook_secret").is_none(), "the secret stays, and is not shown again");
        app.advance(TimeDelta::minutes(2));
        app.deliver().await;
        let hooks = new.take();
        hooked.verify(&hooks);
        assert_eq!(types(&hooks), ["api_key.created", "api_key.updated"]);
        assert_eq!(
            old.received()[0].id(),
            hooks.iter().find(|hook| hook.event_type() == "api_key.created").map_or("", |hook| hook.id())
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_pending_for_a_url_that_is_taken_away_is_given_up() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        let call = hooked.key_call(patch, "").body(Some("application/json"), r#"{"webhook_url":null}"#);
        ok(&app.send(call).await);
        app.deliver().await;
        assert!(receiver.received().is_empty());
        assert_eq!(app.log(&hooked).await[0]["state"], "failed");
    })
    .await;
}

#[tokio::test]
async fn a_first_url_brings_a_secret_and_it_is_shown_once() {
    each(async |app| {
        let receiver = Receiver::open();
        let merchant = app.merchant().await;
        let hooked = Hooked {
            merchant: merchant.id,
            key: merchant.key_id,
            api_key: merchant.key,
            secret: String::new(),
            operator: app.admin_token(Role::Operator, None).await,
        };
        let first = set_url(&app, &hooked, &receiver.url()).await;
        let secret = first["webhook_secret"].as_str().expect("the first URL brings a secret").to_owned();
        assert!(secret.starts_with("whsec_"));
        assert!(show(&app, &hooked).await.get("webhook_secret").is_none());
        let again = set_url(&app, &hooked, &receiver.url()).await;
        assert!(again.get("webhook_secret").is_none());
        app.deliver().await;
        let hooked = Hooked { secret, ..hooked };
        hooked.verify(&receiver.take());
        let bytes = hooked.secret.strip_prefix("whsec_").unwrap_or_default();
        assert_eq!(bytes.len(), 44, "32 bytes in base64");
    })
    .await;
}

#[tokio::test]
async fn after_the_only_secret_was_reported_setting_the_url_makes_a_new_one_and_no_other_change_does() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        app.deliver().await;
        receiver.take();
        for is_same in [true, false] {
            app.run_sql("update webhook_secrets set ends_at = 1").await;
            app.publish(&hooked, "payment.settled").await;
            for changes in [json!({ "name": "Till" }), json!({ "allowed_ips": ["127.0.0.0/8"] })] {
                let changed = app
                    .send(hooked.key_call(patch, "").body(Some("application/json"), changes.to_string()))
                    .await;
                assert!(ok(&changed).get("webhook_secret").is_none(), "{changes}");
            }
            app.deliver().await;
            assert!(receiver.take().is_empty(), "there is no secret to sign with");

            let url = if is_same { receiver.url() } else { format!("{}/other", receiver.url()) };
            let set = set_url(&app, &hooked, &url).await;
            let secret = set["webhook_secret"].as_str().expect("nobody has the earlier one").to_owned();
            assert!(set_url(&app, &hooked, &url).await.get("webhook_secret").is_none());
            app.advance(TimeDelta::hours(1));
            app.deliver().await;
            let sent = receiver.take();
            assert!(!sent.is_empty() && sent.iter().all(|one| one.is_signed_with(&secret)));
        }
        let told = "select count(*) from audit_events where detail like '%\"webhook_secret_made\":true%'";
        assert_eq!(app.number(told).await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_rotated_secret_signs_together_with_the_one_before_until_the_overlap_is_over() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        app.deliver().await;
        receiver.take();
        let call = hooked.key_call(Call::post, "/rotate-webhook-secret");
        let call =
            call.header("idempotency-key", "once").body(Some("application/json"), r#"{"overlap_secs":600}"#);
        let rotated = app.send(call.clone()).await;
        let again = app.send(call).await;
        assert_eq!((rotated.status, &rotated.body), (201, &again.body), "a lost answer is given again");
        let secret = ok(&rotated)["webhook_secret"].as_str().expect("a secret").to_owned();
        assert_ne!(secret, hooked.secret);

        let sent = async |seconds: i64| {
            app.advance(TimeDelta::seconds(seconds));
            app.publish(&hooked, "payment.settled").await;
            app.deliver().await;
            receiver.take().pop().expect("a webhook")
        };
        let during = sent(599).await;
        assert!(during.is_signed_with(&secret) && during.is_signed_with(&hooked.secret));
        assert!(during.header("webhook-signature").starts_with("v1,"));
        assert_eq!(during.header("webhook-signature").split(' ').count(), 2);
        let after = sent(1).await;
        assert!(after.is_signed_with(&secret) && !after.is_signed_with(&hooked.secret));
        assert_eq!(after.header("webhook-signature").split(' ').count(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_test_sends_a_ping_now_and_shows_what_comes_back() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        app.deliver().await;
        receiver.take();
        let test = || hooked.key_call(Call::post, "/test-webhook");
        receiver.answer(Answering::With { status: 418, headers: Vec::new(), body: "short and stout".into() });
        let answer = ok(&app.send(test()).await);
        assert_eq!(answer["delivered"], false);
        assert_eq!(answer["status"], 418);
        assert_eq!(answer["response"], "short and stout");
        receiver.answer(Answering::Status(200));
        assert_eq!(ok(&app.send(test()).await)["delivered"], true);
        receiver.answer(Answering::Reset);
        let lost = ok(&app.send(test()).await);
        assert_eq!((&lost["delivered"], &lost["error"]), (&false.into(), &"connection_lost".into()));

        let hooks = receiver.take();
        hooked.verify(&hooks);
        assert_eq!(types(&hooks), ["ping"; 3]);
        app.advance(TimeDelta::days(1));
        app.deliver().await;
        assert!(receiver.take().is_empty(), "a ping is not tried again");
        assert_eq!(app.log(&hooked).await.len(), 1, "and is not in the log");

        app.send(hooked.key_call(patch, "").body(Some("application/json"), r#"{"webhook_url":null}"#)).await;
        assert_eq!(app.send(test()).await.status, 409);
    })
    .await;
}

#[tokio::test]
async fn a_webhook_is_tested_once_at_a_time_and_a_merchant_tests_a_few() {
    each(async |app| {
        let receiver = Receiver::open();
        receiver.answer(Answering::Hang);
        let hooked = app.hooked(&receiver.url()).await;
        let test = |key: &Hooked| app.send(key.key_call(Call::post, "/test-webhook"));
        let mut keys = vec![hooked];
        for _ in 0..8 {
            let key = NewApiKey { webhook_url: Some(receiver.url()), ..plain_key() };
            keys.push(app.further_key(keys[0].merchant, key).await);
        }
        let under_way = join_all(keys[..8].iter().map(test));
        let meanwhile = async {
            receiver.until_received(8).await;
            let refused = (test(&keys[0]).await, test(&keys[8]).await);
            let other = app.hooked(&receiver.url()).await;
            receiver.answer(Answering::Status(204));
            (refused, test(&other).await)
        };
        let (answers, ((same, ninth), other)) = tokio::join!(under_way, meanwhile);
        assert_eq!((same.status, ninth.status, other.status), (409, 409, 200));
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(test(&keys[0]).await.status, 200, "the next one may");
    })
    .await;
}

#[tokio::test]
async fn a_url_that_may_not_be_reached_cannot_be_set() {
    each_engine_with(
        |_| {},
        async |app| {
            let merchant = app.merchant().await;
            let operator = app.admin_token(Role::Operator, None).await;
            let hooked = Hooked {
                merchant: merchant.id,
                key: merchant.key_id,
                api_key: merchant.key,
                secret: String::new(),
                operator,
            };
            for url in [
                "http://example.com/",
                "https://127.0.0.1/",
                "https://0x7f000001/",
                "https://2130706433/",
                "https://[::ffff:7f00:1]/",
                "https://169.254.169.254/latest/meta-data",
                "https://user:pass@example.com/",
                "https://example.com/#fragment",
                "ftp://example.com/",
                "not a url",
            ] {
                let body = format!(r#"{{"webhook_url":"{url}"}}"#);
                let reply = app.send(hooked.key_call(patch, "").body(Some("application/json"), body)).await;
                assert_eq!(reply.status, 400, "{url}: {}", reply.text());
                let body = format!(r#"{{"name":"x","environment":"live","webhook_url":"{url}"}}"#);
                let reply =
                    app.send(hooked.call(Call::post, "api-keys").body(Some("application/json"), body)).await;
                assert_eq!(reply.status, 400, "{url}: {}", reply.text());
            }
            set_url(&app, &hooked, "https://example.com/hook").await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_revoked_key_is_told_of_its_own_end_and_of_nothing_after() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        let other = app
            .further_key(hooked.merchant, NewApiKey { webhook_url: Some(receiver.url()), ..plain_key() })
            .await;
        app.deliver().await;
        receiver.take();
        app.send(other.key_call(delete, "")).await;
        app.publish(&hooked, "payment.settled").await;
        app.deliver().await;
        let hooks = receiver.take();
        assert_eq!(types(&hooks), ["api_key.revoked", "payment.settled"]);
        for hook in &hooks {
            let expected = if hook.event_type() == "api_key.revoked" { &other } else { &hooked };
            assert!(hook.is_signed_with(&expected.secret), "each key signs for itself");
        }
    })
    .await;
}
