//! Creations that can be asked for again: a lost answer orphans nothing.
//!
//! The answer to a creation, its secret included, is kept sealed for 24 hours, in the very transaction that
//! makes the object. So there is never one without the other, whatever dies when.
//!
//! The seal is by a token key and by the caller's `Idempotency-Key`, of which the database has the hash
//! alone. So the database and the token keys together do not open it. A caller whose key can be guessed
//! gives that away.

use std::fmt;

use chrono::TimeDelta;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Core;
use super::error::{Error, Fault, Managed, Refused};
use super::manage::Change;
use super::principal::Principal;
use crate::domain::event::EventType;
use crate::domain::keyring::Purpose;
use crate::store::{StoreError, idempotency};

/// How long an answer is kept.
pub const KEPT_FOR: TimeDelta = TimeDelta::hours(24);

/// A caller's `Idempotency-Key`, with the hash of the request it came with.
#[derive(Clone)]
pub struct IdempotencyKey {
    /// The admin token or user that sent it: keys of different callers never meet.
    pub actor: Uuid,
    pub key: String,
    pub request_hash: [u8; 32],
}

impl IdempotencyKey {
    /// What the database knows it by.
    fn hash(&self) -> String {
        let digest = Sha256::new().chain_update(self.actor).chain_update(&self.key).finalize();
        hex::encode(digest)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey(..)")
    }
}

/// Something just made, as it is shown to whoever asked for it.
pub trait Rendered {
    fn body(&self) -> Vec<u8>;
}

/// The outcome of a creation.
pub enum Answer<T> {
    Made(T),
    /// It was made before; this is the first answer's body.
    Again(Vec<u8>),
}

impl<T> Answer<T> {
    /// What was made by a creation that had no key, and so cannot have been made before.
    pub fn made(self) -> Option<T> {
        match self {
            Self::Made(made) => Some(made),
            Self::Again(_) => None,
        }
    }
}

impl<T: Rendered> Answer<T> {
    pub fn into_body(self) -> Vec<u8> {
        match self {
            Self::Made(made) => made.body(),
            Self::Again(body) => body,
        }
    }
}

impl Change<'_> {
    async fn keep(&mut self, key: &IdempotencyKey, answer: &[u8]) -> Result<(), Fault> {
        let core = self.core;
        let kept = Zeroizing::new([&key.request_hash[..], answer].concat());
        let purpose = Purpose::IdempotentAnswer(key.key.as_bytes());
        let sealed = core.keyring.seal(purpose, key.actor.as_bytes(), &kept, &core.entropy);
        let since = self.event.at.minus(KEPT_FOR);
        match idempotency::keep(&mut self.tx, key.actor, &key.hash(), sealed, self.event.at, since).await {
            // Another call with the same key was first.
            Err(StoreError::Conflict(_)) => Err(Fault::Busy),
            kept => Ok(kept?),
        }
    }
}

impl Core {
    /// Makes a change whose answer is kept under the caller's `Idempotency-Key`, where there is one.
    pub(super) async fn create<T: Rendered>(
        &self,
        principal: &Principal,
        event_type: EventType,
        work: impl AsyncFnOnce(&mut Change<'_>) -> Managed<T>,
    ) -> Managed<Answer<T>> {
        let Some(key) = &principal.idempotency else {
            return self.change(principal, event_type, work).await.map(Answer::Made);
        };
        if let Some(answer) = self.again(principal).await? {
            return Ok(answer);
        }
        let made = self.change(principal, event_type, async |change| {
            let made = work(change).await?;
            change.keep(key, &made.body()).await?;
            Ok(Answer::Made(made))
        });
        match made.await {
            // What this one made was rolled back, if another call with the same key was first.
            Err(Error::Fault(Fault::Busy)) => {
                let earlier = self.earlier_answer(key).await?;
                earlier.map(Answer::Again).ok_or(Error::Fault(Fault::Busy))
            }
            result => result,
        }
    }

    /// The answer given before to the same request under the same key; a refusal when the key was
    /// used for another request.
    pub async fn earlier_answer(&self, key: &IdempotencyKey) -> Managed<Option<Vec<u8>>> {
        let since = self.now().minus(KEPT_FOR);
        let mut db = self.store.read().await?;
        let Some(sealed) = idempotency::find(&mut db, key.actor, &key.hash(), since).await? else {
            return Ok(None);
        };
        if let Some(missing) = self.keyring.missing_for(&sealed) {
            return Err(self.key_missing(missing).into());
        }
        let purpose = Purpose::IdempotentAnswer(key.key.as_bytes());
        let kept = self.keyring.open(purpose, key.actor.as_bytes(), &sealed);
        match kept.as_deref().and_then(|kept| kept.split_first_chunk::<32>()) {
            Some((request_hash, answer)) if *request_hash == key.request_hash => Ok(Some(answer.to_vec())),
            Some(_) => {
                Err(Refused::Conflict("this Idempotency-Key came with another request".to_owned()).into())
            }
            None => {
                let why = "this Idempotency-Key came before, and its answer is lost with a token key";
                Err(Refused::Conflict(why.to_owned()).into())
            }
        }
    }

    /// The earlier answer to what `principal` asks for, before anything is begun.
    pub(super) async fn again<T>(&self, principal: &Principal) -> Managed<Option<Answer<T>>> {
        let Some(key) = &principal.idempotency else { return Ok(None) };
        Ok(self.earlier_answer(key).await?.map(Answer::Again))
    }
}
