//! Parsers for the values of settings, and the types that keep secrets.
//!
//! Parsers know nothing about layers. The errors of those for secrets never repeat the text.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hyper::Uri;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use url::Url;
use zeroize::{Zeroize, Zeroizing};

use super::reader::secret_file;
use crate::domain::address::canonical_range;
use crate::domain::destination::{DestinationRules, WebhookUrl};
use crate::domain::keyring::KeyState;
use crate::domain::scope::is_name;
use crate::domain::webhook::WebhookSecret;

/// Enough for years of rotation. Each key may be tried on a token.
const TOKEN_KEYS_MAX: usize = 16;

/// What a scope allows, on one line of a form.
const SCOPE_ABOUT_CHARS_MAX: usize = 200;

/// Why a text is not a valid value. It never shows a secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadValue(pub(super) String);

/// The URL of the database. It may contain a password, so only [`DatabaseUrl::expose`] shows it.
#[derive(Clone)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL, including the password.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads the URL from a file. The error shows neither the path nor the URL.
    pub fn read_from(path: &Path) -> Result<Self, BadValue> {
        secret_file(path)
    }

    /// The embedded database of a data directory.
    pub fn sqlite_in(data_dir: &Path) -> Self {
        // In a URL, `?` would end the path and `%` would begin an escape.
        let directory = data_dir.to_string_lossy().replace('%', "%25").replace('?', "%3F");
        Self(format!("sqlite://{}/tollgate.db", directory.trim_end_matches('/')))
    }
}

impl FromStr for DatabaseUrl {
    type Err = BadValue;

    fn from_str(url: &str) -> Result<Self, BadValue> {
        crate::store::url::check(url).map_err(|error| BadValue(error.to_string()))?;
        Ok(Self(url.to_owned()))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(redacted)")
    }
}

/// The URL of an HTTP proxy. It may contain a password, so only its parts can be read.
#[derive(Clone)]
pub struct ProxyUrl {
    host: String,
    port: u16,
    credentials: Option<Zeroizing<String>>,
}

impl ProxyUrl {
    /// A name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `user:password`, as it goes into a Basic header.
    pub fn credentials(&self) -> Option<&str> {
        self.credentials.as_deref().map(String::as_str)
    }
}

impl FromStr for ProxyUrl {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad =
            || BadValue("the proxy is no URL such as http://user:password@proxy.internal:3128".to_owned());
        let url = Url::parse(text).map_err(|_| bad())?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if url.scheme() != "http" || !is_bare || host.is_empty() {
            return Err(bad());
        }
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let has_user = !url.username().is_empty() || url.password().is_some();
        let credentials = has_user.then(|| {
            let password = Zeroizing::new(decoded(url.password().unwrap_or_default()));
            Zeroizing::new(format!("{}:{}", decoded(url.username()), *password))
        });
        Ok(Self { host, port: url.port_or_known_default().unwrap_or(80), credentials })
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyUrl(redacted)")
    }
}

impl FromStr for WebhookSecret {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || BadValue("the secret is not `whsec_` and the base64 of 24 to 64 bytes".to_owned());
        Self::from_plain(text).ok_or_else(bad)
    }
}

/// The master keys for tokens, newest first, and what each may do. Wiped from memory when dropped.
pub struct TokenKeys {
    keys: Vec<[u8; 32]>,
    states: Vec<KeyState>,
}

impl TokenKeys {
    /// Keys that may all sign.
    pub fn new(keys: Vec<[u8; 32]>) -> Self {
        Self { states: vec![KeyState::Sign; keys.len()], keys }
    }

    /// The keys, newest first. Empty if none is set.
    pub fn bytes(&self) -> &[[u8; 32]] {
        &self.keys
    }

    /// What each of the keys may do.
    pub fn states(&self) -> &[KeyState] {
        &self.states
    }
}

/// Keys of 64 hexadecimal digits, separated by commas or line breaks. Lines that begin with `#` are ignored.
/// A key may be followed by a space and `sign` or `verify`. The default is `sign`.
impl FromStr for TokenKeys {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        // Allocated at full size, so that it never moves and leaves a copy of the keys in memory.
        let mut read = TokenKeys::new(Vec::with_capacity(TOKEN_KEYS_MAX));
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        for entry in lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty()) {
            let number = read.keys.len() + 1;
            if number > TOKEN_KEYS_MAX {
                return Err(BadValue(format!("more than {TOKEN_KEYS_MAX} keys")));
            }
            let (digits, state) = entry.split_once(char::is_whitespace).unwrap_or((entry, "sign"));
            let mut key = Zeroizing::new([0; 32]);
            hex::decode_to_slice(digits, key.as_mut())
                .map_err(|_| BadValue(format!("key {number} is not 64 hexadecimal digits")))?;
            let state = state.trim().parse().map_err(|_| {
                BadValue(format!("what follows key {number} is neither \"sign\" nor \"verify\""))
            })?;
            read.keys.push(*key);
            read.states.push(state);
        }
        if read.keys.is_empty() { Err(BadValue("there is no key in it".to_owned())) } else { Ok(read) }
    }
}

impl Drop for TokenKeys {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKeys({} redacted)", self.keys.len())
    }
}

/// An empty text means that the setting is not set.
pub(super) fn optional<T>(
    parse: impl Fn(&str) -> Result<T, BadValue>,
) -> impl Fn(&str) -> Result<Option<T>, BadValue> {
    move |text| {
        if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
    }
}

pub(super) fn one_of<T: Copy>(choices: &[(&str, T)]) -> impl Fn(&str) -> Result<T, BadValue> {
    move |text| {
        let chosen = choices.iter().find(|(name, _)| *name == text);
        let names = || choices.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(" or ");
        chosen.map(|(_, choice)| *choice).ok_or_else(|| BadValue(format!("{text:?} is not {}", names())))
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, BadValue> {
    text.parse().map_err(|_| BadValue(format!("{text:?} is no address with a port, such as 127.0.0.1:8080")))
}

pub(super) fn directory(text: &str) -> Result<PathBuf, BadValue> {
    if text.is_empty() { Err(BadValue("a directory must be named".to_owned())) } else { Ok(text.into()) }
}

pub(super) fn file(path: &str) -> Result<PathBuf, BadValue> {
    Ok(path.into())
}

/// A network, or a single address. An IPv4-mapped IPv6 address becomes the IPv4 address.
pub(super) fn network(text: &str) -> Result<IpNet, BadValue> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network
        .ok()
        .and_then(canonical_range)
        .map(|network| network.trunc())
        .ok_or_else(|| BadValue(format!("{text:?} is neither an address nor a CIDR such as 10.0.0.0/8")))
}

pub(super) fn scope(name: &str, about: &str) -> Result<(), BadValue> {
    if !is_name(name) {
        return Err(BadValue(format!(
            "{name:?} is no scope: 1 to 100 printable ASCII characters without \" and \\"
        )));
    }
    if about.chars().count() > SCOPE_ABOUT_CHARS_MAX || about.chars().any(char::is_control) {
        let max = SCOPE_ABOUT_CHARS_MAX;
        return Err(BadValue(format!("what {name:?} allows must be one line of at most {max} characters")));
    }
    Ok(())
}

/// An issuer (RFC 8414 section 2) or another base URL. http is allowed too, for development and for
/// installations where a proxy in front terminates TLS.
pub(super) fn web_url(text: &str) -> Result<String, BadValue> {
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        let is_plain = !text.contains(['?', '#', '@']) && !text.ends_with('/');
        let has_sound_authority = uri
            .authority()
            .filter(|authority| !authority.host().is_empty())
            .is_some_and(|at| at.as_str() == at.host() || at.port_u16().is_some());
        is_web && is_plain && has_sound_authority
    });
    let bad = || format!("{text:?} is no http or https URL without user, query, fragment and trailing slash");
    uri.map(|_| text.to_owned()).ok_or_else(|| BadValue(bad()))
}

/// The operator's own URL, which may be on their own network.
pub(super) fn operator_url(text: &str) -> Result<WebhookUrl, BadValue> {
    WebhookUrl::parse(text, DestinationRules::OPEN).map_err(|error| BadValue(format!("{text:?} {error}")))
}

pub(super) fn log_level(text: &str) -> Result<String, BadValue> {
    // The filter takes a single word that is not a level as a module. So a misspelt level would silence all
    // other modules.
    let is_lone_word = !text.contains([',', '=', '[']);
    if text.is_empty() || is_lone_word && text.parse::<LevelFilter>().is_err() {
        return Err(BadValue(format!("{text:?} is none of error, warn, info, debug, trace and off")));
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(BadValue(format!("{text:?} is no list of log directives: {error}"))),
    }
}
