//! Scopes: granted, currently valid, and needed by a resource.

use serde_json::{Value, json};
use tollgate::config::Settings;
use tollgate::flows::manage_credentials::CredentialChanges;
use tollgate::flows::manage_keys::{ApiKeyChanges, NewApiKey};
use tollgate::flows::principal::Principal;

use crate::admin::{Admin, introspect_as, service_token, text};
use crate::support::merchant::{done, plain_key};
use crate::support::{Call, Merchant, Reply, TestApp, each_engine, each_engine_with};

fn names(scopes: &str) -> Vec<String> {
    scopes.split(' ').map(str::to_owned).collect()
}

/// A merchant whose key has only these scopes.
async fn limited(app: &TestApp, scopes: &str) -> Merchant {
    app.merchant_with(NewApiKey { scopes: Some(names(scopes)), ..plain_key() }).await
}

/// Sets the scopes of a key. `None` means every scope.
async fn limit_key(app: &TestApp, merchant: &Merchant, scopes: Option<&str>) {
    let changes = ApiKeyChanges { scopes: Some(scopes.map(names)), ..ApiKeyChanges::default() };
    done(app.core().update_api_key(&Principal::command_line(), merchant.key_id, None, changes).await);
}

async fn limit_client(app: &TestApp, merchant: &Merchant, scopes: Option<&str>) {
    let changes = CredentialChanges { scopes: Some(scopes.map(names)), ..CredentialChanges::default() };
    let by = Principal::command_line();
    done(app.core().update_credentials(&by, &merchant.client_id, None, changes).await);
}

fn asking(merchant: &Merchant, scope: &str) -> Call {
    merchant.call().form(&merchant.fields(&[("scope", scope)]))
}

fn refresh_asking(merchant: &Merchant, token: &str, scope: &str) -> Call {
    let fields = [("refresh_token", token), ("scope", scope)];
    merchant.call().to("/api/refresh_token").form(&merchant.fields(&fields))
}

/// The `scope` of an answer. `None` if it has none.
#[track_caller]
fn scope(reply: &Reply) -> Option<String> {
    let json = reply.json();
    assert_eq!(reply.status, 200, "{json}");
    json.get("scope").map(|scope| scope.as_str().expect("a scope is text").to_owned())
}

#[tokio::test]
async fn a_client_gets_what_it_asks_for_or_all_that_it_may_have() {
    each_engine(async |app| {
        let free = app.merchant().await;
        assert_eq!(scope(&app.send(free.authorize()).await), None);
        assert_eq!(scope(&app.send(asking(&free, "b a b")).await).as_deref(), Some("b a"));

        let merchant = limited(&app, "read write").await;
        assert_eq!(scope(&app.send(merchant.authorize()).await).as_deref(), Some("read write"));
        assert_eq!(scope(&app.send(asking(&merchant, "write")).await).as_deref(), Some("write"));
        limit_client(&app, &merchant, Some("read")).await;
        assert_eq!(scope(&app.send(merchant.authorize()).await).as_deref(), Some("read"));
        let too_long = "x".repeat(101);
        let too_many = vec!["x"; 65].join(" ");
        for asked in ["write", "read write", "READ", " ", " read", "read ", "a  b", "\"", "\\", "é", "a\tb"]
        {
            app.send(asking(&merchant, asked)).await.refused(400, "invalid_scope");
        }
        for asked in [&too_long, &too_many] {
            app.send(asking(&free, asked)).await.refused(400, "invalid_scope");
        }
        // The two have no scope in common.
        limit_key(&app, &merchant, Some("write")).await;
        app.send(merchant.authorize()).await.refused(400, "invalid_scope");
    })
    .await;
}

#[tokio::test]
async fn a_refresh_keeps_the_scopes_of_its_session() {
    each_engine(async |app| {
        let merchant = limited(&app, "a b c").await;
        let tokens = app.send(asking(&merchant, "a b")).await.tokens();
        for asked in ["a", "a b c", "c"] {
            let reply = app.send(refresh_asking(&merchant, &tokens.refresh, asked)).await;
            reply.refused(400, "invalid_scope");
        }
        let renewed = app.send(refresh_asking(&merchant, &tokens.refresh, "b a")).await;
        assert_eq!(scope(&renewed).as_deref(), Some("a b"));
        // Twice, because the second call uses the cache from the first.
        let renewed = app.send(merchant.refresh(&renewed.tokens().refresh)).await;
        assert_eq!(scope(&renewed).as_deref(), Some("a b"));
        let reply = app.send(refresh_asking(&merchant, &renewed.tokens().refresh, "a")).await;
        reply.refused(400, "invalid_scope");
        limit_key(&app, &merchant, Some("b c")).await;
        let renewed = app.send(merchant.refresh(&renewed.tokens().refresh)).await;
        assert_eq!(scope(&renewed).as_deref(), Some("b"));

        let free = app.merchant().await;
        let tokens = app.tokens(&free).await;
        app.send(refresh_asking(&free, &tokens.refresh, "a")).await.refused(400, "invalid_scope");
        assert_eq!(scope(&app.send(free.refresh(&tokens.refresh)).await), None);
    })
    .await;
}

#[tokio::test]
async fn what_a_token_may_do_is_granted_and_still_allowed_now() {
    each_engine(async |app| {
        let there = app.replica().await;
        let service = service_token(&app).await;
        let merchant = limited(&app, "a b").await;
        let pair = there.tokens(&merchant).await;
        let in_force = async || {
            let introspected = there.send(introspect_as(&service, &pair.access)).await.ok();
            let own = there.send(merchant.introspect(&pair.refresh)).await.ok();
            let verified = there.send(merchant.verify(&pair.access)).await;
            let own_scope = own["scope"].as_str().map(str::to_owned);
            assert_eq!(introspected["scope"].as_str().map(str::to_owned), own_scope);
            assert_eq!(introspected["active"], own["active"]);
            match introspected["active"] == json!(true) {
                true => assert_eq!(verified.header("x-scopes"), own_scope),
                false => assert_eq!(verified.status, 401, "{}", verified.text()),
            }
            own_scope
        };
        assert_eq!(in_force().await.as_deref(), Some("a b"));
        limit_key(&app, &merchant, Some("b c")).await;
        assert_eq!(in_force().await.as_deref(), Some("b"));
        limit_client(&app, &merchant, Some("c")).await;
        assert_eq!(in_force().await, None);
        there.send(merchant.refresh(&pair.refresh)).await.refused(400, "invalid_grant");
        // Widening restores the granted scopes, and no others.
        limit_client(&app, &merchant, None).await;
        limit_key(&app, &merchant, None).await;
        assert_eq!(in_force().await.as_deref(), Some("a b"));
    })
    .await;
}

#[tokio::test]
async fn verify_scope_passes_whoever_has_every_scope_that_the_path_names() {
    each_engine(async |app| {
        let merchant = limited(&app, "payments:read payments:write").await;
        let access = app.send(asking(&merchant, "payments:read")).await.tokens().access;
        let free = app.merchant().await;
        let free_access = app.tokens(&free).await.access;
        let judged = async |merchant: &Merchant, access: &str, path: &str| {
            app.send(merchant.verify(access).to(path)).await
        };
        for (path, limited, unlimited) in [
            ("/api/verify-scope/payments:read", 200, 200),
            ("/api/verify-scope/payments%3Aread/", 200, 200),
            ("/api/verify-scope/payments:read/orders//7?scope=x", 200, 200),
            ("/api/verify-scope/payments:read%20payments:read", 200, 200),
            ("/api/verify-scope/payments:write", 403, 200),
            ("/api/verify-scope/payments:read%20payments:write", 403, 200),
            ("/api/verify-scope/payments:write?scope=payments:read", 403, 200),
            ("/api/verify-scope", 403, 403),
            ("/api/verify-scope/", 403, 403),
            ("/api/verify-scope//payments:read", 403, 403),
            ("/api/verify-scope/%20", 403, 403),
            ("/api/verify-scope/%22", 403, 403),
            ("/api/verify-scope/%ff", 403, 403),
            ("/api/verify-scope/%00", 403, 403),
        ] {
            assert_eq!(judged(&merchant, &access, path).await.status, limited, "{path}");
            assert_eq!(judged(&free, &free_access, path).await.status, unlimited, "{path}");
        }
        let refused = judged(&merchant, &access, "/api/verify-scope/a%20b").await;
        refused.refused(403, "insufficient_scope");
        let challenge = r#"Bearer realm="tollgate", error="insufficient_scope", scope="a b""#;
        assert_eq!(refused.header("www-authenticate").as_deref(), Some(challenge));
        assert_eq!(judged(&free, &free_access, "/api/verify").await.header("x-scopes"), None);
        // A caller without a valid key learns nothing about scopes.
        assert_eq!(app.send(Call::get("/api/verify-scope/a")).await.status, 401);

        app.switch(&merchant, false).await;
        let alone = async |path: &str| app.send(Call::post(path).key(&merchant.key)).await;
        let passed = alone("/api/verify-scope/payments:write").await;
        assert_eq!(passed.status, 200, "{}", passed.text());
        assert_eq!(passed.header("x-scopes").as_deref(), Some("payments:read payments:write"));
        assert_eq!(alone("/api/verify-scope/refunds").await.status, 403);
    })
    .await;
}

#[tokio::test]
async fn scopes_of_keys_and_clients_are_held_to_their_form_and_to_each_other() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let keys = format!("/merchants/{merchant}/api-keys");
        let long = "x".repeat(101);
        let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
        for bad in [json!([]), json!([""]), json!(["a b"]), json!(["\""]), json!([long]), json!(many)] {
            let body = json!({ "name": "k", "environment": "live", "scopes": bad });
            assert!(operator.post(&keys, body).await.problem(400, "invalid_request").contains("scopes"));
        }
        let longest = "x".repeat(100);
        let key = operator.key(&merchant, json!({ "scopes": ["a", "b", "a", longest] })).await;
        assert_eq!(key["scopes"], json!(["a", "b", longest]));
        let path = format!("/api-keys/{}", text(&key, "id"));
        assert_eq!(operator.get(&path).await.ok()["scopes"], key["scopes"]);

        let credentials = format!("{path}/credentials");
        operator.post(&credentials, json!({ "scopes": ["a", "c"] })).await.problem(400, "invalid_request");
        let client = operator.post(&credentials, json!({ "scopes": ["b"] })).await.created();
        assert_eq!(client["scopes"], json!(["b"]));
        let client = format!("/credentials/{}", text(&client, "client_id"));
        operator.patch(&client, json!({ "scopes": ["c"] })).await.problem(400, "invalid_request");
        let both = operator.patch(&client, json!({ "scopes": ["a"], "enabled": true })).await.ok();
        assert_eq!((&both["scopes"], &both["enabled"]), (&json!(["a"]), &json!(true)));
        // A key can have fewer scopes than its clients, and a client's limit can be removed.
        assert_eq!(operator.patch(&path, json!({ "scopes": ["c"] })).await.ok()["scopes"], json!(["c"]));
        assert_eq!(operator.patch(&client, json!({ "scopes": null })).await.ok()["scopes"], Value::Null);
        assert_eq!(operator.patch(&path, json!({ "name": "n" })).await.ok()["scopes"], json!(["c"]));
        assert_eq!(operator.patch(&path, json!({ "scopes": null })).await.ok()["scopes"], Value::Null);
    })
    .await;
}

fn listing(settings: &mut Settings) {
    settings.tokens.scopes = names("read write");
}

#[tokio::test]
async fn where_scopes_are_listed_no_others_are_given() {
    each_engine_with(listing, async |app| {
        let metadata = app.send(Call::get("/.well-known/oauth-authorization-server")).await.ok();
        assert_eq!(metadata["scopes_supported"], json!(["read", "write"]));
        let merchant = app.merchant().await;
        app.send(asking(&merchant, "read other")).await.refused(400, "invalid_scope");
        assert_eq!(scope(&app.send(asking(&merchant, "read")).await).as_deref(), Some("read"));

        let operator = Admin::operator(&app).await;
        let path = format!("/api-keys/{}", merchant.key_id);
        operator.patch(&path, json!({ "scopes": ["other"] })).await.problem(400, "invalid_request");
        operator.patch(&path, json!({ "scopes": ["write"] })).await.ok();
    })
    .await;
}

#[tokio::test]
async fn without_a_list_the_metadata_names_no_scopes() {
    each_engine(async |app| {
        let metadata = app.send(Call::get("/.well-known/oauth-authorization-server")).await.ok();
        assert_eq!(metadata.get("scopes_supported"), None);
    })
    .await;
}
