//! Client authentication: in the body or with HTTP Basic, but not both, in addition to the key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{Call, each_engine};

#[tokio::test]
async fn http_basic_does_for_id_and_secret_with_form_encoding_inside() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let (id, secret) = (&merchant.client_id, &merchant.client_secret);
        let plain = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
        app.send(merchant.call().basic(id, secret)).await.tokens();
        app.send(merchant.call().header("authorization", &plain)).await.tokens();
        app.send(merchant.call().header("authorization", plain.replace("Basic ", "bAsIc  "))).await.tokens();
        let tokens = app.send(merchant.call().basic(id, secret).form(&[("client_id", id)])).await.tokens();
        let refresh = merchant.call().to("/api/refresh_token").basic(id, secret);
        app.send(refresh.json(&[("refresh_token", &tokens.refresh)])).await.tokens();
        app.send(merchant.call().basic(id, "wrong")).await.refused(401, "invalid_client");
    })
    .await;
}

#[tokio::test]
async fn two_ways_at_once_are_refused() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let (id, secret) = (&merchant.client_id, &merchant.client_secret);
        for call in [
            merchant.authorize().basic(id, secret),
            merchant.call().basic(id, secret).form(&[("client_secret", secret)]),
            merchant.call().basic(id, secret).form(&[("client_id", "another")]),
            merchant.call().basic(id, secret).basic(id, secret),
        ] {
            app.send(call).await.refused(400, "invalid_request");
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_sends_no_authentication_at_all_is_challenged() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let (id, secret) = (merchant.client_id.as_str(), merchant.client_secret.as_str());
        let token = app.tokens(&merchant).await.access;
        for call in [
            merchant.call(),
            merchant.call().form(&[("grant_type", "client_credentials")]),
            merchant.call().form(&[("client_id", ""), ("client_secret", "")]),
            merchant.call().basic("", ""),
            merchant.call().header("authorization", "Basic"),
            merchant.call().to("/api/refresh_token").form(&[("refresh_token", "x")]),
            merchant.call().to("/api/introspect").form(&[("token", &token)]),
            merchant.call().to("/api/revoke").form(&[("token", &token)]),
        ] {
            let reply = app.send(call).await;
            reply.refused(401, "invalid_client");
            assert!(
                reply.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Basic "))
            );
        }
        // If a part is missing or the scheme is different, the error says what is missing.
        for (call, missing) in [
            (merchant.call().form(&[("client_id", id)]), "client_secret: missing"),
            (merchant.call().form(&[("client_secret", secret)]), "client_id: missing"),
            (merchant.call().header("authorization", "Bearer x"), "client_id: missing"),
        ] {
            assert_eq!(app.send(call).await.refused(400, "invalid_request"), missing);
        }
        app.send(merchant.authorize().basic("", "")).await.tokens();
    })
    .await;
}

#[tokio::test]
async fn an_authorization_header_that_cannot_be_read_is_refused_and_another_scheme_is_not_ours() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let encoded = |inside: &[u8]| format!("Basic {}", STANDARD.encode(inside));
        for value in [
            "Basic !".to_owned(),
            encoded(b"no colon"),
            encoded(b"\xff:\xff"),
            encoded(b"%FF:%FF"),
            "Basic ".to_owned(),
        ] {
            let reply = app.send(merchant.call().header("authorization", &value)).await;
            reply.refused(400, "invalid_request");
        }
        for value in ["Bearer abc", "Digest username=x", "Basic"] {
            app.send(merchant.authorize().header("authorization", value)).await.tokens();
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_is_refused_for_key_or_client_hears_the_same_bytes() {
    each_engine(async |app| {
        let (merchant, other) = (app.merchant().await, app.merchant().await);
        let (id, secret) = (merchant.client_id.as_str(), merchant.client_secret.as_str());
        let keyed = |key: &str| Call::post("/api/authorize").key(key).form(&merchant.fields(&[]));
        let with =
            |id: &str, secret: &str| merchant.call().form(&[("client_id", id), ("client_secret", secret)]);
        let calls = [
            // The client: unknown, of another merchant, with a wrong secret.
            with("00000000000000000000000000000000", secret),
            with("nobody", secret),
            with(&other.client_id, &other.client_secret),
            with(id, "wrong"),
            with(id, &other.client_secret),
            with(id, &format!("{secret}x")),
            with(&id.to_uppercase(), secret),
            // The key: missing, malformed, unknown, of another merchant, sent twice.
            merchant.authorize().without("x-api-key"),
            keyed(""),
            keyed("short"),
            keyed(&merchant.key.to_uppercase()),
            keyed(&"0".repeat(64)),
            keyed(&format!("{}0", merchant.key)),
            keyed(&other.key),
            merchant.authorize().key(&merchant.key),
            merchant.authorize().key(&other.key),
        ];
        let mut answers = Vec::new();
        for call in calls {
            let reply = app.send(call).await;
            reply.refused(401, "invalid_client");
            let mut headers: Vec<String> = reply.headers.keys().map(ToString::to_string).collect();
            headers.sort();
            answers.push((reply.text_without_id(), headers, reply.header("www-authenticate")));
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_stray_cookie_or_access_token_is_ignored() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let call = merchant.authorize().header("cookie", "ci_session=19johr4r63q758b60cigskiqvj4qtkeu");
        app.send(call.header("access-token", "stale").header("authorization", "Bearer stale")).await.tokens();
    })
    .await;
}
