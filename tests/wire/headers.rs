//! The headers of every answer, and the exact body of a successful one.

use serde_json::json;
use tollgate::domain::clock::Timestamp;

use crate::support::{Call, each_engine};

#[tokio::test]
async fn a_pair_comes_in_the_published_shape() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let reply = app.send(merchant.authorize()).await;
        let tokens = reply.tokens();
        assert_eq!(
            reply.json(),
            json!({
                "httpStatus": true,
                "access_token": tokens.access,
                "token_type": "Bearer",
                "expires_in": 3600,
                "expire_time": "2026-11-23 17:05:57",
                "refresh_token": tokens.refresh,
                "status": { "statusCode": 200, "statusDescription": "Success" },
            })
        );
        assert_eq!(app.now(), Timestamp::from_micros(1_795_449_957_250_000));
        assert_eq!(reply.header("content-type").as_deref(), Some("application/json"));
        for token in [&tokens.access, &tokens.refresh] {
            let is_plain = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            assert!(token.len() == 60 && is_plain, "{token}");
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_under_api_is_ever_cached_and_no_browser_is_invited() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let tokens = app.tokens(&merchant).await;
        for call in [
            merchant.authorize(),
            merchant.refresh(&tokens.refresh),
            merchant.refresh("x"),
            merchant.authorize().without("x-api-key"),
            merchant.call().body(Some("text/plain"), "x"),
            Call::get("/api/authorize"),
            Call::post("/api/nothing"),
        ] {
            let reply = app.send(call.header("origin", "https://evil.example")).await;
            assert_eq!(reply.header("cache-control").as_deref(), Some("no-store"), "{}", reply.text());
            assert_eq!(reply.header("pragma").as_deref(), Some("no-cache"));
            assert!(reply.headers.keys().all(|name| !name.as_str().starts_with("access-control-")));
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_keeps_its_id_if_that_is_fit_to_be_one() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let longest = "x".repeat(64);
        for id in ["a", "7", "A-b_c.9", "..", longest.as_str()] {
            for call in
                [merchant.authorize(), merchant.refresh("x"), Call::get("/nothing"), Call::get("/healthz")]
            {
                let reply = app.send(call.header("x-request-id", id)).await;
                assert_eq!(reply.header("x-request-id").as_deref(), Some(id));
                if reply.status >= 400 {
                    assert_eq!(reply.json()["request_id"], id);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn any_other_request_id_is_replaced_by_a_fresh_one() {
    each_engine(async |app| {
        let too_long = "x".repeat(65);
        let mut seen = Vec::new();
        for id in
            [None, Some(""), Some("a b"), Some("a/b"), Some("é"), Some("a\tb"), Some("{}"), Some(&too_long)]
        {
            let call = Call::get("/nothing");
            let call = id.map_or(call.clone(), |id| call.header("x-request-id", id));
            let reply = app.send(call).await;
            let given = reply.header("x-request-id").expect("every reply has an id");
            let parsed: uuid::Uuid = given.parse().expect("it is a UUID");
            assert_eq!(parsed.get_version_num(), 7, "{given}");
            assert_eq!(reply.json()["request_id"], given.as_str());
            assert!(!seen.contains(&given));
            seen.push(given);
        }
    })
    .await;
}
