//! The two screens of the audit trail: for a merchant, and for the whole platform.

use chrono::TimeDelta;
use tollgate::domain::admin::Role;
use tollgate::flows::manage_keys::NewApiKey;

use super::people::Person;
use crate::admin::admin_token;
use crate::support::merchant::plain_key;
use crate::support::{TestApp, each_engine};

/// The rows of the trail at a path.
async fn rows(app: &TestApp, person: &Person, path: &str) -> Vec<String> {
    let page = app.page(person, path).await;
    let body = page.split("<tbody>").nth(1).unwrap_or_default();
    body.split("<tr>").skip(1).map(str::to_owned).collect()
}

#[tokio::test]
async fn operators_see_what_concerns_no_merchant_and_find_it_by_who_what_object_and_result() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let operator = app.person("ops@gate.example", Role::Operator, None).await;
        let admin = app.person("ada@harbour.example", Role::MerchantAdmin, Some(merchant.id)).await;
        let made = app.send(
            operator.post("/console/people/users", &[("email", "eve@gate.example"), ("role", "operator")]),
        );
        assert_eq!(made.await.status, 200);
        app.send(admin.get("/console/people")).await;

        let all = rows(&app, &operator, "/console/audit").await;
        let path = format!("href=\"/console/m/{}/audit\"", merchant.id);
        assert!(all.iter().any(|row| row.contains(&path)), "no event of the merchant: {all:?}");
        assert!(all.iter().any(|row| row.contains("User created") && !row.contains("/console/m/")));

        let own = rows(&app, &operator, "/console/audit?of=platform").await;
        assert!(own.len() < all.len() && own.iter().all(|row| !row.contains("/console/m/")), "{own:?}");
        let count = async |query: &str| rows(&app, &operator, &format!("/console/audit?{query}")).await.len();
        assert_eq!(count("action=user.created&who=ops%40gate.example").await, 1);
        assert_eq!(count("action=User+created&who=ops%40gate.example").await, 1, "as the page says it");
        assert_eq!(
            count("action=Sign-in+link+created&who=ops%40gate.example").await,
            1,
            "as the page says it"
        );
        assert_eq!(count("action=user.created&who=nobody").await, 0);
        assert_eq!(count(&format!("object={}", operator.id)).await, all_of(&all, &operator.id.to_string()));
        assert_eq!(count("outcome=refused&action=user.created").await, 0);

        for path in ["/console/audit", "/console/audit?of=platform"] {
            assert_eq!(app.send(admin.get(path)).await.status, 403, "{path}");
        }
        assert!(
            count("outcome=refused&who=ada%40harbour.example").await >= 2,
            "that they tried is on record"
        );
    })
    .await;
}

fn all_of(rows: &[String], object: &str) -> usize {
    rows.iter().filter(|row| row.contains(&format!("Object <code>{object}</code>"))).count()
}

#[tokio::test]
async fn the_platforms_trail_has_pages_and_a_reader_is_on_record_once_an_hour() {
    each_engine(async |app| {
        let operator = app.person("ops@gate.example", Role::Operator, None).await;
        for _ in 0..51 {
            app.merchant().await;
        }
        let first = app.page(&operator, "/console/audit?action=merchant.created").await;
        let next =
            first.split("href=\"?").nth(1).and_then(|rest| rest.split('"').next()).expect("a next page");
        let next = format!("/console/audit?{}", next.replace("&#38;", "&"));
        assert_eq!(first.matches("Merchant created").count() / 2, 50);
        let second = app.page(&operator, &next).await;
        assert_eq!(second.matches("Merchant created").count() / 2, 1);

        let reads =
            async || app.number("select count(*) from audit_events where action = 'audit_events.read'").await;
        assert_eq!(reads().await, 1);
        app.advance(TimeDelta::minutes(20));
        app.page(&operator, "/console/audit").await;
        assert_eq!(reads().await, 1);
        for _ in 0..2 {
            app.advance(TimeDelta::minutes(20));
            app.page(&operator, "/console/audit").await;
        }
        assert_eq!(reads().await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_merchants_trail_is_searched_and_shows_nothing_of_others() {
    each_engine(async |app| {
        let (own, other) = (app.merchant().await, app.merchant().await);
        let admin = app.person("ada@harbour.example", Role::MerchantAdmin, Some(own.id)).await;
        let path = |query: &str| format!("/console/m/{}/audit?{query}", own.id);
        assert_eq!(rows(&app, &admin, &path("action=api_key.created")).await.len(), 1);
        assert_eq!(rows(&app, &admin, &path(&format!("object={}", own.key_id))).await.len(), 1);
        assert!(rows(&app, &admin, &path(&format!("object={}", other.key_id))).await.is_empty());
        assert!(!rows(&app, &admin, &path("of=platform")).await.is_empty(), "it has one meaning here");
    })
    .await;
}

#[tokio::test]
async fn objects_are_named_but_not_those_of_another_merchant() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let other = NewApiKey { name: "Secret plans".to_owned(), ..plain_key() };
        let other = app.merchant_with(other).await;
        let admin = app.person("ada@harbour.example", Role::MerchantAdmin, Some(merchant.id)).await;
        let revoke = |id| format!("/console/m/{}/api-keys/{id}/revoke", merchant.id);
        assert_eq!(app.send(admin.post(&revoke(merchant.key_id), &[])).await.status, 303);
        // That it was tried is on record, with the id.
        let call = crate::support::Call::post(&format!("/admin/v1/api-keys/{}/rotate", other.key_id));
        let token = admin_token(&app, Role::MerchantAdmin, Some(merchant.id), Vec::new()).await;
        let call = call.header("authorization", format!("Bearer {token}")).json(&[]);
        assert_eq!(app.send(call).await.status, 404);
        app.flush().await;

        let path = format!("/console/m/{}/audit", merchant.id);
        let all = rows(&app, &admin, &path).await;
        let named = |row: &&String| row.contains("API key revoked") && row.contains(">Till</p>");
        assert!(all.iter().any(|row| named(&row)), "{all:?}");
        let tried = all.iter().find(|row| row.contains(&other.key_id.to_string()));
        assert!(tried.is_some_and(|row| !row.contains("Secret plans")), "{all:?}");
        let operator = app.person("ops@gate.example", Role::Operator, None).await;
        let all = rows(&app, &operator, "/console/audit").await;
        assert!(all.iter().any(|row| row.contains("Secret plans")), "operators see every name");
    })
    .await;
}
