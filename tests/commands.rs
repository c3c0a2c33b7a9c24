//! The commands for operators, on stores of both engines: names and ids, onboarding, and what they create.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use tollgate::store::Engine;

use crate::support::program::{Server, run, stdout_of, tollgate};
use crate::support::{Database, engines};

/// Commands on one store.
struct Store(Arc<Database>);

impl Store {
    /// An empty store with its schema.
    fn new(engine: Engine) -> Self {
        let store = Self(Database::without_schema(engine));
        stdout_of(&mut store.command(&["migrate"]));
        store
    }

    fn command(&self, arguments: &[&str]) -> Command {
        Server::command_of(arguments, &self.0)
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let text = stdout_of(&mut self.command(&[arguments, &["--json"]].concat()));
        serde_json::from_str(&text).expect("it is JSON")
    }

    /// What a command that fails writes to standard error.
    #[track_caller]
    fn refusal(&self, arguments: &[&str]) -> String {
        let output = run(&mut self.command(arguments));
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// A merchant with a key and credentials.
    #[track_caller]
    fn onboard(&self, name: &str) -> Value {
        self.json(&["merchant", "onboard", name, "--admin", "ada@example.com"])
    }
}

fn id(made: &Value) -> &str {
    made["id"].as_str().expect("it has an id")
}

fn count(listed: &Value) -> usize {
    listed["items"].as_array().expect("it is a list").len()
}

#[test]
fn what_was_made_is_listed_and_found_by_id_or_name() {
    for engine in engines() {
        let store = Store::new(engine);
        let operator = store.json(&["operator", "add", "Ada"]);
        let made = store.onboard("Ärzte & Söhne");
        let (merchant, key, user) = (id(&made["merchant"]), id(&made["api_key"]), id(&made["user"]));
        let client = made["credentials"]["client_id"].as_str().expect("there is one");

        for list in [
            &["token", "list"][..],
            &["merchant", "list"],
            &["key", "list", "Ärzte & Söhne"],
            &["credentials", "list", "Default"],
            &["user", "list"],
        ] {
            assert_eq!(count(&store.json(list)), 1, "{list:?}");
            let plain = stdout_of(&mut store.command(list));
            assert_eq!(plain.lines().count(), 2, "{plain}");
        }
        assert_eq!(count(&store.json(&["session", "list", merchant])), 0);
        for token in ["Ada", id(&operator)] {
            assert_eq!(id(&store.json(&["token", "show", token])), id(&operator));
        }
        for name in ["Ärzte & Söhne", merchant] {
            assert_eq!(id(&store.json(&["merchant", "show", name])), merchant);
        }
        for name in ["Default", key] {
            assert_eq!(id(&store.json(&["key", "show", name])), key);
        }
        for name in ["ada@example.com", user] {
            assert_eq!(id(&store.json(&["user", "show", name])), user);
        }
        assert_eq!(store.json(&["credentials", "show", client])["enabled"], true);
        let token_key = store.json(&["keys", "list"])["items"][0].clone();
        assert_eq!(store.json(&["keys", "show", id(&token_key)]), token_key);
        let error = store.refusal(&["merchant", "show", "Nobody"]);
        assert!(error.contains("there is no merchant \"Nobody\""), "{error}");
    }
}

#[test]
fn objects_are_renamed_rotated_and_restored() {
    for engine in engines() {
        let store = Store::new(engine);
        store.json(&["operator", "add", "Ada"]);
        let made = store.onboard("Acme");
        let client = made["credentials"]["client_id"].as_str().expect("there is one");

        assert_eq!(store.json(&["merchant", "rename", "Acme", "Acme Ltd"])["name"], "Acme Ltd");
        assert_eq!(store.json(&["merchant", "suspend", "Acme Ltd"])["status"], "suspended");
        assert_eq!(store.json(&["merchant", "restore", "Acme Ltd"])["status"], "active");
        assert_eq!(store.json(&["licence", "end", "Acme Ltd", "api_keys"])["active"], false);
        assert_eq!(store.json(&["licence", "grant", "Acme Ltd", "api_keys"])["active"], true);

        assert_eq!(store.json(&["key", "rename", "Default", "Till"])["name"], "Till");
        let rotated = store.json(&["key", "rotate", "Till", "--overlap-secs=60"]);
        assert!(rotated["key"].is_string() && rotated["key"] != made["api_key"]["key"], "{rotated}");
        assert_eq!(store.json(&["key", "revoke", "Till"])["status"], "revoked");
        assert_eq!(store.json(&["key", "restore", "Till"])["status"], "active");
        let error = store.refusal(&["key", "rotate-webhook-secret", "Till"]);
        assert!(error.contains("webhook"), "{error}");

        let rotated = store.json(&["credentials", "rotate", client]);
        assert!(rotated["client_secret"].is_string(), "{rotated}");
        assert!(store.json(&["token", "rotate", "Ada"])["token"].is_string());
        assert!(store.json(&["token", "revoke", "Ada"])["revoked_at"].is_string());
        assert!(store.json(&["user", "disable", "ada@example.com"])["disabled_at"].is_string());
        assert!(store.json(&["user", "restore", "ada@example.com"])["disabled_at"].is_null());
    }
}

#[test]
fn a_name_that_fits_several_objects_is_an_error_with_their_ids() {
    for engine in engines() {
        let store = Store::new(engine);
        let [here, there] = ["Here", "There"].map(|name| store.onboard(name));
        let twins = ["Twin", "Twin"].map(|name| store.json(&["merchant", "add", name]));
        for _ in 0..2 {
            store.json(&["operator", "add", "Ops"]);
        }
        let tokens = store.json(&["token", "list"]);
        let tokens = tokens["items"].as_array().expect("it is a list");

        for (arguments, found) in [
            (&["merchant", "show", "Twin"][..], [&twins[0], &twins[1]]),
            (&["merchant", "onboard", "Twin"], [&twins[0], &twins[1]]),
            (&["key", "show", "Default"], [&here["api_key"], &there["api_key"]]),
            (&["user", "show", "ada@example.com"], [&here["user"], &there["user"]]),
            (&["token", "show", "Ops"], [&tokens[0], &tokens[1]]),
        ] {
            let error = store.refusal(arguments);
            assert!(found.iter().all(|object| error.contains(id(object))), "{arguments:?}: {error}");
        }
        for noun in [&["key", "show", "Default"][..], &["user", "show", "ada@example.com"]] {
            let found = store.json(&[noun, &["--merchant", "There"]].concat());
            assert_eq!(found["merchant_id"], there["merchant"]["id"]);
        }
    }
}

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

        let again = stdout_of(&mut onboard());
        assert!(again.contains("nothing was made") && again.contains("ada@example.com"), "{again}");
        let again = store.json(&["merchant", "onboard", "Acme"]);
        assert_eq!(again["created"], false);
        let counted = ["api_keys", "credentials", "users"].map(|list| again[list].as_array().map(Vec::len));
        assert_eq!(counted, [Some(1); 3], "{again}");
        assert_eq!(count(&store.json(&["merchant", "list"])), 1);
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

#[test]
fn whoever_only_reads_or_changes_makes_no_store() {
    for engine in engines() {
        let database = Database::without_schema(engine);
        for arguments in [
            &["merchant", "list"][..],
            &["user", "list"],
            &["token", "list"],
            &["keys", "list"],
            &["audit", "verify"],
            &["key", "revoke", "Till"],
            &["merchant", "rename", "Acme", "Other"],
        ] {
            let output = run(&mut Server::command_of(arguments, &database));
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && error.contains("tollgate migrate"), "{arguments:?}: {error}");
        }
        assert_eq!(fs::read_dir(database.directory()).expect("it is there").count(), 0);
        // The store is still new: it has no tables.
        stdout_of(&mut Server::command_of(&["operator", "add", "Ada"], &database));
    }
}

#[test]
fn a_url_that_lets_a_file_be_made_makes_none_for_whoever_only_reads() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let url = format!("--database-url=sqlite://{}/new.db?mode=rwc", directory.path().display());
    let output = run(&mut tollgate(&["merchant", "list", &url]));
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(fs::read_dir(directory.path()).expect("it is there").count(), 0);
}

#[test]
fn token_keys_that_are_not_here_are_not_made_up() {
    let database = Database::without_schema(Engine::Sqlite);
    let data_dir = format!("--data-dir={}", database.directory().display());
    stdout_of(&mut tollgate(&["operator", "add", "Ada", &data_dir]));
    let file = database.directory().join("token.keys");
    fs::remove_file(&file).expect("it was made");
    let output = run(&mut tollgate(&["keys", "list", &data_dir]));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("there are no token keys in"), "{error}");
    assert!(!file.exists());
}

#[test]
fn every_command_names_its_store_without_a_password() {
    for engine in engines() {
        let store = Store::new(engine);
        let place = match engine {
            Engine::Sqlite => "the store is SQLite, ",
            Engine::Postgres => "the store is PostgreSQL, database ",
        };
        for arguments in [&["merchant", "list"][..], &["migrate"], &["audit", "head"]] {
            let output = run(&mut store.command(arguments));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.contains(place), "{said}");
        }
    }
}

#[test]
fn a_database_that_cannot_be_reached_is_one_line_with_the_cause() {
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    let url = format!("--database-url=postgres://ada:pass-word@127.0.0.1:{port}/books");
    for arguments in [&["merchant", "list"][..], &["operator", "add", "Ada"], &["keys", "list"]] {
        let mut command = tollgate(&[arguments, &[&url]].concat());
        let output = run(command.env("TOLLGATE__DATABASE__TIMEOUT_SECS", "1"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<_> = said.lines().filter(|line| line.starts_with("tollgate: ")).collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(lines[0].contains(&format!("books at 127.0.0.1:{port} as ada")), "{said}");
        assert!(lines[1].contains("refused") && !said.contains("pass-word"), "{said}");
    }
}
