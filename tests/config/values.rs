//! The default and the allowed values of each setting.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use chrono::TimeDelta;
use tollgate::config::{ForwardedHeader, LogFormat, Settings, Sources};

use super::{DEFAULTS, KEY_1, KEY_2, PASSWORD, URL, start};

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
    assert!(settings.server.edge.trusted_proxies.is_empty());
    assert_eq!(settings.server.edge.forwarded_header, ForwardedHeader::XForwardedFor);
    assert_eq!(settings.server.limits.connections_max, 10_000);
    assert_eq!(settings.server.limits.connections_per_address_max, 1000);
    assert_eq!(settings.server.limits.header_timeout, Duration::from_secs(10));
    assert_eq!(settings.server.limits.idle_timeout, Duration::from_secs(75));
    assert_eq!(settings.server.edge.request_timeout, Duration::from_secs(30));
    assert_eq!(settings.server.limits.shutdown_grace, Duration::from_secs(25));
    assert_eq!(settings.ops.listen, None);
    assert_eq!(settings.database.url.expose(), "sqlite://data/tollgate.db");
    assert_eq!(settings.database.connections_max, 16);
    assert_eq!(settings.database.cache_bytes_max, 24 << 20);
    assert_eq!(settings.database.timeout, Duration::from_secs(5));
    assert!(settings.tokens.keys.bytes().is_empty());
    assert_eq!(settings.tokens.lifetimes.access_ttl, TimeDelta::hours(1));
    assert_eq!(settings.tokens.lifetimes.refresh_ttl, TimeDelta::days(30));
    assert_eq!(settings.tokens.lifetimes.session_ttl, TimeDelta::days(365));
    assert_eq!(settings.tokens.lifetimes.retry_window, TimeDelta::minutes(1));
    assert!(!settings.webhooks.destinations.allow_private_networks);
    assert!(!settings.webhooks.destinations.allow_http);
    assert!(settings.webhooks.operator_url.is_none());
    assert!(settings.webhooks.operator_secret.is_none());
    assert_eq!(settings.limits.failures_per_address_per_minute, 600);
    assert_eq!(settings.limits.calls_per_key_per_second, 0);
    assert_eq!(settings.limits.new_sessions_per_client_per_minute, 6000);
    assert_eq!(settings.limits.admin_calls_per_token_per_minute, 6000);
    assert_eq!(settings.limits.sessions_per_client_max, 10_000);
    assert_eq!(settings.retention.audit, TimeDelta::days(400));
    assert_eq!(settings.retention.exchanges, TimeDelta::days(30));
    assert_eq!(settings.retention.exchange_success_sample, 1.0);
    assert!(!settings.console.totp_required_for_live);
    assert!(settings.console.cells.is_empty() && settings.console.cell_tokens_file.is_none());
    assert_eq!(settings.log.level, "info");
    assert_eq!(settings.log.format, LogFormat::Text);
    assert_eq!(settings.traces.otlp_endpoint, None);
    assert_eq!(settings.traces.sample_percent, 100);
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
fn a_share_is_from_zero_to_one() {
    let key = "TOLLGATE__RETENTION__EXCHANGE_SUCCESS_SAMPLE";
    for (text, share) in [("0", 0.0), ("0.25", 0.25), ("1", 1.0)] {
        assert_eq!(start().env(key, text).loads().retention.exchange_success_sample, share);
        let file = start().file(&format!("[retention]\nexchange_success_sample = {text}"));
        assert_eq!(file.loads().retention.exchange_success_sample, share);
    }
    for (text, why) in [
        ("1.5", "1.5 is not in the range from 0 to 1"),
        ("NaN", "NaN is not in the range from 0 to 1"),
        ("half", "\"half\" is no number such as 0.1"),
    ] {
        assert_eq!(start().env(key, text).mistakes(), [format!("environment {key}: {why}")]);
    }
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
        // A wrong value causes no further mistakes.
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
fn the_bounds_of_numbers_are_those_in_the_comments() {
    let numbers = numbers();
    assert!(numbers.len() > 15, "the comments say `From ... to ...`");
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

#[test]
fn settings_show_no_secret() {
    let start = start().env("DATABASE_URL", URL).env("TOLLGATE__TOKENS__KEYS", KEY_1);
    let start = start.env("TOLLGATE__CONSOLE__CELLS", "us=https://us.example");
    let settings = start.env("TOLLGATE__CONSOLE__CELL_TOKENS", &format!("us=tga_{PASSWORD:x<43}")).loads();
    for shown in [settings.explain(), format!("{settings:?}"), format!("{settings:#?}")] {
        for secret in [PASSWORD, KEY_1, "17, 17"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[test]
fn files_of_secrets_may_come_from_windows() {
    let keys = format!("\u{feff}# keys\r\n{KEY_1}\r\n{KEY_2}\r\n");
    let start = start().other_file("keys", &keys).other_file("url", &format!("\u{feff}{URL}\r\n"));
    let (keys, url) = (start.path("keys"), start.path("url"));
    let start = start.env("TOLLGATE__TOKENS__KEYS_FILE", &keys).env("TOLLGATE__DATABASE__URL_FILE", &url);
    let settings = start.file("\u{feff}[log]\r\nlevel = \"debug\"\r\n").loads();
    assert_eq!(settings.tokens.keys.bytes().len(), 2);
    assert_eq!(settings.database.url.expose(), URL);
    assert_eq!(settings.log.level, "debug");
}

#[test]
fn scopes_are_a_list_or_say_what_each_allows() {
    let load = |text: &str| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("tollgate.toml");
        std::fs::write(&file, text).expect("it can be written");
        Settings::load(&Sources { file: Some(file), ..Sources::default() })
    };
    let listed = load("[tokens]\nscopes = [\"read\", \"write\"]\n").expect("a list is taken").tokens;
    assert_eq!(listed.scopes, ["read", "write"]);
    assert!(listed.scope_descriptions.is_empty());
    let described = load("[tokens.scopes]\nread = \"See payments\"\n\"pay.write\" = \"\"\n");
    let described = described.expect("a section is taken").tokens;
    let mut names = described.scopes.clone();
    names.sort_unstable();
    assert_eq!(names, ["pay.write", "read"]);
    assert_eq!(described.scope_descriptions["read"], "See payments");
    assert_eq!(described.scope_descriptions.len(), 1);
    for bad in
        ["scopes = { \"a b\" = \"x\" }", "scopes = { a = 1 }", "scopes = { a = \"x\\ny\" }", "scopes = 1"]
    {
        assert!(load(&format!("[tokens]\n{bad}\n")).is_err(), "{bad}");
    }
}

#[test]
fn other_cells_have_a_name_a_url_that_is_safe_for_a_token_and_a_token() {
    const CELLS: &str = "TOLLGATE__CONSOLE__CELLS";
    const TOKENS: &str = "TOLLGATE__CONSOLE__CELL_TOKENS";
    let (one, two) = (format!("tga_{}", "1".repeat(43)), format!("tga_c8d{}", "2".repeat(43)));
    let tokens = format!("# made on Monday\nus = {one}\r\n\nap={two}\n");
    let start_with_file = start().other_file("tokens", &tokens);
    let file = start_with_file.path("tokens");
    let console = start_with_file
        .env(CELLS, "us=https://us.example, ap=http://127.0.0.1:8080/ap")
        .env("TOLLGATE__CONSOLE__CELL_TOKENS_FILE", &file)
        .loads()
        .console;
    let cells: Vec<_> = console.cells.iter().map(|cell| (cell.name.as_str(), cell.url.as_str())).collect();
    assert_eq!(cells, [("us", "https://us.example"), ("ap", "http://127.0.0.1:8080/ap")]);
    assert_eq!(console.cell_tokens.of("ap").map(|token| token.expose()), Some(two.as_str()));
    assert!(console.cell_tokens.of("eu").is_none());
    assert_eq!(console.cell_tokens_file.as_deref(), Some(Path::new(&file)));

    for (cells, tokens, expected) in [
        ("tga_horse", "", "is not of the form NAME=URL"),
        ("u s=https://us.example", "", "is not of the form NAME=URL"),
        ("=https://us.example", "", "is not of the form NAME=URL"),
        (&format!("{}=https://us.example", "u".repeat(33)), "", "is not of the form NAME=URL"),
        ("us=ftp://us.example", "", "is no URL"),
        ("us=tga_horse", "", "is no URL"),
        ("us=https://us.example/", "", "is no URL"),
        ("us=https://tga_horse@us.example", "", "is no URL"),
        ("us=http://us.example", "", "use https"),
        ("us=http://10.0.0.1:8080", "", "use https"),
        ("us=http://127.0.0.1.example", "", "use https"),
        (&"us=https://us.example,".repeat(17), "", "17 entries are more than 16"),
        (
            "us=https://us.example,us=https://b.example",
            &format!("us={one},us={two}"),
            "must name each cell once",
        ),
        ("us=https://us.example", "", "must name each cell once, and exactly those in"),
        ("", &format!("us={one}"), "must name each cell once, and exactly those in"),
        ("us=https://us.example", &format!("eu={one}"), "must name each cell once, and exactly those in"),
        ("us=https://us.example", "us=correct-horse", "entry 1 is not of the form NAME=TOKEN"),
        (
            "us=https://us.example",
            &format!("us={one},eu=correct-horse"),
            "entry 2 is not of the form NAME=TOKEN",
        ),
        ("us=https://us.example", "us=tga_correct-horse", "entry 1 is not of the form NAME=TOKEN"),
    ] {
        let mistakes = start().env(CELLS, cells).env(TOKENS, tokens).mistakes();
        assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{cells} {tokens}: {mistakes:?}");
        assert!(!mistakes.concat().contains("horse"), "{mistakes:?}");
    }
}
