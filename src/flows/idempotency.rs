//! Creations that can be asked for again: a lost answer orphans nothing.
//!
//! The answer to a creation, its secret included, is kept sealed for 24 hours, in the very transaction that
//! makes the object. So there is never one without the other, whatever dies when.
//!
//! The seal is by a token key and by the caller's `Idempotency-Key`, of which the database has the hash
//! alone. So the database and the token keys together do not open it. A caller whose key can be guessed
//! gives that away.

use chrono::TimeDelta;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::error::Refused;
use super::manage::{Change, Managed, Stop};
use crate::domain::keyring::Purpose;
use crate::store::{StoreError, idempotency};

/// How long an answer is kept.
pub const KEPT_FOR: TimeDelta = TimeDelta::hours(24);

/// A caller's `Idempotency-Key`, with the hash of the request it came with.
#[derive(Clone)]
pub struct OnceKey {
    /// The admin token or user that sent it: keys of different callers never meet.
    pub actor: Uuid,
    pub key: String,
    pub request_hash: [u8; 32],
}

impl OnceKey {
    /// What the database knows it by.
    fn hash(&self) -> String {
        let digest = Sha256::new().chain_update(self.actor).chain_update(&self.key).finalize();
        hex::encode(digest)
    }
}

/// How a creation is answered, and under which key the answer is kept, if any.
pub struct Once<T> {
    pub key: Option<OnceKey>,
    /// The answer's body.
    pub render: fn(&T) -> Vec<u8>,
}

impl<T> Once<T> {
    /// For callers that read the outcome itself: the command line.
    pub const fn never() -> Self {
        Self { key: None, render: |_| Vec::new() }
    }
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

impl Change<'_> {
    /// Like [`Change::finish`], with the answer kept for a repetition.
    pub(super) async fn finish_once<T>(
        mut self,
        result: Result<T, Stop>,
        once: Once<T>,
    ) -> Managed<Answer<T>> {
        let (made, key) = match (result, once.key) {
            (Ok(made), Some(key)) => (made, key),
            (result, _) => return Ok(self.finish(result).await?.map(Answer::Made)),
        };
        match self.keep(&key, &(once.render)(&made)).await {
            Ok(()) => Ok(self.finish(Ok(made)).await?.map(Answer::Made)),
            // Another call with the same key was first; what this one made is rolled back.
            Err(StoreError::Conflict(_)) => {
                let core = self.core;
                drop(self.tx);
                match core.earlier_answer(&key).await? {
                    Some(Ok(answer)) => Ok(Ok(Answer::Again(answer))),
                    Some(Err(refused)) => Ok(Err(refused)),
                    None => Err(StoreError::Busy),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn keep(&mut self, key: &OnceKey, answer: &[u8]) -> Result<(), StoreError> {
        let core = self.core;
        let kept = Zeroizing::new([&key.request_hash[..], answer].concat());
        let purpose = Purpose::IdempotentAnswer(key.key.as_bytes());
        let sealed = core.keyring.seal(purpose, key.actor.as_bytes(), &kept, &core.entropy);
        let since = self.event.at.minus(KEPT_FOR);
        idempotency::keep(&mut self.tx, key.actor, &key.hash(), sealed, self.event.at, since).await
    }
}

impl super::Core {
    /// The answer given before to the same request under the same key; a refusal when the key was
    /// used for another request.
    pub async fn earlier_answer(
        &self,
        key: &OnceKey,
    ) -> Result<Option<Result<Vec<u8>, Refused>>, StoreError> {
        let since = self.now().minus(KEPT_FOR);
        let mut db = self.store.read().await?;
        let Some(sealed) = idempotency::find(&mut db, key.actor, &key.hash(), since).await? else {
            return Ok(None);
        };
        if let Some(missing) = self.keyring.missing_for(&sealed) {
            return Err(self.key_missing(missing));
        }
        let purpose = Purpose::IdempotentAnswer(key.key.as_bytes());
        let kept = self.keyring.open(purpose, key.actor.as_bytes(), &sealed);
        match kept.as_deref().and_then(|kept| kept.split_first_chunk::<32>()) {
            Some((request_hash, answer)) if *request_hash == key.request_hash => {
                Ok(Some(Ok(answer.to_vec())))
            }
            Some(_) => {
                Ok(Some(Err(Refused::Conflict("this Idempotency-Key came with another request".to_owned()))))
            }
            None => Ok(Some(Err(Refused::Conflict(
                "this Idempotency-Key came before, and its answer is lost with a token key".to_owned(),
            )))),
        }
    }

    /// The earlier answer to a creation, before anything is begun.
    pub(super) async fn again<T>(
        &self,
        once: &Once<T>,
    ) -> Result<Option<Result<Answer<T>, Refused>>, StoreError> {
        let Some(key) = &once.key else { return Ok(None) };
        Ok(self.earlier_answer(key).await?.map(|earlier| earlier.map(Answer::Again)))
    }
}
