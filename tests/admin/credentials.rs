//! Client credentials: new ones are OFF, switching, rotation.

use chrono::TimeDelta;
use serde_json::json;
use tollgate::flows::manage_credentials::CREDENTIALS_MAX;

use super::{Admin, authorize, text, verify};
use crate::support::{Call, each_engine};

#[tokio::test]
async fn credentials_are_made_off_and_work_once_switched_on() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let path = format!("/api-keys/{}/credentials", text(&key, "id"));
        let made = operator.post(&path, json!({})).await.created();
        assert_eq!(made["enabled"], false);
        let client_id = text(&made, "client_id");
        assert!(client_id.len() == 32 && client_id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(text(&made, "client_secret").len(), 43);
        app.send(authorize(&key, &made)).await.refused(400, "unauthorized_client");
        let switch = format!("/credentials/{client_id}");
        assert_eq!(operator.patch(&switch, json!({ "enabled": true })).await.ok()["enabled"], true);
        app.send(authorize(&key, &made)).await.tokens();
        let list = operator.get(&path).await;
        assert!(!list.text().contains(text(&made, "client_secret")));
        assert_eq!(list.ok()["items"][0]["client_id"], client_id);
    })
    .await;
}

#[tokio::test]
async fn off_ends_every_session_at_once_and_on_brings_none_back() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let client = operator.credentials(&key).await;
        let other = operator.credentials(&key).await;
        let tokens = app.send(authorize(&key, &client)).await.tokens();
        app.advance(TimeDelta::milliseconds(1)); // ids of one millisecond have no order
        let others = app.send(authorize(&key, &other)).await.tokens();
        let switch = format!("/credentials/{}", text(&client, "client_id"));

        operator.patch(&switch, json!({ "enabled": false })).await.ok();
        assert_eq!(app.send(verify(&key, &tokens.access)).await.status, 403);
        assert_eq!(app.send(verify(&key, &others.access)).await.status, 200, "several per key");
        operator.patch(&switch, json!({ "enabled": true })).await.ok();
        assert_eq!(app.send(verify(&key, &tokens.access)).await.status, 401);
        let refresh = [
            ("client_id", text(&client, "client_id")),
            ("client_secret", text(&client, "client_secret")),
            ("refresh_token", tokens.refresh.as_str()),
        ];
        let refresh = Call::post("/api/refresh_token").key(text(&key, "key")).form(&refresh);
        app.send(refresh).await.refused(400, "invalid_grant");
        let sessions = operator.get(&format!("/merchants/{merchant}/sessions")).await.ok();
        let active: Vec<_> =
            sessions["items"].as_array().expect("a list").iter().map(|s| &s["active"]).collect();
        assert_eq!(active, [&json!(true), &json!(false)]);
    })
    .await;
}

#[tokio::test]
async fn after_a_rotation_both_client_secrets_work_until_the_overlap_is_over() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let old = operator.credentials(&key).await;
        let session = app.send(authorize(&key, &old)).await.tokens();
        let path = format!("/credentials/{}", text(&old, "client_id"));
        let new =
            operator.post(&format!("{path}/rotate-secret"), json!({ "overlap_secs": 60 })).await.created();
        assert_eq!(new["client_id"], old["client_id"]);
        app.send(authorize(&key, &old)).await.tokens();
        app.send(authorize(&key, &new)).await.tokens();
        app.advance(TimeDelta::seconds(59));
        app.send(authorize(&key, &old)).await.tokens();
        app.advance(TimeDelta::seconds(1));
        app.send(authorize(&key, &old)).await.refused(401, "invalid_client");
        app.send(authorize(&key, &new)).await.tokens();
        assert_eq!(app.send(verify(&key, &session.access)).await.status, 200, "sessions go on");
    })
    .await;
}

#[tokio::test]
async fn a_session_can_be_ended_by_hand() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let client = operator.credentials(&key).await;
        let tokens = app.send(authorize(&key, &client)).await.tokens();
        let sessions = operator.get(&format!("/merchants/{merchant}/sessions")).await.ok();
        let path = format!("/sessions/{}", text(&sessions["items"][0], "id"));
        assert_eq!(operator.delete(&path).await.status, 204);
        assert_eq!(app.send(verify(&key, &tokens.access)).await.status, 401);
        let sessions = operator.get(&format!("/merchants/{merchant}/sessions")).await.ok();
        assert_eq!(sessions["items"][0]["revoked_reason"], "ended_by_admin");
    })
    .await;
}

#[tokio::test]
async fn a_key_has_so_many_credentials_and_no_more() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        for _ in 0..CREDENTIALS_MAX {
            operator.credentials(&key).await;
        }
        let path = format!("/api-keys/{}/credentials", text(&key, "id"));
        operator.post(&path, json!({})).await.problem(409, "conflict");

        let all = operator.get(&format!("{path}?limit=200")).await.ok();
        assert_eq!(all["items"].as_array().map(Vec::len), Some(CREDENTIALS_MAX));
        let first = operator.get(&format!("{path}?limit=3")).await.ok();
        let next = operator.get(&format!("{path}?limit=2&cursor={}", text(&first, "next_cursor"))).await.ok();
        let items = |page: &serde_json::Value| page["items"].as_array().expect("a list").clone();
        assert_eq!([items(&first), items(&next)].concat(), items(&all)[..5]);
    })
    .await;
}
