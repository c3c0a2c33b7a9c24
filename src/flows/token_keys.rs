//! Token keys of all replicas: which one signs, which are missing, and what still needs each of them.
//!
//! A replica must never call a token invalid only because it does not have the token's key. Three rules
//! ensure this, in whatever order the replicas get a new key and are restarted:
//!
//! - Each replica announces its keys every few seconds. A key begins to sign when every running replica has
//!   it, and it has been known for half a minute.
//! - A replica does not start without a key that is still needed.
//! - If a replica still gets a token with a missing key, it answers 503, never "inactive", and reads its key
//!   file again.
//!
//! The form of tokens follows the same rule: a replica announces that it knows the current form of a key, and
//! new sessions have that form when every running replica knows it.
//!
//! Choosing a key and registering a replica use the same lock. So either the choice sees that the replica
//! does not have the key, or the replica sees at its start that the key signs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use super::Core;
use super::error::Fault;
use crate::domain::clock::Timestamp;
use crate::domain::ids::SessionId;
use crate::domain::keyring::{
    Absent, KeyState, ServerKey, ServerKeyId, TokenForm, name_of, sealer, signer_id,
};
use crate::store::token_keys::{self, Known, Replica};
use crate::store::{Connection, Store, StoreError, sweep};

/// How often a replica announces itself.
pub const BEAT: Duration = Duration::from_secs(5);

/// A replica that has not announced itself for this long counts as gone.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// How long a key must have been known before it signs.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// How many rows one statement reads.
const STEP: i64 = 20_000;

/// Reads the keys from the key file, newest first, or says what is wrong with it.
pub type ReadKeys = Box<dyn Fn() -> Result<Vec<ServerKey>, String> + Send + Sync>;

/// Where a replica's keys come from.
pub struct KeySource {
    /// Reads the key file again. `None` if the keys do not come from a file.
    pub read: Option<ReadKeys>,
    /// There was no key, and the only one was made for this process. Nobody has it afterwards.
    pub are_temporary: bool,
    /// Whether these keys are known to be those of the database.
    pub are_checked: AtomicBool,
    /// The id of this replica.
    pub replica: Uuid,
    /// Notified when a key is missing, or when an operator has added one.
    pub wanted: Notify,
}

impl KeySource {
    pub fn note_checked(&self) {
        self.are_checked.store(true, Ordering::Relaxed);
    }
}

/// What still needs a key. The key must stay until nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub sessions: i64,
    /// The latest time at which the last of these sessions ends.
    pub sessions_until: Option<Timestamp>,
    pub webhook_secrets: i64,
    pub second_factors: i64,
    /// Running replicas that sign with it.
    pub replicas: i64,
}

impl Held {
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The state of a token key, for an operator.
pub struct KeyReport {
    pub id: ServerKeyId,
    /// What its line in the key file allows. `None` if the key is not here.
    pub state: Option<KeyState>,
    pub known: Option<Known>,
    pub held: Held,
    /// Running replicas that do not have it.
    pub lacking: usize,
}

/// Whether the database has anything that was sealed with a token key, so that a new key is not enough.
pub async fn is_in_use(store: &Store, now: Timestamp) -> Result<bool, StoreError> {
    let mut db = store.read().await?;
    Ok(token_keys::has_session(&mut db, now).await?
        || !token_keys::sealed_secrets(&mut db, now).await?.is_empty()
        || !token_keys::running(&mut db, micros(GONE_AFTER)).await?.is_empty())
}

impl Core {
    /// Registers this replica, and chooses the key that it signs with.
    pub async fn choose_token_key(&self) -> Result<(), StoreError> {
        let own = self.keyring.keys();
        let mut tx = self.store.begin().await?;
        token_keys::take_turn(&mut tx).await?;
        let mut known = token_keys::known(&mut tx, micros(SETTLED_AFTER)).await?;
        if own.iter().any(|own| known.iter().all(|key| key.id != own.id())) {
            for key in &own {
                token_keys::note(&mut tx, key.id()).await?;
            }
            known = token_keys::known(&mut tx, micros(SETTLED_AFTER)).await?;
        }
        let replicas = token_keys::running(&mut tx, micros(GONE_AFTER)).await?;
        let others: Vec<_> =
            replicas.iter().filter(|other| other.id != self.key_source.replica).map(keys_of).collect();
        let may_sign: Vec<_> =
            own.iter().filter(|key| key.state() == KeyState::Sign).map(|key| key.id()).collect();
        let signing = choose(&may_sign, &known, &others).unwrap_or_else(|| self.keyring.signing().id());
        if known.iter().any(|key| key.id == signing && key.signs_since.is_none()) {
            token_keys::activate(&mut tx, signing).await?;
        }
        for key in known.iter().filter(|key| key.lost_at.is_some() && self.keyring.by_id(key.id).is_some()) {
            token_keys::set_lost(&mut tx, key.id, None).await?;
        }
        let ids: Vec<_> = own
            .iter()
            .flat_map(|key| [TokenForm::First, TokenForm::Current].map(|form| signer_id(key.id(), form)))
            .collect();
        let replica =
            Replica { id: self.key_source.replica, token_keys: json!(ids).to_string(), signs_with: signing };
        token_keys::beat(&mut tx, replica).await?;
        token_keys::clear_replicas(&mut tx, micros(GONE_AFTER)).await?;
        tx.commit().await?;
        let current = signer_id(signing, TokenForm::Current);
        let is_understood = others.iter().all(|ids| ids.contains(&current));
        let form = if is_understood { TokenForm::Current } else { TokenForm::First };
        self.settle(signing, form, &known);
        Ok(())
    }

    /// Uses the key that signs now, for a command that runs beside the replicas and does not take part in the
    /// choice.
    pub async fn follow_token_key(&self) -> Result<(), StoreError> {
        let known = token_keys::known(&mut self.store.read().await?, 0).await?;
        let own = self.keyring.keys();
        let may_sign = own.iter().filter(|key| key.state() == KeyState::Sign).map(|key| key.id());
        let signs = |id: &ServerKeyId| known.iter().any(|key| key.id == *id && key.signs_since.is_some());
        let signing = may_sign.into_iter().find(signs).unwrap_or_else(|| self.keyring.signing().id());
        // Such a command makes no tokens.
        self.settle(signing, TokenForm::First, &known);
        Ok(())
    }

    fn settle(&self, signing: ServerKeyId, form: TokenForm, known: &[Known]) {
        if self.keyring.signing().id() != signing {
            tracing::info!(key = name_of(signing), "another token key signs");
        }
        self.keyring.settle(signing, form, absent(known));
    }

    /// Tells the other replicas that this one stops.
    pub async fn leave(&self) -> Result<(), StoreError> {
        token_keys::leave(&mut self.store.write().await?, self.key_source.replica).await
    }

    /// Loads the key file again, if there is one.
    pub fn reread_token_keys(&self) {
        let Some(read) = &self.key_source.read else { return };
        match read() {
            Ok(keys) => {
                if self.keyring.replace(keys) {
                    tracing::info!("the token keys were replaced");
                }
            }
            Err(error) => tracing::warn!(error, "the token keys are not replaced"),
        }
    }

    /// The error for a missing key. The caller should try again, and the key file is read in the meantime.
    pub(super) fn key_missing(&self, id: ServerKeyId) -> Fault {
        self.key_source.wanted.notify_one();
        Fault::TokenKeyMissing(name_of(id))
    }

    /// The keys that are needed but not here. Forgets those that nothing needs any more.
    pub async fn missing_token_keys(&self) -> Result<Vec<(ServerKeyId, Held)>, StoreError> {
        let mut db = self.store.read().await?;
        let known = token_keys::known(&mut db, 0).await?;
        let away = self.keys_not_here(&mut db, &known).await?;
        drop(db);
        let (unneeded, missing): (Vec<_>, Vec<_>) = away.into_iter().partition(|(_, held)| held.is_nothing());
        if !unneeded.is_empty() {
            let mut tx = self.store.begin().await?;
            for (id, _) in unneeded {
                token_keys::forget(&mut tx, id).await?;
            }
            tx.commit().await?;
        }
        Ok(missing)
    }

    /// The keys that have signed or sealed something but are not here, with what still needs each of them.
    pub(super) async fn keys_not_here(
        &self,
        db: &mut Connection,
        known: &[Known],
    ) -> Result<Vec<(ServerKeyId, Held)>, StoreError> {
        let is_missing = |id: ServerKeyId| self.keyring.by_id(id).is_none() && !self.keyring.is_lost(id);
        let signed = known.iter().filter(|key| key.signs_since.is_some()).map(|key| key.id);
        let sealed = token_keys::sealed_secrets(db, self.now()).await?;
        let sealed = sealed.iter().filter_map(|secrets| sealer(&secrets.key));
        let missing: Vec<_> = signed.chain(sealed).filter(|id| is_missing(*id)).collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let mut held = self.held(db).await?;
        for id in missing {
            held.entry(id).or_default();
        }
        Ok(held.into_iter().filter(|(id, _)| is_missing(*id)).collect())
    }

    /// Marks keys as lost. From now on, tokens that they signed count as unknown on every replica.
    pub async fn give_up_token_keys(&self, ids: &[ServerKeyId]) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        for id in ids {
            token_keys::note(&mut tx, *id).await?;
            token_keys::set_lost(&mut tx, *id, Some(self.now())).await?;
        }
        tx.commit().await?;
        self.choose_token_key().await
    }

    /// All keys that are here, known, or needed by anything in the database.
    pub async fn token_key_reports(&self) -> Result<Vec<KeyReport>, StoreError> {
        let mut db = self.store.read().await?;
        let known = token_keys::known(&mut db, micros(SETTLED_AFTER)).await?;
        let replicas: Vec<_> =
            token_keys::running(&mut db, micros(GONE_AFTER)).await?.iter().map(keys_of).collect();
        let mut held = self.held(&mut db).await?;
        let mut ids: Vec<_> = self.keyring.keys().iter().map(|key| key.id()).collect();
        for id in known.iter().map(|key| key.id).chain(held.keys().copied()) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let report = |id| KeyReport {
            id,
            state: self.keyring.by_id(id).map(|key| key.state()),
            known: known.iter().find(|key| key.id == id).copied(),
            held: held.remove(&id).unwrap_or_default(),
            lacking: replicas.iter().filter(|keys| !keys.contains(&id)).count(),
        };
        Ok(ids.into_iter().map(report).collect())
    }

    /// What needs each key. Reads all sessions, in steps.
    async fn held(&self, db: &mut Connection) -> Result<BTreeMap<ServerKeyId, Held>, StoreError> {
        let (now, mut held) = (self.now(), BTreeMap::<ServerKeyId, Held>::new());
        // To tell a key of the current form from one of the first.
        self.keyring.learn(absent(&token_keys::known(db, 0).await?));
        for sealed in token_keys::sealed_secrets(db, now).await? {
            let Some(id) = sealer(&sealed.key) else { continue };
            let entry = held.entry(id).or_default();
            match &*sealed.kind {
                "webhook_secrets" => entry.webhook_secrets = sealed.held,
                _ => entry.second_factors = sealed.held,
            }
        }
        for replica in token_keys::running(db, micros(GONE_AFTER)).await? {
            if replica.id != self.key_source.replica {
                held.entry(replica.signs_with).or_default().replicas += 1;
            }
        }
        let (mut after, last) = (SessionId::nil(), SessionId::from_uuid(Uuid::max()));
        let idle_since = now.minus(self.lifetimes.refresh_ttl);
        loop {
            let end = sweep::session_step(db, after, last, STEP).await?;
            for of in token_keys::sessions(db, after, end.unwrap_or(last), now, idle_since).await? {
                let entry = held.entry(self.keyring.key_of(of.key)).or_default();
                entry.sessions += of.live;
                entry.sessions_until = entry.sessions_until.max(Some(of.until));
            }
            match end {
                Some(end) => after = end,
                None => return Ok(held),
            }
        }
    }
}

/// Describes what needs the keys, for an operator.
pub fn in_words(keys: &[(ServerKeyId, Held)]) -> String {
    let one = |(id, held): &(ServerKeyId, Held)| {
        let counts = [
            (held.sessions, "live sessions"),
            (held.webhook_secrets, "webhook secrets"),
            (held.second_factors, "second factors"),
            (held.replicas, "running replicas that sign with it"),
        ];
        let held =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        format!("key {} holds {}", name_of(*id), held.collect::<Vec<_>>().join(", "))
    };
    keys.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Chooses the key that a replica signs with: the newest one that already signs or that every other replica
/// has. `may_sign` is ordered from newest to oldest.
///
/// If no key has ever signed, it is the oldest. If replicas start at the same time with different files, they
/// all have that one.
fn choose(may_sign: &[ServerKeyId], known: &[Known], others: &[Vec<ServerKeyId>]) -> Option<ServerKeyId> {
    let is_everywhere = |id: ServerKeyId| others.iter().all(|keys| keys.contains(&id));
    let of = |id: ServerKeyId| known.iter().find(|key| key.id == id);
    let signs = |id| of(id).is_some_and(|key| key.signs_since.is_some());
    let may_begin = |id| of(id).is_some_and(|key| key.is_settled) && is_everywhere(id);
    may_sign
        .iter()
        .copied()
        .find(|id| signs(*id) || may_begin(*id))
        .or_else(|| may_sign.iter().rev().copied().find(|id| is_everywhere(*id)))
        .or_else(|| may_sign.last().copied())
}

fn absent(known: &[Known]) -> impl Iterator<Item = Absent> {
    known.iter().map(|key| Absent { id: key.id, is_lost: key.lost_at.is_some() })
}

fn keys_of(replica: &Replica) -> Vec<ServerKeyId> {
    serde_json::from_str(&replica.token_keys).unwrap_or_default()
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
