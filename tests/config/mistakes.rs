//! Mistakes in the settings: all are reported together, with their place, and without secrets.

use tollgate::config::Settings;

use super::{KEY_1, KEY_2, PASSWORD, URL, start};

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
