//! Checks scopes that are requested or set. If the settings list the scopes that exist, others are refused.

use super::Core;
use super::error::Refused;
use crate::domain::reason::Reason;
use crate::domain::scope::Scopes;

impl Core {
    /// The `scope` of a token request (RFC 6749 3.3).
    ///
    /// # Errors
    /// [`Reason::ScopeInvalid`] if it is malformed or contains a scope that does not exist.
    pub fn asked_scopes(&self, text: &str) -> Result<Scopes, Reason> {
        let asked: Scopes = text.parse().map_err(|_| Reason::ScopeInvalid)?;
        match self.unknown_scope(&asked) {
            Some(_) => Err(Reason::ScopeInvalid),
            None => Ok(asked),
        }
    }

    /// Checks the scopes of a key or of credentials. `None` means every scope.
    pub(super) fn check_scopes(&self, names: Option<&[String]>) -> Result<Option<Scopes>, Refused> {
        let Some(names) = names else { return Ok(None) };
        let scopes = Scopes::of(names.iter().map(String::as_str))
            .map_err(|error| Refused::invalid("scopes", error.to_string()))?;
        match self.unknown_scope(&scopes) {
            Some(name) => Err(Refused::invalid("scopes", format!("there is no scope `{name}`"))),
            None => Ok(Some(scopes)),
        }
    }

    fn unknown_scope<'a>(&self, scopes: &'a Scopes) -> Option<&'a str> {
        let is_known = |name: &str| self.known_scopes.iter().any(|known| known == name);
        if self.known_scopes.is_empty() { None } else { scopes.names().find(|name| !is_known(name)) }
    }
}

/// Checks that the scopes of credentials are within those of their key.
pub(super) fn check_within(scopes: Option<&Scopes>, key: Option<&Scopes>) -> Result<(), Refused> {
    match (scopes, key) {
        (Some(scopes), Some(key)) if !scopes.is_within(key) => {
            Err(Refused::invalid("scopes", format!("the key itself only has: {key}")))
        }
        _ => Ok(()),
    }
}
