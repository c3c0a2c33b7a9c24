//! The command line: what each command prints, makes and refuses.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use tollgate::store::Engine;

use crate::support::program::{run, stdout_of, tollgate};
use crate::support::{Database, engines};

const KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// What a refused command wrote to standard error; nothing to standard output.
#[track_caller]
fn refusal(command: &mut std::process::Command) -> String {
    let output = run(command);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!error.contains("panicked"), "{error}");
    error
}

#[test]
fn key_gen_prints_a_fresh_key_each_time() {
    let (first, second) = (stdout_of(&mut tollgate(&["key-gen"])), stdout_of(&mut tollgate(&["key-gen"])));
    for key in [&first, &second] {
        assert!(key.ends_with('\n') && key.trim().len() == 64, "{key:?}");
        assert!(key.trim().bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{key:?}");
    }
    assert_ne!(first, second);
}

#[test]
fn check_config_shows_what_is_in_effect_without_a_secret_and_names_every_mistake() {
    let mut command = tollgate(&["check-config", "--listen=127.0.0.1:9"]);
    let shown = stdout_of(command.env("TOLLGATE__TOKENS__KEYS", KEY));
    assert!(shown.contains("127.0.0.1:9") && shown.contains("--listen"), "{shown}");
    assert!(shown.contains("tokens.keys = (set)") && !shown.contains("5a5a"), "{shown}");

    let mut command =
        tollgate(&["check-config", "--listen=nowhere", "--database-url=mysql://u:pass-word@h/d"]);
    let error = refusal(command.env("TOLLGATE__LOG__FORMAT", "xml"));
    for word in ["--listen", "database", "TOLLGATE__LOG__FORMAT"] {
        assert!(error.contains(word), "{word} is not in {error}");
    }
    assert!(!error.contains("pass-word"), "{error}");
}

#[test]
fn a_start_that_fails_tells_each_cause_once() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let data_dir = format!("--data-dir={}", directory.path().display());
    let mut command = tollgate(&["serve", "--listen=127.0.0.1:0", &data_dir]);
    command.env("TOLLGATE__SERVER__TLS_CERTIFICATE_FILE", "/does/not/exist.pem");
    let error = refusal(command.env("TOLLGATE__SERVER__TLS_KEY_FILE", "/does/not/exist.key"));
    assert_eq!(error.matches("No such file").count(), 1, "{error}");
    assert_eq!(error.matches("/does/not/exist.pem").count(), 1, "{error}");
}

#[test]
fn migrate_makes_a_database_that_then_is_there() {
    for engine in engines() {
        let database = Database::without_schema(engine);
        let url = format!("--database-url={}", database.url);
        let directory = format!("--data-dir={}", database.directory().display());
        for _ in 0..2 {
            let output = run(tollgate(&["migrate", &url, &directory]).env("TOLLGATE__TOKENS__KEYS", KEY));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.lines().count() == 1, "{output:?}");
        }
        let mut add = tollgate(&["operator", "add", "Ada", &url, &directory]);
        stdout_of(add.env("TOLLGATE__TOKENS__KEYS", KEY));
    }
}

#[test]
fn a_sqlite_file_that_is_not_there_is_not_made_by_accident() {
    let database = Database::without_schema(Engine::Sqlite);
    let url = format!("--database-url={}", database.url);
    // In the data directory the file would be the embedded database, which is created.
    let directory = format!("--data-dir={}", database.directory().join("elsewhere").display());
    for command in [&["serve", "--listen=127.0.0.1:0"][..], &["operator", "add", "Ada"]] {
        let error = refusal(&mut tollgate(&[command, &[url.as_str(), directory.as_str()]].concat()));
        assert!(error.contains("there is no database file") && error.contains("tollgate migrate"), "{error}");
    }
    assert_eq!(fs::read_dir(database.directory()).expect("it is there").count(), 0);
}

#[test]
fn postgresql_without_token_keys_is_refused_with_the_way_out() {
    let database = Database::without_schema(Engine::Postgres);
    let url = format!("--database-url={}", database.url);
    let directory = format!("--data-dir={}", database.directory().display());
    let error = refusal(&mut tollgate(&["serve", "--listen=127.0.0.1:0", &url, &directory]));
    assert!(error.contains("tollgate key-gen") && error.contains("tokens.keys_file"), "{error}");
}

#[test]
fn an_operator_token_is_printed_once_and_its_files_are_for_their_owner_alone() {
    let database = Database::without_schema(Engine::Sqlite);
    let directory = database.directory().join("data");
    let data_dir = format!("--data-dir={}", directory.display());
    let text = stdout_of(&mut tollgate(&["operator", "add", "Ada", "--json", &data_dir]));
    let made: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let token = made["token"].as_str().expect("there is a token");
    assert!(token.starts_with("tga_") && token.len() == 47, "{token}");
    assert!(made["id"].as_str().is_some_and(|id| id.parse::<uuid::Uuid>().is_ok()), "{made}");
    assert_eq!(made.as_object().map(serde_json::Map::len), Some(2), "{made}");

    let plain = stdout_of(&mut tollgate(&["operator", "add", "Grace", &data_dir]));
    assert!(plain.contains("tga_") && plain.contains("shown this once"), "{plain}");

    for (name, mode) in [("", 0o700), ("tollgate.db", 0o600), ("token.keys", 0o600)] {
        let metadata = fs::metadata(directory.join(name)).expect("it was made");
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout_of(&mut tollgate(&["completions", shell]));
        assert!(script.contains("tollgate") && script.contains("merchant"), "{shell}");
    }
}

#[test]
fn an_operator_needs_a_name() {
    let database = Database::without_schema(Engine::Sqlite);
    let data_dir = format!("--data-dir={}", database.directory().display());
    for name in ["", "  ", "a\u{1b}[31mb"] {
        let error = refusal(&mut tollgate(&["operator", "add", name, &data_dir]));
        assert!(error.contains("name"), "{error}");
    }
}

#[test]
fn variables_of_others_may_be_any_bytes_and_ours_must_be_text() {
    let bytes = OsStr::from_bytes(b"caf\xe9");
    stdout_of(tollgate(&["check-config"]).env("UNRELATED", bytes));
    let error = refusal(tollgate(&["check-config"]).env("TOLLGATE__LOG__LEVEL", bytes));
    assert!(error.contains("TOLLGATE__LOG__LEVEL: is not UTF-8"), "{error}");
}

#[test]
fn a_variable_that_is_nearly_a_setting_is_warned_of_without_its_value() {
    let mut command = tollgate(&["check-config"]);
    command.env("TOLLGATE_DATABASE_URL", "postgres://u:pass-word@h/d").env("tollgate__log__level", "debug");
    // Kubernetes sets this variable for a service of this name.
    command.env("TOLLGATE_PORT", "tcp://10.0.0.1:80").env("TOLLGATE_SERVICE_HOST", "10.0.0.1");
    let output = run(&mut command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("TOLLGATE_DATABASE_URL does nothing, did you mean TOLLGATE__DATABASE__URL?"),
        "{said}"
    );
    assert!(said.contains("tollgate__log__level does nothing, did you mean TOLLGATE__LOG__LEVEL?"), "{said}");
    assert!(
        !said.contains("pass-word") && !said.contains("TOLLGATE_PORT") && !said.contains("SERVICE"),
        "{said}"
    );
}

#[test]
fn a_key_is_made_into_the_file_that_the_settings_name() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = directory.path().join("token.keys");
    fs::write(&file, "").expect("a file in it can be written");
    let key = stdout_of(tollgate(&["key-gen"]).env("TOLLGATE__TOKENS__KEYS_FILE", &file));
    assert_eq!(key.trim().len(), 64);
}

#[test]
fn a_data_directory_may_have_any_name() {
    let parent = tempfile::tempdir().expect("a temporary directory can be made");
    for name in ["100%25?mode=memory", "a//b/", "with space#1", "%2e%2e"] {
        let directory = parent.path().join(name);
        let data_dir = format!("--data-dir={}", directory.display());
        for _ in 0..2 {
            stdout_of(&mut tollgate(&["operator", "add", "Ada", &data_dir]));
        }
        assert!(directory.join("tollgate.db").is_file() && directory.join("token.keys").is_file(), "{name}");
    }
}

#[test]
fn a_database_that_cannot_be_reached_is_told_of_by_its_cause() {
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    let url = format!("--database-url=postgres://u:pass-word@127.0.0.1:{port}/d");
    let error = refusal(tollgate(&["migrate", &url]).env("TOLLGATE__DATABASE__TIMEOUT_SECS", "1"));
    assert!(error.contains("refused") && !error.contains("pool") && !error.contains("pass-word"), "{error}");
}

#[test]
fn a_new_sqlite_file_is_migrated_once_however_many_start_at_the_same_time() {
    for _ in 0..3 {
        let database = Database::without_schema(Engine::Sqlite);
        let url = format!("--database-url={}", database.url);
        let children: Vec<_> = (0..6)
            .map(|_| {
                tollgate(&["migrate", &url]).stderr(Stdio::piped()).spawn().expect("the program is there")
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().expect("it ends");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn a_password_in_the_list_of_processes_is_warned_of_and_not_repeated() {
    let started = |url: &str| {
        let output = run(&mut tollgate(&["check-config", &format!("--database-url={url}")]));
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).into_owned()
    };
    for url in ["postgres://u:pass-word@h/d", "postgres://u@h/d?password=pass-word"] {
        let said = started(url);
        assert!(said.contains("list of processes") && !said.contains("pass-word"), "{said}");
    }
    assert!(!started("postgres://u@h/d").contains("list of processes"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_leaves_no_core_dump() {
    let database = Database::without_schema(Engine::Sqlite);
    let program = crate::support::program::Server::serve(&database);
    let limits = fs::read_to_string(format!("/proc/{}/limits", program.pid())).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("it is told");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}
