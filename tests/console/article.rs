//! Follows the article for merchants click by click in a browser, with the real program: from
//! no key at all to a pasted command that gets tokens.

use std::process::Command;

use serde_json::Value;
use tollgate::store::Engine;

use super::browser::Browser;
use crate::support::Database;
use crate::support::program::{Server, stdout_of, tollgate};

const PASSWORD: &str = "correct horse battery";

/// Runs an operator's command beside the server.
fn operator(database: &Database, arguments: &[&str]) -> Value {
    let directory = format!("--data-dir={}", database.directory().display());
    let url = format!("--database-url={}", database.url);
    let mut command = tollgate(&[&[directory.as_str(), url.as_str()], arguments].concat());
    command.env("TOLLGATE__TOKENS__KEYS", hex::encode(crate::support::app::TOKEN_KEY));
    serde_json::from_str(&stdout_of(&mut command)).expect("--json prints JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("the answer has this field")
}

/// A merchant with both licences, and an administrator of it.
fn merchant_with_admin(database: &Database, gateway: &str) -> (String, String) {
    let made = operator(database, &["merchant", "add", "Harbour Books", "--gateway", gateway, "--json"]);
    let id = text(&made["id"]).to_owned();
    for product in ["api_keys", "enhanced_security"] {
        operator(database, &["licence", "grant", &id, product, "--json"]);
    }
    let file = database.directory().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).expect("the directory can be written");
    let email = "ada@harbour.example";
    let file = file.to_str().expect("temporary directories have plain names");
    operator(
        database,
        &[
            "user",
            "add",
            email,
            "--role",
            "merchant_admin",
            "--merchant",
            &id,
            "--password-file",
            file,
            "--json",
        ],
    );
    (id, email.to_owned())
}

async fn sign_in(browser: &Browser, email: &str) {
    browser.goto("/console").await;
    browser.fill("E-mail", email).await;
    browser.fill("Password", PASSWORD).await;
    browser.click("Sign in").await;
}

async fn follow_the_article(engine: Engine, screens: &str) {
    let database = Database::fresh(engine).await;
    let server = Server::serve(&database);
    let (_, email) = merchant_with_admin(&database, "worldpay_corporate");
    let browser = Browser::open(&format!("http://{}", server.address), screens).await;

    browser.goto("/console").await;
    browser.picture("01-sign-in").await;
    sign_in(&browser, &email).await;

    // "The API key is generated in the Account security > API secret key sub-menu."
    browser.click("API secret key").await;
    browser.sees("No API keys yet").await;
    browser.picture("02-no-key").await;
    browser.click("Generate API key").await;

    // "You can choose to restrict access by IP address ... pick the webhook settings output type."
    browser.fill("Name", "Web shop").await;
    browser.fill("Allowed addresses", "127.0.0.0/8").await;
    browser.click("Multiple JSON data").await;
    browser.picture("03-settings").await;

    // "Now click Save ... You will see your KEY is saved and active."
    browser.click("Save").await;
    browser.sees("Your key is saved and active").await;
    browser.sees("Active").await;
    let key = browser.read("#new-key").await;
    assert_eq!(key.len(), 64);
    browser.picture("04-saved").await;

    // "You will now see an additional button in your Action column ... Generate tokens."
    browser.click("Generate tokens").await;
    browser.sees("Your new access keys").await;
    assert_eq!(browser.attribute("[role=switch]", "aria-checked").await.as_deref(), Some("false"));
    browser.picture("05-access-keys-off").await;
    let secret = browser.read("code[id^=secret-]").await;

    // "To activate the service use the radio slider set to Green = ON."
    browser.press("[role=switch]").await;
    browser.sees("ON").await;
    assert_eq!(
        browser.attribute("[role=switch][aria-checked=true]", "type").await.as_deref(),
        Some("submit")
    );
    assert_eq!(green_of_the_switch(&browser).await, "rgb(23, 114, 69)");

    // "Now copy the Client ID and Client Secret": both are still there.
    assert_eq!(browser.read("code[id^=secret-]").await, secret);
    assert_eq!(browser.read("code[id^=id-]").await.len(), 32);
    browser.picture("06-access-keys-on").await;

    let command = browser.read("#curl").await;
    assert!(command.contains(&key) && command.contains(&secret), "not ready to paste: {command}");
    let answer = Command::new("sh").args(["-c", &command]).output().expect("there is a shell");
    let answer: Value = serde_json::from_slice(&answer.stdout).expect("the API answers JSON");
    assert_eq!(answer["httpStatus"], true, "{answer}");
    assert_eq!(text(&answer["access_token"]).len(), 60);

    // It is shown only once: the same page has no secret when it is opened again.
    browser.goto(&browser.path().await).await;
    browser.sees("Client secrets").await;
    let page = browser.text().await;
    assert!(!page.contains(&secret) && !page.contains(&key), "a secret is shown a second time");
    browser.picture("07-access-keys-later").await;
    browser.close().await;
}

async fn green_of_the_switch(browser: &Browser) -> String {
    let script = "return getComputedStyle(document.querySelector('[role=switch]')).backgroundColor";
    browser.run(script).await.as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_article_ends_in_a_command_that_gets_tokens_on_sqlite() {
    follow_the_article(Engine::Sqlite, "sqlite").await;
}

#[tokio::test]
async fn the_article_ends_in_a_command_that_gets_tokens_on_postgresql() {
    follow_the_article(Engine::Postgres, "postgresql").await;
}
