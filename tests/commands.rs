//! The commands for operators, on stores of both engines: names and ids, and what they create.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use tollgate::store::Engine;

use crate::support::program::{Server, run, stdout_of, tollgate};
use crate::support::{Database, engines};

/// Commands on one store.
pub(crate) struct Store(pub(crate) Arc<Database>);

impl Store {
    /// An empty store with its schema.
    pub(crate) fn new(engine: Engine) -> Self {
        let store = Self(Database::without_schema(engine));
        stdout_of(&mut store.command(&["migrate"]));
        store
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        Server::command_of(arguments, &self.0)
    }

    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = stdout_of(&mut self.command(&[arguments, &["--json"]].concat()));
        serde_json::from_str(&text).expect("it is JSON")
    }

    /// What a command that fails writes to standard error.
    #[track_caller]
    pub(crate) fn refusal(&self, arguments: &[&str]) -> String {
        let output = run(&mut self.command(arguments));
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// A merchant with a key and credentials.
    #[track_caller]
    pub(crate) fn onboard(&self, name: &str) -> Value {
        self.json(&["merchant", "onboard", name, "--admin", "ada@example.com"])
    }
}

fn id(made: &Value) -> &str {
    made["id"].as_str().expect("it has an id")
}

pub(crate) fn count(listed: &Value) -> usize {
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
        let licences = store.json(&["licence", "list", "Acme Ltd"]);
        let product = |at: usize| (&licences["items"][at]["product"], &licences["items"][at]["active"]);
        assert_eq!(
            [product(0), product(1)],
            [(&json!("api_keys"), &json!(true)), (&json!("enhanced_security"), &json!(true))]
        );

        assert_eq!(store.json(&["key", "rename", "Default", "Till"])["name"], "Till");
        let rotated = store.json(&["key", "rotate", "Till", "--overlap-secs=60"]);
        assert!(rotated["key"].is_string() && rotated["key"] != made["api_key"]["key"], "{rotated}");
        assert_eq!(store.json(&["key", "revoke", "Till"])["status"], "revoked");
        assert_eq!(store.json(&["key", "restore", "Till"])["status"], "active");
        let error = store.refusal(&["key", "rotate-webhook-secret", "Till"]);
        assert!(error.contains("webhook"), "{error}");

        let rotated = store.json(&["credentials", "rotate", client]);
        assert!(rotated["client_secret"].is_string(), "{rotated}");
        assert_eq!(store.json(&["token", "rename", "Ada", "Bea"])["name"], "Bea");
        assert_eq!(store.json(&["token", "rename", "Bea", "Ada"])["name"], "Ada");
        assert!(store.json(&["token", "rotate", "Ada"])["token"].is_string());
        assert!(store.json(&["token", "revoke", "Ada"])["revoked_at"].is_string());
        assert!(store.json(&["user", "disable", "ada@example.com"])["disabled_at"].is_string());
        assert!(store.json(&["user", "restore", "ada@example.com"])["disabled_at"].is_null());
        let renamed = store.json(&["user", "rename", "ada@example.com", "Bea@Example.com"]);
        assert!(renamed["email"] == "bea@example.com" && renamed["sign_in_link"].is_string(), "{renamed}");
        assert_eq!(renamed["id"], made["user"]["id"]);
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
fn a_name_means_the_object_that_works_and_for_a_restoration_the_one_that_does_not() {
    for engine in engines() {
        let store = Store::new(engine);
        let merchant = store.json(&["merchant", "add", "Acme"]);
        store.json(&["licence", "grant", "Acme", "api_keys"]);
        let add = || store.json(&["key", "add", "Acme", "Till", "--environment=sandbox"]);
        let [revoked, live] = [add(), add()];
        store.json(&["key", "revoke", id(&revoked)]);
        assert_eq!(id(&store.json(&["key", "show", "Till"])), id(&live));
        assert_eq!(id(&store.json(&["key", "restore", "Till"])), id(&revoked));
        let error = store.refusal(&["key", "revoke", "Till"]);
        assert!(error.contains(id(&live)) && error.contains(id(&revoked)), "{error}");
        assert!(error.contains(id(&merchant)), "{error}");
        for key in [&revoked, &live] {
            store.json(&["key", "revoke", id(key)]);
        }
        let error = store.refusal(&["key", "show", "Till"]);
        assert_eq!(error.matches(", revoked)").count(), 2, "{error}");

        let [ended, works] = ["Ops", "Ops"].map(|name| store.json(&["operator", "add", name]));
        store.json(&["token", "revoke", id(&ended)]);
        assert_eq!(id(&store.json(&["token", "show", "Ops"])), id(&works));

        store.json(&["merchant", "add", "Other"]);
        let user = |merchant: &str| {
            store.json(&["user", "add", "ada@example.com", "--role=merchant_admin", "--merchant", merchant])
        };
        let [here, there] = ["Acme", "Other"].map(user);
        let operator = store.json(&["user", "add", "ada@example.com", "--role=operator"]);
        for verb in ["show", "link"] {
            let error = store.refusal(&["user", verb, "ada@example.com"]);
            assert!([&here, &there, &operator].iter().all(|user| error.contains(id(user))), "{error}");
            assert!(error.contains("(operator)"), "{error}");
        }
        store.json(&["user", "disable", id(&here)]);
        store.json(&["user", "disable", id(&operator)]);
        assert_eq!(id(&store.json(&["user", "show", "ada@example.com"])), id(&there));
        let error = store.refusal(&["user", "restore", "ada@example.com"]);
        assert!(error.contains(id(&here)) && !error.contains(id(&there)), "{error}");
        assert_eq!(id(&store.json(&["user", "restore", "ada@example.com", "--merchant=Acme"])), id(&here));
    }
}

#[test]
fn the_secrets_of_a_webhook_are_listed_but_not_shown() {
    for engine in engines() {
        let store = Store::new(engine);
        let made = store.json(&["merchant", "onboard", "Acme", "--webhook-url=https://example.com/hook"]);
        let rotated = store.json(&["key", "rotate-webhook-secret", "Default", "--overlap-secs=60"]);
        let list = store.json(&["key", "webhook-secrets", "Default"]);
        assert_eq!(count(&list), 2);
        assert!(list["items"][0]["ends_at"].is_null() && list["items"][1]["ends_at"].is_string(), "{list}");
        for secret in [&made["api_key"]["webhook_secret"], &rotated["webhook_secret"]] {
            let secret = secret.as_str().expect("it was shown once");
            assert!(secret.starts_with("whsec_") && !list.to_string().contains(secret), "{list}");
        }
    }
}

#[test]
fn sessions_are_listed_by_key_client_status_and_start() {
    for engine in engines() {
        let store = Store::new(engine);
        let made = store.onboard("Acme");
        let server = Server::serve(&store.0);
        let field = |object: &str, name: &str| made[object][name].as_str().expect("it is text").to_owned();
        let client_id = field("credentials", "client_id");
        let token = format!("http://{}/api/authorize", server.address);
        let key = format!("X-API-KEY: {}", field("api_key", "key"));
        let secret = format!("client_secret={}", field("credentials", "client_secret"));
        let client = format!("client_id={client_id}");
        for _ in 0..2 {
            let answer =
                run(Command::new("curl").args(["-sf", &token, "-H", &key, "-d", &client, "-d", &secret]));
            assert!(answer.status.success(), "{answer:?}");
        }
        let list = |more: &[&str]| count(&store.json(&[&["session", "list", "Acme"], more].concat()));
        assert_eq!(list(&[]), 2);
        for (filter, found) in [
            ("--key=Default", 2),
            (&*format!("--client-id={}", &client_id[..6]), 2),
            ("--client-id=nobody", 0),
            ("--status=active", 2),
            ("--status=ended", 0),
            ("--from=2020-01-01T00:00:00Z", 2),
            ("--to=2020-01-01T00:00:00+02:00", 0),
            ("--limit=1", 1),
        ] {
            assert_eq!(list(&[filter]), found, "{filter}");
        }
        assert_eq!(list(&["--key=Default", "--status=active", "--from=2020-01-01T00:00:00Z"]), 2);
        assert!(store.refusal(&["session", "list", "Acme", "--key=Other"]).contains("no API key"));
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
