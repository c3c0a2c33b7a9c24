//! The admin API, over the real router on both engines.

mod access;
mod advice;
mod credentials;
mod keys;
mod leaks;
mod merchants;
mod people;
mod record;
mod repeat;
mod replicas;
mod service;
mod trail;

use axum::http::Method;
use serde_json::{Value, json};
use tollgate::domain::admin::{Permission, Role};
use tollgate::domain::ids::MerchantId;
use tollgate::flows::manage_tokens::NewAdminToken;
use tollgate::flows::principal::Principal;

use crate::support::merchant::done;
use crate::support::{Call, Reply, TestApp};

/// An application and an admin token for it.
pub(crate) struct Admin<'a> {
    pub(crate) app: &'a TestApp,
    pub(crate) token: String,
}

impl<'a> Admin<'a> {
    pub(crate) async fn operator(app: &'a TestApp) -> Self {
        Self::of(app, Role::Operator, None).await
    }

    pub(crate) async fn of(app: &'a TestApp, role: Role, merchant_id: Option<MerchantId>) -> Self {
        Self { app, token: admin_token(app, role, merchant_id, Vec::new()).await }
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> Call {
        Call::new(method, &format!("/admin/v1{path}"))
            .header("authorization", format!("Bearer {}", self.token))
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.app.send(self.call(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.app.send(self.call(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.app.send(self.call(Method::POST, path).json_value(&body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.app.send(self.call(Method::PUT, path).json_value(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        self.app.send(self.call(Method::PATCH, path).json_value(&body)).await
    }

    /// Makes a merchant with both licences, and returns its id.
    pub(crate) async fn licensed_merchant(&self, gateway: &str) -> String {
        let made = self.post("/merchants", json!({ "name": "Acme", "gateway": gateway })).await;
        let id = made.created()["id"].as_str().expect("an id is text").to_owned();
        for product in ["api_keys", "enhanced_security"] {
            let licence =
                self.put(&format!("/merchants/{id}/licences/{product}"), json!({ "active": true })).await;
            assert_eq!(licence.status, 200, "{}", licence.text());
        }
        id
    }

    /// A new key of a merchant, as in the answer.
    pub(crate) async fn key(&self, merchant: &str, settings: Value) -> Value {
        let mut body = json!({ "name": "Till", "environment": "live" });
        for (name, value) in settings.as_object().expect("settings are an object") {
            body[name] = value.clone();
        }
        self.post(&format!("/merchants/{merchant}/api-keys"), body).await.created()
    }

    /// New credentials of a key, switched ON, as in the answer.
    pub(crate) async fn credentials(&self, key: &Value) -> Value {
        let made =
            self.post(&format!("/api-keys/{}/credentials", text(key, "id")), json!({})).await.created();
        let on = self
            .patch(&format!("/credentials/{}", text(&made, "client_id")), json!({ "enabled": true }))
            .await;
        assert_eq!(on.status, 200, "{}", on.text());
        made
    }
}

/// A service token that can only introspect all tokens.
pub(crate) async fn service_token(app: &TestApp) -> String {
    admin_token(app, Role::Service, None, vec![Permission::Introspect]).await
}

/// Introspects a token with the token of [`service_token`].
pub(crate) fn introspect_as(service: &str, token: &str) -> Call {
    Call::post("/api/introspect")
        .header("authorization", format!("Bearer {service}"))
        .form(&[("token", token)])
}

pub(crate) async fn admin_token(
    app: &TestApp,
    role: Role,
    merchant_id: Option<MerchantId>,
    permissions: Vec<Permission>,
) -> String {
    let (name, allowed_ips) = ("Ops".to_owned(), Vec::new());
    let new = NewAdminToken { name, role, merchant_id, permissions, allowed_ips, expires_at: None };
    let made = done(app.core().create_admin_token(&Principal::command_line(), new).await);
    made.made().expect("it is asked for once").secret.expose().to_owned()
}

impl Call {
    pub(crate) fn json_value(self, body: &Value) -> Self {
        self.body(Some("application/json"), body.to_string())
    }
}

impl Reply {
    /// The body of a 201.
    #[track_caller]
    pub(crate) fn created(&self) -> Value {
        assert_eq!(self.status, 201, "{}", self.text());
        self.json()
    }

    /// The body of a 200.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// Checks that the reply is a problem (RFC 9457), and returns its detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type").as_deref(), Some("application/problem+json"));
        let json = self.json();
        assert_eq!(json["code"], code, "{json}");
        assert_eq!(json["status"], status, "{json}");
        assert_eq!(json["request_id"].as_str(), self.header("x-request-id").as_deref());
        json["detail"].as_str().expect("every problem has a detail").to_owned()
    }
}

/// A text field of an answer.
#[track_caller]
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no text `{name}` in {value}"))
}

/// `POST /api/authorize` with a key and credentials from answers.
pub(crate) fn authorize(key: &Value, credentials: &Value) -> Call {
    Call::post("/api/authorize").key(text(key, "key")).form(&[
        ("client_id", text(credentials, "client_id")),
        ("client_secret", text(credentials, "client_secret")),
    ])
}

/// `/api/verify` with a key and an access token.
pub(crate) fn verify(key: &Value, access_token: &str) -> Call {
    Call::get("/api/verify").key(text(key, "key")).header("access-token", access_token)
}
