//! Checks scopes that are requested or set. If the settings list the scopes that exist, others are refused.
//! Also finds out which scopes were used lately, to show it before some are taken away.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::Core;
use super::error::{Managed, Refused};
use super::principal::Principal;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, Id};
use crate::domain::reason::Reason;
use crate::domain::scope::Scopes;
use crate::store::scope_use;

/// How far back uses count.
const LATELY: TimeDelta = TimeDelta::days(30);

/// What one client did with one scope lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeUse {
    /// `None` means that its tokens had every scope.
    pub scope: Option<String>,
    /// `None` means calls with the key alone.
    pub client_id: Option<String>,
    /// How many calls issued a token with the scope.
    pub tokens: i64,
    /// How many calls of resource servers required the scope and were admitted.
    pub checks: i64,
    pub last_at: Timestamp,
}

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

    /// Which scopes a key's clients used within the last 30 days.
    pub async fn scope_use(&self, principal: &Principal, key: ApiKeyId) -> Managed<Vec<ScopeUse>> {
        let since = self.now().minus(LATELY);
        let key = self.api_key(principal, key).await?;
        let mut db = self.store.read().await?;
        let mut uses = Uses::default();
        for granted in scope_use::granted(&mut db, key.merchant_id, key.id, since).await? {
            let scopes: Option<Scopes> = granted.scopes.as_deref().and_then(|scopes| scopes.parse().ok());
            uses.add(scopes.as_ref(), Some(granted.client_id), granted.tokens, 0, granted.last_at);
        }
        for asked in scope_use::asked(&mut db, key.merchant_id, key.id, Id::first_of(since)).await? {
            let scopes = Scopes::of_verify_path(&asked.path);
            if scopes.is_some() {
                uses.add(scopes.as_ref(), asked.client_id, 0, asked.calls, asked.last_at);
            }
        }
        Ok(uses.0.into_values().collect())
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

/// Uses, added up by scope and client.
#[derive(Default)]
struct Uses(BTreeMap<(Option<String>, Option<String>), ScopeUse>);

impl Uses {
    fn add(
        &mut self,
        scopes: Option<&Scopes>,
        client_id: Option<String>,
        tokens: i64,
        checks: i64,
        last_at: Timestamp,
    ) {
        let names = scopes.map_or_else(|| vec![None], |scopes| scopes.names().map(Some).collect());
        for name in names {
            let scope = name.map(str::to_owned);
            let one = self.0.entry((scope.clone(), client_id.clone())).or_insert(ScopeUse {
                scope,
                client_id: client_id.clone(),
                tokens: 0,
                checks: 0,
                last_at,
            });
            one.tokens += tokens;
            one.checks += checks;
            one.last_at = one.last_at.max(last_at);
        }
    }
}
