//! The layers of settings, and which one wins.

use std::time::Duration;

use tollgate::config::{ForwardedHeader, LogFormat, Settings};

use super::{DEFAULTS, KEY_1, URL, start};

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
    let proxies: Vec<String> = settings.server.edge.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);
    assert_eq!(settings.server.edge.forwarded_header, ForwardedHeader::Forwarded);
    assert_eq!(settings.server.limits.shutdown_grace, Duration::from_secs(3));
    assert!(settings.webhooks.destinations.allow_http);
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
    assert!(settings.server.edge.trusted_proxies.is_empty());
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
fn a_higher_layer_replaces_either_form_of_a_secret() {
    let file = "[tokens]\nkeys_file = \"/does/not/exist\"\n[database]\nurl_file = \"/does/not/exist\"\n";
    let start = start().file(file).env("TOLLGATE__TOKENS__KEYS", KEY_1).env("DATABASE_URL", URL);
    assert_eq!(start.loads().tokens.keys.bytes(), [[0x11; 32]]);
    assert_eq!(start.loads().database.url.expose(), URL);
    // An empty variable replaces nothing.
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
