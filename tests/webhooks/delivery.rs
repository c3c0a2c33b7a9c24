//! Delivery: at least once and with the same id, whatever happens.

use std::collections::HashMap;

use axum::http::HeaderMap;
use chrono::TimeDelta;
use futures_util::future::join_all;
use standardwebhooks::Webhook;
use tollgate::domain::clock::Clock;
use tollgate::domain::delivery::{Answer, SendError};
use tollgate::flows::deliver::CLAIM;
use tollgate::flows::manage_keys::NewApiKey;
use tollgate::jobs::deliver::PER_MERCHANT_MAX;

use super::{Call, delete, each, ids, ok, types};
use crate::support::merchant::plain_key;
use crate::support::receiver::{Answering, Closed, Receiver};

/// Longer than a pause of this length with its jitter.
fn past(minutes: i64) -> TimeDelta {
    TimeDelta::seconds(minutes * 66 + 1)
}

#[tokio::test]
async fn every_change_of_a_key_is_told_once_and_verifies_with_an_independent_library() {
    each(async |app| {
        // The library compares timestamps with the real time.
        app.advance(Clock::System.now().since(app.now()));
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        let credentials = app.send(hooked.key_call(Call::post, "/credentials")).await;
        assert_eq!(credentials.status, 201);
        app.send(hooked.key_call(delete, "")).await;
        app.deliver().await;

        let hooks = receiver.take();
        assert_eq!(types(&hooks), ["api_key.created", "api_key.revoked", "credentials.generated"]);
        let library = Webhook::new(&hooked.secret).expect("the library takes the secret");
        for hook in &hooks {
            library.verify(&hook.body, &hook.headers).expect("the library accepts the webhook");
            assert_eq!(hook.header("content-type"), "application/json");
            assert_eq!(hook.path, "/hook?till=1");
            assert_eq!(hook.json()["data"]["api_key_id"], hooked.key.to_string());
        }
        let first = &hooks[0];
        let altered = [&first.body[..], b" "].concat();
        assert!(library.verify(&altered, &first.headers).is_err());
        assert!(library.verify(&first.body, &HeaderMap::new()).is_err());

        app.advance(TimeDelta::hours(25));
        app.deliver().await;
        assert!(receiver.take().is_empty(), "what was delivered is not sent again");
    })
    .await;
}

#[tokio::test]
async fn a_receiver_that_was_down_for_an_hour_gets_everything_under_the_first_ids() {
    each(async |app| {
        let closed = Closed::new();
        let hooked = app.hooked(&format!("http://{}/", closed.address)).await;
        for event in ["payment.one", "payment.two", "payment.three"] {
            app.publish(&hooked, event).await;
        }
        app.deliver().await;
        for minutes in [1, 5, 30] {
            app.advance(past(minutes));
            app.deliver().await;
        }
        let receiver = closed.open();
        app.deliver().await;
        assert!(receiver.received().is_empty(), "nothing is due before its time");
        app.advance(past(60));
        app.deliver().await;

        let hooks = receiver.take();
        hooked.verify(&hooks);
        let log = app.log(&hooked).await;
        let mut expected: Vec<_> = log.iter().filter_map(|delivery| delivery["event_id"].as_str()).collect();
        let mut received = ids(&hooks);
        expected.sort_unstable();
        received.sort_unstable();
        assert_eq!(received, expected);
        assert_eq!(log.len(), 4, "the three and api_key.created");
        for delivery in &log {
            assert_eq!(delivery["state"], "delivered");
            let attempts = delivery["attempts"].as_array().expect("a list");
            let errors: Vec<_> = attempts.iter().filter_map(|attempt| attempt["error"].as_str()).collect();
            assert_eq!(errors, ["connection_refused"; 4]);
            assert_eq!(attempts[4]["status"], 204);
        }
    })
    .await;
}

#[tokio::test]
async fn anything_but_2xx_is_tried_again_and_a_redirect_is_not_followed() {
    each(async |app| {
        let elsewhere = Receiver::open();
        let redirect = Answering::With {
            status: 302,
            headers: vec![("location", elsewhere.url())],
            body: "moved".into(),
        };
        for (answering, status, error) in [
            (Answering::Status(500), Some(500), None),
            (redirect, Some(302), None),
            (Answering::Status(404), Some(404), None),
            (Answering::Reset, None, Some("connection_lost")),
        ] {
            let receiver = Receiver::open();
            receiver.answer(answering);
            let hooked = app.hooked(&receiver.url()).await;
            app.deliver().await;
            receiver.answer(Answering::Status(200));
            app.advance(past(1));
            app.deliver().await;

            let hooks = receiver.take();
            hooked.verify(&hooks);
            assert_eq!(hooks.len(), 2);
            assert_eq!(hooks[0].id(), hooks[1].id());
            assert_eq!(hooks[0].body, hooks[1].body);
            assert_eq!(hooks[1].timestamp() - hooks[0].timestamp(), past(1).num_seconds());
            assert_ne!(hooks[0].header("webhook-signature"), hooks[1].header("webhook-signature"));
            let attempts = app.log(&hooked).await[0]["attempts"].clone();
            assert_eq!(attempts[0]["status"].as_u64(), status);
            assert_eq!(attempts[0]["error"].as_str(), error);
            assert_eq!(attempts[1]["status"], 200);
        }
        assert_eq!(elsewhere.connections(), 0);
    })
    .await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    each(async |app| {
        let receiver = Receiver::open();
        receiver.answer(Answering::With {
            status: 503,
            headers: vec![("retry-after", "600".to_owned())],
            body: "later".into(),
        });
        app.hooked(&receiver.url()).await;
        app.deliver().await;
        app.advance(TimeDelta::seconds(599));
        app.deliver().await;
        assert_eq!(receiver.received().len(), 1);
        app.advance(TimeDelta::seconds(1));
        app.deliver().await;
        assert_eq!(receiver.received().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn an_event_that_fails_for_24_hours_is_given_up_and_stays_in_the_log() {
    each(async |app| {
        let receiver = Receiver::open();
        receiver.answer(Answering::Status(500));
        let hooked = app.hooked(&receiver.url()).await;
        app.deliver().await;
        for minutes in [1, 5, 30].into_iter().chain([60; 30]) {
            app.advance(past(minutes));
            app.deliver().await;
        }
        // The last attempt is 23 h 46 min after the first one. An hour later would be after the end of the
        // day.
        let attempts = receiver.received().len();
        assert_eq!(attempts, 25);
        let delivery = &app.log(&hooked).await[0];
        assert_eq!(delivery["state"], "failed");
        assert_eq!(delivery["next_attempt_at"], serde_json::Value::Null);
        assert_eq!(delivery["attempts"].as_array().map(Vec::len), Some(attempts));
    })
    .await;
}

#[tokio::test]
async fn what_a_killed_sender_had_claimed_is_sent_by_another_when_the_claim_lapses() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        let id = app.publish(&hooked, "payment.settled").await;
        let claimed = app.core().claim_deliveries(hooked.key, 8).await.expect("the store answers");
        assert_eq!(claimed.len(), 2);
        // Nothing is sent or recorded, as if the process were gone.
        drop(claimed);

        let other = app.replica().await;
        other.deliver().await;
        assert!(receiver.received().is_empty(), "the claim holds");
        app.advance(CLAIM);
        other.deliver().await;
        let hooks = receiver.take();
        hooked.verify(&hooks);
        assert_eq!(hooks.len(), 2);
        assert!(ids(&hooks).contains(&id.as_str()));
        app.advance(TimeDelta::days(1));
        app.deliver().await;
        assert!(receiver.take().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_sender_that_comes_too_late_undoes_nothing() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        let late = app.core().claim_deliveries(hooked.key, 8).await.expect("the store answers");
        app.advance(CLAIM);
        let other = app.replica().await;
        other.deliver().await;
        let failed = Answer { result: Err(SendError::TimedOut), latency_us: 1 };
        app.core().record_attempt(&late[0].claim, &failed).await.expect("the store answers");

        let delivery = &app.log(&hooked).await[0];
        assert_eq!(delivery["state"], "delivered");
        assert_eq!(delivery["attempts"].as_array().map(Vec::len), Some(2));
        app.advance(TimeDelta::days(1));
        other.deliver().await;
        assert_eq!(receiver.received().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn replicas_that_deliver_side_by_side_send_nothing_twice() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        for number in 0..60 {
            app.publish(&hooked, &format!("payment.n{number}")).await;
        }
        let (second, third) = (app.replica().await, app.replica().await);
        // A worker ends if another one has the endpoint. The last one finds nothing left.
        for _ in 0..3 {
            join_all([&app, &second, &third].map(|replica| replica.deliver())).await;
        }
        let mut times: HashMap<String, usize> = HashMap::new();
        for hook in receiver.take() {
            *times.entry(hook.id().to_owned()).or_default() += 1;
        }
        assert_eq!(times.len(), 61);
        assert!(times.values().all(|count| *count == 1), "{times:?}");
    })
    .await;
}

#[tokio::test]
async fn a_receiver_that_never_answers_holds_up_no_other() {
    each(async |app| {
        let (slow, quick) = (Receiver::open(), Receiver::open());
        slow.answer(Answering::Hang);
        let hanging = app.hooked(&slow.url()).await;
        let other = app.hooked(&quick.url()).await;
        for number in 0..40 {
            app.publish(&hanging, &format!("payment.n{number}")).await;
        }
        app.publish(&other, "payment.settled").await;
        let served = app.serve().await;
        slow.until_received(1).await;
        let hooks = quick.until_received(2).await;
        other.verify(&hooks);
        assert!(slow.received().len() <= 8, "one endpoint has few attempts at once");
        slow.answer(Answering::Status(204));
        served.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_merchant_with_many_receivers_that_never_answer_has_its_share_of_the_attempts_and_no_more() {
    each(async |app| {
        let (slow, quick) = (Receiver::open(), Receiver::open());
        slow.answer(Answering::Hang);
        let hanging = app.hooked(&slow.url()).await;
        for _ in 0..PER_MERCHANT_MAX + 8 {
            let key = NewApiKey { webhook_url: Some(slow.url()), ..plain_key() };
            app.further_key(hanging.merchant, key).await;
        }
        let other = app.hooked(&quick.url()).await;
        let delivering = app.start_delivering();
        slow.until_received(PER_MERCHANT_MAX).await;
        other.verify(&quick.until_received(1).await);
        // After one more round, every attempt that could start has started.
        app.publish(&other, "payment.settled").await;
        while quick.received().len() < 2 {
            app.deliver().await;
        }
        assert_eq!(slow.received().len(), PER_MERCHANT_MAX);
        slow.answer(Answering::Status(204));
        delivering.await.expect("the deliverer does not panic");
        assert_eq!(slow.received().len(), PER_MERCHANT_MAX + 9);
    })
    .await;
}

#[tokio::test]
async fn a_stop_leaves_what_waits_for_its_turn_to_the_next_start() {
    each(async |app| {
        let slow = Receiver::open();
        slow.answer(Answering::Hang);
        let hanging = app.hooked(&slow.url()).await;
        for _ in 0..PER_MERCHANT_MAX + 8 {
            let key = NewApiKey { webhook_url: Some(slow.url()), ..plain_key() };
            app.further_key(hanging.merchant, key).await;
        }
        let delivering = app.start_delivering();
        slow.until_received(PER_MERCHANT_MAX).await;
        app.stop_delivering();
        slow.answer(Answering::Status(204));
        delivering.await.expect("the deliverer does not panic");
        assert_eq!(slow.received().len(), PER_MERCHANT_MAX);
        assert_eq!(app.number("select count(*) from webhook_deliveries where state = 'pending'").await, 9);
    })
    .await;
}

#[tokio::test]
async fn receivers_that_never_answer_hold_up_no_call() {
    // There are more attempts than database connections, so no attempt may hold one.
    const ENDPOINTS: usize = 24;
    each(async |app| {
        let slow = Receiver::open();
        slow.answer(Answering::Hang);
        let first = app.hooked(&slow.url()).await;
        for _ in 1..ENDPOINTS {
            app.hooked(&slow.url()).await;
        }
        let client = app.merchant().await;
        let delivering = app.start_delivering();
        slow.until_received(ENDPOINTS).await;

        let tokens = app.tokens(&client).await;
        let renewed = app.send(client.refresh(&tokens.refresh)).await.tokens();
        assert_eq!(app.send(client.verify(&renewed.access)).await.status, 200);
        assert_eq!(ok(&app.send(client.introspect(&renewed.access)).await)["active"], true);
        app.publish(&first, "payment.settled").await;
        assert_eq!(app.send(client.revoke(&renewed.access)).await.status, 200);
        assert!(!delivering.is_finished(), "the attempts still wait for their answers");
        slow.answer(Answering::Status(204));
        delivering.await.expect("the deliverer does not panic");
    })
    .await;
}

#[tokio::test]
async fn only_a_commit_that_leaves_something_to_deliver_wakes_the_deliverer() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        let published =
            || tokio::time::timeout(std::time::Duration::ZERO, app.core().store.published().notified());
        assert!(published().await.is_ok(), "api_key.created");
        assert!(published().await.is_err(), "told once");
        let refused = app.send(hooked.publish(r#"{"type":"no type","data":{}}"#)).await;
        assert_eq!(refused.status, 400);
        assert!(published().await.is_err(), "rolled back");
        app.merchant().await;
        assert!(published().await.is_err(), "no webhook is to tell of it");
        app.publish(&hooked, "payment.settled").await;
        assert!(published().await.is_ok());
    })
    .await;
}
