//! Scopes on the console. They are chosen from the list of those that exist. Before some are taken away, a
//! page shows who uses them.

use tollgate::config::Settings;
use tollgate::domain::admin::Role;

use super::people::{Person, field};
use crate::support::{Merchant, TestApp, each_engine, each_engine_with};

const ADA: &str = "ada@harbour.example";

fn listing(settings: &mut Settings) {
    settings.tokens.scopes = vec!["read".to_owned(), "write".to_owned()];
    settings.tokens.scope_descriptions = [("read".to_owned(), "See <payments>".to_owned())].into();
}

fn key_path(merchant: &Merchant) -> String {
    format!("/console/m/{}/api-keys/{}", merchant.id, merchant.key_id)
}

/// The settings form of the key as it is now, with this choice of scopes.
async fn save(app: &TestApp, person: &Person, path: &str, scopes: &[(&str, &str)]) -> crate::support::Reply {
    let version = field(&app.page(person, path).await, "version");
    let settings = [
        ("name", "Shop"),
        ("ip_mode", "enforce"),
        ("webhook_format", "single_json"),
        ("version", version.as_str()),
    ];
    app.send(person.post(path, &[&settings, scopes].concat())).await
}

async fn scopes_of(app: &TestApp, merchant: &Merchant) -> Option<String> {
    let key =
        app.core().api_key(&tollgate::flows::principal::Principal::command_line(), merchant.key_id).await;
    key.expect("there is a key").scopes.map(|scopes| scopes.to_string())
}

#[tokio::test]
async fn the_scopes_that_exist_are_boxes_with_what_each_allows() {
    each_engine_with(listing, async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let form = app.page(&person, &key_path(&merchant)).await;
        for part in
            ["name=\"scopes[]\" value=\"read\"", "name=\"scopes[]\" value=\"write\"", "See &#60;payments"]
        {
            assert!(form.contains(part), "no {part} in {form}");
        }
        let both =
            [("scope_mode", "some"), ("scopes[]", "read"), ("scopes[]", "write"), ("confirmed", "narrow")];
        assert_eq!(save(&app, &person, &key_path(&merchant), &both).await.status, 303);
        assert_eq!(scopes_of(&app, &merchant).await.as_deref(), Some("read write"));

        let none = save(&app, &person, &key_path(&merchant), &[("scope_mode", "some")]).await;
        assert_eq!(none.status, 422);
        assert!(none.text().contains("id=\"scopes-mistake\""), "{}", none.text());
        let all = save(&app, &person, &key_path(&merchant), &[("scope_mode", "all")]).await;
        assert_eq!((all.status, scopes_of(&app, &merchant).await), (303, None));
    })
    .await;
}

#[tokio::test]
async fn without_a_list_names_are_typed() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        assert!(app.page(&person, &key_path(&merchant)).await.contains("<textarea id=\"scopes\""));
        let typed = [("scope_mode", "some"), ("scopes", "a  b"), ("confirmed", "narrow")];
        assert_eq!(save(&app, &person, &key_path(&merchant), &typed).await.status, 303);
        assert_eq!(scopes_of(&app, &merchant).await.as_deref(), Some("a b"));
    })
    .await;
}

#[tokio::test]
async fn taking_scopes_away_first_shows_who_used_them_in_the_last_30_days() {
    each_engine_with(listing, async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let ask = |scope| merchant.call().form(&merchant.fields(&[("scope", scope)]));
        let tokens = app.send(ask("write")).await.tokens();
        app.send(merchant.refresh(&tokens.refresh)).await.tokens();
        app.send(ask("read")).await.tokens();
        let check = crate::support::Call::get("/api/verify-scope/write/orders").key(&merchant.key);
        assert_eq!(app.send(check.header("access-token", &tokens.access)).await.status, 200);
        app.flush().await;

        let path = key_path(&merchant);
        let narrow = [("scope_mode", "some"), ("scopes[]", "read")];
        let asked = save(&app, &person, &path, &narrow).await;
        assert_eq!(asked.status, 200);
        let page = asked.text();
        assert!(page.contains(&merchant.client_id) && page.contains("<code>write</code>"), "{page}");
        assert!(page.contains("data-label=\"Tokens issued\" class=\"num\">2<"), "{page}");
        assert!(page.contains("data-label=\"Checks passed\" class=\"num\">1<"), "{page}");
        assert!(!page.contains("<code>read</code></td>"), "a scope that stays is listed: {page}");
        assert_eq!(scopes_of(&app, &merchant).await, None, "nothing is saved yet");

        let hidden: Vec<(String, String)> = page
            .split("<input type=\"hidden\" name=\"")
            .skip(1)
            .filter_map(|rest| rest.split_once("\" value=\""))
            .map(|(name, rest)| (name.to_owned(), rest.split('"').next().unwrap_or_default().to_owned()))
            .collect();
        let fields: Vec<(&str, &str)> =
            hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(app.send(person.post(&path, &fields)).await.status, 303);
        assert_eq!(scopes_of(&app, &merchant).await.as_deref(), Some("read"));

        // Adding scopes takes nothing away, so no page asks.
        let wide = [("scope_mode", "some"), ("scopes[]", "read"), ("scopes[]", "write")];
        assert_eq!(save(&app, &person, &path, &wide).await.status, 303);
    })
    .await;
}

#[tokio::test]
async fn client_credentials_have_scopes_of_their_own_within_those_of_the_key() {
    each_engine_with(listing, async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let path = format!("{}/tokens/{}/scopes", key_path(&merchant), merchant.client_id);
        let version = field(&app.page(&person, &path).await, "version");
        let fields = |scope| [("version", version.as_str()), ("scope_mode", "some"), ("scopes[]", scope)];
        let asked = app.send(person.post(&path, &fields("read"))).await;
        assert!(asked.status == 200 && asked.text().contains("Remove scopes"), "{}", asked.text());
        let confirmed = [&fields("read")[..], &[("confirmed", "narrow")]].concat();
        assert_eq!(app.send(person.post(&path, &confirmed)).await.status, 303);
        let issued = app.send(merchant.authorize()).await.json();
        assert_eq!(issued["scope"], "read");
    })
    .await;
}
