//! Secrets are sealed only with the token keys of the database, so that the server can open them.

use std::process::Command;
use std::time::Duration;

use tollgate::config::Settings;
use tollgate::flows::manage_keys::{ApiKeyChanges, NewApiKey};
use tollgate::flows::principal::Principal;
use tollgate::store::Engine;

use crate::commands::{Store, count};
use crate::support::merchant::{done, plain_key};
use crate::support::program::{Server, run, stdout_of};
use crate::support::{each_engine, engines};

const WEBHOOK: &str = "--webhook-url=https://example.com/hook";

/// A store that a server has used and left.
fn served(engine: Engine) -> Store {
    let store = Store::new(engine);
    let server = Server::serve(&store.0);
    server.terminate();
    server.ended_within(Duration::from_secs(30));
    store
}

/// A command with the token key of another installation.
fn with_another_key(store: &Store, arguments: &[&str]) -> Command {
    let mut command = store.command(arguments);
    command.env("TOLLGATE__TOKENS__KEYS", hex::encode([7; 32]));
    command
}

#[track_caller]
fn must_not_seal(command: &mut Command) {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not those of the database"), "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_command_with_other_token_keys_seals_nothing_and_leaves_nothing_behind() {
    for engine in engines() {
        let store = served(engine);
        // Nothing needs a key yet, but the database knows the one that signs.
        must_not_seal(&mut with_another_key(&store, &["merchant", "onboard", "Acme", WEBHOOK]));
        assert_eq!(count(&store.json(&["merchant", "list"])), 0);

        store.json(&["merchant", "onboard", "Acme", WEBHOOK]);
        for sealing in
            [&["key", "rotate-webhook-secret", "Default"][..], &["merchant", "onboard", "Other", WEBHOOK]]
        {
            must_not_seal(&mut with_another_key(&store, sealing));
        }
        assert_eq!(count(&store.json(&["key", "webhook-secrets", "Default"])), 1);
        assert_eq!(count(&store.json(&["merchant", "list"])), 1);

        // What seals nothing needs no keys.
        stdout_of(&mut with_another_key(&store, &["key", "rename", "Default", "Till"]));
        stdout_of(&mut with_another_key(&store, &["merchant", "onboard", "Third"]));
        Server::serve(&store.0);
    }
}

#[test]
fn a_command_without_a_key_file_seals_nothing_with_a_key_of_its_own() {
    let store = served(Engine::Sqlite);
    store.json(&["merchant", "onboard", "Acme", WEBHOOK]);
    let without_keys = |arguments: &[&str]| {
        let mut command = store.command(arguments);
        command.env_remove("TOLLGATE__TOKENS__KEYS");
        command
    };
    must_not_seal(&mut without_keys(&["key", "rotate-webhook-secret", "Default"]));
    stdout_of(&mut without_keys(&["key", "rename", "Default", "Till"]));
    assert_eq!(count(&store.json(&["key", "webhook-secrets", "Till"])), 1);
    Server::serve(&store.0);
}

#[tokio::test]
async fn a_webhook_secret_that_is_lost_with_its_token_key_is_replaced_when_the_url_is_set_again() {
    each_engine(async |app| {
        let url = "https://example.com/hook".to_owned();
        let merchant = app.merchant_with(NewApiKey { webhook_url: Some(url.clone()), ..plain_key() }).await;
        app.core().leave().await.expect("the store answers");
        let with_another_key = |settings: &mut Settings| {
            settings.tokens.keys = hex::encode([7; 32]).parse().expect("it is a key");
            settings.tokens.allow_missing_keys = true;
        };
        let later = app.replica_at(&app.database.url, with_another_key).await;
        let set = async || {
            let changes = ApiKeyChanges { webhook_url: Some(Some(url.clone())), ..ApiKeyChanges::default() };
            let by = Principal::command_line();
            done(later.core().update_api_key(&by, merchant.key_id, None, changes).await).webhook_secret
        };
        assert!(set().await.is_some(), "nobody can sign with the earlier one");
        assert!(set().await.is_none());
    })
    .await;
}

#[test]
fn a_command_with_a_newer_key_in_front_of_those_of_the_database_seals_with_the_one_that_signs() {
    for engine in engines() {
        let store = served(engine);
        store.json(&["merchant", "onboard", "Acme", WEBHOOK]);
        let own = hex::encode(crate::support::app::TOKEN_KEY);
        let mut command = store.command(&["key", "rotate-webhook-secret", "Default"]);
        stdout_of(command.env("TOLLGATE__TOKENS__KEYS", format!("{},{own}", hex::encode([7; 32]))));
        Server::serve(&store.0);
    }
}
