//! Every screen in a browser: none wider than a phone, each usable by keyboard and screen reader as far as
//! axe can tell, and a picture of each.

use std::path::PathBuf;

use serde_json::Value;
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
    let link = printed.split_whitespace().find(|word| word.contains("/console/once?token="));
    let link = link.expect("the demo prints a link").split_once("/console/").expect("it is of the console").1;
    let visit = async |name: &str, path: &str| {
        browser.goto(path).await;
        must_be_usable(&browser, &axe, name).await;
        browser.picture(name).await;
    };

    visit("sign-in", "/console/sign-in").await;
    visit("link", &format!("/console/{link}")).await;
    browser.click("Sign in").await;
    browser.sees("Demo merchant").await;
    visit("merchants", "/console/merchants").await;
    browser.click("Demo merchant").await;
    browser.sees("Tokens issued").await;
    let base = browser.path().await;
    calls(&printed);
    // No input may break a page.
    browser.goto(&format!("{base}/api-keys/new")).await;
    browser.fill("Name", &"W".repeat(100)).await;
    browser.fill("Webhook URL", &format!("https://hooks.example/{}", "a".repeat(150))).await;
    browser.click("Save").await;
    browser.sees("Your key is saved and active").await;
    browser.picture("long-names").await;
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
    browser.goto(&format!("{base}/api-keys")).await;
    browser.click("Access keys").await;
    browser.sees("Client secrets").await;
    let tokens = browser.path().await;
    visit("access-keys", &tokens).await;
    let key = tokens.trim_end_matches("/tokens").to_owned();
    visit("key", &key).await;
    visit("rotate", &format!("{key}/rotate")).await;
    visit("revoke", &format!("{key}/revoke")).await;
    browser.goto(&tokens).await;
    browser.press("[role=switch]").await;
    browser.sees("Live sessions").await;
    visit("switch-off", &browser.path().await).await;
    visit("operators", "/console/people").await;
    visit("platform-audit", "/console/audit").await;
    visit("operator-tokens", "/console/people/tokens").await;
    visit("health", "/console/health").await;
    visit("account", "/console/account").await;
    visit("second-factor", "/console/account/second-factor").await;
    visit("not-found", "/console/nothing").await;
    browser.close().await;
}

/// Some calls for the screens to show: the demo's own commands, and one with a wrong secret.
fn calls(printed: &str) {
    let commands: Vec<&str> = printed.split("\n\n").filter(|part| part.starts_with("curl")).collect();
    assert_eq!(commands.len(), 4, "the demo prints four commands");
    for command in &commands[..2] {
        for command in [(*command).to_owned(), command.replace("client_secret", "client_secrets")] {
            let done = std::process::Command::new("sh").args(["-c", &command]).output();
            assert!(done.expect("there is a shell").status.success());
        }
    }
}
