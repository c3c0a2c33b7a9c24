//! Calls every route of the admin API with every role, and compares the routes with the OpenAPI document.

use std::collections::BTreeSet;

use axum::http::Method;
use serde_json::{Value, json};
use tollgate::domain::admin::Role;

use super::{Admin, text};
use crate::support::{Call, each_engine};

/// The callers, in the order of the columns of [`TABLE`].
const ROLES: [&str; 6] = ["nobody", "API key", "admin of another", "viewer", "admin", "operator"];

/// A route, a valid body, and the status for each of [`ROLES`]. Rows run in order on one merchant, so rows
/// that end something come last.
type Row = (&'static str, &'static str, &'static str, [u16; 6]);

const TABLE: &[Row] = &[
    ("post", "/merchants", r#"{"name":"B","gateway":"g"}"#, [401, 401, 403, 403, 403, 201]),
    ("get", "/merchants", "", [401, 401, 200, 200, 200, 200]),
    ("get", "/merchants/{id}", "", [401, 401, 404, 200, 200, 200]),
    ("patch", "/merchants/{id}", r#"{"name":"C"}"#, [401, 401, 404, 403, 403, 200]),
    ("put", "/merchants/{id}/licences/{product}", r#"{"active":true}"#, [401, 401, 404, 403, 403, 200]),
    (
        "post",
        "/merchants/{id}/api-keys",
        r#"{"name":"k","environment":"live"}"#,
        [401, 401, 404, 403, 201, 201],
    ),
    ("get", "/merchants/{id}/api-keys", "", [401, 401, 404, 200, 200, 200]),
    ("get", "/api-keys/{id}", "", [401, 401, 404, 200, 200, 200]),
    ("patch", "/api-keys/{id}", r#"{"name":"n"}"#, [401, 401, 404, 403, 200, 200]),
    ("post", "/api-keys/{id}/rotate", r#"{"overlap_secs":60}"#, [401, 401, 404, 403, 201, 201]),
    ("delete", "/api-keys/{id}/secrets/{secret_id}", "", [401, 401, 404, 403, 204, 204]),
    ("get", "/api-keys/{id}/suggested-ips", "", [401, 401, 404, 200, 200, 200]),
    ("post", "/api-keys/{id}/credentials", "{}", [401, 401, 404, 403, 201, 201]),
    ("get", "/api-keys/{id}/credentials", "", [401, 401, 404, 200, 200, 200]),
    ("get", "/credentials/{client_id}", "", [401, 401, 404, 200, 200, 200]),
    ("patch", "/credentials/{client_id}", r#"{"enabled":true}"#, [401, 401, 404, 403, 200, 200]),
    (
        "post",
        "/credentials/{client_id}/rotate-secret",
        r#"{"overlap_secs":60}"#,
        [401, 401, 404, 403, 201, 201],
    ),
    ("delete", "/credentials/{client_id}/secrets/{secret_id}", "", [401, 401, 404, 403, 204, 204]),
    ("get", "/merchants/{id}/sessions", "", [401, 401, 404, 200, 200, 200]),
    ("get", "/sessions/{id}", "", [401, 401, 404, 200, 200, 200]),
    ("delete", "/sessions/{id}", "", [401, 401, 404, 403, 204, 204]),
    ("get", "/merchants/{id}/exchanges", "", [401, 401, 404, 200, 200, 200]),
    ("get", "/merchants/{id}/audit-events", "", [401, 401, 404, 200, 200, 200]),
    ("get", "/audit-events", "", [401, 401, 403, 403, 403, 200]),
    ("get", "/audit-events/latest", "", [401, 401, 403, 403, 403, 200]),
    ("get", "/merchants/{id}/webhook-deliveries", "", [401, 401, 404, 200, 200, 200]),
    (
        "post",
        "/merchants/{id}/webhook-deliveries/{delivery_id}/redeliver",
        "",
        [401, 401, 404, 403, 202, 202],
    ),
    (
        "post",
        "/merchants/{id}/webhook-deliveries/redeliver-failed",
        r#"{"since":"2026-01-01T00:00:00Z"}"#,
        [401, 401, 404, 403, 202, 202],
    ),
    (
        "post",
        "/merchants/{id}/events",
        r#"{"type":"payment.updated","data":{}}"#,
        [401, 401, 404, 403, 403, 202],
    ),
    ("post", "/api-keys/{id}/test-webhook", "", [401, 401, 404, 403, 200, 200]),
    (
        "post",
        "/api-keys/{id}/rotate-webhook-secret",
        r#"{"overlap_secs":60}"#,
        [401, 401, 404, 403, 201, 201],
    ),
    ("get", "/api-keys/{id}/webhook-secrets", "", [401, 401, 404, 200, 200, 200]),
    ("post", "/leaked-keys", r#"{"key":"unknown"}"#, [401, 401, 202, 403, 202, 202]),
    ("post", "/tokens", r#"{"name":"t","role":"operator"}"#, [401, 401, 403, 403, 403, 201]),
    ("get", "/tokens", "", [401, 401, 200, 200, 200, 200]),
    ("get", "/tokens/{id}", "", [401, 401, 404, 200, 200, 200]),
    ("patch", "/tokens/{id}", r#"{"name":"u"}"#, [401, 401, 404, 403, 200, 200]),
    ("post", "/tokens/{id}/rotate", r#"{"overlap_secs":60}"#, [401, 401, 404, 403, 201, 201]),
    ("delete", "/tokens/{id}", "", [401, 401, 404, 403, 204, 204]),
    (
        "post",
        "/users",
        r#"{"email":"a@example.com","role":"operator","password":"long enough to pass"}"#,
        [401, 401, 403, 403, 403, 201],
    ),
    ("get", "/users", "", [401, 401, 200, 200, 200, 200]),
    ("get", "/users/{id}", "", [401, 401, 404, 200, 200, 200]),
    ("patch", "/users/{id}", r#"{"disabled":true}"#, [401, 401, 404, 403, 200, 200]),
    ("delete", "/api-keys/{id}", "", [401, 401, 404, 403, 204, 204]),
    ("post", "/api-keys/{id}/restore", "", [401, 401, 404, 403, 200, 200]),
];

/// The permissions with which a service token may make a call of [`TABLE`]. One of them is enough.
fn permissions_for(method: &str, path: &str) -> &'static [&'static str] {
    let is_of_keys = path.contains("/api-keys") || path.starts_with("/credentials/");
    let ends_with = |ends: &[&str]| ends.iter().any(|end| path.ends_with(end));
    match (method, path) {
        ("get", "/merchants") => &["merchants.read", "merchants.write"],
        ("get", "/merchants/{id}") => &["merchants.read", "merchants.write", "licences.write"],
        ("post", "/merchants") | ("patch", "/merchants/{id}") => &["merchants.write"],
        (_, "/merchants/{id}/licences/{product}") => &["licences.write"],
        ("get", "/sessions/{id}") => &["exchanges.read"],
        ("delete", "/sessions/{id}") => &["revoke"],
        ("post", "/merchants/{id}/events") => &["events.write"],
        ("post", "/leaked-keys") => &["leaks.report"],
        ("get", _) if ends_with(&["/audit-events", "/audit-events/latest"]) => &["audit.read"],
        ("get", _) if ends_with(&["sessions", "exchanges", "webhook-deliveries"]) => &["exchanges.read"],
        _ if is_of_keys => &["keys.write"],
        _ => &[],
    }
}

const PERMISSIONS: [&str; 10] = [
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

#[tokio::test]
async fn a_service_token_makes_the_calls_of_its_permission_and_no_others() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let objects = Objects::make(&operator, &merchant).await;
        let service = async |permissions: Vec<&str>| {
            let body = json!({ "name": "s", "role": "service", "permissions": permissions });
            let made = operator.post("/tokens", body).await.created();
            Admin { app: &app, token: text(&made, "token").to_owned() }
        };
        for (method, path, body, expected) in TABLE {
            let enough = permissions_for(method, path);
            let filled = objects.fill(path, "operator");
            let call = |by: &Admin| {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
                let call = by.call(method, &filled);
                if body.is_empty() { call } else { call.body(Some("application/json"), *body) }
            };
            let others = PERMISSIONS.into_iter().filter(|one| !enough.contains(one));
            let lacking = service(others.collect()).await;
            app.send(call(&lacking)).await.problem(403, "insufficient_permission");
            for one in enough {
                let reply = app.send(call(&service(vec![one]).await)).await;
                assert_eq!(reply.status, expected[5], "{method} {path} with {one}: {}", reply.text());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn every_route_answers_every_role_as_the_table_says() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let id = merchant.parse().expect("ids are UUIDs");
        let other = operator.licensed_merchant("g").await.parse().expect("ids are UUIDs");
        let admin = Admin::of(&app, Role::MerchantAdmin, Some(id)).await;
        let viewer = Admin::of(&app, Role::MerchantViewer, Some(id)).await;
        let foreign = Admin::of(&app, Role::MerchantAdmin, Some(other)).await;
        let objects = Objects::make(&operator, &merchant).await;

        for (method, path, body, expected) in TABLE {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
            for (role, status) in ROLES.iter().zip(expected) {
                let filled = objects.fill(path, role);
                let bare = Call::new(method.clone(), &format!("/admin/v1{filled}"));
                let call = match *role {
                    "nobody" => bare,
                    "API key" => bare.key(text(&objects.key, "key")),
                    "admin of another" => foreign.call(method.clone(), &filled),
                    "viewer" => viewer.call(method.clone(), &filled),
                    "admin" => admin.call(method.clone(), &filled),
                    _ => operator.call(method.clone(), &filled),
                };
                let call = if body.is_empty() { call } else { call.body(Some("application/json"), *body) };
                let reply = app.send(call).await;
                assert_eq!(reply.status, *status, "{method} {path} as {role}: {}", reply.text());
            }
        }
    })
    .await;
}

/// The objects in the paths of the table.
struct Objects {
    merchant: String,
    key: Value,
    /// Older secrets, one for each role that may end one.
    key_secrets: Vec<String>,
    client_id: String,
    client_secrets: Vec<String>,
    delivery: String,
    sessions: Vec<String>,
    token: String,
    user: String,
}

impl Objects {
    async fn make(operator: &Admin<'_>, merchant: &str) -> Self {
        let key = operator.key(merchant, json!({ "webhook_url": "https://hooks.invalid/in" })).await;
        let credentials = operator.credentials(&key).await;
        let client_id = text(&credentials, "client_id").to_owned();
        for _ in 0..2 {
            operator.app.send(super::authorize(&key, &credentials)).await.tokens();
        }
        for _ in 0..2 {
            operator.post(&format!("/api-keys/{}/rotate", text(&key, "id")), json!({})).await.created();
            operator.post(&format!("/credentials/{client_id}/rotate-secret"), json!({})).await.created();
        }
        let shown = operator.get(&format!("/api-keys/{}", text(&key, "id"))).await.ok();
        let shown_client = operator.get(&format!("/credentials/{client_id}")).await.ok();
        let deliveries = operator.get(&format!("/merchants/{merchant}/webhook-deliveries")).await.ok();
        let sessions = operator.get(&format!("/merchants/{merchant}/sessions")).await.ok();
        let token = json!({ "name": "t", "role": "merchant_viewer", "merchant_id": merchant });
        let token = operator.post("/tokens", token).await.created();
        let user = json!({
            "email": "viewer@example.com", "role": "merchant_viewer", "merchant_id": merchant,
            "password": "long enough to pass",
        });
        let user = operator.post("/users", user).await.created();
        Self {
            merchant: merchant.to_owned(),
            key_secrets: ids(&shown["secrets"]),
            client_secrets: ids(&shown_client["secrets"]),
            delivery: ids(&deliveries["items"]).swap_remove(0),
            sessions: ids(&sessions["items"]),
            token: text(&token, "id").to_owned(),
            user: text(&user, "id").to_owned(),
            client_id,
            key,
        }
    }

    /// The path with its objects filled in. The operator ends another secret or session than the admin.
    fn fill(&self, path: &str, role: &str) -> String {
        let turn = usize::from(role == "operator");
        // The newest secret comes first and cannot be ended.
        let (secrets, id) = match path.split('/').nth(1) {
            Some("merchants") => (&self.key_secrets, self.merchant.as_str()),
            Some("api-keys") => (&self.key_secrets, text(&self.key, "id")),
            Some("credentials") => (&self.client_secrets, ""),
            Some("sessions") => (&self.key_secrets, self.sessions[turn].as_str()),
            Some("tokens") => (&self.key_secrets, self.token.as_str()),
            _ => (&self.key_secrets, self.user.as_str()),
        };
        path.replace("{id}", id)
            .replace("{delivery_id}", &self.delivery)
            .replace("{product}", "api_keys")
            .replace("{client_id}", &self.client_id)
            .replace("{secret_id}", &secrets[1 + turn])
    }
}

/// What a merchant that was moved leaves behind is not found, like in the lists, or has moved with the merchant.
#[tokio::test]
async fn a_cell_neither_shows_nor_changes_what_belongs_to_a_merchant_that_another_serves() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let objects = Objects::make(&operator, &merchant).await;
        app.run_sql("update merchants set home = 7").await;
        // Of the table, what names nothing of the merchant, and the cell's own audit trail.
        let is_about_it = |(_, path, ..): &&Row| path.contains('{') && !path.ends_with("/audit-events");
        let mut calls: Vec<_> =
            TABLE.iter().filter(is_about_it).map(|row| (row.0, row.1, row.2.to_owned())).collect();
        let bound = json!({ "name": "t", "role": "merchant_viewer", "merchant_id": merchant });
        calls.push(("post", "/tokens", bound.to_string()));
        let state = async || {
            let mut numbers = Vec::new();
            for number in [
                "select max(revision) from merchants",
                "select max(version) from api_keys",
                "select max(version) from credentials",
                "select max(version) from users",
                "select count(*) from secrets",
                "select count(*) from webhook_secrets where ends_at is null",
                "select count(*) from webhook_events",
                "select max(next_attempt_at) from webhook_deliveries",
                "select count(*) from sessions where revoked_at is null",
                "select count(*) from admin_tokens where revoked_at is null",
            ] {
                numbers.push(app.number(number).await);
            }
            numbers
        };
        let before = state().await;
        app.advance(chrono::TimeDelta::seconds(1));
        for (method, path, body) in calls {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
            let call = operator.call(method.clone(), &objects.fill(path, "operator"));
            let call = if body.is_empty() { call } else { call.body(Some("application/json"), body) };
            let reply = app.send(call).await;
            let is_hidden = ["/users/", "/tokens/"].iter().any(|listed| path.starts_with(listed));
            let status = if is_hidden { 404 } else { 503 };
            assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
            assert_eq!(reply.headers.contains_key("retry-after"), status == 503);
        }
        let webhook_secret = text(&objects.key, "webhook_secret");
        for leaked in [text(&objects.key, "key"), webhook_secret] {
            let reply = operator.post("/leaked-keys", json!({ "key": leaked })).await;
            assert_eq!(reply.status, 202, "the same as for anything else: {}", reply.text());
        }
        assert_eq!(state().await, before);
    })
    .await;
}

fn ids(list: &Value) -> Vec<String> {
    let items = list.as_array().expect("a list");
    items.iter().map(|item| text(item, "id").to_owned()).collect()
}

#[tokio::test]
async fn the_table_has_every_route_of_the_document() {
    each_engine(async |app| {
        let document = app.send(Call::get("/openapi.json")).await.ok();
        let paths = document["paths"].as_object().expect("a document has paths");
        let documented: BTreeSet<String> = paths
            .iter()
            .filter_map(|(path, item)| Some((path.strip_prefix("/admin/v1")?, item.as_object()?)))
            .flat_map(|(path, item)| item.keys().map(move |method| format!("{method} {path}")))
            .collect();
        let tested: BTreeSet<String> =
            TABLE.iter().map(|(method, path, ..)| format!("{method} {path}")).collect();
        assert_eq!(documented, tested);
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_revoked_or_over_opens_nothing() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let soon = app.now().plus(chrono::TimeDelta::minutes(1)).to_rfc3339();
        let short = json!({ "name": "short", "role": "operator", "expires_at": soon });
        let made = operator.post("/tokens", short).await.created();
        let short = Admin { app: &app, token: text(&made, "token").to_owned() };
        short.get("/merchants").await.ok();
        app.advance(chrono::TimeDelta::minutes(1));
        short.get("/merchants").await.problem(401, "invalid_token");

        let made = operator.post("/tokens", json!({ "name": "t", "role": "operator" })).await.created();
        let ended = Admin { app: &app, token: text(&made, "token").to_owned() };
        ended.get("/merchants").await.ok();
        assert_eq!(operator.delete(&format!("/tokens/{}", text(&made, "id"))).await.status, 204);
        let refused = ended.get("/merchants").await;
        refused.problem(401, "invalid_token");
        assert_eq!(refused.header("www-authenticate").as_deref(), Some("Bearer realm=\"tollgate\""));
    })
    .await;
}
