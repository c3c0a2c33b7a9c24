//! Forms: every mistake at its field with all values kept, and forms that come back after a sign-in.

use chrono::TimeDelta;
use tollgate::domain::admin::Role;

use super::people::{PASSWORD, Person, cookie_of, field, from_a_page};
use crate::support::{Reply, TestApp, each_engine};

const ADA: &str = "ada@harbour.example";
const BEA: &str = "bea@harbour.example";

#[tokio::test]
async fn every_mistake_is_at_its_field_and_all_values_are_kept() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let fields = [
            ("name", " "),
            ("environment", "live"),
            ("allowed_ips", "203.0.113.7\nnonsense"),
            ("ip_mode", "observe"),
            ("webhook_format", "single_json"),
            ("webhook_url", "ftp://x.example"),
            ("expires_on", "soon"),
        ];
        let base = format!("/console/m/{}/api-keys", merchant.id);
        for path in [base.clone(), format!("{base}/{}", merchant.key_id)] {
            let reply = app.send(person.post(&path, &fields)).await;
            assert_eq!(reply.status, 422);
            let page = reply.text();
            for field in ["name", "allowed_ips", "webhook_url", "expires_on"] {
                assert!(page.contains(&format!("id=\"{field}-mistake\"")), "no mistake at {field}: {page}");
            }
            assert_eq!(page.matches(" autofocus").count(), 1, "the focus is at one field");
            assert!(page.contains("aria-describedby=\"name-mistake\" autofocus"), "{page}");
            for kept in ["nonsense</textarea>", "value=\"ftp://x.example\"", "value=\"observe\" checked"] {
                assert!(page.contains(kept), "{kept} is lost: {page}");
            }
        }
        let path = format!("/console/m/{}/people/users", merchant.id);
        let reply = app.send(person.post(&path, &[("email", "nobody"), ("role", "merchant_viewer")])).await;
        let page = reply.text();
        assert!(reply.status == 422 && page.contains("id=\"email-mistake\""), "{page}");
        assert!(
            page.contains("value=\"nobody\"") && page.contains("value=\"merchant_viewer\" selected"),
            "{page}"
        );
        let taken = app.send(person.post(&path, &[("email", ADA), ("role", "merchant_admin")])).await;
        assert!(taken.text().contains("id=\"email-mistake\""), "{}", taken.text());

        let operator = app.person("ops@gate.example", Role::Operator, None).await;
        let fields = [("name", ""), ("gateway", ""), ("once", "")];
        for path in ["/console/merchants".to_owned(), format!("/console/m/{}/account", merchant.id)] {
            let page = app.send(operator.post(&path, &fields)).await.text();
            assert!(
                page.contains("id=\"name-mistake\"") && page.contains("id=\"gateway-mistake\""),
                "{page}"
            );
        }
        let licence = format!("/console/m/{}/account/licences/api_keys", merchant.id);
        let late = app.send(operator.post(&licence, &[("active", "true"), ("expires_on", "never")])).await;
        assert!(late.text().contains("id=\"api_keys-mistake\""), "{}", late.text());
        let passwords = [("current", PASSWORD), ("password", "three blind mice"), ("again", "other")];
        let page = app.send(person.post("/console/account/password", &passwords)).await.text();
        assert!(page.contains("id=\"again-mistake\"") && !page.contains("three blind mice"), "{page}");
    })
    .await;
}

/// Signs in on the page that a reply shows, with all its hidden fields.
async fn sign_in_on(app: &TestApp, email: &str, page: &str) -> Reply {
    let hidden = ["next", "form"].map(|name| (name, unescaped(&field(page, name))));
    let mut fields = vec![("email", email), ("password", PASSWORD)];
    fields.extend(hidden.iter().map(|(name, value)| (*name, value.as_str())));
    app.send(from_a_page("/console/sign-in", &fields)).await
}

fn unescaped(text: &str) -> String {
    text.replace("&#38;", "&").replace("&#34;", "\"").replace("&#39;", "'")
}

#[tokio::test]
async fn a_form_comes_back_with_its_values_after_a_sign_in_that_became_necessary() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        app.advance(TimeDelta::hours(13));
        let path = format!("/console/m/{}/api-keys", merchant.id);
        let fields = [
            ("name", "Tills & more \"2\""),
            ("environment", "live"),
            ("allowed_ips", "203.0.113.7\n198.51.100.0/24"),
            ("ip_mode", "observe"),
            ("webhook_format", "single_json"),
        ];
        let asked = app.send(person.post(&path, &fields)).await;
        assert_eq!(asked.status, 200, "the sign-in page");
        assert!(!asked.text().contains("Tills"), "what was typed is sealed");
        app.person(BEA, Role::MerchantAdmin, Some(merchant.id)).await;
        let other = sign_in_on(&app, BEA, &asked.text()).await;
        assert_eq!(other.status, 303, "somebody else does not get the form");
        let signed_in = sign_in_on(&app, ADA, &asked.text()).await;
        let person = Person { cookie: cookie_of(&signed_in), ..person };
        let page = signed_in.text();
        assert!(page.contains(&format!("action=\"{path}\"")), "{page}");
        let names = ["name", "environment", "allowed_ips", "ip_mode", "webhook_format", "restored"];
        let back = names.map(|name| (name, unescaped(&field(&page, name))));
        let back: Vec<(&str, &str)> = back.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let restored = app.send(person.post(&path, &back)).await;
        assert_eq!(restored.status, 200);
        let form = restored.text();
        for kept in
            ["value=\"Tills &#38; more &#34;2&#34;\"", "value=\"live\" checked", "198.51.100.0/24</textarea>"]
        {
            assert!(form.contains(kept), "{kept} is lost: {form}");
        }
        assert_eq!(app.number("select count(*) from api_keys").await, 1, "nothing is made before Save");

        // Forms that cannot come back do nothing if they claim to, and are not kept.
        let switch = format!("{path}/{}/tokens/{}/switch", merchant.key_id, merchant.client_id);
        let claims = [("enabled", "false"), ("restored", "true")];
        assert_eq!(app.send(person.post(&switch, &claims)).await.status, 400);
        app.advance(TimeDelta::hours(13));
        let passwords =
            [("current", PASSWORD), ("password", "three blind mice"), ("again", "three blind mice")];
        let reply = app.send(person.post("/console/account/password", &passwords)).await;
        assert_eq!((reply.status, reply.text().contains("mice")), (303, false));
        let long = "x".repeat(9 * 1024);
        assert_eq!(app.send(person.post(&path, &[("name", &long)])).await.status, 303, "it has a limit");
        let page = format!("http://gate.example{path}/new");
        let reply = app.send(person.post(&path, &[("name", &long)]).header("referer", page)).await;
        let to = reply.header("location").expect("a redirect");
        assert!(to.ends_with("api%2Dkeys%2Fnew"), "{to}");
    })
    .await;
}

#[tokio::test]
async fn whoever_signs_in_with_a_link_is_led_to_the_form_for_a_password() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let id = app.user(ADA, Role::MerchantViewer, Some(merchant.id)).await;
        let by = tollgate::flows::principal::Principal::command_line();
        let link = app.core().make_sign_in_link(&by, id).await.expect("it is not refused");
        let reply = app.send(from_a_page("/console/once", &[("token", link.expose())])).await;
        let person = Person { id, email: ADA, cookie: cookie_of(&reply) };
        let welcome = app.send(person.get(&reply.header("location").expect("a redirect"))).await;
        assert_eq!(welcome.header("location").as_deref(), Some("/console/account"));
        let page = app.page(&person, "/console/account").await;
        let main = page.split("<main").nth(1).expect("there is a page");
        assert!(main.contains("Set your password") && main.contains("required autofocus"), "{main}");
    })
    .await;
}
