//! `[tokens]`: the keys, lifetimes and scopes of tokens.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::reader::{Reader, secret_file};
use super::values::{BadValue, TokenKeys, scope};
use crate::domain::session::Lifetimes;

/// Far more than an API has. Each is compared with every requested scope.
const SCOPES_MAX: usize = 256;

#[derive(Debug)]
pub struct Tokens {
    pub keys: TokenKeys,
    /// The file that the keys came from, to be read again. `None` if they did not come from a file.
    pub keys_file: Option<PathBuf>,
    /// Whether to start without keys that the database needs. Not a setting, but a flag of `serve`.
    pub allow_missing_keys: bool,
    pub lifetimes: Lifetimes,
    /// The scopes that exist. Empty means that any name is allowed.
    pub scopes: Vec<String>,
    /// What a scope allows, in words for people, by its name.
    pub scope_descriptions: HashMap<String, String>,
}

impl Tokens {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let scopes = reader.names("tokens.scopes", SCOPES_MAX, scope);
        Self {
            keys: reader
                .secret("tokens.keys", "tokens.keys_file")
                .unwrap_or_else(|| TokenKeys::new(Vec::new())),
            keys_file: reader.secret_file("tokens.keys", "tokens.keys_file"),
            allow_missing_keys: false,
            lifetimes: Lifetimes {
                access_ttl: reader.time_delta("tokens.access_ttl_secs", 1..=2_592_000),
                refresh_ttl: reader.time_delta("tokens.refresh_ttl_secs", 1..=31_536_000),
                session_ttl: reader.time_delta("tokens.session_ttl_secs", 1..=315_360_000),
                retry_window: reader.time_delta("tokens.refresh_retry_window_secs", 0..=3600),
            },
            scopes: scopes.iter().map(|(name, _)| name.clone()).collect(),
            scope_descriptions: scopes.into_iter().filter(|(_, about)| !about.is_empty()).collect(),
        }
    }
}

impl TokenKeys {
    /// Reads a token keys file. The error shows neither the path nor the contents.
    pub fn from_file(path: &Path) -> Result<Self, BadValue> {
        secret_file(path)
    }
}
