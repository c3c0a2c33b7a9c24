//! Introspection as standard resource servers use it.

use serde_json::{Value, json};
use tollgate::http::head::HEAD_BYTES_MAX;

use crate::admin::Admin;
use crate::support::{Call, Reply, TestApp, each_engine};

/// A service token's id and text.
async fn service(app: &TestApp) -> (String, String) {
    let new = json!({ "name": "Gateway", "role": "operator", "permissions": ["introspect"] });
    let made = Admin::operator(app).await.post("/tokens", new).await.created();
    let text = |name: &str| made[name].as_str().expect("it is text").to_owned();
    (text("id"), text("token"))
}

fn is_inactive(reply: &Reply) -> bool {
    reply.status == 200 && reply.json() == json!({ "active": false })
}

#[tokio::test]
async fn a_refresh_token_is_inactive_unless_it_is_asked_for() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let (tokens, (id, secret)) = (app.tokens(&merchant).await, service(&app).await);
        let ask = async |token: &str, hint: &str| {
            let fields = [("token", token), ("token_type_hint", hint)];
            app.send(Call::post("/api/introspect").basic(&id, &secret).form(&fields)).await
        };
        for hint in ["", "access_token", "refresh", "REFRESH_TOKEN"] {
            assert!(is_inactive(&ask(&tokens.refresh, hint).await), "{hint}");
            assert_eq!(ask(&tokens.access, hint).await.json()["token_type"], "Bearer");
        }
        let refresh = ask(&tokens.refresh, "refresh_token").await.json();
        assert_eq!((&refresh["active"], &refresh["token_type"]), (&json!(true), &json!("refresh_token")));
        // The hint is only a hint.
        assert_eq!(ask(&tokens.access, "refresh_token").await.json()["token_type"], "Bearer");

        let own = app.send(merchant.introspect(&tokens.refresh)).await.json();
        assert_eq!(own["token_type"], "refresh_token", "a client sees its own");
        let access = app.send(merchant.introspect(&tokens.access)).await.json();
        assert_ne!(own["jti"], access["jti"]);
        assert_eq!(own["jti"], refresh["jti"]);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_a_token_is_inactive_and_revoked() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let (id, secret) = service(&app).await;
        let long = "e".repeat(15_000);
        let fields = merchant.fields(&[("token", &long)]);
        let nul = merchant.fields(&[("token", "a\0b")]);
        let form = |token: &[u8]| {
            let own =
                format!("client_id={}&client_secret={}&token=", merchant.client_id, merchant.client_secret);
            [own.as_bytes(), token].concat()
        };
        let label = Some("application/x-www-form-urlencoded");
        for path in ["/api/introspect", "/api/revoke"] {
            let call = || merchant.call().to(path);
            let by_service = Call::post(path).basic(&id, &secret);
            let in_body = format!("client_id={id}&client_secret={secret}&token=");
            let calls = [
                call().form(&fields),
                call().json(&fields),
                call().multipart(&fields),
                call().form(&nul),
                call().json(&nul),
                call().multipart(&nul),
                call().body(label, form(b"\xff\xfe")),
                call().body(label, form(b"%FF%C0%80")),
                // As long as a head may be, and percent-encoded.
                by_service.body(label, [b"token=".as_slice(), &b"%FF".repeat(HEAD_BYTES_MAX)].concat()),
                Call::post(path).body(label, [in_body.as_bytes(), &b"%FF".repeat(HEAD_BYTES_MAX)].concat()),
            ];
            for (number, call) in calls.into_iter().enumerate() {
                let reply = app.send(call).await;
                assert_eq!(reply.status, 200, "{path} {number}: {}", reply.text());
                if path == "/api/introspect" {
                    assert!(is_inactive(&reply), "{number}: {}", reply.text());
                }
            }
        }
        // Other fields have a limit and must be text.
        let reply = app.send(merchant.call().form(&merchant.fields(&[("refresh_token", &long)]))).await;
        assert_eq!(reply.refused(400, "invalid_request"), "refresh_token: longer than 4 KiB");
        let body = [&form(b"x")[..], b"&refresh_token=%FF"].concat();
        let reply = app.send(merchant.call().body(label, body)).await;
        assert_eq!(reply.refused(400, "invalid_request"), "refresh_token: not UTF-8");
    })
    .await;
}

#[tokio::test]
async fn a_service_may_send_its_id_and_token_in_the_body() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let (tokens, (id, secret)) = (app.tokens(&merchant).await, service(&app).await);
        let is_active = |reply: Reply| -> Value { reply.json()["active"].clone() };
        let fields = [
            ("token", tokens.access.as_str()),
            ("client_id", id.as_str()),
            ("client_secret", secret.as_str()),
        ];
        let ask = || Call::post("/api/introspect");
        // An empty Basic header counts as not sent.
        let calls = [
            ask().form(&fields),
            ask().json(&fields),
            ask().multipart(&fields),
            ask().basic("", "").form(&fields),
        ];
        for call in calls {
            assert_eq!(is_active(app.send(call).await), true);
        }
        let wrong = |id: &str, secret: &str| {
            ask().form(&[("token", tokens.access.as_str()), ("client_id", id), ("client_secret", secret)])
        };
        let calls = [
            wrong("", &secret),
            wrong(&merchant.client_id, &secret),
            wrong(&id, "tga_x"),
            wrong(&id, ""),
            wrong(&merchant.client_id, &merchant.client_secret),
            ask().form(&[("token", tokens.access.as_str())]),
            ask().body(Some("text/plain"), "x"),
            ask().form(&[("token", &"x".repeat(20_000))]),
        ];
        for call in calls {
            let reply = app.send(call).await;
            reply.refused(401, "invalid_client");
            assert!(
                reply.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Basic "))
            );
        }
        assert_eq!(app.send(Call::post("/api/revoke").form(&fields)).await.status, 200);
        assert!(is_inactive(&app.send(ask().form(&fields)).await));
    })
    .await;
}

#[tokio::test]
async fn an_issuer_with_a_path_has_its_metadata_between_host_and_path() {
    const WELL_KNOWN: &str = "/.well-known/oauth-authorization-server";
    crate::support::each_engine_with(
        |settings| settings.server.issuer = "https://pay.example/a/tollgate".to_owned(),
        async |app| {
            let get = async |path: &str| app.send(Call::get(&format!("{WELL_KNOWN}{path}"))).await;
            for path in ["", "/a/tollgate"] {
                let metadata = get(path).await.json();
                assert_eq!(metadata["issuer"], "https://pay.example/a/tollgate");
                assert_eq!(metadata["token_endpoint"], "https://pay.example/a/tollgate/api/authorize");
            }
            for other in ["/a", "/a/tollgate/", "/tollgate", "/a/tollgate/b", "/A/tollgate"] {
                assert_eq!(get(other).await.status, 404, "{other}");
            }
        },
    )
    .await;
    each_engine(async |app| {
        assert_eq!(app.send(Call::get(&format!("{WELL_KNOWN}/x"))).await.status, 404);
    })
    .await;
}
