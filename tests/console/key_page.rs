//! The page of one key, and the page of one webhook that was sent for it.

use tollgate::domain::admin::Role;
use tollgate::flows::manage_keys::NewApiKey;
use tollgate::flows::principal::Principal;

use super::people::field;
use crate::support::each_engine;
use crate::support::each_engine_with;
use crate::support::merchant::{made, plain_key};
use crate::support::receiver::{Answering, Receiver};
use crate::webhooks::to_this_machine;

const ADA: &str = "ada@harbour.example";
const BEA: &str = "bea@harbour.example";

/// The section of a page with this id.
fn section<'a>(page: &'a str, id: &str) -> &'a str {
    let rest = page.split(&format!("id=\"{id}\"")).nth(1).unwrap_or_else(|| panic!("no {id} in {page}"));
    rest.split("</section>").next().unwrap_or_default()
}

#[tokio::test]
async fn the_page_of_a_key_has_all_that_belongs_to_it() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let other = app.key_of(merchant.id, NewApiKey { name: "Other".to_owned(), ..plain_key() }).await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        app.send(merchant.authorize().from("203.0.113.7")).await.tokens();
        app.send(merchant.refresh("junk")).await.refused(400, "invalid_grant");
        app.tokens(&other).await;
        app.send(other.refresh("junk")).await.refused(400, "invalid_grant");
        app.flush().await;

        let path = format!("/console/m/{}/api-keys/{}", merchant.id, merchant.key_id);
        let page = app.page(&person, &path).await;
        let usage = section(&page, "usage");
        assert!(usage.contains("<dt>Calls answered</dt><dd>1</dd>"), "{usage}");
        assert!(usage.contains("<dt>Calls denied</dt><dd>1</dd>"), "{usage}");
        let denied = usage.split("href=\"").filter_map(|rest| rest.split('"').next());
        let denied = denied.filter(|to| to.contains("denied=")).last().expect("a link").replace("&#38;", "&");
        // Exactly those that were counted, also if there are more by now.
        app.advance(chrono::TimeDelta::seconds(1));
        app.send(merchant.refresh("junk")).await.refused(400, "invalid_grant");
        app.flush().await;
        assert_eq!(app.page(&person, &denied).await.matches("<td data-label=\"Status\">").count(), 1);
        assert!(section(&page, "clients").contains(&merchant.client_id));
        assert!(!page.contains(&other.client_id), "another key's access keys");
        assert_eq!(section(&page, "sessions").matches("<td data-label=\"Status\">").count(), 1);
        assert!(section(&page, "addresses").contains("<code>203.0.113.7</code>"));
        assert!(section(&page, "audit").contains("API key created"), "{}", section(&page, "audit"));
        assert!(section(&page, "audit").contains("Credentials enabled"));

        // The suggestion is only filled into the form.
        let filled = app.page(&person, &format!("{path}?suggest=true")).await;
        let list = filled.split("<textarea id=\"allowed_ips\"").nth(1).expect("there is a form");
        assert!(list.split("</textarea>").next().is_some_and(|list| list.ends_with("203.0.113.7")), "{list}");
        assert!(!app.page(&person, &path).await.contains(">203.0.113.7</textarea>"), "it was saved");

        let reads = "select count(*) from audit_events where action = 'audit_events.read'";
        assert_eq!(app.number(reads).await, 1, "its reader is on record once an hour");
        let listed = app.page(&person, &format!("/console/m/{}/api-keys", merchant.id)).await;
        assert!(listed.contains(&format!("href=\"{path}\"")), "the list does not lead here");
    })
    .await;
}

#[tokio::test]
async fn a_webhook_is_tested_and_its_secret_rotated_on_the_page_of_its_key() {
    each_engine_with(to_this_machine, async |app| {
        let receiver = Receiver::open();
        let key = NewApiKey { webhook_url: Some(receiver.url()), ..plain_key() };
        let merchant = app.merchant_with(key).await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let path = format!("/console/m/{}/api-keys/{}", merchant.id, merchant.key_id);
        let tested = app.send(person.post(&format!("{path}/test-webhook"), &[])).await.text();
        assert!(tested.contains("The receiver answered 204."), "{tested}");

        let form = app.page(&person, &format!("{path}/webhook-secret")).await;
        let once = field(&form, "once");
        let fields = [("once", once.as_str()), ("overlap_secs", "3600")];
        let secret = async || {
            let page = app.send(person.post(&format!("{path}/webhook-secret"), &fields)).await.text();
            let shown = page.split("whsec_").nth(1).and_then(|rest| rest.split('<').next());
            format!("whsec_{}", shown.unwrap_or_else(|| panic!("{page}")))
        };
        let new = secret().await;
        assert_eq!(secret().await, new, "the same form makes one secret");
        receiver.take();
        app.send(person.post(&format!("{path}/test-webhook"), &[])).await;
        let hook = &receiver.until_received(1).await[0];
        assert!(hook.is_signed_with(&new));
        assert_eq!(hook.header("webhook-signature").split(' ').count(), 2, "the earlier one signs too");
    })
    .await;
}

#[tokio::test]
async fn a_webhook_that_was_sent_is_shown_with_the_headers_that_its_receiver_got() {
    each_engine_with(to_this_machine, async |app| {
        let receiver = Receiver::open();
        let body = "<b>out of order</b>".into();
        receiver.answer(Answering::With { status: 500, headers: Vec::new(), body });
        let key = NewApiKey { webhook_url: Some(receiver.url()), ..plain_key() };
        let merchant = app.merchant_with(key).await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let viewer = app.person(BEA, Role::MerchantViewer, Some(merchant.id)).await;
        app.deliver().await;
        let hooks = receiver.until_received(1).await;
        // The secret that signed has ended by now.
        let by = Principal::command_line();
        app.advance(chrono::TimeDelta::seconds(1));
        made(app.core().rotate_webhook_secret(&by, merchant.key_id, 0).await);

        let list = format!("/console/m/{}/webhooks", merchant.id);
        let page = app.page(&person, &list).await;
        let path = page.split("<a href=\"").filter_map(|rest| rest.split('"').next());
        let path =
            path.filter(|to| to.starts_with(&format!("{list}/"))).last().expect("it is listed").to_owned();
        let page = app.page(&person, &path).await;
        let hook = hooks.iter().find(|hook| page.contains(hook.id())).expect("it was received");
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            let line = format!("{name}: {}", hook.header(name).replace('+', "&#43;"));
            assert!(page.replace('+', "&#43;").contains(&line), "{line} in {page}");
        }
        let sent = String::from_utf8(hook.body.to_vec()).expect("it is JSON").replace('"', "&#34;");
        assert!(page.contains(&sent), "{sent} in {page}");
        assert!(
            page.contains("The receiver answered 500.") && page.contains("&#60;b&#62;out of order"),
            "{page}"
        );
        let seen = app.page(&viewer, &path).await;
        assert!(seen.contains(&sent) && !seen.contains("/resend"), "a viewer can only read");
        assert!(!seen.contains(hook.header("webhook-signature")), "and not pass it on as ours");
        let foreign = app.merchant().await;
        let crossed = path.replace(&merchant.id.to_string(), &foreign.id.to_string());
        let operator = app.person("ops@gate.example", Role::Operator, None).await;
        assert_eq!(app.send(operator.get(&crossed)).await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn sessions_are_found_by_key_client_and_status() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let other = app.key_of(merchant.id, NewApiKey { name: "Other".to_owned(), ..plain_key() }).await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let ended = app.tokens(&merchant).await;
        app.tokens(&merchant).await;
        app.tokens(&other).await;
        app.send(merchant.revoke(&ended.refresh)).await;
        app.flush().await;
        // As a date field sends it.
        let hour = &app.now().minus(chrono::TimeDelta::hours(1)).to_rfc3339()[..16];
        let count = async |query: &str| {
            let page = app.page(&person, &format!("/console/m/{}/sessions?{query}", merchant.id)).await;
            page.matches("<td data-label=\"Status\">").count()
        };
        for (query, found) in [
            (String::new(), 3),
            (format!("key={}", merchant.key_id), 2),
            (format!("client_id={}", &other.client_id[..8]), 1),
            (format!("key={}&client_id={}", merchant.key_id, other.client_id), 0),
            ("client_id=%25".to_owned(), 0),
            ("state=active".to_owned(), 2),
            ("state=ended".to_owned(), 1),
            ("state=expired".to_owned(), 0),
            (format!("from={hour}"), 3),
            (format!("to={hour}"), 0),
            (format!("key={}&state=active&from={hour}", merchant.key_id), 1),
        ] {
            assert_eq!(count(&query).await, found, "{query}");
        }
        let page = app.page(&person, &format!("/console/m/{}/sessions", merchant.id)).await;
        assert!(page.contains(">Other</a>"), "sessions are named by their key: {page}");
    })
    .await;
}
