//! `tollgate merchant onboard`: makes all that a merchant needs, and completes what an earlier run began.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::commands::{Store, count};
use crate::support::engines;
use crate::support::program::{Server, run, stdout_of};

#[test]
fn onboarding_makes_all_that_a_first_call_needs_and_makes_it_once() {
    for engine in engines() {
        let store = Store::new(engine);
        let server = Server::serve(&store.0);
        let issuer = format!("http://{}", server.address);
        let onboard = || {
            let mut command = store.command(&["merchant", "onboard", "Acme", "--admin", "ada@example.com"]);
            command.env("TOLLGATE__SERVER__ISSUER", &issuer);
            command
        };
        let text = stdout_of(&mut onboard());
        assert!(text.contains(&format!("{issuer}/console/once?token=")), "{text}");
        let call = text.get(text.find("curl ").expect("there is a command")..).unwrap_or_default();
        let output = Command::new("sh").args(["-c", call]).output().expect("every Unix has a shell");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("the answer is JSON");
        assert!(answer["access_token"].is_string(), "{answer}");
        // The server writes what was used when it stops.
        server.terminate();
        server.ended_within(Duration::from_secs(30));

        let again = stdout_of(&mut onboard());
        assert!(again.contains("nothing was made") && again.contains("ada@example.com"), "{again}");
        assert!(again.contains("tollgate key rotate") && again.contains("credentials rotate"), "{again}");
        let again = store.json(&["merchant", "onboard", "Acme"]);
        assert!(again["created"] == false && again["complete"] == true, "{again}");
        assert!(again["api_key"]["key"].is_null() && again["lost"] == json!([]), "{again}");
        assert_eq!(count(&store.json(&["merchant", "list"])), 1);
    }
}

/// The arguments of a run with every step, and the number of rows that it has printed after each of them.
const WHOLE: [&str; 7] =
    ["merchant", "onboard", "Acme", "--admin=ada@example.com", "--allow=10.0.0.0/8", WEBHOOK, "--json"];
const WEBHOOK: &str = "--webhook-url=https://example.com/hook";
const ROWS_AFTER_EACH_STEP: [usize; 9] = [1, 2, 3, 5, 6, 8, 10, 11, 13];

#[test]
fn an_onboarding_that_was_killed_after_any_step_is_completed_by_the_next() {
    for engine in engines() {
        for rows in ROWS_AFTER_EACH_STEP {
            let store = Store::new(engine);
            let mut command = store.command(&WHOLE[..6]);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
            let mut child = child.expect("the program was built for this test");
            let printed = BufReader::new(child.stdout.take().expect("it was piped")).lines();
            assert_eq!(printed.take(rows).filter(Result::is_ok).count(), rows);
            child.kill().expect("it was not waited for");
            child.wait().expect("it was killed");

            must_complete(&store);
        }
    }
}

#[test]
fn an_onboarding_completes_what_was_made_by_hand() {
    let steps: [&[&str]; 6] = [
        &["merchant", "add", "Acme"],
        &["licence", "grant", "Acme", "api_keys"],
        &["licence", "grant", "Acme", "enhanced_security"],
        &["key", "add", "Acme", "Default", "--environment=sandbox"],
        &["credentials", "add", "Default"],
        &["user", "add", "ada@example.com", "--role=merchant_admin", "--merchant=Acme"],
    ];
    for engine in engines() {
        for made in 1..=steps.len() {
            let store = Store::new(engine);
            for step in &steps[..made] {
                store.json(step);
            }
            let completed = must_complete(&store);
            assert_eq!(completed["created"], false);
            assert_eq!(
                completed["lost"].as_array().map(Vec::len),
                Some((made > 3) as usize + (made > 4) as usize)
            );
        }
    }
}

/// Runs the onboarding again: everything is there once, and each secret is shown or named with the command that
/// replaces it.
#[track_caller]
fn must_complete(store: &Store) -> Value {
    let output = run(&mut store.command(&WHOLE));
    let completed: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let lost = completed["lost"].as_array().expect("it is a list");
    assert_eq!(output.status.code(), Some(if lost.is_empty() { 0 } else { 3 }), "{output:?}");
    assert_eq!(completed["complete"], true, "{completed}");
    let licences = &completed["merchant"]["licences"];
    assert!(
        ["api_keys", "enhanced_security"].iter().all(|name| licences[name]["active"] == true),
        "{completed}"
    );
    let key = &completed["api_key"];
    assert_eq!(key["allowed_ips"], json!(["10.0.0.0/8"]));
    assert_eq!(key["webhook_url"], "https://example.com/hook");
    assert_eq!(completed["credentials"]["enabled"], true);
    assert!(completed["sign_in_link"].is_string(), "{completed}");
    for list in [
        &["merchant", "list"][..],
        &["key", "list", "Acme"],
        &["credentials", "list", "Default"],
        &["user", "list"],
    ] {
        assert_eq!(count(&store.json(list)), 1, "{list:?}");
    }
    for (object, secret, rotation) in
        [("api_key", "key", "key rotate"), ("credentials", "client_secret", "credentials rotate")]
    {
        let is_named =
            lost.iter().any(|command| command.as_str().is_some_and(|text| text.contains(rotation)));
        assert!(completed[object][secret].is_string() != is_named, "{completed}");
    }
    for command in lost {
        let words: Vec<_> = command.as_str().expect("it is text").split(' ').skip(1).collect();
        assert!(stdout_of(&mut store.command(&words)).contains("shown this once"));
    }
    completed
}

#[test]
fn an_onboarding_undoes_no_decision_and_keeps_the_secrets_it_has_made() {
    for engine in engines() {
        let store = Store::new(engine);
        store.onboard("Acme");
        let onboard = |more: &str| run(&mut store.command(&["merchant", "onboard", "Acme", "--json", more]));
        let refused = |more: &str, why: &str| {
            let output = onboard(more);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(1) && error.contains(why), "{error}");
            serde_json::from_slice::<Value>(&output.stdout).expect("it is JSON")
        };
        refused("--gateway=other", "the gateway");
        let credentials = store.json(&["credentials", "list", "Default"]);
        let client = credentials["items"][0]["client_id"].as_str().expect("there is one").to_owned();
        store.json(&["credentials", "off", &client]);
        refused("--key-name=Default", "switched OFF");
        store.json(&["credentials", "on", &client]);
        store.json(&["user", "disable", "ada@example.com"]);
        let printed = refused("--admin=ada@example.com", "is disabled");
        assert!(printed["complete"] == false && printed["user"].is_null(), "{printed}");
        // A second key is made before the user is looked at. Its secret is printed although the run fails.
        let output = run(&mut store.command(&[
            "merchant",
            "onboard",
            "Acme",
            "--key-name=Second",
            "--admin=ada@example.com",
        ]));
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stdout).contains("X-API-KEY"), "{output:?}");
        store.json(&["licence", "end", "Acme", "enhanced_security"]);
        refused("--key-name=Third", "no active licence");
        store.json(&["merchant", "suspend", "Acme"]);
        refused("--key-name=Third", "suspended");
        assert_eq!(count(&store.json(&["key", "list", "Acme"])), 2);
    }
}

#[test]
fn a_mistake_is_found_before_anything_is_onboarded() {
    for engine in engines() {
        let store = Store::new(engine);
        for (mistake, word) in [("--admin=nobody", "email"), ("--allow=somewhere", "allowed_ips")] {
            let error = store.refusal(&["merchant", "onboard", "Acme", mistake]);
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(count(&store.json(&["merchant", "list"])), 0);
    }
}
