//! The sealed head of the audit chain: the number and hash of its last event, under a token key.
//!
//! The hashes alone tell of everything but a cut at the end: whoever can write to the database removes the
//! last events and sets the head back. So the head is sealed by whoever appends, and only if the head that
//! the appender finds is the sealed one, or continues it. A head that was set back is sealed by nobody, and
//! stays broken for all to see.

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

/// A head as it was last sealed; without a seal where nobody has sealed it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedHead {
    pub head: Head,
    pub seal: Option<Vec<u8>>,
}

/// Seals heads with the token key that signs.
pub struct Sealer {
    pub keyring: Arc<Keyring>,
    pub entropy: Entropy,
}

impl Sealer {
    pub fn seal(&self, head: &Head) -> Vec<u8> {
        self.keyring.seal(Purpose::AuditHead, &head.bytes(), &[], &self.entropy)
    }

    /// Whether a server with one of our keys has sealed it.
    pub fn is_genuine(&self, sealed: &SealedHead) -> bool {
        let open = |seal| self.keyring.open(Purpose::AuditHead, &sealed.head.bytes(), seal).is_some();
        sealed.seal.as_deref().is_some_and(open)
    }

    /// Whether the head found may be sealed with what is appended to it.
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
        // A server of the release before has appended without sealing.
        let row = db.query("select hash from audit_events where seq = $1").bind(sealed.head.seq);
        let row = row.optional::<(Vec<u8>,)>().await?;
        Ok(row.is_some_and(|(hash,)| hash == sealed.head.hash))
    }
}
