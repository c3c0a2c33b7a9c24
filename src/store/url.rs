//! Parses the database URL before the driver does. The driver logs what it does not understand, which may be
//! part of a password. Errors here show no part of the URL except the name of a parameter.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use url::Url;

/// Why a URL cannot be used. The text is for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(String);

/// The location of a database.
#[derive(Clone)]
pub(super) enum Target {
    Sqlite {
        path: PathBuf,
        /// Whether the URL allows making the file.
        creates: bool,
    },
    Postgres(Servers),
}

/// The servers of one database. They are tried in order until one is a primary that accepts writes.
#[derive(Clone)]
pub(super) struct Servers {
    pub(super) each: Vec<PgConnectOptions>,
    /// The time for one attempt at one server.
    pub(super) connect_timeout: Option<Duration>,
}

/// Parameters that the driver supports, with their other names.
const PASSED_ON: &[(&str, &[&str])] = &[
    ("host", &["hostaddr"]),
    ("port", &[]),
    ("dbname", &[]),
    ("user", &[]),
    ("password", &[]),
    ("sslmode", &["ssl-mode"]),
    ("sslrootcert", &["ssl-root-cert", "ssl-ca"]),
    ("sslcert", &["ssl-cert"]),
    ("sslkey", &["ssl-key"]),
    ("application_name", &[]),
    ("options", &[]),
    ("statement-cache-capacity", &[]),
];

/// Parameters with a fixed list of values. All except the first are known only to libpq, and we accept the
/// values that ask for what we do anyway.
const ONLY: &[(&str, &[&str])] = &[
    ("sslmode", &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
    ("target_session_attrs", &["any", "read-write", "primary"]),
    ("channel_binding", &["disable", "prefer"]),
    ("client_encoding", &["utf8", "UTF8", "auto"]),
    ("gssencmode", &["disable", "prefer"]),
    ("load_balance_hosts", &["disable"]),
    ("sslnegotiation", &["postgres"]),
];

const ENCODE: &str =
    "in user, password and parameters write # as %23, / as %2F, : as %3A, ? as %3F, @ as %40";

type Parameters = BTreeMap<&'static str, String>;

fn bad<T>(what: impl Into<String>) -> Result<T, BadUrl> {
    Err(BadUrl(what.into()))
}

/// Checks a URL without connecting.
pub fn check(url: &str) -> Result<(), BadUrl> {
    Target::parse(url).map(drop)
}

/// Names the database for an operator, without a password.
pub fn describe(url: &str) -> Result<String, BadUrl> {
    Ok(match Target::parse(url)? {
        Target::Sqlite { path, .. } => format!("SQLite, {}", path.display()),
        Target::Postgres(Servers { each, .. }) => {
            let server = |one: &PgConnectOptions| match one.get_socket() {
                Some(socket) => socket.display().to_string(),
                None => format!("{}:{}", one.get_host(), one.get_port()),
            };
            let servers: Vec<_> = each.iter().map(server).collect();
            let first = each.first();
            let user = first.map_or("", PgConnectOptions::get_username);
            let database = first.and_then(PgConnectOptions::get_database).unwrap_or(user);
            format!("PostgreSQL, database {database} at {} as {user}", servers.join(", "))
        }
    })
}

/// Whether the database runs on this machine, as far as its URL says.
pub fn is_on_this_machine(url: &str) -> bool {
    let is_here = |one: &PgConnectOptions| {
        let host = one.get_host().trim_matches(['[', ']']);
        one.get_socket().is_some()
            || host.starts_with('/')
            || host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    };
    match Target::parse(url) {
        Ok(Target::Sqlite { .. }) => true,
        Ok(Target::Postgres(servers)) => servers.each.iter().all(is_here),
        Err(_) => false,
    }
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, BadUrl> {
        if url.chars().any(|c| c.is_ascii_control()) {
            return bad("it holds a control character");
        }
        match url.split_once(':') {
            Some(("sqlite", rest)) => sqlite(rest.strip_prefix("//").unwrap_or(rest)),
            Some(("postgres" | "postgresql", rest)) => match rest.strip_prefix("//") {
                Some(rest) => postgres(rest).map(Self::Postgres),
                None => bad("after the scheme must come //"),
            },
            _ => bad("the URL must begin with sqlite:, postgres: or postgresql:"),
        }
    }
}

fn sqlite(rest: &str) -> Result<Target, BadUrl> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = decoded("the path", path)?;
    if path.is_empty() || path.contains(":memory:") {
        return bad("an in-memory SQLite database keeps nothing; give a file");
    }
    let mut creates = false;
    for (name, value) in pairs(query)? {
        match (name, value.as_str()) {
            ("mode", "rw") => {}
            ("mode", "rwc") => creates = true,
            ("mode", _) => return bad("mode must be rw or rwc"),
            _ => return unknown(name),
        }
    }
    Ok(Target::Sqlite { path: path.into(), creates })
}

fn postgres(rest: &str) -> Result<Servers, BadUrl> {
    if rest.contains('#') {
        return bad(format!("it holds a #: {ENCODE}"));
    }
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    // With another @, it is not clear where the host begins.
    if login.contains('@') || !authority.is_empty() && tail.contains('@') {
        return bad(format!("it holds an @ that does not end the password: {ENCODE}"));
    }
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let mut given = Parameters::new();
    let mut put = |name, value: String| {
        if !value.is_empty() {
            given.insert(name, value);
        }
    };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    put("user", decoded("the user", user)?);
    put("password", decoded("the password", password)?);
    put("dbname", decoded("the name of the database", path.strip_prefix('/').unwrap_or(path))?);
    let (names, ports) = authority_hosts(hosts)?;
    put("host", names);
    put("port", ports);
    let mut connect_timeout = None;
    let mut wants_writable = false;
    for (name, value) in pairs(query)? {
        let known = PASSED_ON.iter().find(|(known, also)| *known == name || also.contains(&name));
        check_value(name, &value)?;
        match known {
            Some((known, _)) => drop(given.insert(known, value)),
            None if name == "target_session_attrs" => wants_writable = value != "any",
            None if name == "connect_timeout" => connect_timeout = seconds(name, &value)?,
            None if ONLY.iter().any(|(only, _)| *only == name) => {}
            None => return unknown(name),
        }
    }
    let each = servers(&given)?;
    if each.len() > 1 && !wants_writable {
        return bad("several hosts need target_session_attrs=read-write");
    }
    Ok(Servers { each, connect_timeout })
}

/// Splits `a:1,b,[::1]:2` into a list of hosts and a list of ports. A port may be empty.
fn authority_hosts(hosts: &str) -> Result<(String, String), BadUrl> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.rfind(']') {
            Some(end) => host.split_at(end + 1),
            None => host.split_at(host.find(':').unwrap_or(host.len())),
        };
        names.push(decoded("the host", name)?);
        ports.push(port.strip_prefix(':').unwrap_or(port));
    }
    let ports = if ports.iter().all(|port| port.is_empty()) { String::new() } else { ports.join(",") };
    Ok((names.join(","), ports))
}

/// One server for each host. A single port applies to all hosts.
fn servers(given: &Parameters) -> Result<Vec<PgConnectOptions>, BadUrl> {
    let list = |name| given.get(name).map_or("", String::as_str).split(',').collect::<Vec<_>>();
    let (hosts, ports) = (list("host"), list("port"));
    if ports.len() != 1 && ports.len() != hosts.len() {
        return bad("there must be one port, or as many as hosts");
    }
    let server = |(i, host): (usize, &&str)| {
        let port = if ports.len() == 1 { ports[0] } else { ports[i] };
        if !port.is_empty() && !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return bad(format!("a port is no number from 1 to 65535; {ENCODE}"));
        }
        let mut url = Url::parse("postgres://").map_err(|_| BadUrl(String::new()))?;
        let others = given.iter().filter(|(name, _)| !matches!(**name, "host" | "port"));
        let place = [("host", *host), ("port", port)].into_iter().filter(|(_, value)| !value.is_empty());
        url.query_pairs_mut().extend_pairs(others).extend_pairs(place);
        if !given.contains_key("application_name") {
            url.query_pairs_mut().append_pair("application_name", "tollgate");
        }
        // We have checked the values. Do not show the driver's error, because it may repeat one.
        PgConnectOptions::from_url(&url).map_err(|_| BadUrl("the driver does not understand it".to_owned()))
    };
    hosts.iter().enumerate().map(server).collect()
}

fn check_value(name: &str, value: &str) -> Result<(), BadUrl> {
    if let Some((_, allowed)) = ONLY.iter().find(|(only, _)| *only == name)
        && !allowed.contains(&value)
    {
        return bad(format!("{name} must be one of {}; no other value is supported", allowed.join(", ")));
    }
    match name {
        "statement-cache-capacity" if value.parse::<usize>().is_err() => {
            bad(format!("{name} must be a number"))
        }
        "hostaddr" if value.split(',').any(|address| address.parse::<IpAddr>().is_err()) => {
            bad(format!("{name} must be an IP address"))
        }
        "sslrootcert" if value == "system" => bad("sslrootcert must name a file"),
        _ => Ok(()),
    }
}

/// Zero means no limit, as in libpq.
fn seconds(name: &str, value: &str) -> Result<Option<Duration>, BadUrl> {
    match value.parse::<u32>() {
        Ok(0) => Ok(None),
        Ok(secs) => Ok(Some(Duration::from_secs(secs.into()))),
        Err(_) => bad(format!("{name} must be a number of seconds")),
    }
}

/// The parameters of a query. Each may be given once.
fn pairs(query: &str) -> Result<BTreeMap<&str, String>, BadUrl> {
    let mut pairs = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            return bad(format!("what follows the ? must be name=value; {ENCODE}"));
        };
        if pairs.insert(name, decoded("a parameter", value)?).is_some() {
            return bad("a parameter is given twice");
        }
    }
    Ok(pairs)
}

/// Shows the parameter only if it looks like a name, because anything else may be part of a password.
fn unknown<T>(name: &str) -> Result<T, BadUrl> {
    let is_name = name.len() <= 32 && name.bytes().all(|c| c.is_ascii_lowercase() || b"_-".contains(&c));
    let name = if is_name { name } else { "with that name" };
    bad(format!("the parameter {name} is not supported"))
}

fn decoded(what: &str, text: &str) -> Result<String, BadUrl> {
    let is_escaped = |at: usize| {
        text.as_bytes().get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.match_indices('%').all(|(at, _)| is_escaped(at)) {
        return bad(format!(
            "{what} holds a % that is not followed by two hexadecimal digits: write it as %25"
        ));
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(text) if !text.contains('\0') => Ok(text.into_owned()),
        _ => bad(format!("{what} is not UTF-8 text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(url: &str) -> Vec<PgConnectOptions> {
        match Target::parse(url) {
            Ok(Target::Postgres(servers)) => servers.each,
            Ok(Target::Sqlite { .. }) => panic!("{url} is of SQLite"),
            Err(error) => panic!("{url}: {error}"),
        }
    }

    #[test]
    fn a_database_is_described_without_its_password() {
        for (url, text) in [
            ("sqlite://data/tollgate.db?mode=rwc", "SQLite, data/tollgate.db"),
            (
                "postgres://me:p%23ss@a:1,b/books?target_session_attrs=read-write",
                "PostgreSQL, database books at a:1, b:5432 as me",
            ),
            ("postgres://me@/books?host=/run/pg&password=ss", "PostgreSQL, database books at /run/pg as me"),
        ] {
            assert_eq!(describe(url).as_deref(), Ok(text), "{url}");
        }
    }

    #[test]
    fn a_database_on_this_machine_is_recognised() {
        for (url, is_here) in [
            ("sqlite://data/tollgate.db", true),
            ("postgres://me@localhost/books", true),
            ("postgres://me@127.0.0.1:6432/books", true),
            ("postgres://me@[::1]/books", true),
            ("postgres://me@/books?host=/run/pg", true),
            ("postgres://me@/books", true),
            ("postgres://me@db.example/books", false),
            ("postgres://me@192.0.2.1/books", false),
            ("postgres://me@127.0.0.1,192.0.2.1/books?target_session_attrs=read-write", false),
        ] {
            assert_eq!(is_on_this_machine(url), is_here, "{url}");
        }
    }

    #[test]
    fn the_forms_of_libpq_are_understood() {
        let one = &servers("postgres://me:p%23%40ss@db.example:6432/tollgate?sslmode=require")[0];
        assert_eq!((one.get_host(), one.get_port(), one.get_username()), ("db.example", 6432, "me"));
        assert_eq!(one.get_database(), Some("tollgate"));
        for url in ["postgres://me@/db?host=/run/pg", "postgresql://me@%2Frun%2Fpg/db"] {
            assert_eq!(servers(url)[0].get_socket(), Some(&PathBuf::from("/run/pg")), "{url}");
        }
        let url = "postgres://me@a:1,b,[::1]:3/db?target_session_attrs=read-write&channel_binding=prefer";
        let places: Vec<_> =
            servers(url).iter().map(|one| (one.get_host().to_owned(), one.get_port())).collect();
        assert_eq!(places, [("a".to_owned(), 1), ("b".to_owned(), 5432), ("[::1]".to_owned(), 3)]);
        let url =
            "postgres:///db?user=me@tenant&host=a,b&port=7&target_session_attrs=primary&connect_timeout=2";
        assert_eq!(servers(url).iter().map(PgConnectOptions::get_port).collect::<Vec<_>>(), [7, 7]);
        assert_eq!(servers(url)[0].get_username(), "me@tenant");
    }

    #[test]
    fn what_is_not_understood_is_named_without_its_value() {
        for (url, named) in [
            ("postgres://u:hunter2#x@127.0.0.1/d", "%23"),
            ("postgres://u:hunter2/x@127.0.0.1/d", "%2F"),
            ("postgres://u:hunter2?Kx=hunter2@127.0.0.1/d", "%3F"),
            ("postgres://u:hunter2@hunter2@127.0.0.1/d", "%40"),
            ("postgres://u:hunter2%zz@127.0.0.1/d", "%25"),
            ("postgres://u:p@h:hunter2/d", "port"),
            ("postgres://u@h/d?sslmode=hunter2", "sslmode"),
            ("postgres://u@h/d?sslpassword=hunter2", "sslpassword"),
            ("postgres://u@h/d?hunter2=x", "with that name"),
            ("postgres://u@h/d?channel_binding=require", "channel_binding"),
            ("postgres://u@h/d?target_session_attrs=standby", "target_session_attrs"),
            ("postgres://u@h/d?user=a&user=hunter2", "twice"),
            ("postgres://u@h1:5432,h2:5432/d", "target_session_attrs=read-write"),
            ("mysql://u:hunter2@h/d", "sqlite:, postgres:"),
            ("sqlite::memory:", "in-memory"),
            ("sqlite://d.db?mode=memory", "mode"),
            ("sqlite://d.db?vfs=hunter2", "vfs"),
        ] {
            let Err(BadUrl(told)) = Target::parse(url) else { panic!("{url} passes") };
            assert!(told.contains(named) && !told.contains("hunter2"), "{url}: {told}");
        }
    }

    #[test]
    fn a_path_keeps_its_slashes_and_is_decoded() {
        for (url, expected) in [
            ("sqlite:///a/b.db", "/a/b.db"),
            ("sqlite:////a/b.db", "//a/b.db"),
            ("sqlite:b.db", "b.db"),
            ("sqlite://a%25%3Fb.db?mode=rwc", "a%?b.db"),
        ] {
            let Ok(Target::Sqlite { path, .. }) = Target::parse(url) else { panic!("{url}") };
            assert_eq!(path, PathBuf::from(expected), "{url}");
        }
    }
}
