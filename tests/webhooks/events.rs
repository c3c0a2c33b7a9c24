//! Events: published by the platform, about deadlines, and about blocked callers.

use chrono::TimeDelta;
use tollgate::domain::admin::Role;
use tollgate::domain::api_key::WebhookFormat;
use tollgate::domain::licence::{Licence, Product};
use tollgate::flows::manage_keys::NewApiKey;
use tollgate::flows::manage_merchants::MerchantChanges;
use tollgate::flows::principal::Principal;

use super::{Call, Hooked, each, ok, patch, types};
use crate::support::TestApp;
use crate::support::merchant::{done, plain_key};
use crate::support::receiver::Receiver;

const PUBLISHED: &str = r#"{
    "type": "payment.settled",
    "data": { "reference_id" : "R-1", "amount": 10.10, "lines": [1, 2], "note": {}, "payer": "Ren\u00e9e \"R\"" }
}"#;

#[tokio::test]
async fn both_output_types_are_exact_to_the_byte() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        let gateway = MerchantChanges { gateway: Some("worldpay_corporate".to_owned()), ..Default::default() };
        done(app.core().update_merchant(&Principal::command_line(), hooked.merchant, None, gateway).await);
        let lines = Receiver::open();
        let multiple = NewApiKey {
            webhook_url: Some(lines.url()),
            webhook_format: WebhookFormat::MultipleJson,
            ..plain_key()
        };
        let multiple = app.further_key(hooked.merchant, multiple).await;
        app.deliver().await;
        receiver.take();
        lines.take();
        let at = app.now();
        ok(&app.send(hooked.publish(PUBLISHED)).await);
        app.deliver().await;

        let hooks = receiver.take();
        hooked.verify(&hooks);
        let single = format!(
            r#"{{"type":"payment.settled","timestamp":"{at}","data":{{"reference_id":"R-1","amount":10.10,"lines":[1,2],"note":{{}},"payer":"Ren\u00e9e \"R\""}}}}"#
        );
        assert_eq!(String::from_utf8_lossy(&hooks[0].body), single);
        let hooks = lines.take();
        multiple.verify(&hooks);
        let expected = format!(
            r#"{{
  "type": "payment.settled",
  "timestamp": "{at}",
  "data": {{
    "reference_id": "R-1",
    "amount": 10.10,
    "lines": [
      1,
      2
    ],
    "note": {{}},
    "payer": "Ren\u00e9e \"R\""
  }}
}}"#
        );
        assert_eq!(String::from_utf8_lossy(&hooks[0].body), expected);
    })
    .await;
}

#[tokio::test]
async fn an_idempotency_key_stands_for_one_event_on_every_replica() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        let other = app.hooked(&receiver.url()).await;
        app.deliver().await;
        receiver.take();
        let replica = app.replica().await;
        let body = r#"{"type":"payment.settled","data":{},"idempotency_key":"R-1"}"#;
        let (first, second) =
            tokio::join!(app.send(hooked.publish(body)), replica.send(hooked.publish(body)));
        assert_eq!((first.status, second.status), (202, 202));
        assert_eq!(first.body, second.body);
        let spaced = app.send(hooked.publish(&body.replace("{}", "{ }"))).await;
        assert_eq!((spaced.status, spaced.body), (202, first.body.clone()), "the same event");
        for another in [body.replace("settled", "failed"), body.replace("{}", r#"{"amount":1}"#)] {
            let refused = app.send(hooked.publish(&another)).await;
            assert_eq!((refused.status, &refused.json()["code"]), (409, &"conflict".into()), "{another}");
        }
        let elsewhere = app.send(other.publish(body)).await;
        assert_ne!(elsewhere.body, first.body, "merchants do not share keys");
        app.deliver().await;
        assert_eq!(types(&receiver.take()), ["payment.settled"; 2]);
    })
    .await;
}

#[tokio::test]
async fn events_are_held_to_their_form_and_come_from_operators_alone() {
    each(async |app| {
        let receiver = Receiver::open();
        let hooked = app.hooked(&receiver.url()).await;
        let deep = format!(r#"{{"type":"x","data":{{"a":{}1{}}}}}"#, "[".repeat(40), "]".repeat(40));
        for body in [
            r#"{"data":{}}"#,
            r#"{"type":"x"}"#,
            r#"{"type":"","data":{}}"#,
            r#"{"type":"a..b","data":{}}"#,
            r#"{"type":"a b","data":{}}"#,
            r#"{"type":"x","data":[]}"#,
            r#"{"type":"x","data":"{}"}"#,
            r#"{"type":"x","data":null}"#,
            r#"{"type":"x","data":{},"idempotency_key":""}"#,
            r#"{"type":"x","data":{},"idempotency_key":"a\nb"}"#,
            r#"{"type":"x","data":{},"merchant_id":"y"}"#,
            &deep,
        ] {
            let reply = app.send(hooked.publish(body)).await;
            assert_eq!(reply.status, 400, "{body}: {}", reply.text());
        }
        for (role, status) in [(Role::MerchantAdmin, 403), (Role::MerchantViewer, 403)] {
            let operator = app.admin_token(role, Some(hooked.merchant)).await;
            let merchant = Hooked { operator, api_key: String::new(), secret: String::new(), ..hooked };
            assert_eq!(app.send(merchant.publish(PUBLISHED)).await.status, status);
        }
        app.deliver().await;
        assert_eq!(types(&receiver.take()), ["api_key.created"]);
    })
    .await;
}

/// A call with a key from an address outside its list.
async fn turned_away(app: &TestApp, hooked: &Hooked, address: &str) {
    let reply = app.send(Call::post("/api/authorize").key(&hooked.api_key).from(address)).await;
    assert_eq!(reply.status, 401);
}

#[tokio::test]
async fn a_blocked_caller_is_told_of_once_per_key_network_and_hour() {
    each(async |app| {
        let receiver = Receiver::open();
        let key = NewApiKey {
            allowed_ips: vec!["192.0.2.1".to_owned()],
            webhook_url: Some(receiver.url()),
            ..plain_key()
        };
        let hooked = app.hooked_with(key).await;
        app.deliver().await;
        receiver.take();
        let replica = app.replica().await;
        let told = async || {
            for replica in [&app, &replica] {
                replica.core().publish_blocked().await.expect("the store answers");
            }
            app.deliver().await;
            let mut addresses: Vec<String> = receiver
                .take()
                .iter()
                .map(|hook| {
                    assert_eq!(hook.event_type(), "address.blocked");
                    assert_eq!(hook.json()["data"]["api_key_id"], hooked.key.to_string());
                    hook.json()["data"]["client_ip"].as_str().expect("an address").to_owned()
                })
                .collect();
            addresses.sort();
            addresses
        };
        for _ in 0..3 {
            turned_away(&app, &hooked, "203.0.113.9").await;
            turned_away(&replica, &hooked, "203.0.113.9").await;
        }
        turned_away(&app, &hooked, "2001:db8::9").await;
        for last in 10..40 {
            // Addresses in the same /64 count as one caller on every replica.
            turned_away(&app, &hooked, &format!("2001:db8::{last}")).await;
            turned_away(&replica, &hooked, "2001:db8::9").await;
        }
        assert_eq!(told().await, ["2001:db8::9", "203.0.113.9"]);
        turned_away(&app, &hooked, "203.0.113.9").await;
        assert!(told().await.is_empty());
        app.advance(TimeDelta::hours(1));
        turned_away(&app, &hooked, "203.0.113.9").await;
        assert_eq!(told().await, ["203.0.113.9"]);
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_called_from_everywhere_costs_no_other_key_its_notices() {
    each(async |app| {
        let receiver = Receiver::open();
        let key = || NewApiKey {
            allowed_ips: vec!["192.0.2.1".to_owned()],
            webhook_url: Some(receiver.url()),
            ..plain_key()
        };
        let (stolen, other) = (app.hooked_with(key()).await, app.hooked_with(key()).await);
        app.deliver().await;
        receiver.take();
        for network in 0..60 {
            turned_away(&app, &stolen, &format!("2001:db8:0:{network:x}::1")).await;
        }
        turned_away(&app, &other, "203.0.113.9").await;
        assert_eq!(app.core().publish_blocked().await.expect("the store answers"), 21);
        app.deliver().await;
        let told = receiver.take();
        let of = |key: &Hooked| {
            let id = key.key.to_string();
            told.iter().filter(|hook| hook.json()["data"]["api_key_id"] == *id).count()
        };
        assert_eq!((of(&stolen), of(&other)), (20, 1));
        app.advance(TimeDelta::hours(1));
        turned_away(&app, &stolen, "2001:db8:0:ff::1").await;
        assert_eq!(app.core().publish_blocked().await.expect("the store answers"), 1, "the next hour");
    })
    .await;
}

#[tokio::test]
async fn a_deadline_is_announced_once_before_it_and_once_when_it_has_passed() {
    each(async |app| {
        let receiver = Receiver::open();
        let expires_at = Some(app.now().plus(TimeDelta::days(30)));
        let key = NewApiKey { webhook_url: Some(receiver.url()), expires_at, ..plain_key() };
        let hooked = app.hooked_with(key).await;
        let licence = Licence { active: true, expires_at };
        app.put_licence(hooked.merchant, Product::EnhancedSecurity, licence).await;
        app.deliver().await;
        receiver.take();
        let replica = app.replica().await;
        let told = async |days: i64| {
            app.advance(TimeDelta::days(days));
            let (one, two) =
                tokio::join!(app.core().announce_deadlines(), replica.core().announce_deadlines());
            one.and(two).expect("the store answers");
            app.deliver().await;
            types(&receiver.take())
        };
        assert!(told(22).await.is_empty());
        assert_eq!(told(1).await, ["api_key.expiring", "licence.expiring"]);
        assert!(told(1).await.is_empty());

        // The deadline was moved, and comes near again.
        let later = app.now().plus(TimeDelta::days(10));
        let body = format!(r#"{{"expires_at":"{later}"}}"#);
        ok(&app.send(hooked.key_call(patch, "").body(Some("application/json"), body)).await);
        assert_eq!(told(2).await, ["api_key.updated"]);
        assert_eq!(told(1).await, ["api_key.expiring"]);
        assert_eq!(told(3).await, ["licence.expired"]);
        assert_eq!(told(4).await, ["api_key.expired"]);
        assert!(told(1).await.is_empty());
    })
    .await;
}
