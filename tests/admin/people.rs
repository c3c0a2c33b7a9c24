//! Users and tokens: which roles may make which.

use serde_json::{Value, json};
use tollgate::domain::admin::Role;

use super::{Admin, authorize, text};
use crate::support::{Call, each_engine};

#[tokio::test]
async fn a_merchant_admin_makes_people_of_its_own_merchant_only() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let own = operator.licensed_merchant("g").await;
        let other = operator.licensed_merchant("g").await;
        let admin = Admin::of(&app, Role::MerchantAdmin, Some(own.parse().expect("a UUID"))).await;
        let token = |merchant: &str| json!({ "name": "t", "role": "merchant_viewer", "merchant_id": merchant });
        admin.post("/tokens", token(&own)).await.created();
        admin.post("/tokens", token(&other)).await.problem(404, "not_found");
        admin.post("/tokens", json!({ "name": "t", "role": "operator" })).await.problem(403, "forbidden");
        let user = |merchant: &str, email: &str| {
            json!({ "email": email, "role": "merchant_admin", "merchant_id": merchant, "password": "long enough to pass" })
        };
        let made = admin.post("/users", user(&own, "Anna@Example.com")).await.created();
        assert_eq!(text(&made, "email"), "anna@example.com");
        admin.post("/users", user(&other, "b@example.com")).await.problem(404, "not_found");
        let listed = admin.get("/users").await.ok();
        assert_eq!(listed["items"], json!([made]));
        assert_eq!(operator.get("/users").await.ok()["items"].as_array().map(Vec::len), Some(1));
    })
    .await;
}

#[tokio::test]
async fn people_who_cannot_be_are_refused_with_the_field_named() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let base = json!({ "email": "a@example.com", "role": "operator", "password": "long enough to pass" });
        let with = |name: &str, value: Value| {
            let mut body = base.clone();
            body[name] = value;
            body
        };
        let cases = [
            ("email", with("email", json!("nobody"))),
            ("email", with("email", json!("a b@example.com"))),
            ("password", with("password", json!("short"))),
            ("password", with("password", json!("x".repeat(257)))),
            ("merchant_id", with("role", json!("merchant_admin"))),
            ("merchant_id", with("merchant_id", json!(merchant))),
        ];
        for (field, body) in cases {
            let detail = operator.post("/users", body).await.problem(400, "invalid_request");
            assert!(detail.starts_with(field), "{detail}");
        }
        operator.post("/users", base.clone()).await.created();
        operator.post("/users", with("email", json!("A@EXAMPLE.com"))).await.problem(409, "conflict");
    })
    .await;
}

#[tokio::test]
async fn a_service_token_sees_every_token_and_a_plain_one_none() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let client = operator.credentials(&key).await;
        let tokens = app.send(authorize(&key, &client)).await.tokens();
        let new = json!({ "name": "api", "role": "operator", "permissions": ["introspect"] });
        let service = operator.post("/tokens", new).await.created();
        let question = || Call::post("/api/introspect").form(&[("token", &tokens.access)]);
        let bearer = question().header("authorization", format!("Bearer {}", text(&service, "token")));
        let answer = app.send(bearer).await.ok();
        assert_eq!((&answer["active"], text(&answer, "sub")), (&json!(true), merchant.as_str()));
        let basic = question().basic(text(&service, "id"), text(&service, "token"));
        assert_eq!(app.send(basic).await.ok(), answer);
        let wrong_id = question().basic(&merchant, text(&service, "token"));
        app.send(wrong_id).await.refused(401, "invalid_client");
        let plain = question().header("authorization", format!("Bearer {}", operator.token));
        app.send(plain).await.refused(401, "invalid_client");
    })
    .await;
}
