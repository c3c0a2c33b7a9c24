//! Records: exchanges with their reasons, and the audit trail with its chain.

use serde_json::{Value, json};
use tollgate::domain::admin::Role;
use tollgate::flows::audit_chain::ChainVerdict;

use super::{Admin, authorize, introspect_as, text};
use crate::ops::scrape;
use crate::support::{each_engine, each_engine_with};

#[tokio::test]
async fn a_denial_explains_itself_to_the_owner_by_its_request_id() {
    each_engine_with(
        |settings| settings.server.edge.trusted_proxies = vec!["10.0.0.0/8".parse().expect("a range")],
        async |app| {
            let operator = Admin::operator(&app).await;
            let merchant = operator.licensed_merchant("g").await;
            let key = operator.key(&merchant, json!({ "allowed_ips": ["198.51.100.0/24"] })).await;
            let client = operator.credentials(&key).await;
            let call = authorize(&key, &client)
                .from("10.0.0.2")
                .header("x-forwarded-for", "198.51.100.1, 203.0.113.7, 10.0.0.9")
                .header("x-request-id", "denied-1");
            app.send(call).await.refused(401, "invalid_client");
            app.flush().await;
            let found =
                operator.get(&format!("/merchants/{merchant}/exchanges?request_id=denied-1")).await.ok();
            let exchange = &found["items"][0];
            assert_eq!(text(exchange, "reason"), "address_not_allowed");
            assert_eq!(text(exchange, "error"), "invalid_client");
            assert_eq!(text(exchange, "client_ip"), "203.0.113.7");
            assert_eq!(exchange["hops"], json!(["10.0.0.9", "10.0.0.2"]));
            assert_eq!((&exchange["status"], text(exchange, "method")), (&json!(401), "POST"));
            assert_eq!(exchange["api_key_id"], key["id"]);
        },
    )
    .await;
}

#[tokio::test]
async fn an_exchange_is_found_by_its_request_id_whoever_chose_it() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let client = operator.credentials(&key).await;
        let ours =
            app.send(authorize(&key, &client)).await.header("x-request-id").expect("each answer has one");
        let chosen = authorize(&key, &client).header("x-request-id", "chosen");
        app.send(chosen).await.tokens();
        app.flush().await;
        // Like a record from before, where an id of ours was stored as text.
        let earlier = "01a20d60-fef6-7ad1-ae50-7286a391e4c4";
        app.send(authorize(&key, &client).header("x-request-id", earlier)).await.tokens();
        app.flush().await;
        for id in [&ours, "chosen", earlier] {
            let found = operator.get(&format!("/merchants/{merchant}/exchanges?request_id={id}")).await.ok();
            let items = found["items"].as_array().expect("a page");
            assert_eq!(items.iter().map(|item| text(item, "request_id")).collect::<Vec<_>>(), [id]);
        }
        let all = operator.get(&format!("/merchants/{merchant}/exchanges")).await.ok();
        let items = all["items"].as_array().expect("a page");
        let mut shown: Vec<_> = items.iter().map(|item| text(item, "request_id")).collect();
        shown.sort_unstable();
        let mut sent = [ours.as_str(), "chosen", earlier];
        sent.sort_unstable();
        assert_eq!(shown, sent);
        let named_by_us =
            items.iter().find(|item| text(item, "id") == ours).expect("its id is the request id");
        assert_eq!(text(named_by_us, "request_id"), ours);
        assert_eq!(app.number("select count(*) from exchanges where request_id = ''").await, 1);
    })
    .await;
}

#[tokio::test]
async fn exchanges_are_filtered_by_status_key_and_time() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let other = operator.key(&merchant, json!({})).await;
        let client = operator.credentials(&key).await;
        app.send(authorize(&key, &client)).await.tokens();
        app.advance(chrono::TimeDelta::hours(1));
        app.send(authorize(&other, &client)).await.refused(401, "invalid_client");
        app.flush().await;
        let middle = app.now().minus(chrono::TimeDelta::minutes(30)).to_rfc3339();
        let cases = [
            (String::new(), 2),
            ("status=401".to_owned(), 1),
            (format!("api_key_id={}", text(&key, "id")), 1),
            (format!("from={middle}"), 1),
            (format!("to={middle}"), 1),
            (format!("to={middle}&status=401"), 0),
            ("request_id=nothing".to_owned(), 0),
        ];
        for (query, expected) in cases {
            let list = operator.get(&format!("/merchants/{merchant}/exchanges?{query}")).await.ok();
            assert_eq!(list["items"].as_array().map(Vec::len), Some(expected), "{query}");
        }
        // A client address, a reason and a time may be asked for together.
        app.send(authorize(&other, &client).from("203.0.113.7")).await.refused(401, "invalid_client");
        app.flush().await;
        let reason = "reason=client_of_another_key";
        for (query, expected) in [
            ("reason=any".to_owned(), 2),
            (reason.to_owned(), 2),
            ("reason=key_revoked".to_owned(), 0),
            ("client_ip=203.0.113.7".to_owned(), 1),
            (
                format!(
                    "{reason}&client_ip=203.0.113.7&from={middle}&status=401&api_key_id={}",
                    text(&other, "id")
                ),
                1,
            ),
            (format!("{reason}&client_ip=203.0.113.7&to={middle}"), 0),
            (format!("{reason}&client_ip=203.0.113.8&from={middle}"), 0),
        ] {
            let list = operator.get(&format!("/merchants/{merchant}/exchanges?{query}")).await.ok();
            assert_eq!(list["items"].as_array().map(Vec::len), Some(expected), "{query}");
        }
        let reasons = operator.get(&format!("/merchants/{merchant}/exchanges?status=401")).await.ok();
        assert_eq!(reasons["items"][0]["reason"], "client_of_another_key");
        operator
            .get(&format!("/merchants/{merchant}/exchanges?bogus=1"))
            .await
            .problem(400, "invalid_request");
    })
    .await;
}

#[tokio::test]
async fn sessions_are_filtered_by_key_client_status_and_start() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let [key, other] =
            [operator.key(&merchant, json!({})).await, operator.key(&merchant, json!({})).await];
        let [client, of_other] = [operator.credentials(&key).await, operator.credentials(&other).await];
        app.send(authorize(&key, &client)).await.tokens();
        app.advance(chrono::TimeDelta::hours(1));
        app.send(authorize(&key, &client)).await.tokens();
        app.send(authorize(&other, &of_other)).await.tokens();
        operator
            .patch(&format!("/credentials/{}", text(&of_other, "client_id")), json!({ "enabled": false }))
            .await
            .ok();
        let path = format!("/merchants/{merchant}/sessions");
        let now = app.now();
        let (start, middle) = (now.to_rfc3339(), now.minus(chrono::TimeDelta::minutes(30)).to_rfc3339());
        let key_id = format!("api_key_id={}", text(&key, "id"));
        let client_id = format!("client_id={}", &text(&client, "client_id")[..10]);
        for (query, expected) in [
            (String::new(), 3),
            (key_id.clone(), 2),
            (client_id.clone(), 2),
            ("status=active".to_owned(), 2),
            ("status=ended".to_owned(), 1),
            (format!("from={middle}"), 2),
            (format!("from={start}"), 2),
            (format!("to={middle}"), 1),
            (format!("to={start}"), 1),
            (format!("from={middle}&to={start}"), 0),
            (format!("{key_id}&{client_id}&status=active&from={middle}"), 1),
            (format!("{key_id}&status=ended&to={middle}"), 0),
        ] {
            let list = operator.get(&format!("{path}?{query}")).await.ok();
            assert_eq!(list["items"].as_array().map(Vec::len), Some(expected), "{query}");
        }
        let first = operator.get(&format!("{path}?{key_id}&limit=1")).await.ok();
        let cursor = text(&first, "next_cursor");
        let second = operator.get(&format!("{path}?{key_id}&limit=1&cursor={cursor}")).await.ok();
        assert!(second["items"][0]["id"] != first["items"][0]["id"] && second["next_cursor"].is_null());
        let session = &second["items"][0];
        assert_eq!(operator.get(&format!("/sessions/{}", text(session, "id"))).await.ok(), *session);
        for bad in ["status=asleep", "from=yesterday", "client_ip=192.0.2.1"] {
            operator.get(&format!("{path}?{bad}")).await.problem(400, "invalid_request");
        }
    })
    .await;
}

/// The actions of a merchant's trail, oldest first, with their outcomes.
async fn trail(admin: &Admin<'_>, merchant: &str) -> Vec<(String, String)> {
    let list = admin.get(&format!("/merchants/{merchant}/audit-events?limit=200")).await.ok();
    let pair = |event: &Value| (text(event, "action").to_owned(), text(event, "outcome").to_owned());
    list["items"].as_array().expect("a list").iter().rev().map(pair).collect()
}

#[tokio::test]
async fn calls_that_a_token_may_not_make_are_on_record_once_a_minute() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let made = async |allowed: Value| {
            let body = json!({ "name": "Feed", "role": "service", "merchant_id": merchant,
                "permissions": ["exchanges.read"], "allowed_ips": allowed });
            operator.post("/tokens", body).await.created()
        };
        let on_record = async |token: &Value| {
            let trail = operator.get(&format!("/audit-events?actor={}", text(token, "id"))).await.ok();
            trail["items"].as_array().expect("a list").clone()
        };

        let feed = made(json!([])).await;
        let caller = Admin { app: &app, token: text(&feed, "token").to_owned() };
        let events = format!("/merchants/{merchant}/events");
        for _ in 0..3 {
            let event = json!({ "type": "x", "data": {} });
            caller.post(&events, event).await.problem(403, "insufficient_permission");
        }
        caller.delete(&format!("/merchants/{merchant}")).await.problem(403, "insufficient_permission");
        assert_eq!(app.send(introspect_as(&caller.token, "x")).await.status, 403);
        let found = on_record(&feed).await;
        let [event] = &*found else { panic!("one event, not {found:?}") };
        assert_eq!((text(event, "action"), text(event, "outcome")), ("admin_call.refused", "refused"));
        assert_eq!((text(event, "merchant_id"), text(event, "client_ip")), (&*merchant, "127.0.0.1"));
        let why = "permission_missing: POST /admin/v1/merchants/{id}/events";
        assert_eq!((&event["detail"]["attempts"], &event["detail"]["why"][why]), (&json!(5), &json!(3)));

        // Somebody has the token, but not the address.
        let stolen = made(json!(["192.0.2.1"])).await;
        let thief = Admin { app: &app, token: text(&stolen, "token").to_owned() };
        thief.get(&format!("/merchants/{merchant}/exchanges")).await.problem(401, "invalid_token");
        let found = on_record(&stolen).await;
        let why = "service_token_unfit: GET /admin/v1/merchants/{id}/exchanges";
        assert_eq!(found[0]["detail"]["why"], json!({ why: 1 }), "{found:?}");

        let metrics = scrape(&app).await;
        for (reason, calls) in [("permission_missing", 5.0), ("service_token_unfit", 1.0)] {
            let series = format!("tollgate_refusals_total{{reason=\"{reason}\"}}");
            assert_eq!(metrics.value(&series), calls, "{reason}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_action_is_on_record_refused_ones_and_readings_too() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let id = merchant.parse().expect("ids are UUIDs");
        let viewer = Admin::of(&app, Role::MerchantViewer, Some(id)).await;
        let key = operator.key(&merchant, json!({})).await;
        let path = format!("/api-keys/{}", text(&key, "id"));
        viewer.delete(&path).await.problem(403, "forbidden");
        operator.credentials(&key).await;
        operator.delete(&path).await;
        let before = trail(&operator, &merchant).await;
        let done = |action: &str| (action.to_owned(), "done".to_owned());
        assert_eq!(
            before,
            [
                done("merchant.created"),
                done("licence.changed"),
                done("licence.changed"),
                done("admin_token.created"),
                done("api_key.created"),
                ("api_key.revoked".to_owned(), "refused".to_owned()),
                done("credentials.generated"),
                done("credentials.enabled"),
                done("api_key.revoked"),
            ]
        );
        assert_eq!(trail(&viewer, &merchant).await.last(), Some(&done("audit_events.read")));
        let list = operator.get(&format!("/merchants/{merchant}/audit-events?limit=1")).await.ok();
        let reading = &list["items"][0];
        assert_eq!(text(&reading["actor"], "kind"), "admin_token");
        assert_eq!(text(&reading["actor"], "name"), "Ops");
        assert_eq!(text(reading, "client_ip"), "127.0.0.1");
    })
    .await;
}

#[tokio::test]
async fn an_edited_or_missing_event_breaks_the_chain() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        operator.licensed_merchant("g").await;
        let verdict = async || app.core().verify_audit_chain().await.expect("the store answers");
        assert_eq!(verdict().await, ChainVerdict::Holds { events: 4 });
        let run = async |sql: &'static str| {
            let mut db = app.core().store.write().await.expect("the store answers");
            db.query(sql).execute().await.expect("the test's own SQL is right");
        };
        run("update audit_events set outcome = 'refused' where seq = 3").await;
        assert_eq!(verdict().await, ChainVerdict::Broken { seq: 3 });
        run("update audit_events set outcome = 'done' where seq = 3").await;
        assert_eq!(verdict().await, ChainVerdict::Holds { events: 4 });
        run("delete from audit_events where seq = 4").await;
        assert_eq!(verdict().await, ChainVerdict::Short { last: 3, expected: 4 });
        run("delete from audit_events where seq = 2").await;
        assert_eq!(verdict().await, ChainVerdict::Broken { seq: 3 });
    })
    .await;
}

#[tokio::test]
async fn last_used_times_are_written_after_the_call() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let client = operator.credentials(&key).await;
        app.send(authorize(&key, &client).from("203.0.113.7")).await.tokens();
        app.flush().await;
        for path in [
            format!("/api-keys/{}", text(&key, "id")),
            format!("/credentials/{}", text(&client, "client_id")),
        ] {
            let shown = operator.get(&path).await.ok();
            assert_eq!(text(&shown, "last_used_at"), app.now().to_rfc3339());
            assert_eq!(text(&shown, "last_used_ip"), "203.0.113.7");
        }
        let tokens = operator.get("/tokens").await.ok();
        assert_eq!(text(&tokens["items"][0], "last_used_at"), app.now().to_rfc3339());

        // A use from another address is written at once, a repeated one in the next minute.
        for (address, shown, secs) in [
            ("203.0.113.8", "203.0.113.8", 1),
            ("203.0.113.7", "203.0.113.8", 1),
            ("203.0.113.7", "203.0.113.7", 60),
        ] {
            app.advance(chrono::TimeDelta::seconds(secs));
            app.send(authorize(&key, &client).from(address)).await.tokens();
            app.flush().await;
            let client = operator.get(&format!("/credentials/{}", text(&client, "client_id"))).await.ok();
            assert_eq!(text(&client, "last_used_ip"), shown);
        }
    })
    .await;
}
