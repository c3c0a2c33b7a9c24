//! Service tokens: their permissions and addresses, who may make them, and rotation.

use axum::http::Method;
use chrono::TimeDelta;
use serde_json::{Value, json};
use tollgate::domain::admin::Role;

use super::{Admin, introspect_as, text};
use crate::support::{Call, TestApp, each_engine};

async fn made(by: &Admin<'_>, settings: Value) -> Value {
    let mut body = json!({ "name": "Gateway", "role": "service" });
    for (name, value) in settings.as_object().expect("settings are an object") {
        body[name] = value.clone();
    }
    by.post("/tokens", body).await.created()
}

fn holder<'a>(app: &'a TestApp, made: &Value) -> Admin<'a> {
    Admin { app, token: text(made, "token").to_owned() }
}

#[tokio::test]
async fn a_service_token_of_one_merchant_sees_no_other_and_makes_none() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let (own, other) = (operator.licensed_merchant("g").await, operator.licensed_merchant("g").await);
        let all = ["keys.write", "merchants.write", "licences.write", "exchanges.read", "audit.read"];
        let bound = made(&operator, json!({ "permissions": all, "merchant_id": own })).await;
        let bound = holder(&app, &bound);
        bound.get(&format!("/merchants/{own}/api-keys")).await.ok();
        bound.get(&format!("/merchants/{own}/exchanges")).await.ok();
        bound.patch(&format!("/merchants/{own}"), json!({ "name": "B" })).await.ok();
        for path in ["api-keys", "exchanges", "audit-events"] {
            bound.get(&format!("/merchants/{other}/{path}")).await.problem(404, "not_found");
        }
        let licence = json!({ "active": false });
        bound.put(&format!("/merchants/{other}/licences/api_keys"), licence).await.problem(404, "not_found");
        let new = json!({ "name": "C", "gateway": "g" });
        bound.post("/merchants", new).await.problem(403, "insufficient_permission");
        let listed = bound.get("/merchants").await.ok();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
    })
    .await;
}

#[tokio::test]
async fn a_service_token_works_from_its_addresses_alone() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let settings =
            json!({ "permissions": ["introspect", "merchants.write"], "allowed_ips": ["192.0.2.0/24"] });
        let token = made(&operator, settings).await;
        assert_eq!(token["allowed_ips"], json!(["192.0.2.0/24"]));
        let service = holder(&app, &token);
        let list = service.call(Method::GET, "/merchants");
        let ask = introspect_as(&service.token, "x");
        for call in [list, ask] {
            assert_eq!(app.send(call.clone().from("192.0.2.7")).await.status, 200);
            assert_eq!(app.send(call.from("198.51.100.7")).await.status, 401);
        }
        let bad =
            json!({ "name": "n", "role": "service", "permissions": ["introspect"], "allowed_ips": ["x"] });
        operator.post("/tokens", bad).await.problem(400, "invalid_request");
    })
    .await;
}

#[tokio::test]
async fn nobody_gives_permissions_that_they_do_not_have() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let id = merchant.parse().expect("ids are UUIDs");
        let other = operator.licensed_merchant("g").await;
        let admin = Admin::of(&app, Role::MerchantAdmin, Some(id)).await;
        let token = async |permission: &str, merchant: Option<&str>| {
            let body = json!({
                "name": "n", "role": "service", "permissions": [permission], "merchant_id": merchant,
            });
            admin.post("/tokens", body).await
        };
        for permission in [
            "introspect",
            "revoke",
            "exchanges.read",
            "audit.read",
            "leaks.report",
            "merchants.read",
            "keys.write",
        ] {
            token(permission, Some(&merchant)).await.created();
            assert_eq!(token(permission, None).await.status, 403);
            token(permission, Some(&other)).await.problem(404, "not_found");
        }
        for permission in ["merchants.write", "licences.write"] {
            assert_eq!(token(permission, Some(&merchant)).await.status, 403);
        }
        // They cannot get them by rotating another one's token either.
        let strong = json!({ "permissions": ["licences.write"], "merchant_id": merchant });
        let strong = made(&operator, strong).await;
        let path = format!("/tokens/{}/rotate", text(&strong, "id"));
        assert_eq!(admin.post(&path, json!({})).await.status, 403);

        for bad in [
            json!({ "name": "n", "role": "service" }),
            json!({ "name": "n", "role": "service", "permissions": ["everything"] }),
            json!({ "name": "n", "role": "operator", "permissions": ["keys.write"] }),
        ] {
            operator.post("/tokens", bad).await.problem(400, "invalid_request");
        }
        let user = json!({ "email": "a@example.com", "role": "service", "password": "long enough to pass" });
        operator.post("/users", user).await.problem(400, "invalid_request");
    })
    .await;
}

#[tokio::test]
async fn introspect_and_revoke_are_two_permissions() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = app.merchant().await;
        let access = app.tokens(&merchant).await.access;
        let asks = made(&operator, json!({ "permissions": ["introspect"] })).await;
        let ends = made(&operator, json!({ "permissions": ["revoke"] })).await;
        let revoke = |token: &Value| introspect_as(text(token, "token"), &access).to("/api/revoke");
        assert_eq!(app.send(introspect_as(text(&asks, "token"), &access)).await.ok()["active"], json!(true));
        app.send(revoke(&asks)).await.refused(403, "insufficient_permission");
        app.send(introspect_as(text(&ends, "token"), &access)).await.refused(403, "insufficient_permission");
        assert_eq!(app.send(revoke(&ends)).await.status, 200);
        assert_eq!(
            app.send(introspect_as(text(&asks, "token"), &access)).await.ok(),
            json!({ "active": false })
        );

        // A token from before there were service tokens can still do both.
        let old = json!({ "name": "old", "role": "operator", "permissions": ["introspect"] });
        let old = operator.post("/tokens", old).await.created();
        app.send(introspect_as(text(&old, "token"), &access)).await.ok();
        assert_eq!(app.send(revoke(&old)).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_rotated_token_works_on_until_the_overlap_after_the_first_use_of_the_new_one() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let first = made(&operator, json!({ "permissions": ["merchants.write"] })).await;
        let path = format!("/tokens/{}/rotate", text(&first, "id"));
        let call = operator.call(Method::POST, &path).json_value(&json!({ "overlap_secs": 60 }));
        let call = call.header("idempotency-key", "roll");
        let second = app.send(call.clone()).await.created();
        assert_eq!(app.send(call).await.created(), second);
        assert_eq!(second["id"], first["id"]);
        let (first, second) = (holder(&app, &first), holder(&app, &second));

        app.advance(TimeDelta::days(1));
        first.get("/merchants").await.ok();
        second.get("/merchants").await.ok();
        app.advance(TimeDelta::seconds(59));
        first.get("/merchants").await.ok();
        operator.post(&path, json!({})).await.problem(409, "conflict");
        app.advance(TimeDelta::seconds(1));
        first.get("/merchants").await.problem(401, "invalid_token");
        second.get("/merchants").await.ok();

        // If a new secret is lost before its first use, nothing ends.
        let lost = operator.post(&path, json!({ "overlap_secs": 0 })).await.created();
        let third = operator.post(&path, json!({ "overlap_secs": 0 })).await.created();
        second.get("/merchants").await.ok();
        holder(&app, &lost).get("/merchants").await.problem(401, "invalid_token");
        holder(&app, &third).get("/merchants").await.ok();
        second.get("/merchants").await.problem(401, "invalid_token");
        for overlap in [-1, 2_592_001] {
            let body = json!({ "overlap_secs": overlap });
            operator.post(&path, body).await.problem(400, "invalid_request");
        }
    })
    .await;
}

#[tokio::test]
async fn a_service_token_makes_no_tokens_and_no_users() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let all = [
            "introspect",
            "revoke",
            "events.write",
            "exchanges.read",
            "audit.read",
            "leaks.report",
            "merchants.read",
            "merchants.write",
            "licences.write",
            "keys.write",
        ];
        let service = made(&operator, json!({ "permissions": all })).await;
        let service = holder(&app, &service);
        for path in ["/tokens", "/users"] {
            service.get(path).await.problem(403, "insufficient_permission");
            service.post(path, json!({})).await.problem(403, "insufficient_permission");
        }
        assert_eq!(app.send(Call::get("/admin/v1/tokens")).await.status, 401);
    })
    .await;
}
