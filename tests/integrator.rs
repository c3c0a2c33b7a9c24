//! What an integration can do itself: ask about its key, rotate its secret, and learn when it ends.

use chrono::TimeDelta;
use serde_json::json;
use tollgate::flows::manage_keys::NewApiKey;

use crate::admin::{Admin, text};
use crate::support::merchant::plain_key;
use crate::support::{Call, Merchant, TestApp, each_engine};

#[tokio::test]
async fn whoami_tells_the_holder_of_a_key_what_it_is_and_nobody_else() {
    each_engine(async |app| {
        let key = NewApiKey { scopes: Some(vec!["a".to_owned(), "b".to_owned()]), ..plain_key() };
        let merchant = app.merchant_with(key).await;
        let whoami = Call::get("/api/whoami").key(&merchant.key);
        let mut told = app.send(whoami.clone().from("192.0.2.7")).await.ok();
        let limits = told["limits"].take();
        let hint = &merchant.key[merchant.key.len() - 6..];
        assert_eq!(
            told,
            json!({
                "merchant_id": merchant.id, "api_key_id": merchant.key_id, "name": "Till", "key_hint": hint,
                "environment": "sandbox", "scopes": ["a", "b"], "expires_at": null, "enhanced_security": true,
                "client_ip": "192.0.2.7", "hops": [], "ip_mode": "enforce", "limits": null,
            })
        );
        assert!(limits["failures_left"].is_u64(), "{limits}");
        app.switch(&merchant, false).await;
        assert_eq!(app.send(whoami.clone()).await.ok()["enhanced_security"], json!(false));

        app.send(Call::get("/api/whoami")).await.refused(401, "invalid_client");
        app.send(Call::get("/api/whoami").key(&"0".repeat(64))).await.refused(401, "invalid_client");
        // The other replica has it in its cache, and still refuses it.
        let there = app.replica().await;
        there.send(whoami.clone()).await.ok();
        let operator = Admin::operator(&app).await;
        assert_eq!(operator.delete(&format!("/api-keys/{}", merchant.key_id)).await.status, 204);
        there.send(whoami).await.refused(401, "invalid_client");
    })
    .await;
}

fn rotation(merchant: &Merchant, more: &[(&str, &str)]) -> Call {
    merchant.call().to("/api/rotate_secret").form(&merchant.fields(more))
}

/// The same client with the secret from an answer.
fn renewed(merchant: &Merchant, answer: &serde_json::Value) -> Merchant {
    assert_eq!(answer["client_id"], json!(merchant.client_id));
    Merchant { client_secret: text(answer, "client_secret").to_owned(), ..merchant.clone() }
}

#[tokio::test]
async fn a_client_rolls_its_own_secret_and_the_old_one_ends_after_the_overlap() {
    each_engine(async |app| {
        let old = app.merchant().await;
        let body = format!(
            r#"{{"client_id":"{}","client_secret":"{}","overlap_secs":60}}"#,
            old.client_id, old.client_secret
        );
        let call = old.call().to("/api/rotate_secret").body(Some("application/json"), body);
        let call = call.header("idempotency-key", "deploy-1");
        let answer = app.send(call.clone()).await.created();
        assert_eq!(app.send(call).await.created(), answer, "a lost answer is given again");
        let new = renewed(&old, &answer);

        let before = app.send(old.authorize()).await;
        assert_eq!((before.header("sunset"), before.header("deprecation")), (None, None));
        app.tokens(&new).await;
        let during = app.send(old.authorize()).await;
        assert_eq!(during.header("sunset").as_deref(), Some("Mon, 23 Nov 2026 16:06:57 GMT"));
        assert_eq!(during.header("deprecation").as_deref(), Some("@1795449957"));
        assert_eq!(app.send(new.authorize()).await.header("sunset"), None);
        app.advance(TimeDelta::seconds(60));
        app.send(old.authorize()).await.refused(401, "invalid_client");
        app.send(rotation(&old, &[])).await.refused(401, "invalid_client");

        app.send(rotation(&new, &[("client_secret2", "x")])).await.created();
        for overlap in ["-1", "1.5", "x", "2592001"] {
            app.send(rotation(&new, &[("overlap_secs", overlap)])).await.refused(400, "invalid_request");
        }
        app.switch(&new, false).await;
        app.send(rotation(&new, &[])).await.refused(400, "unauthorized_client");
    })
    .await;
}

#[tokio::test]
async fn a_key_that_ends_within_thirty_days_says_so_in_every_good_answer() {
    each_engine(async |app: TestApp| {
        let expires_at = Some(app.now().plus(TimeDelta::days(30)).plus(TimeDelta::seconds(1)));
        let merchant = app.merchant_with(NewApiKey { expires_at, ..plain_key() }).await;
        let access = app.tokens(&merchant).await.access;
        assert_eq!(app.send(merchant.authorize()).await.header("sunset"), None);
        app.advance(TimeDelta::seconds(1));
        let sunset = Some("Wed, 23 Dec 2026 16:05:58 GMT".to_owned());
        for call in [merchant.authorize(), merchant.introspect("x"), merchant.verify(&access)] {
            assert_eq!(app.send(call).await.header("sunset"), sunset);
        }
        let refused = app.send(merchant.call().form(&[("client_id", "x"), ("client_secret", "y")])).await;
        assert_eq!((refused.status, refused.header("sunset")), (401, None));
    })
    .await;
}
