//! Secrets found in public: only the reported one ends, and the reporter learns nothing.

use axum::http::Method;
use serde_json::{Value, json};
use tollgate::domain::admin::Role;

use super::{Admin, authorize, text};
use crate::support::receiver::Receiver;
use crate::support::{Reply, TestApp, each_engine_with};

async fn each(test: impl AsyncFn(TestApp)) {
    each_engine_with(
        |settings| {
            settings.webhooks.destinations.allow_private_networks = true;
            settings.webhooks.destinations.allow_http = true;
        },
        test,
    )
    .await;
}

async fn report(by: &Admin<'_>, secret: &str) -> Reply {
    let reply = by.post("/leaked-keys", json!({ "key": secret })).await;
    assert_eq!((reply.status, reply.body.len()), (202, 0));
    reply
}

async fn trail(reader: &Admin<'_>, merchant: &str) -> Vec<Value> {
    let list = reader.get(&format!("/merchants/{merchant}/audit-events")).await.ok();
    list["items"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn a_secret_of_any_kind_ends_and_nothing_beside_it() {
    each(async |app| {
        let receiver = Receiver::open();
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let id = merchant.parse().expect("ids are UUIDs");
        let other = operator.licensed_merchant("g").await.parse().expect("ids are UUIDs");
        let finder = Admin::of(&app, Role::MerchantAdmin, Some(other)).await;
        let key = operator.key(&merchant, json!({ "webhook_url": receiver.url() })).await;
        let path = format!("/api-keys/{}", text(&key, "id"));
        let client = operator.credentials(&key).await;
        let tokens = app.send(authorize(&key, &client)).await.tokens();
        let second = app.send(authorize(&key, &client)).await.tokens();
        let verified = async |key: &Value, token: &str| app.send(super::verify(key, token)).await.status;

        report(&finder, &tokens.refresh).await;
        assert_eq!(verified(&key, &tokens.access).await, 401, "its session is over");
        assert_eq!(verified(&key, &second.access).await, 200, "no other is");
        report(&finder, &format!(" {}\n", second.access)).await;
        assert_eq!(verified(&key, &second.access).await, 401);

        let secrets = format!("/credentials/{}/rotate-secret", text(&client, "client_id"));
        let renewed = operator.post(&secrets, json!({ "overlap_secs": 3600 })).await.created();
        report(&finder, text(&client, "client_secret")).await;
        assert_eq!(app.send(authorize(&key, &client)).await.status, 401);
        assert_eq!(app.send(authorize(&key, &renewed)).await.status, 200, "the newer one works");

        let rotated =
            operator.post(&format!("{path}/rotate"), json!({ "overlap_secs": 3600 })).await.created();
        report(&finder, text(&key, "key")).await;
        assert_eq!(app.send(authorize(&key, &renewed)).await.status, 401);
        assert_eq!(app.send(authorize(&rotated, &renewed)).await.status, 200);
        report(&finder, text(&key, "key")).await;
        let shown = operator.get(&path).await.ok();
        assert_eq!((&shown["leaked"], &shown["status"]), (&false.into(), &"active".into()), "it had ended");

        report(&finder, text(&key, "webhook_secret")).await;
        let ping = operator.post(&format!("{path}/test-webhook"), json!({})).await;
        ping.problem(409, "conflict");
        let again = operator.post(&format!("{path}/rotate-webhook-secret"), json!({})).await.created();
        assert_eq!(operator.post(&format!("{path}/test-webhook"), json!({})).await.ok()["delivered"], true);
        // As written by a release that did not store hashes.
        app.run_sql("update webhook_secrets set hash = null").await;
        report(&finder, text(&again, "webhook_secret")).await;
        operator.post(&format!("{path}/test-webhook"), json!({})).await.problem(409, "conflict");

        let theirs = Admin::of(&app, Role::MerchantAdmin, Some(id)).await;
        report(&finder, &theirs.token).await;
        assert_eq!(theirs.get(&path).await.status, 401);
        report(&finder, text(&rotated, "key")).await;
        assert_eq!(operator.get(&path).await.ok()["leaked"], true, "no secret is left");

        let told: Vec<_> = trail(&operator, &merchant).await;
        let leaks: Vec<_> = told.iter().filter(|event| text(event, "action").ends_with(".leaked")).collect();
        let mut actions: Vec<_> = leaks.iter().map(|event| text(event, "action")).collect();
        actions.sort_unstable();
        let expected = [
            "admin_token.leaked",
            "api_key.leaked",
            "api_key.leaked",
            "credentials.leaked",
            "session.leaked",
            "session.leaked",
            "webhook_secret.leaked",
            "webhook_secret.leaked",
        ];
        assert_eq!(actions, expected);
        for event in leaks {
            assert_eq!(event["actor"]["kind"], "server", "whoever found it is not named: {event}");
            assert!(event["client_ip"].is_null() && event["request_id"].is_null(), "{event}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_reporter_does_not_learn_whether_it_was_one_of_ours() {
    each(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let others = operator.licensed_merchant("g").await;
        let finder = Admin::of(&app, Role::MerchantAdmin, Some(others.parse().expect("an id"))).await;
        let key = operator.key(&merchant, json!({})).await;
        report(&finder, text(&key, "key")).await;
        report(&finder, &"0".repeat(64)).await;
        report(&finder, "").await;

        let seen: Vec<_> = trail(&finder, &others).await;
        let mut reports: Vec<_> =
            seen.iter().filter(|event| event["action"] == "leak.reported").cloned().collect();
        assert_eq!(reports.len(), 3);
        for report in &mut reports {
            for own in ["id", "at", "seq", "request_id", "hash"] {
                report.as_object_mut().expect("an object").remove(own);
            }
        }
        assert!(reports.iter().all(|report| *report == reports[0]), "{reports:?}");
        let numbers = app
            .number(
                "select max(a.seq) - min(a.seq) - 2 * 2 from audit_events a where a.action = 'leak.reported'",
            )
            .await;
        assert_eq!(numbers, 0, "each takes two numbers of the trail");

        let viewer = Admin::of(&app, Role::MerchantViewer, Some(others.parse().expect("an id"))).await;
        let refused = viewer
            .app
            .send(viewer.call(Method::POST, "/leaked-keys").json_value(&json!({ "key": text(&key, "key") })));
        assert_eq!(refused.await.status, 403);
    })
    .await;
}

#[tokio::test]
async fn the_reporter_does_not_learn_that_it_is_of_a_merchant_in_another_cell_but_operators_do() {
    /// 7 is another cell, and -1 means that the merchant is on its way.
    const MOVES: [&str; 2] = [
        "update merchants set home = 7, revision = revision + 1 where id = (select merchant_id from api_keys)",
        "update merchants set home = -1, revision = revision + 1 where id = (select merchant_id from api_keys)",
    ];
    each(async |app| {
        let receiver = Receiver::open();
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let moved = merchant.parse().expect("an id");
        let others = operator.licensed_merchant("g").await.parse().expect("an id");
        let finder = Admin::of(&app, Role::MerchantAdmin, Some(others)).await;
        let theirs = Admin::of(&app, Role::MerchantAdmin, Some(moved)).await;
        let key = operator.key(&merchant, json!({ "webhook_url": receiver.url() })).await;
        let client = operator.credentials(&key).await;
        let tokens = app.send(authorize(&key, &client)).await.tokens();
        let [key_id, client_id] = [text(&key, "id"), text(&client, "client_id")];
        let reported = [
            (text(&key, "key"), "api_key"),
            (text(&client, "client_secret"), "client_secret"),
            (&tokens.access, "token"),
            (&tokens.refresh, "token"),
            (text(&key, "webhook_secret"), "webhook_secret"),
            (&theirs.token, "admin_token"),
        ];
        for moves in MOVES {
            app.run_sql(moves).await;
            for (secret, _) in reported {
                report(&finder, secret).await;
            }
        }

        let told = trail(&operator, &merchant).await;
        let leaks: Vec<_> = told.iter().filter(|event| text(event, "action").contains("leak")).collect();
        assert_eq!(leaks.len(), 2 * reported.len(), "{leaks:?}");
        for (event, (_, kind)) in leaks.iter().rev().zip(reported.iter().cycle()) {
            assert_eq!(
                (text(event, "action"), &event["detail"]["kind"]),
                ("leak.of_another_cell", &json!(kind))
            );
            assert_eq!(event["actor"]["kind"], "server", "whoever found it is not named: {event}");
            match *kind {
                "api_key" | "webhook_secret" => assert_eq!(text(event, "object_id"), key_id),
                "client_secret" => assert_eq!(text(event, "object_id"), client_id),
                _ => assert!(!text(event, "object_id").is_empty()),
            }
        }
        let own = trail(&finder, &others.to_string()).await;
        let reports = own.iter().filter(|event| event["action"] == "leak.reported").count();
        assert_eq!(reports, 2 * reported.len());

        app.run_sql("update merchants set home = null, revision = revision + 1").await;
        assert_eq!(app.send(super::verify(&key, &tokens.access)).await.status, 200, "nothing ended here");
        assert_eq!(theirs.get(&format!("/api-keys/{key_id}")).await.status, 200);
        assert_eq!(operator.get(&format!("/api-keys/{key_id}")).await.ok()["leaked"], false);
    })
    .await;
}
