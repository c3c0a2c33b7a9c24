//! Sealing secrets that the database keeps: webhook secrets, second factors and kept answers.
//!
//! The server has joined with keys that were checked. A command brings its own, which may be those of another
//! database, or a key that only its process has. So they are checked before the first seal.

use std::sync::atomic::Ordering;

use serde_json::json;
use uuid::Uuid;

use super::Core;
use super::error::{Fault, Managed};
use super::manage::Change;
use super::principal::Principal;
use super::token_keys::in_words;
use crate::domain::event::EventType;
use crate::domain::keyring::{Purpose, name_of};
use crate::store::Connection;
use crate::store::token_keys::{self, Secrets};

impl Core {
    /// Checks that the keys here are those of the database. A secret that is sealed with another key could not
    /// be opened by the server, and no replica would start any more.
    pub async fn must_have_token_keys(&self) -> Result<(), Fault> {
        let mut db = self.store.read().await?;
        self.check_token_keys(&mut db).await
    }

    async fn check_token_keys(&self, db: &mut Connection) -> Result<(), Fault> {
        if self.key_source.are_checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let own = self.keyring.signing().id();
        let known = token_keys::known(db, 0).await?;
        let signing: Vec<_> = known
            .iter()
            .filter(|key| key.signs_since.is_some() && key.lost_at.is_none())
            .map(|key| key.id)
            .collect();
        // A new database knows no keys yet.
        let is_of_database = signing.is_empty() || signing.contains(&own);
        let mut needed = self.keys_not_here(db, &known).await?;
        needed.retain(|(_, held)| !held.is_nothing());
        if needed.is_empty() && is_of_database && !self.key_source.are_temporary {
            self.key_source.note_checked();
            return Ok(());
        }
        Err(Fault::ForeignTokenKeys(match () {
            () if !needed.is_empty() => in_words(&needed),
            () if self.key_source.are_temporary => "there are none here".to_owned(),
            () => format!("it does not know key {}", name_of(own)),
        }))
    }

    /// Seals all secrets again that were not sealed with the current key. Returns how many.
    pub async fn reseal_secrets(&self, principal: &Principal) -> Managed<u64> {
        self.change(principal, EventType::TokenKeysResealed, async |change| {
            let mut resealed = 0;
            for kind in [Secrets::Webhooks, Secrets::SecondFactors] {
                let mut after = Uuid::nil();
                loop {
                    let page = token_keys::page(&mut change.tx, kind, after, 500).await?;
                    let Some(last) = page.last() else { break };
                    after = last.owner;
                    for secret in page.into_iter().filter(|secret| !self.keyring.is_fresh(&secret.sealed)) {
                        let (purpose, owner) = (purpose_of(kind), secret.owner.as_bytes());
                        // The key that sealed it may not be here.
                        let Some(plain) = self.keyring.open(purpose, owner, &secret.sealed) else { continue };
                        let fresh = change.seal(purpose, owner, &plain).await?;
                        let is_done =
                            token_keys::reseal(&mut change.tx, kind, secret.owner, secret.sealed, fresh)
                                .await?;
                        resealed += u64::from(is_done);
                    }
                }
            }
            change.concerns(None, name_of(self.keyring.signing().id()));
            change.event.detail = json!({ "resealed": resealed });
            Ok(resealed)
        })
        .await
    }
}

impl Change<'_> {
    /// Seals what the database is to keep, with the key that signs. All such seals are made here, so that
    /// none is made with a key that the server does not have.
    pub(super) async fn seal(
        &mut self,
        purpose: Purpose<'_>,
        owner: &[u8],
        plain: &[u8],
    ) -> Managed<Vec<u8>> {
        self.core.check_token_keys(&mut self.tx).await?;
        Ok(self.core.keyring.seal(purpose, owner, plain, &self.core.entropy))
    }
}

const fn purpose_of(kind: Secrets) -> Purpose<'static> {
    match kind {
        Secrets::Webhooks => Purpose::WebhookSecret,
        Secrets::SecondFactors => Purpose::TotpSecret,
    }
}
