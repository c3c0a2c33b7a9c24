//! The sealed head of the audit chain: the number and hash of the last event, sealed with a token key.
//!
//! The hashes alone do not reveal a cut at the end: somebody who can write to the database could remove the
//! last events and set the head back. So each append seals the new head. It does so only if the head that it
//! found is the sealed one, or continues it. If somebody set the head back, no later append seals it, and
//! verification fails from then on.

use std::sync::Arc;

use super::StoreError;
use super::driver::Connection;
use crate::domain::entropy::Entropy;
use crate::domain::keyring::{Keyring, Purpose};

/// The number and hash of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub seq: i64,
    pub hash: Vec<u8>,
}

impl Head {
    fn bytes(&self) -> Vec<u8> {
        [&self.seq.to_be_bytes()[..], &self.hash].concat()
    }
}

/// The head that was sealed last. It has no seal if nobody has sealed it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedHead {
    pub head: Head,
    pub seal: Option<Vec<u8>>,
}

/// Seals heads with the current token key.
pub struct Sealer {
    pub keyring: Arc<Keyring>,
    pub entropy: Entropy,
}

impl Sealer {
    pub fn seal(&self, head: &Head) -> Vec<u8> {
        self.keyring.seal(Purpose::AuditHead, &head.bytes(), &[], &self.entropy)
    }

    /// Whether the seal was made with one of our keys.
    pub fn is_genuine(&self, sealed: &SealedHead) -> bool {
        let open = |seal| self.keyring.open(Purpose::AuditHead, &sealed.head.bytes(), seal).is_some();
        sealed.seal.as_deref().is_some_and(open)
    }

    /// Whether an append may seal the head that it found.
    pub(super) async fn may_seal(
        &self,
        db: &mut Connection,
        sealed: &SealedHead,
        found: &Head,
    ) -> Result<bool, StoreError> {
        if sealed.seal.is_none() {
            return Ok(found.seq == 0);
        }
        if !self.is_genuine(sealed) || found.seq < sealed.head.seq {
            return Ok(false);
        }
        if *found == sealed.head {
            return Ok(true);
        }
        // A server of the previous release has appended without sealing.
        let row = db.query("select hash from audit_events where seq = $1").bind(sealed.head.seq);
        let row = row.optional::<(Vec<u8>,)>().await?;
        Ok(row.is_some_and(|(hash,)| hash == sealed.head.hash))
    }
}
