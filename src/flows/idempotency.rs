//! `Idempotency-Key`: a caller that lost the answer to a creation can ask again and gets the same answer.
//!
//! The answer, including its secret, is sealed and stored for 24 hours, in the same transaction that creates
//! the object. So there is never one without the other, even after a crash.
//!
//! The seal needs a token key and the caller's `Idempotency-Key`, and the database has only a hash of the
//! latter. So the database and the token keys together are not enough to open it, unless the caller uses a
//! key that can be guessed.

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

/// How long an answer is stored.
pub const KEPT_FOR: TimeDelta = TimeDelta::hours(24);

/// A caller's `Idempotency-Key`, and the hash of its request.
#[derive(Clone)]
pub struct IdempotencyKey {
    /// The admin token or user that sent it. Each caller has its own keys.
    pub actor: Uuid,
    pub key: String,
    pub request_hash: [u8; 32],
}

impl IdempotencyKey {
    /// The hash that the database stores.
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

/// A new object that can be rendered as the body of an answer.
pub trait Rendered {
    fn body(&self) -> Vec<u8>;
}

/// The outcome of a creation.
pub enum Answer<T> {
    Made(T),
    /// The object already exists. This is the body of the first answer.
    Again(Vec<u8>),
}

impl<T> Answer<T> {
    /// The new object. `None` only if the creation had a key and was repeated.
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
    async fn keep(&mut self, key: &IdempotencyKey, answer: &[u8]) -> Managed<()> {
        let kept = Zeroizing::new([&key.request_hash[..], answer].concat());
        let purpose = Purpose::IdempotentAnswer(key.key.as_bytes());
        let sealed = self.seal(purpose, key.actor.as_bytes(), &kept).await?;
        let since = self.event.at.minus(KEPT_FOR);
        match idempotency::keep(&mut self.tx, key.actor, &key.hash(), sealed, self.event.at, since).await {
            // A conflict means that another call with the same key was first.
            Err(StoreError::Conflict(_)) => Err(Fault::Busy.into()),
            kept => Ok(kept?),
        }
    }
}

impl Core {
    /// Makes a change and stores its answer under the caller's `Idempotency-Key`, if there is one.
    pub(super) async fn create<T: Rendered>(
        &self,
        principal: &Principal,
        event_type: EventType,
        work: impl AsyncFnOnce(&mut Change<'_>) -> Managed<T>,
    ) -> Managed<Answer<T>> {
        let Some(key) = &principal.idempotency else {
            return self.change(principal, event_type, work).await.map(Answer::Made);
        };
        let event = self.event_by(principal, event_type);
        if let Some(answer) = self.on_record(&event, self.again(principal)).await? {
            return Ok(answer);
        }
        let made = self.change(principal, event_type, async |change| {
            let made = work(change).await?;
            change.keep(key, &made.body()).await?;
            Ok(Answer::Made(made))
        });
        match made.await {
            // If another call with the same key was first, this change was rolled back.
            Err(Error::Fault(Fault::Busy)) => {
                let earlier = self.earlier_answer(key).await?;
                earlier.map(Answer::Again).ok_or(Error::Fault(Fault::Busy))
            }
            result => result,
        }
    }

    /// The earlier answer to the same request with the same key. A refusal if the key was used for another
    /// request.
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
                Err(Refused::Conflict("this Idempotency-Key was used for another request".to_owned()).into())
            }
            None => {
                let why = "this Idempotency-Key came before, and its answer is lost with a token key";
                Err(Refused::Conflict(why.to_owned()).into())
            }
        }
    }

    /// The earlier answer to this request of `principal`, to be checked before the change begins.
    pub(super) async fn again<T>(&self, principal: &Principal) -> Managed<Option<Answer<T>>> {
        let Some(key) = &principal.idempotency else { return Ok(None) };
        Ok(self.earlier_answer(key).await?.map(Answer::Again))
    }
}
