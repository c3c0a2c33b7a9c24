//! `Idempotency-Key`: a caller that lost an answer can get it again.

use axum::http::Method;
use chrono::TimeDelta;
use serde_json::{Value, json};
use tollgate::domain::keyring::Purpose;

use super::{Admin, text};
use crate::support::{Reply, TestApp, each_engine};

async fn repeated(app: &TestApp, admin: &Admin<'_>, path: &str, key: &str, body: &Value) -> Reply {
    let call = admin.call(Method::POST, path).header("idempotency-key", key);
    app.send(call.json_value(body)).await
}

#[tokio::test]
async fn the_same_key_and_body_give_the_first_answer_again_secret_included() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let path = format!("/merchants/{merchant}/api-keys");
        let body = json!({ "name": "k", "environment": "live" });
        let first = repeated(&app, &operator, &path, "one", &body).await;
        let key = first.created();
        app.advance(TimeDelta::hours(23));
        let again = repeated(&app.replica().await, &operator, &path, "one", &body).await;
        assert_eq!((again.status, again.body.clone()), (201, first.body.clone()), "to the byte");
        let list = operator.get(&path).await.ok();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(1));

        let other = json!({ "name": "k2", "environment": "live" });
        repeated(&app, &operator, &path, "one", &other).await.problem(409, "conflict");
        let somebody = Admin::operator(&app).await;
        assert_ne!(
            text(&repeated(&app, &somebody, &path, "one", &body).await.created(), "id"),
            text(&key, "id")
        );
        app.advance(TimeDelta::hours(1));
        let fresh = repeated(&app, &operator, &path, "one", &body).await.created();
        assert_ne!(text(&fresh, "id"), text(&key, "id"), "answers are forgotten after a day");
    })
    .await;
}

#[tokio::test]
async fn a_kept_answer_opens_with_the_callers_own_key_alone() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let body = json!({ "name": "Acme", "gateway": "g" });
        repeated(&app, &operator, "/merchants", "the-callers-own", &body).await.created();
        let mut db = app.core().store.read().await.expect("the store answers");
        let query = db.query("select actor_id, key, sealed from idempotency_keys");
        let (actor, key, sealed) = query.one::<(uuid::Uuid, String, Vec<u8>)>().await.expect("it was kept");
        assert!(!key.contains("the-callers-own"));
        let open = |callers: &[u8]| {
            app.core().keyring.open(Purpose::IdempotentAnswer(callers), actor.as_bytes(), &sealed).is_some()
        };
        assert!(open(b"the-callers-own"));
        assert!(!open(key.as_bytes()) && !open(b"") && !open(b"tollgate seal"));
    })
    .await;
}

#[tokio::test]
async fn of_many_at_once_one_is_made_and_all_get_it() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let body = json!({ "name": "Acme", "gateway": "g" });
        let calls = (0..10).map(|_| repeated(&app, &operator, "/merchants", "same", &body));
        let replies = futures_util::future::join_all(calls).await;
        for reply in &replies {
            assert_eq!((reply.status, &reply.body), (201, &replies[0].body), "{}", reply.text());
        }
        assert_eq!(app.number("select count(*) from merchants").await, 1);
        assert_eq!(
            app.number("select count(*) from audit_events where action = 'merchant.created'").await,
            1
        );
    })
    .await;
}

#[tokio::test]
async fn a_refused_creation_leaves_its_key_free() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let body = json!({ "name": "Acme", "gateway": "g" });
        let refused =
            repeated(&app, &operator, "/merchants", "k", &json!({ "name": "", "gateway": "g" })).await;
        refused.problem(400, "invalid_request");
        repeated(&app, &operator, "/merchants", "k", &body).await.created();
        for key in ["", &"x".repeat(256)] {
            repeated(&app, &operator, "/merchants", key, &body).await.problem(400, "invalid_request");
        }
    })
    .await;
}
