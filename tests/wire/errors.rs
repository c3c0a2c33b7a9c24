//! Every error: its status, its code, all fields of its body, and the reason in the merchant's records.

use std::sync::atomic::{AtomicU64, Ordering};

use chrono::TimeDelta;
use serde_json::json;
use tollgate::domain::licence::{Licence, Product};
use tollgate::domain::merchant::MerchantStatus;
use tollgate::flows::manage_keys::NewApiKey;
use tollgate::flows::principal::Principal;

use crate::support::merchant::{done, plain_key};
use crate::support::{Call, Reply, TestApp, each_engine};

/// Checks the fields that all errors have.
#[track_caller]
fn is_well_formed(reply: &Reply) {
    let body = reply.json();
    let description = body["error_description"].as_str().expect("every error has a description");
    let expected = json!({
        "httpStatus": false,
        "error": body["error"],
        "error_description": description,
        "error_uri": body["error_uri"],
        "request_id": reply.header("x-request-id"),
        "status": { "statusCode": reply.status, "statusDescription": description },
    });
    assert_eq!(body, expected);
    let (uri, error) =
        (body["error_uri"].as_str().unwrap_or_default(), body["error"].as_str().unwrap_or_default());
    assert!(uri.ends_with(&format!("/docs/errors#{error}")), "{uri}");
    // RFC 6749 5.2: printable ASCII without quotation mark and backslash.
    let is_allowed = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
    assert!(description.chars().all(is_allowed), "{description}");
    assert_eq!(reply.header("content-type").as_deref(), Some("application/json"));
    let (challenge, wait) = (reply.header("www-authenticate"), reply.header("retry-after"));
    assert_eq!(challenge.is_some(), reply.status == 401, "{challenge:?}");
    assert_eq!(wait.is_some(), matches!(reply.status, 429 | 503), "{wait:?}");
    assert!(reply.header("access-control-allow-origin").is_none());
}

/// Sends a call, and checks its error and the reason in its exchange record.
async fn refused(app: &TestApp, call: Call, status: u16, error: &str, reason: &str) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let id = format!("{reason}.{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let reply = app.send(call.header("x-request-id", &id)).await;
    assert!(!reply.refused(status, error).is_empty());
    is_well_formed(&reply);
    app.flush().await;
    let mut db = app.core().store.read().await.expect("the store answers");
    let recorded = db
        .query("select status, error, reason from exchanges where request_id = $1")
        .bind(id)
        .one::<(i64, Option<String>, Option<String>)>()
        .await
        .expect("the call is on record");
    let expected = (i64::from(status), Some(error.to_owned()), Some(reason.to_owned()));
    assert_eq!(recorded, expected, "on record");
}

#[tokio::test]
async fn refusals_about_the_body_the_client_and_the_token() {
    each_engine(async |app| {
        let (merchant, other) = (app.merchant().await, app.merchant().await);
        let second = app.key_of(merchant.id, plain_key()).await;
        let tokens = app.tokens(&merchant).await;
        let of_other = app.tokens(&other).await;
        let with =
            |id: &str, secret: &str| merchant.call().form(&[("client_id", id), ("client_secret", secret)]);
        let table = [
            (merchant.call().form(&[]), 401, "invalid_client", "client_missing"),
            (merchant.call().json(&[]), 401, "invalid_client", "client_missing"),
            (merchant.call().form(&[("client_id", "x")]), 400, "invalid_request", "request_invalid"),
            (with("\0", "x"), 400, "invalid_request", "nul_character"),
            (merchant.call().body(Some("text/plain"), "x"), 415, "invalid_request", "request_invalid"),
            (merchant.call().body(Some("application/json"), "[]"), 400, "invalid_request", "request_invalid"),
            (
                merchant.call().body(None, vec![b'x'; 16 * 1024 + 1]),
                413,
                "invalid_request",
                "request_invalid",
            ),
            (with("nobody", "x"), 401, "invalid_client", "client_unknown"),
            (with(&merchant.client_id, "x"), 401, "invalid_client", "client_secret_wrong"),
            (with(&second.client_id, &second.client_secret), 401, "invalid_client", "client_of_another_key"),
            (merchant.refresh("x"), 400, "invalid_grant", "token_unknown"),
            (merchant.refresh(&tokens.access), 400, "invalid_grant", "token_unknown"),
            (merchant.refresh(&of_other.refresh), 400, "invalid_grant", "token_of_another_client"),
            (
                merchant.call().form(&merchant.fields(&[("grant_type", "password")])),
                400,
                "unsupported_grant_type",
                "grant_type_unsupported",
            ),
        ];
        for (call, status, error, reason) in table {
            refused(&app, call, status, error, reason).await;
        }

        let next = app.send(merchant.refresh(&tokens.refresh)).await.tokens();
        app.send(merchant.refresh(&next.refresh)).await.tokens();
        refused(&app, merchant.refresh(&tokens.refresh), 400, "invalid_grant", "token_replayed").await;
        refused(&app, merchant.refresh(&next.refresh), 400, "invalid_grant", "session_revoked").await;

        let forgotten = app.tokens(&merchant).await;
        app.switch(&merchant, false).await;
        refused(&app, merchant.authorize(), 400, "unauthorized_client", "enhanced_security_off").await;
        app.switch(&merchant, true).await;
        refused(&app, merchant.refresh(&forgotten.refresh), 400, "invalid_grant", "session_ended").await;
        let idle = app.tokens(&merchant).await;
        app.advance(TimeDelta::days(30));
        refused(&app, merchant.refresh(&idle.refresh), 400, "invalid_grant", "token_expired").await;
        app.advance(TimeDelta::days(335));
        refused(&app, merchant.refresh(&idle.refresh), 400, "invalid_grant", "session_expired").await;
    })
    .await;
}

#[tokio::test]
async fn refusals_for_want_of_a_licence_a_merchant_or_a_live_key() {
    each_engine(async |app| {
        let expires_at = Some(app.now().plus(TimeDelta::days(1)));
        let merchant = app.merchant_with(NewApiKey { expires_at, ..plain_key() }).await;
        let call = || merchant.authorize();
        let [on, off] = [true, false].map(|active| Licence { active, expires_at: None });

        app.put_licence(merchant.id, Product::EnhancedSecurity, off).await;
        let reason = "enhanced_security_licence_inactive";
        refused(&app, call(), 400, "unauthorized_client", reason).await;
        app.put_licence(merchant.id, Product::EnhancedSecurity, on).await;

        app.put_licence(merchant.id, Product::ApiKeys, off).await;
        refused(&app, call(), 401, "invalid_client", "api_keys_licence_inactive").await;
        app.put_licence(merchant.id, Product::ApiKeys, on).await;

        app.set_status(merchant.id, MerchantStatus::Suspended).await;
        refused(&app, call(), 401, "invalid_client", "merchant_suspended").await;
        app.set_status(merchant.id, MerchantStatus::Active).await;

        let listed = NewApiKey { allowed_ips: vec!["192.0.2.0/24".to_owned()], ..plain_key() };
        let listed = app.key_of(merchant.id, listed).await;
        app.send(listed.authorize().from("192.0.2.7")).await.tokens();
        refused(&app, listed.authorize(), 401, "invalid_client", "address_not_allowed").await;

        let revoked = app.key_of(merchant.id, plain_key()).await;
        done(app.core().revoke_api_key(&Principal::command_line(), revoked.key_id).await);
        refused(&app, revoked.authorize(), 401, "invalid_client", "key_revoked").await;

        app.advance(TimeDelta::days(1));
        refused(&app, call(), 401, "invalid_client", "key_expired").await;
    })
    .await;
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_answer_json_without_a_key() {
    each_engine(async |app| {
        for path in ["/api", "/api/", "/api/nothing", "/api/authorize/", "/nothing?x=1", "/api/%00"] {
            let reply = app.send(Call::get(path)).await;
            reply.refused(404, "invalid_request");
            is_well_formed(&reply);
        }
        for (method, path, allow) in [
            ("GET", "/api/authorize", "POST"),
            ("PUT", "/api/authorize", "POST"),
            ("OPTIONS", "/api/refresh_token", "POST"),
            ("DELETE", "/api/refresh_token", "POST"),
            ("POST", "/healthz", "GET,HEAD"),
            ("DELETE", "/readyz", "GET,HEAD"),
        ] {
            let method = method.parse().expect("it is a method");
            let reply = app.send(Call::new(method, path)).await;
            reply.refused(405, "invalid_request");
            assert_eq!(reply.header("allow").as_deref(), Some(allow), "{path}");
            is_well_formed(&reply);
        }
    })
    .await;
}

#[tokio::test]
async fn a_store_that_is_away_is_said_to_be_so() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let tokens = app.tokens(&merchant).await;
        app.core().store.close().await;
        for call in [merchant.authorize(), merchant.refresh(&tokens.refresh), Call::get("/readyz")] {
            let reply = app.send(call).await;
            reply.refused(503, "temporarily_unavailable");
            is_well_formed(&reply);
        }
        assert_eq!(app.send(Call::get("/healthz")).await.status, 200);
    })
    .await;
}
