//! Limits on what one caller can make the server store: lengths and numbers.

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::json;
use tollgate::domain::ids::ExchangeId;
use tollgate::domain::lengths::{OBJECT_ID_BYTES_MAX, PATH_BYTES_MAX};
use tollgate::domain::merchant::MerchantStatus;
use tollgate::jobs::exchange_log::{ExchangeLog, QUEUE_BYTES_MAX, REFUSALS_PER_ADDRESS_AND_MINUTE, Sample};
use tollgate::store::exchanges::Exchange;

use super::admin::Admin;
use super::support::merchant::plain_key;
use super::support::{Call, TestApp, each_engine, each_engine_with};

const BUDGET: i64 = REFUSALS_PER_ADDRESS_AND_MINUTE as i64;

async fn records(app: &TestApp) -> i64 {
    app.flush().await;
    app.number("select count(*) from exchanges").await
}

#[tokio::test]
async fn a_key_that_works_no_longer_writes_no_more_records_than_its_address_may() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let call = |key: &str, from: &str| Call::get("/api/verify").key(key).from(from);
        app.set_status(merchant.id, MerchantStatus::Suspended).await;
        for _ in 0..BUDGET + 20 {
            assert_eq!(app.send(call(&merchant.key, "2001:db8::1")).await.status, 401);
        }
        assert_eq!(records(&app).await, BUDGET);
        // An address in the same network shares the limit. Other networks have their own.
        app.send(call(&merchant.key, "2001:db8::2")).await;
        assert_eq!(records(&app).await, BUDGET);
        app.send(call(&merchant.key, "192.0.2.1")).await;
        assert_eq!(records(&app).await, BUDGET + 1);
        let metrics = app.send_to_ops(Call::get("/metrics")).await.text();
        assert!(metrics.contains("tollgate_exchanges_unrecorded_total 21"), "{metrics}");
        // The next minute has a new limit, and calls that work are not counted.
        app.advance(TimeDelta::minutes(1));
        app.send(call(&merchant.key, "2001:db8::1")).await;
        assert_eq!(records(&app).await, BUDGET + 2);
        app.set_status(merchant.id, MerchantStatus::Active).await;
        for _ in 0..BUDGET + 5 {
            assert_eq!(app.send(merchant.authorize()).await.status, 200);
        }
        assert_eq!(records(&app).await, 2 * BUDGET + 7);
    })
    .await;
}

#[tokio::test]
async fn paths_and_object_ids_are_kept_to_their_stated_lengths() {
    each_engine(async |app| {
        let merchant = app.merchant_with(plain_key()).await;
        let path = format!("/api/verify/{}", "a".repeat(4000));
        app.send(Call::get(&path).key(&merchant.key)).await;
        app.flush().await;
        let longest = app.number("select cast(max(length(path)) as bigint) from exchanges").await;
        assert_eq!(longest, i64::try_from(PATH_BYTES_MAX).expect("a small number"));

        let operator = Admin::operator(&app).await;
        // The é takes two bytes, and the limit is between them.
        for id in ["A".repeat(5000), format!("a{}", "%C3%A9".repeat(1000))] {
            let reply = operator.patch(&format!("/credentials/{id}"), json!({ "enabled": false })).await;
            assert_eq!(reply.status, 404, "{}", reply.text());
        }
        let longest = app.number("select cast(max(length(object_id)) as bigint) from audit_events").await;
        assert_eq!(longest, i64::try_from(OBJECT_ID_BYTES_MAX).expect("a small number"));
    })
    .await;
}

#[tokio::test]
async fn records_that_wait_take_no_more_memory_than_they_may() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let log = ExchangeLog::start(Arc::clone(app.core()), Sample::of_successes(1.0));
        let exchange = |n: u32| Exchange {
            id: ExchangeId::generate(app.now(), &app.core().entropy),
            merchant_id: merchant.id,
            at: app.now(),
            request_id: n.to_string(),
            method: "GET".to_owned(),
            path: "/".repeat(PATH_BYTES_MAX),
            status: 200,
            error: None,
            reason: None,
            client_ip: "192.0.2.1".to_owned(),
            hops: Vec::new(),
            api_key_id: Some(merchant.key_id),
            client_id: None,
            latency_us: 1,
        };
        // There is only this thread, so nothing is written until it waits.
        let room = u64::try_from(QUEUE_BYTES_MAX / exchange(10_000).bytes()).expect("a small number");
        let mut recorded = 0;
        while log.dropped() == 0 {
            log.record(exchange(10_000 + recorded));
            recorded += 1;
        }
        assert_eq!(u64::from(recorded), room + 1);
        log.flush().await;
        log.record(exchange(1));
        log.flush().await;
        assert_eq!(log.dropped(), 1, "what was written has made room");
    })
    .await;
}

#[tokio::test]
async fn of_successful_calls_a_share_is_recorded_and_of_refused_ones_all_and_all_count() {
    each_engine_with(
        |settings| settings.retention.exchange_success_sample = 0.5,
        async |app| {
            let merchant = app.merchant().await;
            let call = |number: usize| merchant.authorize().header("x-request-id", format!("call-{number}"));
            let recorded = async || {
                app.flush().await;
                app.number("select count(*) from exchanges where status = 200").await
            };
            for number in 0..40 {
                assert_eq!(app.send(call(number)).await.status, 200);
                assert_eq!(app.send(call(number).key("wrong")).await.status, 401);
            }
            for number in 0..30 {
                let refused = Call::post("/api/authorize").key(&merchant.key);
                assert!(
                    app.send(refused.header("x-request-id", format!("refused-{number}"))).await.status >= 400
                );
            }
            let first = recorded().await;
            assert!((5..=35).contains(&first), "{first}");
            // A caller cannot keep its calls out of the record by the request id that it sends.
            for _ in 0..40 {
                assert_eq!(app.send(call(0)).await.status, 200);
            }
            let repeated = recorded().await - first;
            assert!((5..=35).contains(&repeated), "{repeated}");
            assert_eq!(app.number("select count(*) from exchanges where status >= 400").await, 30);
            let counted = "select cast(sum(calls) as bigint) from call_counts";
            assert_eq!(app.number(counted).await, 110);
        },
    )
    .await;
}
