//! API keys: settings, revocation, rotation with overlap, leaks, suggested addresses.

use chrono::TimeDelta;
use serde_json::json;
use tollgate::flows::manage_keys::KEYS_MAX;
use tollgate::flows::principal::Principal;

use super::{Admin, authorize, text};
use crate::support::merchant::{done, plain_key};
use crate::support::{Call, each_engine};

/// A call that needs only a key: 200 or 401.
fn with_key(key: &str) -> Call {
    Call::get("/api/verify").key(key)
}

#[tokio::test]
async fn a_key_is_shown_once_and_known_by_its_hint() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let made =
            operator.key(&merchant, json!({ "allowed_ips": ["127.0.0.1", "10.0.0.0/8", "127.0.0.1"] })).await;
        let key = text(&made, "key");
        assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
        assert!(key.ends_with(text(&made, "key_hint")));
        assert_eq!(made["allowed_ips"], json!(["127.0.0.1/32", "10.0.0.0/8"]));
        let shown = operator.get(&format!("/api-keys/{}", text(&made, "id"))).await;
        assert!(!shown.text().contains(key));
        assert_eq!(shown.ok()["status"], "active");
        let list = operator.get(&format!("/merchants/{merchant}/api-keys")).await;
        assert!(!list.text().contains(key));
        assert_eq!(list.ok()["items"][0]["id"], made["id"]);
    })
    .await;
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_with_the_field_named() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("stripe").await;
        let past = app.now().minus(TimeDelta::seconds(1)).to_rfc3339();
        let many: Vec<String> = (0..101).map(|n| format!("10.0.0.{n}")).collect();
        let cases = [
            ("allowed_ips", json!(["10.0.0.1/8"])),
            ("allowed_ips", json!(["localhost"])),
            ("allowed_ips", json!(["010.0.0.1"])),
            ("allowed_ips", json!(many)),
            ("webhook_format", json!("multiple_json")),
            ("expires_at", json!(past)),
            ("name", json!("")),
            ("name", json!("a\u{1b}[31mb")),
            ("name", json!("x".repeat(201))),
        ];
        for (field, value) in cases {
            let mut body = json!({ "name": "k", "environment": "live" });
            body[field] = value;
            let reply = operator.post(&format!("/merchants/{merchant}/api-keys"), body).await;
            let detail = reply.problem(400, "invalid_request");
            assert!(detail.starts_with(field), "{detail}");
        }
        let unknown = json!({ "name": "k", "environment": "test" });
        operator
            .post(&format!("/merchants/{merchant}/api-keys"), unknown)
            .await
            .problem(400, "invalid_request");
    })
    .await;
}

#[tokio::test]
async fn the_second_output_type_is_for_worldpay_corporate_alone() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("worldpay_corporate").await;
        let key = operator.key(&merchant, json!({ "webhook_format": "multiple_json" })).await;
        assert_eq!(key["webhook_format"], "multiple_json");
        let elsewhere =
            operator.patch(&format!("/merchants/{merchant}"), json!({ "gateway": "stripe" })).await;
        elsewhere.problem(409, "conflict");
        let path = format!("/api-keys/{}", text(&key, "id"));
        operator.patch(&path, json!({ "webhook_format": "single_json" })).await.ok();
        operator.patch(&format!("/merchants/{merchant}"), json!({ "gateway": "stripe" })).await.ok();
        let back = operator.patch(&path, json!({ "webhook_format": "multiple_json" })).await;
        assert!(back.problem(400, "invalid_request").contains("worldpay_corporate"));
    })
    .await;
}

#[tokio::test]
async fn changed_addresses_hold_from_the_next_call_on() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let made = operator.key(&merchant, json!({})).await;
        let key = text(&made, "key");
        assert_eq!(app.send(with_key(key).from("203.0.113.7")).await.status, 200);
        let path = format!("/api-keys/{}", text(&made, "id"));
        operator.patch(&path, json!({ "allowed_ips": ["198.51.100.0/24"] })).await.ok();
        assert_eq!(app.send(with_key(key).from("203.0.113.7")).await.status, 401);
        assert_eq!(app.send(with_key(key).from("198.51.100.9")).await.status, 200);
        operator.patch(&path, json!({ "ip_mode": "observe" })).await.ok();
        app.advance(TimeDelta::milliseconds(1)); // ids of one millisecond have no order
        assert_eq!(app.send(with_key(key).from("203.0.113.7")).await.status, 200);
        app.flush().await;
        let seen = operator.get(&format!("/merchants/{merchant}/exchanges?status=200")).await.ok();
        assert_eq!(seen["items"][0]["reason"], "address_observed");
        let suggested = operator.get(&format!("{path}/suggested-ips")).await.ok();
        let mut ranges: Vec<_> =
            suggested["items"].as_array().expect("a list").iter().map(|item| text(item, "cidr")).collect();
        ranges.sort_unstable();
        assert_eq!(ranges, ["198.51.100.9/32", "203.0.113.7/32"]);
        assert_eq!(suggested["items"][0]["calls"], 2, "the most used comes first");
    })
    .await;
}

#[tokio::test]
async fn a_revoked_key_can_be_restored_for_an_hour_unless_it_leaked() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let made = operator.key(&merchant, json!({})).await;
        let (key, path) = (text(&made, "key"), format!("/api-keys/{}", text(&made, "id")));
        assert_eq!(operator.delete(&path).await.status, 204);
        assert_eq!(app.send(with_key(key)).await.status, 401);
        assert_eq!(operator.get(&path).await.ok()["status"], "revoked");
        operator.patch(&path, json!({ "name": "n" })).await.problem(409, "conflict");
        app.advance(TimeDelta::minutes(60) - TimeDelta::seconds(1));
        assert_eq!(operator.post(&format!("{path}/restore"), json!({})).await.ok()["status"], "active");
        assert_eq!(app.send(with_key(key)).await.status, 200);

        operator.delete(&path).await;
        app.advance(TimeDelta::minutes(60));
        operator.post(&format!("{path}/restore"), json!({})).await.problem(409, "conflict");

        let other = operator.key(&merchant, json!({})).await;
        let found = operator.post("/leaked-keys", json!({ "key": text(&other, "key") })).await;
        assert_eq!((found.status, found.body.len()), (202, 0));
        assert_eq!(app.send(with_key(text(&other, "key"))).await.status, 401);
        let path = format!("/api-keys/{}", text(&other, "id"));
        assert_eq!(operator.get(&path).await.ok()["leaked"], true);
        operator.post(&format!("{path}/restore"), json!({})).await.problem(409, "conflict");
        let unknown = operator.post("/leaked-keys", json!({ "key": "0".repeat(64) })).await;
        assert_eq!((unknown.status, unknown.body.len()), (202, 0), "an outsider cannot tell");
    })
    .await;
}

#[tokio::test]
async fn a_key_expires_at_its_second() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let end = app.now().plus(TimeDelta::hours(1)).to_rfc3339();
        let made = operator.key(&merchant, json!({ "expires_at": end })).await;
        app.advance(TimeDelta::hours(1) - TimeDelta::seconds(1));
        assert_eq!(app.send(with_key(text(&made, "key"))).await.status, 200);
        app.advance(TimeDelta::seconds(1));
        assert_eq!(app.send(with_key(text(&made, "key"))).await.status, 401);
        let path = format!("/api-keys/{}", text(&made, "id"));
        assert_eq!(operator.get(&path).await.ok()["status"], "expired");
        operator.patch(&path, json!({ "expires_at": null })).await.ok();
        assert_eq!(app.send(with_key(text(&made, "key"))).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn after_a_rotation_both_keys_work_until_the_overlap_is_over() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let old = operator.key(&merchant, json!({})).await;
        let credentials = operator.credentials(&old).await;
        let path = format!("/api-keys/{}", text(&old, "id"));
        let new = operator.post(&format!("{path}/rotate"), json!({ "overlap_secs": 600 })).await.created();
        assert_eq!(new["id"], old["id"]);
        assert_ne!(new["key"], old["key"]);
        app.advance(TimeDelta::days(3));
        app.send(authorize(&old, &credentials)).await.tokens();
        app.flush().await;
        assert_eq!(operator.get(&path).await.ok()["secrets"][1]["safe_to_revoke"], false);

        // The overlap begins with the first use of the new key, not with the rotation.
        app.advance(TimeDelta::seconds(1));
        app.send(authorize(&new, &credentials)).await.tokens();
        app.flush().await;
        assert_eq!(operator.get(&path).await.ok()["secrets"][1]["safe_to_revoke"], true);
        for secs in [1, 598] {
            app.advance(TimeDelta::seconds(secs));
            app.send(authorize(&old, &credentials)).await.tokens();
            app.flush().await;
            assert_eq!(operator.get(&path).await.ok()["secrets"][1]["safe_to_revoke"], false, "it is in use");
        }
        app.advance(TimeDelta::seconds(1));
        app.send(authorize(&old, &credentials)).await.refused(401, "invalid_client");
        app.send(authorize(&new, &credentials)).await.tokens();
        let secrets = operator.get(&path).await.ok()["secrets"].clone();
        assert_eq!((&secrets[0]["active"], &secrets[1]["active"]), (&json!(true), &json!(false)));
    })
    .await;
}

#[tokio::test]
async fn an_earlier_secret_can_be_ended_and_the_newest_cannot() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let old = operator.key(&merchant, json!({})).await;
        let path = format!("/api-keys/{}", text(&old, "id"));
        let new = operator.post(&format!("{path}/rotate"), json!({})).await.created();
        let secrets = operator.get(&path).await.ok()["secrets"].clone();
        let newest = format!("{path}/secrets/{}", text(&secrets[0], "id"));
        operator.delete(&newest).await.problem(409, "conflict");
        assert_eq!(operator.delete(&format!("{path}/secrets/{}", text(&secrets[1], "id"))).await.status, 204);
        assert_eq!(app.send(with_key(text(&old, "key"))).await.status, 401);
        assert_eq!(app.send(with_key(text(&new, "key"))).await.status, 200);
        for overlap in [-1, 2_592_001] {
            let reply = operator.post(&format!("{path}/rotate"), json!({ "overlap_secs": overlap })).await;
            reply.problem(400, "invalid_request");
        }
    })
    .await;
}

#[tokio::test]
async fn a_restored_key_counts_and_does_not_bring_its_sessions_back() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let operator = Admin::operator(&app).await;
        let path = format!("/api-keys/{}", merchant.key_id);
        let tokens = app.tokens(&merchant).await;
        operator.delete(&path).await;
        for _ in 0..KEYS_MAX {
            app.key_of(merchant.id, plain_key()).await;
        }
        operator.post(&format!("{path}/restore"), json!({})).await.problem(409, "conflict");
        let keys = format!("/merchants/{}/api-keys", merchant.id);
        let another = json!({ "name": "n", "environment": "live" });
        operator.post(&keys, another).await.problem(409, "conflict");
        let other = app.number("select count(*) from api_keys where revoked_at is null").await;
        assert_eq!(other, KEYS_MAX);
        app.run_sql("update api_keys set revoked_at = 1 where id in (select id from api_keys order by id desc limit 1)").await;

        operator.post(&format!("{path}/restore"), json!({})).await.ok();
        app.send(merchant.refresh(&tokens.refresh)).await.refused(400, "invalid_grant");
        assert_eq!(app.send(merchant.verify(&tokens.access)).await.status, 401);
        app.tokens(&merchant).await;
    })
    .await;
}

#[tokio::test]
async fn revoked_keys_are_not_in_the_record_and_their_owner_still_hears_why() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let other = app.key_of(merchant.id, plain_key()).await;
        app.tokens(&other).await;
        done(app.core().revoke_api_key(&Principal::command_line(), merchant.key_id).await);
        for app in [&app, &app.replica().await] {
            app.send(merchant.authorize()).await.refused(401, "invalid_client");
            let record = app.core().store.hot().cached_record(merchant.id).expect("it was loaded");
            assert_eq!((record.api_keys.len(), record.credentials.len()), (1, 1));
            app.flush().await;
        }
        let reasons = "select count(*) from exchanges where reason = 'key_revoked'";
        assert_eq!(app.number(reasons).await, 2);
    })
    .await;
}

#[tokio::test]
async fn names_are_seen_as_they_are_and_ends_are_within_a_hundred_years() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let path = format!("/merchants/{merchant}/api-keys");
        for hidden in ['\u{200b}', '\u{202e}', '\u{2066}', '\u{feff}', '\u{ad}', '\u{e0041}'] {
            let name = format!("Till{hidden}");
            operator.post("/merchants", json!({ "name": name, "gateway": "g" })).await.problem(400, "invalid_request");
            let key = json!({ "name": name, "environment": "live" });
            operator.post(&path, key).await.problem(400, "invalid_request");
            let token = json!({ "name": name, "role": "operator" });
            operator.post("/tokens", token).await.problem(400, "invalid_request");
        }
        for end in ["2127-01-01T00:00:00Z", "9999-12-31T00:00:00Z"] {
            let key = json!({ "name": "k", "environment": "live", "expires_at": end });
            operator.post(&path, key).await.problem(400, "invalid_request");
            let token = json!({ "name": "t", "role": "operator", "expires_at": end });
            operator.post("/tokens", token).await.problem(400, "invalid_request");
            let licence = json!({ "active": true, "expires_at": end });
            operator.put(&format!("/merchants/{merchant}/licences/api_keys"), licence).await.problem(400, "invalid_request");
        }
        let key = json!({ "name": "Caf\u{e9} \u{5e97}", "environment": "live", "expires_at": "2126-01-01T00:00:00Z" });
        operator.post(&path, key).await.created();
    })
    .await;
}

#[tokio::test]
async fn a_key_that_was_rotated_often_is_remembered_by_what_works_and_a_few_that_ended() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let made = operator.key(&merchant, json!({})).await;
        let path = format!("/api-keys/{}", text(&made, "id"));
        let mut newest = made.clone();
        let mut before = None;
        for _ in 0..20 {
            newest = operator.post(&format!("{path}/rotate"), json!({ "overlap_secs": 0 })).await.created();
            if let Some(before) = before {
                assert_eq!(operator.delete(&format!("{path}/secrets/{before}")).await.status, 204);
            }
            before = Some(text(&newest["secrets"][0], "id").to_owned());
        }
        let id = merchant.parse().expect("an id");
        let record = app.core().store.hot().load_record(id, app.now()).await;
        let record = record.expect("the store answers").expect("the merchant exists");
        assert_eq!(record.api_keys[0].secrets.len(), 9, "the first, which works, and the newest eight");
        assert_eq!(app.send(with_key(text(&made, "key"))).await.status, 200, "it is old, and works");
        assert_eq!(app.send(with_key(text(&newest, "key"))).await.status, 200);
    })
    .await;
}
