//! How many statements a page of a list needs.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::json;
use tollgate::domain::admin::{Role, User};
use tollgate::domain::ids::UserId;
use tollgate::flows::manage_keys::NewApiKey;
use tollgate::flows::manage_merchants::NewMerchant;
use tollgate::flows::principal::Principal;
use tollgate::store::users;

use crate::admin::{Admin, admin_token};
use crate::console::people::Person;
use crate::support::merchant::{Merchant, made, plain_key};
use crate::support::{TestApp, each_engine_with};
use crate::webhooks::to_this_machine;

/// The most statements of a page: for the caller, for the object of the list, and for the list. The page of a key
/// has seven lists.
const STATEMENTS_MAX: u64 = 14;

#[tokio::test]
async fn a_page_of_fifty_rows_takes_as_many_statements_as_a_page_of_one() {
    each_engine_with(to_this_machine, async |app| {
        // Nobody listens there, so each delivery has a failed attempt.
        let webhook_url = Some("http://127.0.0.1:9/".to_owned());
        let merchant = app.merchant_with(NewApiKey { webhook_url, ..plain_key() }).await;
        let admin = Admin::operator(&app).await;
        let person = app.person("ada@harbour.example", Role::Operator, None).await;
        add_a_row_to_each_list(&app, &admin, &merchant, 0).await;
        let of_one = statements_by_page(&app, &admin, &person, &merchant).await;
        for number in 1..50 {
            add_a_row_to_each_list(&app, &admin, &merchant, number).await;
        }
        let of_fifty = statements_by_page(&app, &admin, &person, &merchant).await;
        assert_eq!(of_one, of_fifty);
        assert!(of_fifty.values().all(|count| *count <= STATEMENTS_MAX), "{of_fifty:#?}");
    })
    .await;
}

async fn add_a_row_to_each_list(app: &TestApp, admin: &Admin<'_>, merchant: &Merchant, number: usize) {
    let by = Principal::command_line();
    let (core, plain) = (app.core(), plain_key());
    let new = NewMerchant { name: format!("Shop {number}"), gateway: "demo".to_owned() };
    made(core.create_merchant(&by, new).await);
    let key = made(core.create_api_key(&by, merchant.id, plain).await).object.id;
    made(core.rotate_api_key(&by, key, 3600).await);
    made(core.generate_credentials(&by, key, None).await);
    // The first key has credentials from the start, and 50 at the most.
    if number < 49 {
        made(core.generate_credentials(&by, merchant.key_id, None).await);
    }
    for merchant_id in [None, Some(merchant.id)] {
        let role = if merchant_id.is_some() { Role::MerchantAdmin } else { Role::Operator };
        let user = User {
            id: UserId::generate(app.now(), &core.entropy),
            email: format!("{number}.{}@harbour.example", <&str>::from(role)),
            role,
            merchant_id,
            locked_until: None,
            has_totp: false,
            disabled_at: None,
            version: 1,
            created_at: app.now(),
            updated_at: app.now(),
            last_login_at: None,
        };
        let mut tx = core.store.begin().await.expect("the store answers");
        users::insert(&mut tx, &user, "no hash").await.expect("the address is free");
        tx.commit().await.expect("the store answers");
        admin_token(app, role, merchant_id, Vec::new()).await;
    }
    app.tokens(merchant).await;
    let event = json!({ "type": "payment.settled", "data": { "number": number } });
    let path = format!("/merchants/{}/events", merchant.id);
    let published = admin.post(&path, event).await;
    assert!(published.status < 300, "{}", published.text());
}

/// How many statements each page takes.
async fn statements_by_page(
    app: &TestApp,
    admin: &Admin<'_>,
    person: &Person,
    merchant: &Merchant,
) -> BTreeMap<String, u64> {
    let Merchant { id, key_id, .. } = merchant;
    let calls = [
        "/merchants".to_owned(),
        format!("/merchants/{id}/api-keys"),
        format!("/api-keys/{key_id}/credentials"),
        "/users".to_owned(),
        "/tokens".to_owned(),
        format!("/merchants/{id}/sessions"),
        format!("/merchants/{id}/exchanges"),
        format!("/merchants/{id}/webhook-deliveries"),
        format!("/merchants/{id}/audit-events"),
        "/audit-events".to_owned(),
        "/audit-events/latest".to_owned(),
    ]
    .map(|path| (admin.call(Method::GET, &path), path));
    let screens = [
        "/console/merchants".to_owned(),
        "/console/people".to_owned(),
        format!("/console/m/{id}"),
        format!("/console/m/{id}/api-keys"),
        format!("/console/m/{id}/api-keys/{key_id}"),
        format!("/console/m/{id}/api-keys/{key_id}/tokens"),
        format!("/console/m/{id}/webhooks"),
        format!("/console/m/{id}/sessions"),
        format!("/console/m/{id}/api-details"),
        format!("/console/m/{id}/audit"),
        format!("/console/m/{id}/people"),
    ]
    .map(|path| (person.get(&path), path));
    app.flush().await;
    app.deliver().await;
    let mut counts = BTreeMap::new();
    for (call, path) in calls.into_iter().chain(screens) {
        // The first call fills the cache and is recorded once an hour, so measure the next one.
        app.send(call.clone()).await;
        let before = app.core().store.statements();
        let reply = app.send(call).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        counts.insert(path, app.core().store.statements() - before);
    }
    counts
}
