//! Admin tokens on the console: service tokens with permissions, rotation, and revoking after a confirmation.

use tollgate::domain::admin::Role;

use super::people::field;
use crate::support::{Call, TestApp, each_engine};

const ADA: &str = "ada@harbour.example";

/// The secret that a page shows.
fn shown(page: &str, id: &str) -> String {
    let rest = page.split(&format!("id=\"{id}\"")).nth(1).unwrap_or_else(|| panic!("no {id} in {page}"));
    let rest = rest.split_once('>').expect("the tag ends").1;
    rest.split('<').next().unwrap_or_default().to_owned()
}

fn exchanges(merchant: tollgate::domain::ids::MerchantId, token: &str) -> Call {
    Call::get(&format!("/admin/v1/merchants/{merchant}/exchanges"))
        .header("authorization", format!("Bearer {token}"))
}

async fn token_id(app: &TestApp) -> String {
    let principal = tollgate::flows::principal::Principal::command_line();
    let tokens = app.core().admin_tokens(&principal, None, 1).await.expect("the store answers");
    tokens.first().expect("there is a token").id.to_string()
}

#[tokio::test]
async fn a_service_token_is_made_with_permissions_addresses_and_an_end() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let path = format!("/console/m/{}/people/tokens", merchant.id);
        let form = app.page(&person, &path).await;
        assert!(
            form.contains("value=\"exchanges.read\"") && !form.contains("value=\"licences.write\""),
            "{form}"
        );
        let once = field(&form, "once");
        let fields = [
            ("once", once.as_str()),
            ("name", "Reporter"),
            ("role", "service"),
            ("permissions[]", "exchanges.read"),
            ("permissions[]", "audit.read"),
            ("allowed_ips", "192.0.2.0/24\n"),
            ("expires_on", "2099-01-01"),
        ];
        let made = app.send(person.post(&path, &fields)).await;
        assert_eq!(made.status, 200, "{}", made.text());
        let token = shown(&made.text(), "made");
        assert_eq!(app.send(exchanges(merchant.id, &token).from("192.0.2.7")).await.status, 200);
        assert_eq!(app.send(exchanges(merchant.id, &token).from("198.51.100.7")).await.status, 401);
        let page = app.page(&person, &path).await;
        for part in ["Reporter", "exchanges.read</span>", "audit.read</span>", "192.0.2.0/24", "2099-01-02"] {
            assert!(page.contains(part), "no {part} in {page}");
        }
        assert!(!page.contains(&token), "shown a second time");
    })
    .await;
}

#[tokio::test]
async fn a_mistake_in_the_form_of_a_token_is_at_its_field_and_the_rest_is_kept() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let path = format!("/console/m/{}/people/tokens", merchant.id);
        let fields = [
            ("name", "Keep <me>"),
            ("role", "service"),
            ("allowed_ips", "here"),
            ("permissions[]", "revoke"),
        ];
        let reply = app.send(person.post(&path, &fields)).await;
        assert_eq!(reply.status, 422);
        let page = reply.text();
        for part in
            ["id=\"allowed_ips-mistake\"", "autofocus", "value=\"Keep &#60;me&#62;\"", ">here</textarea>"]
        {
            assert!(page.contains(part), "no {part} in {page}");
        }
        assert!(page.contains("value=\"revoke\" checked"), "{page}");
        let none = [("name", "n"), ("role", "service")];
        assert!(app.send(person.post(&path, &none)).await.text().contains("id=\"permissions-mistake\""));
    })
    .await;
}

#[tokio::test]
async fn a_token_is_rotated_with_overlap_and_revoked_after_a_question() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let other = app.merchant().await;
        let stranger = app.person("eve@harbour.example", Role::MerchantAdmin, Some(other.id)).await;
        let viewer = app.person("vic@harbour.example", Role::MerchantViewer, Some(merchant.id)).await;
        let path = format!("/console/m/{}/people/tokens", merchant.id);
        let fields = [("name", "T"), ("role", "service"), ("permissions[]", "exchanges.read")];
        let first = shown(&app.send(person.post(&path, &fields)).await.text(), "made");
        let id = token_id(&app).await;

        let rotate = format!("{path}/{id}/rotate");
        let once = field(&app.page(&person, &rotate).await, "once");
        let rotated = app.send(person.post(&rotate, &[("once", &once), ("overlap_secs", "3600")])).await;
        let second = shown(&rotated.text(), "new-secret");
        for token in [&first, &second, &first] {
            assert_eq!(app.send(exchanges(merchant.id, token)).await.status, 200);
        }
        app.advance(chrono::TimeDelta::hours(1));
        assert_eq!(app.send(exchanges(merchant.id, &first)).await.status, 401);

        let person = super::people::Person { cookie: app.cookie_again(ADA).await, ..person };
        let stranger = super::people::Person { cookie: app.cookie_again(stranger.email).await, ..stranger };
        let viewer = super::people::Person { cookie: app.cookie_again(viewer.email).await, ..viewer };
        app.flush().await;
        let revoke = format!("{path}/{id}/revoke");
        let question = app.page(&person, &revoke).await;
        assert!(question.contains("cannot be undone") && question.contains("Last used"), "{question}");
        assert_eq!(app.send(exchanges(merchant.id, &second)).await.status, 200, "asking revokes nothing");
        let foreign = format!("/console/m/{}/people/tokens/{id}/revoke", other.id);
        assert_eq!(app.send(stranger.get(&foreign)).await.status, 404);
        assert_eq!(app.send(stranger.post(&foreign, &[])).await.status, 404);
        assert_eq!(app.send(viewer.post(&revoke, &[])).await.status, 403);
        assert_eq!(app.send(person.post(&revoke, &[])).await.status, 303);
        assert_eq!(app.send(exchanges(merchant.id, &second)).await.status, 401);
    })
    .await;
}

#[tokio::test]
async fn a_token_is_renamed_and_a_mistake_keeps_what_was_typed() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let viewer = app.person("vic@harbour.example", Role::MerchantViewer, Some(merchant.id)).await;
        let path = format!("/console/m/{}/people/tokens", merchant.id);
        let fields = [("name", "Old"), ("role", "service"), ("permissions[]", "exchanges.read")];
        app.send(person.post(&path, &fields)).await;
        let rename = format!("{path}/{}/rename", token_id(&app).await);
        assert!(app.page(&person, &path).await.contains(&rename));
        assert!(app.page(&person, &rename).await.contains("value=\"Old\""));
        assert_eq!(app.send(viewer.get(&rename)).await.status, 403);
        assert_eq!(app.send(viewer.post(&rename, &[("name", "Mine")])).await.status, 422);
        let long = "x".repeat(201);
        let mistaken = app.send(person.post(&rename, &[("name", &long)])).await;
        assert_eq!(mistaken.status, 422);
        assert!(mistaken.text().contains("id=\"name-mistake\"") && mistaken.text().contains(&long));
        let returned = [("name", "Returned"), ("restored", "true")];
        assert!(app.send(person.post(&rename, &returned)).await.text().contains("value=\"Returned\""));
        assert_eq!(app.send(person.post(&rename, &[("name", "New")])).await.status, 303);
        let page = app.page(&person, &path).await;
        assert!(page.contains(">New") && !page.contains("Returned") && !page.contains("Mine"), "{page}");
    })
    .await;
}

#[tokio::test]
async fn a_user_gets_another_address_and_a_link_to_set_a_password() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let bea = app.person("bea@harbour.example", Role::MerchantViewer, Some(merchant.id)).await;
        let base = format!("/console/m/{}/people", merchant.id);
        let rename = format!("{base}/users/{}/rename", bea.id);
        assert!(app.page(&person, &base).await.contains(&rename));
        assert!(app.page(&person, &rename).await.contains("the password ends"));
        let taken = app.send(person.post(&rename, &[("name", ADA)])).await;
        assert!(taken.status == 422 && taken.text().contains("id=\"email-mistake\""), "{}", taken.text());
        assert!(app.is_signed_in(&bea).await);
        let renamed = app.send(person.post(&rename, &[("name", "bee@harbour.example")])).await;
        assert_eq!(renamed.status, 200, "{}", renamed.text());
        assert!(renamed.text().contains("/console/once?token="), "{}", renamed.text());
        assert!(!app.is_signed_in(&bea).await, "the session of the earlier address");
        let own = format!("{base}/users/{}/rename", person.id);
        assert_eq!(app.send(person.post(&own, &[("name", "me@harbour.example")])).await.status, 409);
    })
    .await;
}
