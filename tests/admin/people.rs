//! Users and tokens: which roles may make which.

use serde_json::{Value, json};
use tollgate::domain::admin::Role;
use tollgate::flows::principal::Principal;

use super::{Admin, authorize, text};
use crate::console::people::{cookie_of, from_a_page, sign_in_form};
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

#[tokio::test]
async fn a_renamed_token_keeps_its_secret_and_both_names_are_on_record() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let new = json!({ "name": "Shop", "role": "service", "permissions": ["introspect"] });
        let made = operator.post("/tokens", new).await.created();
        let path = format!("/tokens/{}", text(&made, "id"));
        let renamed = operator.patch(&path, json!({ "name": "Web shop" })).await.ok();
        assert_eq!(text(&renamed, "name"), "Web shop");
        assert_eq!(operator.get(&path).await.ok(), renamed);
        let events = operator.get("/audit-events?action=admin_token.updated").await.ok();
        assert_eq!(events["items"][0]["detail"], json!({ "name": "Web shop", "earlier_name": "Shop" }));
        app.send(super::introspect_as(text(&made, "token"), "unknown")).await.ok();
        operator.patch(&path, json!({ "name": " " })).await.problem(400, "invalid_request");
        operator.patch(&path, json!({ "role": "operator" })).await.problem(400, "invalid_request");
        operator.delete(&path).await;
        operator.patch(&path, json!({ "name": "Again" })).await.problem(409, "conflict");
    })
    .await;
}

#[tokio::test]
async fn a_user_gets_another_address_only_with_another_password() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let [own, other] = [operator.licensed_merchant("g").await, operator.licensed_merchant("g").await];
        let user = async |merchant: &str, email: &str| {
            let body =
                json!({ "email": email, "role": "merchant_admin", "merchant_id": merchant, "password": OLD });
            operator.post("/users", body).await.created()
        };
        let ada = user(&own, "ada@example.com").await;
        user(&own, "bea@example.com").await;
        user(&other, "taken@example.com").await;
        let path = format!("/users/{}", text(&ada, "id"));
        let link = app
            .core()
            .make_sign_in_link(&Principal::command_line(), text(&ada, "id").parse().expect("a UUID"))
            .await
            .expect("it is not refused");

        let detail = operator
            .patch(&path, json!({ "email": "new@example.com" }))
            .await
            .problem(400, "invalid_request");
        assert!(detail.starts_with("password"), "{detail}");
        let to = |email: &str| json!({ "email": email, "password": NEW });
        operator.patch(&path, to("bea@example.com")).await.problem(409, "conflict");
        operator.patch(&path, to("nobody")).await.problem(400, "invalid_request");
        // An address that has a user of another merchant is as good as any, and its password still fits.
        for (email, earlier) in
            [("New@Example.com", "ada@example.com"), ("taken@example.com", "new@example.com")]
        {
            let renamed = operator.patch(&path, to(email)).await.ok();
            assert_eq!(text(&renamed, "email"), email.to_lowercase());
            let events = operator
                .get(&format!("/audit-events?action=user.updated&object={}", text(&ada, "id")))
                .await
                .ok();
            let last = events["items"]
                .as_array()
                .and_then(|items| items.iter().rfind(|one| one["outcome"] == "done"));
            assert_eq!(last.expect("it is on record")["detail"]["earlier_email"], earlier);
        }
        let sign_in = async |email, password| app.send(sign_in_form(email, password)).await;
        assert_eq!(sign_in("ada@example.com", OLD).await.status, 422);
        assert_eq!(sign_in("new@example.com", NEW).await.status, 422);
        // The address has two users with different passwords.
        for (password, merchant) in [(NEW, &own), (OLD, &other)] {
            let reply = sign_in("taken@example.com", password).await;
            assert_eq!(reply.status, 303, "{}", reply.text());
            let home = app.send(Call::get("/console").header("cookie", cookie_of(&reply))).await;
            assert!(home.header("location").is_some_and(|to| to.contains(merchant.as_str())));
        }
        let by_link = app.send(from_a_page("/console/once", &[("token", link.expose())])).await;
        assert_ne!(by_link.status, 303, "a link that went to the earlier address");
    })
    .await;
}

const OLD: &str = "long enough to pass";
const NEW: &str = "another one that is long";
