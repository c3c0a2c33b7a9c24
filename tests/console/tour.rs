//! Every screen in a browser: none wider than a phone, each usable by keyboard and screen reader as far as
//! axe can tell, and a picture of each.

use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::Value;
use sqlx::{Connection, SqliteConnection};
use tollgate::store::Engine;

use super::browser::Browser;
use crate::support::Database;
use crate::support::program::Server;

/// tests/run installs this from npm.
fn axe() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/npm/node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run tests/run", path.display()))
}

/// Problems found by axe that keep somebody from using the page.
async fn must_be_usable(browser: &Browser, axe: &str, name: &str) {
    browser.run(axe).await;
    let found =
        browser.run_async("axe.run(document).then((result) => arguments[0](result.violations))").await;
    let serious = |one: &&Value| matches!(one["impact"].as_str(), Some("serious" | "critical"));
    let found: Vec<String> = found
        .as_array()
        .expect("axe answers with a list")
        .iter()
        .filter(serious)
        .map(|one| format!("{}: {}\n  {}", one["id"], one["help"], one["nodes"][0]["html"]))
        .collect();
    assert!(found.is_empty(), "{name}:\n{}", found.join("\n"));
}

#[tokio::test]
async fn every_screen_is_usable_and_fits_a_phone() {
    let axe = axe();
    let database = Database::fresh(Engine::Sqlite).await;
    let (server, printed) = Server::demo(&database);
    let browser = Browser::open(&format!("http://{}", server.address), "tour").await;
    let visit = async |name: &str, path: &str| {
        browser.goto(path).await;
        must_be_usable(&browser, &axe, name).await;
        browser.picture(name).await;
    };

    visit("sign-in", "/console/sign-in").await;
    visit("link", &one_time_link(&printed)).await;
    browser.click("Sign in").await;
    browser.sees("Set your password").await;
    visit("merchants", "/console/merchants").await;
    browser.click("Demo merchant").await;
    browser.sees("Tokens issued").await;
    let base = browser.path().await;
    calls(&printed);
    fill_with_long_texts(&browser, &base).await;
    for (name, rest) in [
        ("overview", ""),
        ("api-details", "/api-details"),
        ("webhooks", "/webhooks"),
        ("api-keys", "/api-keys"),
        ("new-key", "/api-keys/new"),
        ("sessions", "/sessions"),
        ("people", "/people"),
        ("tokens", "/people/tokens"),
        ("audit", "/audit"),
        ("licences", "/account"),
    ] {
        visit(name, &format!("{base}{rest}")).await;
    }
    for (name, list, link) in
        [("rename-user", "/people", "Change address"), ("rename-token", "/people/tokens", "Rename")]
    {
        browser.goto(&format!("{base}{list}")).await;
        browser.click(link).await;
        browser.sees("Cancel").await;
        visit(name, &browser.path().await).await;
    }
    browser.goto(&format!("{base}/api-keys")).await;
    browser.click("Access keys").await;
    browser.sees("Client secrets").await;
    let tokens = browser.path().await;
    visit("access-keys", &tokens).await;
    let key = tokens.trim_end_matches("/tokens").to_owned();
    visit("key", &key).await;
    browser.goto(&format!("{base}/api-keys")).await;
    browser.click(&LONG).await;
    browser.sees("Audit trail of this key").await;
    visit("key-with-long-texts", &browser.path().await).await;
    browser.goto(&format!("{base}/webhooks")).await;
    browser.click("api_key.created").await;
    browser.sees("Attempts").await;
    visit("webhook", &browser.path().await).await;
    visit("rotate", &format!("{key}/rotate")).await;
    visit("revoke", &format!("{key}/revoke")).await;
    browser.goto(&tokens).await;
    browser.press("[role=switch]").await;
    browser.sees("Active sessions").await;
    visit("switch-off", &browser.path().await).await;
    visit("operators", "/console/people").await;
    visit("platform-audit", "/console/audit").await;
    visit("operator-tokens", "/console/people/tokens").await;
    visit("health", "/console/health").await;
    visit("account", "/console/account").await;
    visit("second-factor", "/console/account/second-factor").await;
    visit("not-found", "/console/nothing").await;
    must_come_back_after_a_sign_in(&browser, &base, &database).await;
    browser.close().await;
}

/// The path of the sign-in link that the demo prints.
pub(super) fn one_time_link(printed: &str) -> String {
    let link = printed.split_whitespace().find(|word| word.contains("/console/once?token="));
    let link = link.expect("the demo prints a link").split_once("/console/").expect("it is of the console").1;
    format!("/console/{link}")
}

/// A name that no browser can break.
static LONG: LazyLock<String> = LazyLock::new(|| "W".repeat(100));

/// Makes a key, a user and a token with long names, and gives the merchant one.
async fn fill_with_long_texts(browser: &Browser, base: &str) {
    browser.goto(&format!("{base}/api-keys/new")).await;
    browser.fill("Name", &LONG).await;
    browser.fill("Webhook URL", &format!("https://hooks.example/{}", "a".repeat(150))).await;
    browser.click("Save").await;
    browser.sees("Your key is saved and active").await;
    browser.picture("long-names").await;
    must_be_shown_once(browser, "#new-key").await;
    browser.goto(&format!("{base}/people")).await;
    browser.fill("E-mail", &format!("{}@{}.example", "w".repeat(60), "w".repeat(60))).await;
    browser.click("Add user").await;
    browser.sees("One-time sign-in link").await;
    must_be_shown_once(browser, "#made").await;
    browser.goto(&format!("{base}/people/tokens")).await;
    browser.fill("Name", &LONG).await;
    browser.click("Create token").await;
    browser.sees("was created").await;
    must_be_shown_once(browser, "#made").await;
    browser.goto(&format!("{base}/account")).await;
    browser.fill("Name", &LONG).await;
    browser.click("Save account").await;
    browser.sees("Changes apply immediately").await;
}

/// A form that is sent after the session has ended comes back, and a mistake in it gets the focus.
async fn must_come_back_after_a_sign_in(browser: &Browser, base: &str, database: &Database) {
    let password = "correct horse battery";
    browser.goto("/console/account").await;
    browser.fill("New password", password).await;
    browser.fill("Repeat new password", password).await;
    browser.click("Save password").await;
    browser.sees("Your password was saved").await;
    browser.goto(&format!("{base}/api-keys/new")).await;
    browser.fill("Name", "Kept over the sign-in").await;
    browser.fill("Webhook URL", "ftp://receiver.example").await;
    let mut db = SqliteConnection::connect(&database.url).await.expect("the server made it");
    let idle = "update console_sessions set last_seen_at = 0";
    sqlx::query(idle).execute(&mut db).await.expect("the test's own SQL is right");
    browser.click("Save").await;
    browser.sees("You were signed out.").await;
    browser.fill("E-mail", "demo@tollgate.example").await;
    browser.fill("Password", password).await;
    browser.click("Sign in").await;
    browser.sees("Your values are below.").await;
    let name = "return document.getElementById('name').value";
    assert_eq!(browser.run(name).await, "Kept over the sign-in");
    browser.click("Save").await;
    browser.sees("Webhook URL: ").await;
    assert_eq!(browser.run("return document.activeElement.id").await, "webhook_url");
}

/// Neither Back nor Reload shows a secret again, sends its form again, or ends in an error.
async fn must_be_shown_once(browser: &Browser, css: &str) {
    let secret = browser.read(css).await;
    assert!(secret.len() > 20, "{css}: {secret:?}");
    let must_be_gone = async || {
        browser.sees("cannot be shown again").await;
        assert!(!browser.text().await.contains(&secret), "{css} is shown again");
    };
    browser.goto("/console/account").await;
    browser.sees("Your account").await;
    browser.back().await;
    must_be_gone().await;
    browser.reload().await;
    must_be_gone().await;
}

/// Some calls for the screens to show: the demo's own commands, and one with a wrong secret.
pub(super) fn calls(printed: &str) {
    let commands: Vec<&str> = printed.split("\n\n").filter(|part| part.starts_with("curl")).collect();
    assert_eq!(commands.len(), 4, "the demo prints four commands");
    for command in &commands[..2] {
        for command in [(*command).to_owned(), command.replace("client_secret", "client_secrets")] {
            let done = std::process::Command::new("sh").args(["-c", &command]).output();
            assert!(done.expect("there is a shell").status.success());
        }
    }
}
