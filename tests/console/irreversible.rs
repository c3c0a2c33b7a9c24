//! An action that cannot be undone asks first and shows what depends on it. Afterwards the page says what
//! happened.

use tollgate::domain::admin::Role;
use tollgate::flows::manage_credentials::RotatedBy;
use tollgate::flows::principal::Principal;
use tollgate::store::sessions::Filter;

use super::people::Person;
use crate::support::merchant::made;
use crate::support::{TestApp, each_engine};

const ADA: &str = "ada@harbour.example";

/// Opens the page that asks, which must change nothing, and confirms. Returns what the next page says.
async fn confirmed(app: &TestApp, person: &Person, path: &str, fields: &[(&str, &str)]) -> String {
    let asks_at = if path.ends_with("/switch") { format!("{path}-off") } else { path.to_owned() };
    let question = app.page(person, &asks_at).await;
    for (name, value) in fields {
        assert!(question.contains(&format!("name=\"{name}\" value=\"{value}\"")), "{question}");
    }
    let reply = app.send(person.post(path, fields)).await;
    assert_eq!(reply.status, 303, "{}", reply.text());
    app.page(person, &reply.header("location").expect("a redirect")).await
}

#[tokio::test]
async fn switching_off_and_revoking_a_key_say_how_many_sessions_they_end() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        for _ in 0..2 {
            app.tokens(&merchant).await;
        }
        app.flush().await;
        let base = format!("/console/m/{}/api-keys/{}", merchant.id, merchant.key_id);
        let switch = format!("{base}/tokens/{}/switch", merchant.client_id);
        let question = app.page(&person, &format!("{switch}-off")).await;
        assert!(question.contains("<dt>Active sessions</dt><dd>2</dd>"), "{question}");
        assert!(question.contains("<dt>Last used</dt><dd>just now"), "{question}");
        let before = app.page(&person, &format!("{base}/tokens")).await;
        assert!(before.contains("aria-checked=\"true\""), "asking switched it");
        let after = confirmed(&app, &person, &switch, &[("enabled", "false")]).await;
        assert!(after.contains("Enhanced Security is OFF. 2 sessions ended."), "{after}");
        assert!(after.contains("the API key alone is enough"), "{after}");

        let on = app.send(person.post(&switch, &[("enabled", "true")])).await;
        assert!(on.header("location").is_some_and(|to| to.ends_with("done=switched-on")));
        app.tokens(&merchant).await;
        let after = confirmed(&app, &person, &format!("{base}/revoke"), &[]).await;
        assert!(after.contains("The key was revoked. 1 session ended."), "{after}");
    })
    .await;
}

#[tokio::test]
async fn ending_a_session_suspending_and_disabling_ask_first() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let operator = app.person("ops@gate.example", Role::Operator, None).await;
        let user = app.user(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let tokens = app.tokens(&merchant).await;
        let base = format!("/console/m/{}", merchant.id);

        let suspend = format!("{base}/account/status");
        let after = confirmed(&app, &operator, &suspend, &[("status", "suspended")]).await;
        assert!(after.contains("The account is suspended."), "{after}");
        let back = app.send(operator.post(&suspend, &[("status", "active")])).await;
        assert!(back.header("location").is_some_and(|to| to.ends_with("done=reinstated")));

        let by = tollgate::flows::principal::Principal::command_line();
        let sessions = app.core().sessions(&by, merchant.id, &Filter::default(), None, 1).await;
        let id = sessions.expect("they may be seen")[0].id;
        let end = format!("{base}/sessions/{id}/end");
        let other = app.merchant().await;
        let foreign = format!("/console/m/{}/sessions/{id}/end", other.id);
        assert_eq!(app.send(operator.get(&foreign)).await.status, 404);
        assert!(app.page(&operator, &end).await.contains(&merchant.client_id));
        app.send(merchant.refresh(&tokens.refresh)).await.tokens();
        assert!(
            confirmed(&app, &operator, &end, &[])
                .await
                .contains("The session ended. Its tokens no longer work.")
        );

        let disable = format!("{base}/people/users/{user}/disable");
        let after = confirmed(&app, &operator, &disable, &[("disabled", "true")]).await;
        assert!(after.contains("The user is disabled and signed out everywhere."), "{after}");
    })
    .await;
}

#[tokio::test]
async fn ending_a_secret_asks_first_and_says_what_it_did() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        app.tokens(&merchant).await;
        app.flush().await;
        let by = Principal::command_line();
        let key = made(app.core().rotate_api_key(&by, merchant.key_id, 3600).await).object;
        let rotated = RotatedBy::Manager { client_id: &merchant.client_id };
        let client = made(app.core().rotate_client_secret(&by, rotated, 3600).await).object;
        let base = format!("/console/m/{}/api-keys/{}", merchant.id, merchant.key_id);
        let clients = format!("{base}/tokens/{}", merchant.client_id);
        for (base, secrets) in [(base, key.secrets), (clients, client.secrets)] {
            let end = format!("{base}/secrets/{}/end", secrets[1].id);
            let question = app.page(&person, &end).await;
            assert!(question.contains("<dt>Last used</dt><dd>just now"), "{question}");
            assert!(question.contains("This secret may still be in use."), "{question}");
            let after = confirmed(&app, &person, &end, &[]).await;
            assert!(after.contains("The secret ended. Calls with it are refused."), "{after}");
            assert_eq!(app.send(person.get(&end)).await.status, 404, "it has ended");
            let newest = format!("{base}/secrets/{}/end", secrets[0].id);
            assert_eq!(app.send(person.get(&newest)).await.status, 404, "the newest cannot be ended");
        }
        app.send(merchant.authorize()).await.refused(401, "invalid_client");
    })
    .await;
}
