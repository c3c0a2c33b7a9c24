//! Settings: which layer wins, what is refused and in which place, and that no secret is shown.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use chrono::TimeDelta;
use tempfile::TempDir;
use tollgate::config::{Flag, ForwardedHeader, LogFormat, Settings, Sources};

const DEFAULTS: &str = include_str!("../config/default.toml");
const PASSWORD: &str = "correct-horse";
const URL: &str = "postgres://tollgate:correct-horse@db/tollgate";
const KEY_1: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const KEY_2: &str = "abABabABabABabABabABabABabABabABabABabABabABabABabABabABabABabAB";

/// The sources of one start of the server, and the directory that its files are in.
struct Start {
    directory: TempDir,
    sources: Sources,
}

fn start() -> Start {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    Start { directory, sources: Sources::default() }
}

impl Start {
    fn file(mut self, contents: &str) -> Self {
        self.sources.file = Some(self.path("tollgate.toml").into());
        self.other_file("tollgate.toml", contents)
    }

    fn other_file(self, name: &str, contents: &str) -> Self {
        fs::write(self.path(name), contents).expect("a file in the temporary directory can be written");
        self
    }

    fn env(mut self, variable: &str, value: &str) -> Self {
        self.sources.environment.push((variable.to_owned(), value.to_owned()));
        self
    }

    fn flag(mut self, key: &'static str, name: &'static str, value: &str) -> Self {
        self.sources.flags.push(Flag { key, name, value: value.to_owned() });
        self
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn loads(&self) -> Settings {
        Settings::load(&self.sources).unwrap_or_else(|mistakes| panic!("refused:\n{mistakes}"))
    }

    /// The mistakes, with the temporary directory shortened to `DIR`.
    fn mistakes(&self) -> Vec<String> {
        let mistakes = Settings::load(&self.sources).expect_err("these settings have a mistake");
        assert_eq!(mistakes.to_string().lines().count(), mistakes.iter().count());
        mistakes.to_string().lines().map(|line| self.shortened(line)).collect()
    }

    fn explained(&self) -> Vec<String> {
        self.loads().explain().lines().map(|line| self.shortened(line)).collect()
    }

    fn shortened(&self, line: &str) -> String {
        line.replace(&self.directory.path().display().to_string(), "DIR")
    }
}

/// Each number in the defaults: its full name, its default, and the range that its comment states.
fn numbers() -> Vec<(String, i64, i64, i64)> {
    let (mut section, mut comment, mut numbers) = ("", String::new(), Vec::new());
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some(text) = line.strip_prefix('#') {
            comment.push_str(text);
        } else if let Some((name, value)) = line.split_once(" = ") {
            if let Ok(default) = value.parse() {
                let (_, range) =
                    comment.rsplit_once(" From ").expect("the comment of a number states its range");
                let (min, max) =
                    range.trim_end_matches('.').split_once(" to ").expect("a range has two ends");
                let number = |text: &str| text.parse().expect("the ends of a range are numbers");
                numbers.push((format!("{section}.{name}"), default, number(min), number(max)));
            }
            comment.clear();
        }
    }
    numbers
}

fn variable(key: &str) -> String {
    format!("TOLLGATE__{}", key.replace('.', "__").to_uppercase())
}

#[test]
fn the_defaults_are_the_published_ones() {
    let settings = Settings::with_defaults();
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.server.issuer, "http://127.0.0.1:8080");
    assert_eq!(settings.server.data_dir, Path::new("data"));
    assert!(settings.server.trusted_proxies.is_empty());
    assert_eq!(settings.server.forwarded_header, ForwardedHeader::XForwardedFor);
    assert_eq!(settings.server.connections_max, 10_000);
    assert_eq!(settings.server.header_timeout, Duration::from_secs(10));
    assert_eq!(settings.server.request_timeout, Duration::from_secs(30));
    assert_eq!(settings.server.shutdown_grace, Duration::from_secs(25));
    assert_eq!(settings.ops.listen, None);
    assert_eq!(settings.database.url.expose(), "sqlite://data/tollgate.db");
    assert_eq!(settings.database.connections_max, 16);
    assert_eq!(settings.database.timeout, Duration::from_secs(5));
    assert!(settings.tokens.keys.bytes().is_empty());
    assert_eq!(settings.tokens.access_ttl, TimeDelta::hours(1));
    assert_eq!(settings.tokens.refresh_ttl, TimeDelta::days(30));
    assert_eq!(settings.tokens.session_ttl, TimeDelta::days(365));
    assert_eq!(settings.tokens.refresh_retry_window, TimeDelta::minutes(1));
    assert!(!settings.webhooks.allow_private_networks);
    assert!(!settings.webhooks.allow_http);
    assert_eq!(settings.limits.failures_per_address_per_minute, 600);
    assert_eq!(settings.limits.calls_per_key_per_second, 0);
    assert_eq!(settings.limits.new_sessions_per_client_per_minute, 0);
    assert_eq!(settings.limits.sessions_per_client_max, 10_000);
    assert_eq!(settings.retention.audit_days, 400);
    assert_eq!(settings.retention.exchanges_days, 30);
    assert_eq!(settings.log.level, "info");
    assert_eq!(settings.log.format, LogFormat::Text);
}

#[test]
fn every_key_of_the_defaults_is_read_and_no_other() {
    let defaults: toml::Table = DEFAULTS.parse().expect("the defaults are TOML");
    let known: BTreeSet<String> = defaults
        .iter()
        .flat_map(|(section, keys)| {
            let keys = keys.as_table().expect("the defaults are sections of keys");
            keys.keys().map(move |key| format!("{section}.{key}"))
        })
        .collect();
    let explained = Settings::with_defaults().explain();
    let read =
        explained.lines().map(|line| line.split(" = ").next().expect("a key begins the line").to_owned());
    assert_eq!(read.collect::<BTreeSet<_>>(), known);
    assert_eq!(explained.lines().count(), known.len(), "each key is read once");
    assert!(explained.lines().all(|line| line.ends_with("  # default")));
}

#[test]
fn each_layer_wins_over_the_ones_below() {
    let layers = start().file("[limits]\ncalls_per_key_per_second = 1\n");
    assert_eq!(layers.loads().limits.calls_per_key_per_second, 1);
    let layers = layers.env("TOLLGATE__LIMITS__CALLS_PER_KEY_PER_SECOND", "2");
    assert_eq!(layers.loads().limits.calls_per_key_per_second, 2);
    let layers = layers.flag("limits.calls_per_key_per_second", "--calls", "3");
    assert_eq!(layers.loads().limits.calls_per_key_per_second, 3);
    assert_eq!(layers.loads().limits.failures_per_address_per_minute, 600);
}

#[test]
fn the_environment_spells_every_type_as_text() {
    let settings = start()
        .env("TOLLGATE__SERVER__LISTEN", " [::1]:9000 ")
        .env("TOLLGATE__SERVER__TRUSTED_PROXIES", "10.1.2.3/8, 192.0.2.1,2001:db8::/32,")
        .env("TOLLGATE__SERVER__FORWARDED_HEADER", "forwarded")
        .env("TOLLGATE__SERVER__SHUTDOWN_GRACE_SECS", "3")
        .env("TOLLGATE__WEBHOOKS__ALLOW_HTTP", "true")
        .env("TOLLGATE__LOG__FORMAT", "json")
        .env("TOLLGATE_UNRELATED", "x")
        .env("PATH", "/bin")
        .loads();
    assert_eq!(settings.server.listen.to_string(), "[::1]:9000");
    assert_eq!(settings.server.issuer, "http://[::1]:9000");
    let proxies: Vec<String> = settings.server.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);
    assert_eq!(settings.server.forwarded_header, ForwardedHeader::Forwarded);
    assert_eq!(settings.server.shutdown_grace, Duration::from_secs(3));
    assert!(settings.webhooks.allow_http);
    assert_eq!(settings.log.format, LogFormat::Json);
}

#[test]
fn an_empty_value_takes_back_what_a_lower_layer_set() {
    let settings = start()
        .file("[server]\nissuer = \"https://a.example\"\ntrusted_proxies = [\"::1\"]\n[ops]\nlisten = \"127.0.0.1:9\"\n")
        .env("TOLLGATE__OPS__LISTEN", "")
        .env("TOLLGATE__SERVER__ISSUER", "")
        .env("TOLLGATE__SERVER__TRUSTED_PROXIES", "")
        .loads();
    assert_eq!(settings.ops.listen, None);
    assert_eq!(settings.server.issuer, "http://127.0.0.1:8080");
    assert!(settings.server.trusted_proxies.is_empty());
}

#[test]
fn a_copy_of_the_defaults_is_a_settings_file() {
    let copy = start().file(DEFAULTS).env("DATABASE_URL", URL);
    assert_eq!(copy.loads().database.url.expose(), URL);
}

#[test]
fn database_url_ranks_above_the_file_and_below_our_own_variables() {
    let file = || start().file("[database]\nurl = \"sqlite:file\"\n").other_file("url", "sqlite:from-file\n");
    assert_eq!(file().loads().database.url.expose(), "sqlite:file");
    let plain = || file().env("DATABASE_URL", "sqlite:plain");
    assert_eq!(plain().loads().database.url.expose(), "sqlite:plain");
    let own = plain().env("TOLLGATE__DATABASE__URL", "sqlite:own");
    assert_eq!(own.loads().database.url.expose(), "sqlite:own");
    let plain = plain();
    let path = plain.path("url");
    let own_file = plain.env("TOLLGATE__DATABASE__URL_FILE", &path);
    assert_eq!(own_file.loads().database.url.expose(), "sqlite:from-file");
    let flag = own_file.flag("database.url", "--database-url", "sqlite:flag");
    assert_eq!(flag.loads().database.url.expose(), "sqlite:flag");
}

#[test]
fn a_database_url_for_another_program_does_not_matter_when_ours_is_set() {
    let start = start().env("DATABASE_URL", "mysql://root@db/other");
    assert_eq!(
        start.mistakes(),
        ["environment DATABASE_URL: the URL must begin with sqlite:, postgres: or postgresql:"]
    );
    start.env("TOLLGATE__DATABASE__URL", URL).loads();
}

#[test]
fn the_default_database_is_in_the_data_directory() {
    for (data_dir, url) in [
        ("/var/lib/tollgate/", "sqlite:///var/lib/tollgate/tollgate.db"),
        ("./50%?", "sqlite://./50%25%3F/tollgate.db"),
    ] {
        let start = start().env("TOLLGATE__SERVER__DATA_DIR", data_dir);
        assert_eq!(start.loads().database.url.expose(), url);
    }
}

#[test]
fn token_keys_are_separated_by_commas_or_lines() {
    let start = start().other_file("keys", &format!("# newest\n{KEY_1}\r\n\n  # older\n {KEY_2} \n"));
    let path = start.path("keys");
    let from_file = start.env("TOLLGATE__TOKENS__KEYS_FILE", &path);
    let given = self::start().env("TOLLGATE__TOKENS__KEYS", &format!("{KEY_1}, {KEY_2}"));
    let older = [[0xab; 32]];
    for settings in [from_file.loads(), given.loads()] {
        assert_eq!(settings.tokens.keys.bytes(), [&[[0x11; 32]], &older[..]].concat());
    }
}

#[test]
fn a_higher_layer_replaces_either_form_of_a_secret() {
    let file = "[tokens]\nkeys_file = \"/does/not/exist\"\n[database]\nurl_file = \"/does/not/exist\"\n";
    let start = start().file(file).env("TOLLGATE__TOKENS__KEYS", KEY_1).env("DATABASE_URL", URL);
    assert_eq!(start.loads().tokens.keys.bytes(), [[0x11; 32]]);
    assert_eq!(start.loads().database.url.expose(), URL);
    // Passed on empty, it replaces nothing.
    let start = start.flag("tokens.keys_file", "--keys-file", "").env("TOLLGATE__DATABASE__URL", "");
    assert_eq!(start.loads().tokens.keys.bytes(), [[0x11; 32]]);
    assert_eq!(start.loads().database.url.expose(), URL);
}

#[test]
fn both_forms_of_a_secret_in_one_layer_are_refused() {
    let file = format!("[database]\nurl = \"{URL}\"\nurl_file = \"url\"\n");
    let start = start()
        .file(&file)
        .env("TOLLGATE__TOKENS__KEYS", KEY_1)
        .env("TOLLGATE__TOKENS__KEYS_FILE", "keys")
        .flag("database.url_file", "--database-url-file", "url")
        .flag("database.url", "--database-url", URL);
    let mistakes = start.mistakes();
    assert_eq!(
        mistakes,
        [
            "DIR/tollgate.toml line 3: database.url_file: database.url is set in the same layer; only one of the two may be",
            "environment TOLLGATE__TOKENS__KEYS_FILE: tokens.keys is set in the same layer; only one of the two may be",
            "flag --database-url-file: database.url is set in the same layer; only one of the two may be",
        ]
    );
}

#[test]
fn all_mistakes_of_all_layers_are_reported_at_once() {
    let file = "listen = 1\n\
        servr = {}\n\
        [server]\n\
        listen = \"127.0.0.1\"\n\
        issuer = \"https://a.example/\"\n\
        trusted_proxies = [\n\
        \"10.0.0.0/8\", \"10.0.0.0/33\",\n\
        \"proxy\",\n\
        ]\n\
        forwarded_header = \"via\"\n\
        conections_max = 5\n\
        header_timeout_secs = 0\n\
        request_timeout_secs = 1.5\n\
        [databse]\n\
        url = \"x\"\n\
        [[log]]\n\
        level = \"info\"\n\
        [webhooks]\n\
        allow_http = \"yes\"\n\
        timeout_secs = 3\n";
    let start = start()
        .file(file)
        .env("TOLLGATE__SERVER__LISTEN", "0.0.0.0:80")
        .env("TOLLGATE__SERVER__DATA_DIR", "")
        .env("TOLLGATE__SERVER__LISTN", "x")
        .env("TOLLGATE__LIMITS__CALLS_PER_KEY_PER_SECOND", "many")
        .env("TOLLGATE__TRUSTED_PROXIES", "x")
        .env("TOLLGATE__RATE_LIMIT", "x")
        .env("TOLLGATE__WEBHOOKS__ALLOW_PRIVATE_NETWORKS", "1")
        .flag("retention.audit_days", "--audit-days", "3651")
        .flag("log.level", "--log-level", "inof");
    assert_eq!(
        start.mistakes(),
        [
            "DIR/tollgate.toml line 1: listen: unknown setting, did you mean server.listen?",
            "DIR/tollgate.toml line 2: [servr]: unknown section, did you mean [server]?",
            "DIR/tollgate.toml line 4: server.listen: \"127.0.0.1\" is no address with a port, such as 127.0.0.1:8080",
            "DIR/tollgate.toml line 5: server.issuer: \"https://a.example/\" is no http or https URL without user, query, fragment and trailing slash",
            "DIR/tollgate.toml line 6: server.trusted_proxies: \"10.0.0.0/33\" is neither an address nor a CIDR such as 10.0.0.0/8; \"proxy\" is neither an address nor a CIDR such as 10.0.0.0/8",
            "DIR/tollgate.toml line 10: server.forwarded_header: \"via\" is not \"x-forwarded-for\" or \"forwarded\"",
            "DIR/tollgate.toml line 11: server.conections_max: unknown setting, did you mean server.connections_max?",
            "DIR/tollgate.toml line 12: server.header_timeout_secs: 0 is not in the range from 1 to 300",
            "DIR/tollgate.toml line 13: server.request_timeout_secs: expected a whole number, found a number with a fraction",
            "DIR/tollgate.toml line 14: [databse]: unknown section, did you mean [database]?",
            "DIR/tollgate.toml line 16: log: this is a section: write [log]",
            "DIR/tollgate.toml line 19: webhooks.allow_http: expected true or false, found a string",
            "DIR/tollgate.toml line 20: webhooks.timeout_secs: unknown setting, did you mean database.timeout_secs?",
            "environment TOLLGATE__LIMITS__CALLS_PER_KEY_PER_SECOND: \"many\" is no whole number: invalid digit found in string",
            "environment TOLLGATE__RATE_LIMIT: unknown setting",
            "environment TOLLGATE__SERVER__DATA_DIR: a directory must be named",
            "environment TOLLGATE__SERVER__LISTN: unknown setting, did you mean TOLLGATE__SERVER__LISTEN?",
            "environment TOLLGATE__TRUSTED_PROXIES: unknown setting, did you mean TOLLGATE__SERVER__TRUSTED_PROXIES?",
            "environment TOLLGATE__WEBHOOKS__ALLOW_PRIVATE_NETWORKS: \"1\" is neither true nor false",
            "flag --audit-days: 3651 is not in the range from 1 to 3650",
            "flag --log-level: \"inof\" is none of error, warn, info, debug, trace and off",
        ]
    );
}

#[test]
fn syntax_errors_are_reported_together_and_hide_only_their_own_lines() {
    let start = start().file("[server]\nlisten = 127.0.0.1:1\nissuer =\ndata_dir = 7\n[log]\nlevel = \"info\nlevel = \"warn\"\n[ops\n");
    assert_eq!(
        start.mistakes(),
        [
            "DIR/tollgate.toml line 2: syntax error: invalid float, expected nothing",
            "DIR/tollgate.toml line 3: syntax error: string values must be quoted, expected literal string",
            "DIR/tollgate.toml line 4: server.data_dir: expected a string, found a whole number",
            "DIR/tollgate.toml line 6: syntax error: invalid basic string, expected `\"`",
            "DIR/tollgate.toml line 7: syntax error: duplicate key",
            "DIR/tollgate.toml line 8: syntax error: unclosed table, expected `]`",
        ]
    );
}

#[test]
fn files_that_cannot_be_read_are_reported_with_everything_else() {
    let mut start =
        start().env("TOLLGATE__TOKENS__KEYS_FILE", "/does/not/exist").env("TOLLGATE__LOG__FORMAT", "xml");
    start.sources.file = Some(start.path("missing.toml").into());
    assert_eq!(
        start.mistakes(),
        [
            "DIR/missing.toml: cannot be read: No such file or directory (os error 2)",
            "environment TOLLGATE__LOG__FORMAT: \"xml\" is not \"text\" or \"json\"",
            "environment TOLLGATE__TOKENS__KEYS_FILE: the file that it names cannot be read: No such file or directory (os error 2)",
        ]
    );
}

#[test]
fn lifetimes_must_fit_into_each_other() {
    for (file, mistakes) in [
        ("refresh_ttl_secs = 3600\nsession_ttl_secs = 3600", &[][..]),
        (
            "refresh_ttl_secs = 3599",
            &[
                "line 2: tokens.refresh_ttl_secs: tokens.access_ttl_secs (3600, default) must be at most tokens.refresh_ttl_secs (3599, DIR/tollgate.toml line 2)",
            ],
        ),
        (
            "session_ttl_secs = 9\nrefresh_ttl_secs = 10\naccess_ttl_secs = 8\nrefresh_retry_window_secs = 8",
            &[
                "line 3: tokens.refresh_ttl_secs: tokens.refresh_ttl_secs (10, DIR/tollgate.toml line 3) must be at most tokens.session_ttl_secs (9, DIR/tollgate.toml line 2)",
                "line 5: tokens.refresh_retry_window_secs: tokens.refresh_retry_window_secs (8, DIR/tollgate.toml line 5) must be less than tokens.access_ttl_secs (8, DIR/tollgate.toml line 4)",
            ],
        ),
        // Nothing follows from a value that is a mistake by itself.
        (
            "access_ttl_secs = \"x\"\nrefresh_ttl_secs = 9",
            &["line 2: tokens.access_ttl_secs: expected a whole number, found a string"],
        ),
    ] {
        let start = start().file(&format!("[tokens]\n{file}\n"));
        if mistakes.is_empty() {
            start.loads();
        } else {
            let placed: Vec<String> =
                mistakes.iter().map(|mistake| format!("DIR/tollgate.toml {mistake}")).collect();
            assert_eq!(start.mistakes(), placed);
        }
    }
}

#[test]
fn the_two_listeners_do_not_share_an_address() {
    let ops =
        |address| start().env("TOLLGATE__OPS__LISTEN", address).env("TOLLGATE__SERVER__LISTEN", address);
    assert_eq!(ops("127.0.0.1:9").mistakes().len(), 1);
    ops("127.0.0.1:0").loads();
}

#[test]
fn an_issuer_is_a_plain_web_url() {
    let issuer = |issuer| start().env("TOLLGATE__SERVER__ISSUER", issuer);
    for good in
        ["https://id.example", "http://localhost:8080", "https://id.example/tollgate", "https://[::1]:8443"]
    {
        assert_eq!(issuer(good).loads().server.issuer, good);
    }
    for bad in [
        "id.example",
        "/tollgate",
        "ftp://id.example",
        "https://",
        "https://:8080",
        "https://id.example/",
        "https://id.example?a=b",
        "https://id.example#a",
        "https://user@id.example",
        "https://id.example:99999",
        "https://id.example:",
        "https://id example",
    ] {
        assert_eq!(issuer(bad).mistakes().len(), 1, "{bad}");
    }
}

#[test]
fn a_log_level_is_a_level_or_directives() {
    let level = |level| start().env("TOLLGATE__LOG__LEVEL", level);
    for good in ["off", "WARN", "info,tollgate::store=debug", "tollgate=trace", "info,sqlx"] {
        assert_eq!(level(good).loads().log.level, good);
    }
    for bad in ["", "inof", "tollgate", "tollgate=loud", "info,tollgate=debug=x"] {
        assert_eq!(level(bad).mistakes().len(), 1, "{bad}");
    }
}

#[test]
fn explain_shows_each_value_in_effect_and_where_it_came_from() {
    let start = start()
        .file("[server]\nissuer = \"https://id.example\"\n\n[ops]\nlisten = \"127.0.0.1:9\"\n")
        .env("TOLLGATE__SERVER__TRUSTED_PROXIES", "::1,10.0.0.0/8")
        .env("DATABASE_URL", URL)
        .other_file("keys", KEY_1)
        .flag("server.listen", "--listen", "127.0.0.1:8");
    let path = start.path("keys");
    let start = start.env("TOLLGATE__TOKENS__KEYS_FILE", &path);
    let explained = start.explained();
    for line in [
        "server.listen = \"127.0.0.1:8\"  # flag --listen",
        "server.issuer = \"https://id.example\"  # DIR/tollgate.toml line 2",
        "server.trusted_proxies = [\"::1\", \"10.0.0.0/8\"]  # environment TOLLGATE__SERVER__TRUSTED_PROXIES",
        "server.connections_max = 10000  # default",
        "ops.listen = \"127.0.0.1:9\"  # DIR/tollgate.toml line 5",
        "database.url = (set)  # environment DATABASE_URL",
        "database.url_file = \"\"  # default",
        "tokens.keys = (set)  # environment TOLLGATE__TOKENS__KEYS_FILE",
        "tokens.keys_file = \"DIR/keys\"  # environment TOLLGATE__TOKENS__KEYS_FILE",
    ] {
        assert!(explained.iter().any(|explained| explained == line), "{line} is not in {explained:#?}");
    }
    let defaults = Settings::with_defaults().explain();
    assert!(defaults.contains("server.issuer = \"http://127.0.0.1:8080\"  # default\n"));
    assert!(defaults.contains("database.url = \"sqlite://data/tollgate.db\"  # default\n"));
    assert!(defaults.contains("tokens.keys = \"\"  # default\n"));
}

#[test]
fn settings_show_no_secret() {
    let settings = start().env("DATABASE_URL", URL).env("TOLLGATE__TOKENS__KEYS", KEY_1).loads();
    for shown in [settings.explain(), format!("{settings:?}"), format!("{settings:#?}")] {
        for secret in [PASSWORD, KEY_1, "17, 17"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[test]
fn mistakes_show_no_secret() {
    let bad_url = "mysql://root:correct-horse@db";
    let bad_key = format!("{KEY_1}1");
    let keys = start().other_file("keys", &bad_key);
    let path = keys.path("keys");
    for start in [
        keys.env("TOLLGATE__TOKENS__KEYS_FILE", &path),
        start().env("DATABASE_URL", bad_url),
        start().env("TOLLGATE__DATABASE__URL_FILE", URL),
        start().env("TOLLGATE__DATABASE__PASSWORD", PASSWORD),
        start().env("TOLLGATE__TOKENS__KEYS", &format!("{KEY_1},{bad_key}")),
        start().env("TOLLGATE__TOKENS__KEYS", &[KEY_1; 17].join(",")),
        start().flag("tokens.keys_file", "--keys-file", &bad_key),
        start().file(&format!("[database]\nurl = {URL}\n")),
        start().file(&format!("[database]\nurl = \"{URL}\n")),
        start().file(&format!("[database]\nurl = \"\"\"{URL}\n")),
        start().file(&format!("[database]\nurl = [\"{URL}\", 1]\n")),
        start().file(&format!("[database]\nurl = [\"{URL}\"]\n")),
        start().file(&format!("[database]\n{URL}\n")),
        start().file(&format!("[database]\nurl {URL}\n")),
        start().file(&format!("DATABASE_URL={URL}\n")),
        start().file(&format!("[tokens]\n{KEY_1}\n{KEY_2}\n")),
        start().file(&format!("[tokens]\nkeys = {KEY_1},{KEY_2}\n")),
        start().file(&format!("[tokens]\nkeys = [{KEY_1},\n{KEY_2}]\n")),
        start().file(&format!("[tokens]\nkeys = [\n{KEY_1},\n{KEY_2}\n")),
        start().file(&format!("[tokens]\nkeys = \"\"\"\n{KEY_1}\n\"\"\n[log]\n")),
    ] {
        let mistakes = Settings::load(&start.sources).expect_err("these settings have a mistake");
        for shown in [mistakes.to_string(), format!("{mistakes:?}")] {
            for secret in [PASSWORD, KEY_1, KEY_2, "mysql"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
    }
}

#[test]
fn the_bounds_of_numbers_are_those_in_the_comments() {
    let numbers = numbers();
    assert_eq!(numbers.len(), 17);
    for (key, default, min, max) in numbers {
        assert!((min..=max).contains(&default), "{key}");
        for number in [min, max, min - 1, max + 1] {
            let start = start().env(&variable(&key), &number.to_string());
            let mistakes =
                Settings::load(&start.sources).err().map(|mistakes| mistakes.to_string()).unwrap_or_default();
            let refusal =
                format!("environment {}: {number} is not in the range from {min} to {max}", variable(&key));
            let is_in_range = (min..=max).contains(&number);
            assert_eq!(
                !mistakes.lines().any(|line| line == refusal),
                is_in_range,
                "{key} = {number}: {mistakes}"
            );
        }
    }
}
