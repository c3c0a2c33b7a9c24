//! The audit chain: verifying it, and removing old events from its start.
//!
//! A cut leaves an anchor: the number and hash of the last event that was removed. The first remaining event
//! is chained to it, so the rest can still be verified. Two rules prevent a cut from hiding a manipulation:
//!
//! - Events are verified before they are removed. A broken chain is not cut, so it stays visible.
//! - The anchor is sealed with the server key. Somebody who can only write to the database can delete events,
//!   but cannot move the anchor over them, so they are reported as missing.
//!
//! The head is sealed as well ([`crate::store::audit_head`]). A seal cannot show that the whole database was
//! replaced by an earlier copy. To detect that, keep the head in another place and compare.

use std::sync::Arc;

use serde_json::json;

use super::Core;
use crate::domain::clock::Timestamp;
use crate::domain::event::EventType;
use crate::domain::keyring::{Purpose, sealer};
use crate::store::audit::{ChainEnds, Chained, Cut};
use crate::store::audit_head::{Head, Sealer};
use crate::store::{Connection, StoreError, audit};

/// How many events are read at a time.
const PAGE: i64 = 1000;

/// The result of verifying the audit chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainVerdict {
    /// No row was changed.
    Holds { events: i64 },
    /// The row with this number was changed, or rows before it are missing.
    Broken { seq: i64 },
    /// Rows at the end are missing.
    Short { last: i64, expected: i64 },
    /// Rows up to this number are missing, and this server has not removed them.
    ForgedCut { seq: i64 },
    /// No server has sealed this head, so rows at the end may be missing.
    ForgedHead { seq: i64 },
    /// A seal was made with a token key that is not here, so it cannot be checked.
    KeyMissing { key: i64 },
    /// The trail does not have the event of a head that was kept in another place.
    NotTheHeadKept { seq: i64 },
}

/// The result of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cutting {
    /// How many events were removed.
    Removed(u64),
    /// Nothing was removed, because the chain is not intact.
    Refused(ChainVerdict),
}

/// The number of an event and its hash in the chain.
struct Link {
    seq: i64,
    hash: Vec<u8>,
}

impl Link {
    /// The next link, if `chained` follows this one and was not changed.
    fn next(&self, chained: &Chained) -> Result<Self, ChainVerdict> {
        let expected = chained.event.chain_hash(chained.seq, &self.hash, &chained.detail);
        if chained.seq != self.seq + 1 || chained.hash != expected {
            return Err(ChainVerdict::Broken { seq: chained.seq });
        }
        Ok(Self { seq: chained.seq, hash: chained.hash.clone() })
    }
}

impl Core {
    /// Verifies the whole audit chain.
    pub async fn verify_audit_chain(&self) -> Result<ChainVerdict, StoreError> {
        let mut db = self.store.read().await?;
        loop {
            // Read the head first, so that events appended in the meantime come after it.
            let ends = audit::ends(&mut db).await?;
            let verdict = self.walk_chain(&ends, &mut db).await?;
            if matches!(verdict, ChainVerdict::Holds { .. }) {
                return Ok(verdict);
            }
            // If events were removed during the walk, verify again.
            if audit::ends(&mut db).await?.cut_seq == ends.cut_seq {
                return Ok(verdict);
            }
        }
    }

    async fn walk_chain(&self, ends: &ChainEnds, db: &mut Connection) -> Result<ChainVerdict, StoreError> {
        let mut last = match self.anchor(ends).and_then(|link| self.head(ends).map(|()| link)) {
            Ok(link) => link,
            Err(verdict) => return Ok(verdict),
        };
        let sealed = ends.sealed_head().head;
        while last.seq < ends.seq {
            let page = audit::chain(db, last.seq, PAGE).await?;
            if page.is_empty() {
                return Ok(ChainVerdict::Short { last: last.seq, expected: ends.seq });
            }
            for chained in page.iter().filter(|chained| chained.seq <= ends.seq) {
                match last.next(chained) {
                    Ok(link) if link.seq == sealed.seq && link.hash != sealed.hash => {
                        return Ok(ChainVerdict::ForgedHead { seq: sealed.seq });
                    }
                    Ok(link) => last = link,
                    Err(verdict) => return Ok(verdict),
                }
            }
        }
        if last.hash == ends.hash {
            Ok(ChainVerdict::Holds { events: ends.seq - ends.cut_seq })
        } else {
            Ok(ChainVerdict::Broken { seq: last.seq })
        }
    }

    /// Checks that the chain ends at the sealed head or later.
    fn head(&self, ends: &ChainEnds) -> Result<(), ChainVerdict> {
        let sealed = ends.sealed_head();
        match sealed.seal.as_deref().map(|seal| self.keyring.missing_for(seal)) {
            None if ends.seq == 0 => return Ok(()),
            Some(Some(key)) => return Err(ChainVerdict::KeyMissing { key }),
            _ => {}
        }
        if !self.head_sealer().is_genuine(&sealed) {
            return Err(ChainVerdict::ForgedHead { seq: ends.seq });
        }
        if ends.seq < sealed.head.seq {
            return Err(ChainVerdict::Short { last: ends.seq, expected: sealed.head.seq });
        }
        Ok(())
    }

    fn head_sealer(&self) -> Sealer {
        Sealer { keyring: Arc::clone(&self.keyring), entropy: self.entropy.clone() }
    }

    /// The number and hash of the last event, to be kept in another place.
    pub async fn audit_head(&self) -> Result<Head, StoreError> {
        let ends = audit::ends(&mut self.store.read().await?).await?;
        Ok(Head { seq: ends.seq, hash: ends.hash })
    }

    /// Whether the trail still has the event of a head that was kept in another place. The first bytes of the
    /// hash are enough. A head is refused if its event was removed because of its age.
    pub async fn verify_audit_head(&self, kept: &Head) -> Result<Option<ChainVerdict>, StoreError> {
        let mut db = self.store.read().await?;
        let ends = audit::ends(&mut db).await?;
        let hash = match kept.seq {
            0 => Some(vec![0; 32]),
            seq if seq == ends.cut_seq => Some(ends.cut_hash),
            seq => {
                audit::chain(&mut db, seq - 1, 1).await?.pop().filter(|at| at.seq == seq).map(|at| at.hash)
            }
        };
        let is_there = hash.is_some_and(|hash| hash.starts_with(&kept.hash));
        Ok((!is_there).then_some(ChainVerdict::NotTheHeadKept { seq: kept.seq }))
    }

    /// Seals the ends of a chain whose seal cannot be checked, because an old release made it or its token
    /// key is gone. This is recorded in the trail as `audit.sealed`. If no upgrade and no lost key explains
    /// such an event, somebody may have changed the database.
    pub async fn seal_audit_trail(&self) -> Result<(), StoreError> {
        let is_here = |seal: &[u8]| sealer(seal).is_some_and(|id| self.keyring.by_id(id).is_some());
        let ends = audit::ends(&mut self.store.read().await?).await?;
        if ends.seq == 0 || ends.head_seal.as_deref().is_some_and(is_here) {
            return Ok(());
        }
        let mut tx = self.store.begin().await?;
        let ends = audit::lock_ends(&mut tx).await?;
        if ends.head_seal.as_deref().is_some_and(is_here) {
            return Ok(());
        }
        let head_seal = self.head_sealer().seal(&Head { seq: ends.seq, hash: ends.hash });
        let cut_seal = match ends.cut_seal {
            Some(seal) if !is_here(&seal) => {
                let anchor = anchored(ends.cut_seq, &ends.cut_hash);
                Some(self.keyring.seal(Purpose::AuditAnchor, &anchor, &[], &self.entropy))
            }
            as_it_is => as_it_is,
        };
        audit::seal_ends(&mut tx, head_seal, cut_seal).await?;
        let mut event = self.audit_event(EventType::AuditSealed).about(ends.seq);
        event.detail = json!({ "was_sealed": ends.head_seal.is_some() });
        audit::append(&mut tx, &event).await?;
        tx.commit().await?;
        tracing::warn!(
            seq = ends.seq,
            "the audit trail had no seal of a token key that is here, and was sealed"
        );
        Ok(())
    }

    /// The start of the chain, if its seal is ours.
    fn anchor(&self, ends: &ChainEnds) -> Result<Link, ChainVerdict> {
        let is_ours = match &ends.cut_seal {
            None => ends.cut_seq == 0 && ends.cut_hash == [0; 32],
            Some(seal) => {
                if let Some(key) = self.keyring.missing_for(seal) {
                    return Err(ChainVerdict::KeyMissing { key });
                }
                let anchor = anchored(ends.cut_seq, &ends.cut_hash);
                self.keyring.open(Purpose::AuditAnchor, &anchor, seal).is_some()
            }
        };
        if is_ours {
            Ok(Link { seq: ends.cut_seq, hash: ends.cut_hash.clone() })
        } else {
            Err(ChainVerdict::ForgedCut { seq: ends.cut_seq })
        }
    }

    /// Removes up to `limit` events from `until` or earlier, oldest first. Stops at the first younger event,
    /// even if later events have an older time, because the chain can be cut only at its start.
    pub async fn cut_audit_chain(&self, until: Timestamp, limit: i64) -> Result<Cutting, StoreError> {
        let mut db = self.store.read().await?;
        let ends = audit::ends(&mut db).await?;
        let page = audit::chain(&mut db, ends.cut_seq, limit).await?;
        drop(db);
        let mut last = match self.anchor(&ends) {
            Ok(link) => link,
            Err(verdict) => return Ok(Cutting::Refused(verdict)),
        };
        for chained in page.iter().take_while(|chained| chained.event.at <= until) {
            match last.next(chained) {
                Ok(link) => last = link,
                // Another replica has cut the chain between the two reads. The next step continues from
                // there.
                Err(_) if self.cut_seq().await? != ends.cut_seq => return Ok(Cutting::Removed(0)),
                Err(verdict) => return Ok(Cutting::Refused(verdict)),
            }
        }
        let removed = u64::try_from(last.seq - ends.cut_seq).unwrap_or(0);
        // Seal the anchor again if an older key has sealed it, so that the key can be retired.
        let is_fresh = ends.cut_seal.as_deref().is_none_or(|seal| self.keyring.is_fresh(seal));
        if removed == 0 && is_fresh {
            return Ok(Cutting::Removed(0));
        }
        let anchor = anchored(last.seq, &last.hash);
        let seal = self.keyring.seal(Purpose::AuditAnchor, &anchor, &[], &self.entropy);
        let mut tx = self.store.begin().await?;
        let cut = Cut { seq: last.seq, hash: last.hash, seal };
        if !audit::cut(&mut tx, ends.cut_seq, cut).await? {
            return Ok(Cutting::Removed(0));
        }
        tx.commit().await?;
        Ok(Cutting::Removed(removed))
    }

    async fn cut_seq(&self) -> Result<i64, StoreError> {
        Ok(audit::ends(&mut self.store.read().await?).await?.cut_seq)
    }
}

/// The data that the seal of an anchor is bound to.
fn anchored(seq: i64, hash: &[u8]) -> Vec<u8> {
    [&seq.to_be_bytes()[..], hash].concat()
}
