//! The audit trail. Events are appended in the transaction of the change, and each row is chained to the
//! previous one.

use std::collections::HashSet;

use constcat::concat;

use super::audit_head::{Head, SealedHead};
use super::columns::Column;
use super::driver::{Connection, Sql, Tx};
use super::{StoreError, touched};
use crate::domain::clock::Timestamp;
use crate::domain::event::{AuditEvent, Outcome};
use crate::domain::ids::{AdminTokenId, MerchantId};

const COLUMNS: &str = "seq, id, at, merchant_id, actor_kind, actor_id, actor_name, action, object_kind, object_id, \
                       outcome, client_ip, request_id, detail, hash";
const SELECT: &str = concat!("select ", COLUMNS, " from audit_events");

const INSERT: Sql = Sql {
    postgres: concat!(
        "insert into audit_events (",
        COLUMNS,
        ") select * from unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::uuid[], $5::text[], $6::text[], \
         $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], \
         $15::bytea[])"
    ),
    sqlite: concat!(
        "insert into audit_events (",
        COLUMNS,
        ") select value ->> 0, unhex(value ->> 1), value ->> 2, unhex(value ->> 3), value ->> 4, value ->> 5, \
         value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, \
         value ->> 13, unhex(value ->> 14) from jsonb_each($1)"
    ),
};

/// Appends the event of a change in its transaction. [`append_all`] says when to call this.
pub async fn append(tx: &mut Tx, event: &AuditEvent) -> Result<(), StoreError> {
    append_all(tx, std::slice::from_ref(event)).await
}

/// Appends events in order. The update of the chain's head is also a lock, which orders the appends of all
/// replicas. So call this last in a transaction, to hold the lock only briefly. Use [`super::Store::record`]
/// for an event that belongs to no change: many such events share one transaction.
pub async fn append_all(tx: &mut Tx, events: &[AuditEvent]) -> Result<(), StoreError> {
    let count = i64::try_from(events.len()).expect("events in memory are no more than an i64 counts");
    let (last, mut hash, sealed_seq, sealed_hash, seal) = tx
        .query(
            "update audit_chain set seq = seq + $1 where id = 1 \
             returning seq, hash, sealed_seq, sealed_hash, head_seal",
        )
        .bind(count)
        .one::<(i64, Vec<u8>, i64, Vec<u8>, Option<Vec<u8>>)>()
        .await?;
    let found = Head { seq: last - count, hash: hash.clone() };
    let sealed = SealedHead { head: Head { seq: sealed_seq, hash: sealed_hash }, seal };
    let (mut details, mut hashes) = (Vec::with_capacity(events.len()), Vec::with_capacity(events.len()));
    for (seq, event) in (last - count + 1..).zip(events) {
        let detail = event.detail.to_string();
        hash = event.chain_hash(seq, &hash, &detail).to_vec();
        details.push(Some(detail));
        hashes.push(hash.clone());
    }
    let text = |of: fn(&AuditEvent) -> Option<&str>| Column::text(events.iter().map(of));
    let columns = vec![
        Column::ints(last - count + 1..=last),
        Column::ids(events.iter().map(|event| event.id)),
        Column::times(events.iter().map(|event| event.at)),
        Column::maybe_ids(events.iter().map(|event| event.merchant_id)),
        text(|event| Some(event.actor.kind.into())),
        text(|event| event.actor.id.as_deref()),
        text(|event| event.actor.name.as_deref()),
        text(|event| Some(&event.action)),
        text(|event| Some(&event.object_kind)),
        text(|event| event.object_id.as_deref()),
        text(|event| Some(event.outcome.into())),
        text(|event| event.client_ip.as_deref()),
        text(|event| event.request_id.as_deref()),
        Column::text(details.into_iter()),
        Column::bytes(hashes.iter().map(Vec::as_slice)),
    ];
    let rows = tx.batch(&INSERT, columns).execute().await?;
    touched("audit_events", rows, u64::try_from(count).unwrap_or(0))?;
    let seal = match tx.sealer() {
        Some(sealer) if sealer.may_seal(tx, &sealed, &found).await? => {
            Some(sealer.seal(&Head { seq: last, hash: hash.clone() }))
        }
        Some(_) => {
            tracing::warn!(
                seq = last,
                "the audit trail goes on, but nobody has sealed its head: see `tollgate audit verify`"
            );
            None
        }
        None => None,
    };
    let rows = match seal {
        Some(seal) => {
            let seals = tx.query(
                "update audit_chain set hash = $1, sealed_seq = seq, sealed_hash = $1, head_seal = $2 where id = 1",
            );
            seals.bind(hash).bind(seal).execute().await?
        }
        None => tx.query("update audit_chain set hash = $1 where id = 1").bind(hash).execute().await?,
    };
    touched("audit_chain", rows, 1)?;
    tx.leaves_events((last - count + 1..).zip(events.iter().cloned()));
    Ok(())
}

/// Seals both ends of the chain as they are, whatever sealed them before.
pub async fn seal_ends(tx: &mut Tx, head_seal: Vec<u8>, cut_seal: Option<Vec<u8>>) -> Result<(), StoreError> {
    let query = "update audit_chain set sealed_seq = seq, sealed_hash = hash, head_seal = $1, cut_seal = $2 \
                 where id = 1";
    let rows = tx.query(query).bind(head_seal).bind(cut_seal).execute().await?;
    touched("audit_chain", rows, 1)
}

const ENDS: &str = "seq, hash, cut_seq, cut_hash, cut_seal, sealed_seq, sealed_hash, head_seal";

/// Locks the head, so that nobody appends before the transaction ends.
pub async fn lock_ends(tx: &mut Tx) -> Result<ChainEnds, StoreError> {
    tx.query(concat!("update audit_chain set seq = seq where id = 1 returning ", ENDS)).one().await
}

/// An event in the chain.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Chained {
    pub seq: i64,
    #[sqlx(flatten)]
    pub event: AuditEvent,
    /// The exact text of the detail that was hashed.
    pub detail: String,
    pub hash: Vec<u8>,
}

/// Which events to list. `None` means any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub merchant: Option<MerchantId>,
    pub actor_id: Option<String>,
    pub action: Option<String>,
    pub object_id: Option<String>,
    pub outcome: Option<Outcome>,
}

impl Filter {
    const fn narrows(&self) -> bool {
        self.actor_id.is_some() || self.action.is_some() || self.object_id.is_some() || self.outcome.is_some()
    }
}

const IN_RANGE: &str = concat!(SELECT, " where seq > $1 and seq <= $2");
const FILTERED: &str = concat!(
    IN_RANGE,
    " and (actor_id = $3 or $3 is null) and (action = $4 or $4 is null) \
     and (object_id = $5 or $5 is null) and (outcome = $6 or $6 is null)"
);
const IN_ORDER: &str = " order by seq limit $7";

/// The events of all merchants after number `after` and up to `through`, in the order of commits.
pub async fn trail(
    db: &mut Connection,
    filter: &Filter,
    (after, through): (i64, i64),
    limit: i64,
) -> Result<Vec<Chained>, StoreError> {
    // A merchant's events have an index of their own, which a condition that may be absent could not use. A list of
    // everything has a statement of its own, because PostgreSQL takes each such condition for one that few rows meet.
    let sql = match (filter.narrows(), filter.merchant) {
        (false, Some(_)) => concat!(IN_RANGE, " and merchant_id = $4 order by seq limit $3"),
        (false, None) => concat!(IN_RANGE, " order by seq limit $3"),
        (true, Some(_)) => concat!(FILTERED, " and merchant_id = $8", IN_ORDER),
        (true, None) => concat!(FILTERED, IN_ORDER),
    };
    let mut query = db.query(sql).bind(after).bind(through);
    if filter.narrows() {
        query = query
            .bind(filter.actor_id.clone())
            .bind(filter.action.clone())
            .bind(filter.object_id.clone())
            .bind(filter.outcome);
    }
    query.bind(limit).bind_if(filter.merchant).all().await
}

/// Which events a user searches for. `None` means any.
#[derive(Clone, Debug, Default)]
pub struct Search {
    pub merchant: Option<MerchantId>,
    /// Only events without a merchant. Not together with `merchant`.
    pub of_platform: bool,
    /// The id or the name of an actor.
    pub actor: Option<String>,
    pub action: Option<String>,
    pub object_id: Option<String>,
    pub outcome: Option<Outcome>,
}

impl Search {
    const fn narrows(&self) -> bool {
        self.actor.is_some() || self.action.is_some() || self.object_id.is_some() || self.outcome.is_some()
    }
}

const BEFORE: &str = concat!(SELECT, " where seq < $1");
const SEARCHED: &str = concat!(
    BEFORE,
    " and (actor_id = $2 or actor_name = $2 or $2 is null) and (action = $3 or $3 is null) \
     and (object_id = $4 or $4 is null) and (outcome = $5 or $5 is null)"
);
const NEWEST_FIRST: &str = " order by seq desc limit $6";

/// A page of events, newest first, starting before number `before`.
pub async fn newest(
    db: &mut Connection,
    search: &Search,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Chained>, StoreError> {
    // There is an index on the events of a merchant, and of the platform. It can only be used if the statement
    // always has the condition. A list of everything has a statement of its own, as in [`trail`].
    let sql = match (search.narrows(), search.merchant) {
        (false, Some(_)) => concat!(BEFORE, " and merchant_id = $3 order by seq desc limit $2"),
        (false, None) if search.of_platform => {
            concat!(BEFORE, " and merchant_id is null order by seq desc limit $2")
        }
        (false, None) => concat!(BEFORE, " order by seq desc limit $2"),
        (true, Some(_)) => concat!(SEARCHED, " and merchant_id = $7", NEWEST_FIRST),
        (true, None) if search.of_platform => concat!(SEARCHED, " and merchant_id is null", NEWEST_FIRST),
        (true, None) => concat!(SEARCHED, NEWEST_FIRST),
    };
    let mut query = db.query(sql).bind(before.unwrap_or(i64::MAX));
    if search.narrows() {
        query = query
            .bind(search.actor.clone())
            .bind(search.action.clone())
            .bind(search.object_id.clone())
            .bind(search.outcome);
    }
    query.bind(limit).bind_if(search.merchant).all().await
}

/// How many of a merchant's events [`about`] looks at. The objects of events have no index.
const LOOKED_AT_MAX: i64 = 5_000;

const ABOUT: Sql = Sql {
    postgres: concat!(
        SELECT,
        " where merchant_id = $2 and seq > coalesce((select seq from audit_events where merchant_id = $2 \
         order by seq desc limit 1 offset $3), 0) and object_id = any($1::text[]) order by seq desc limit $4"
    ),
    sqlite: concat!(
        SELECT,
        " where merchant_id = $2 and seq > coalesce((select seq from audit_events where merchant_id = $2 \
         order by seq desc limit 1 offset $3), 0) and object_id in (select value ->> 0 from jsonb_each($1)) \
         order by seq desc limit $4"
    ),
};

/// The newest of a merchant's events about these objects. Events before its newest [`LOOKED_AT_MAX`] are not
/// looked at.
pub async fn about(
    db: &mut Connection,
    merchant: MerchantId,
    objects: impl Iterator<Item = String>,
    limit: i64,
) -> Result<Vec<Chained>, StoreError> {
    let columns = vec![Column::text(objects.map(Some))];
    db.batch(&ABOUT, columns).bind(merchant).bind(LOOKED_AT_MAX).bind(limit).all().await
}

const TOKENS_THAT_CHANGED: Sql = Sql {
    postgres: "select c.id from unnest($1::text[]) as c (id) where exists (select 1 from audit_events \
               where actor_kind = 'admin_token' and actor_id = c.id and at >= $2 \
               and action <> 'audit_events.read')",
    sqlite: "select c.value ->> 0 as id from jsonb_each($1) as c where exists (select 1 from audit_events \
             where actor_kind = 'admin_token' and actor_id = c.value ->> 0 and at >= $2 \
             and action <> 'audit_events.read')",
};

/// Which of these tokens changed something at `since` or later, or tried to.
pub async fn tokens_that_changed(
    db: &mut Connection,
    tokens: impl Iterator<Item = AdminTokenId>,
    since: Timestamp,
) -> Result<HashSet<AdminTokenId>, StoreError> {
    let columns = vec![Column::text(tokens.map(|id| Some(id.to_string())))];
    let rows = db.batch(&TOKENS_THAT_CHANGED, columns).bind(since).all::<(String,)>().await?;
    Ok(rows.iter().filter_map(|(id,)| id.parse().ok()).collect())
}

/// Both ends of the chain.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ChainEnds {
    /// The number of the last event, and its hash.
    pub seq: i64,
    pub hash: Vec<u8>,
    /// The number and hash of the last event that was removed because of its age. 0 and zeros if there is
    /// none.
    pub cut_seq: i64,
    pub cut_hash: Vec<u8>,
    pub cut_seal: Option<Vec<u8>>,
    /// The head that was sealed last.
    pub sealed_seq: i64,
    pub sealed_hash: Vec<u8>,
    pub head_seal: Option<Vec<u8>>,
}

impl ChainEnds {
    pub fn sealed_head(&self) -> SealedHead {
        let head = Head { seq: self.sealed_seq, hash: self.sealed_hash.clone() };
        SealedHead { head, seal: self.head_seal.clone() }
    }
}

pub async fn ends(db: &mut Connection) -> Result<ChainEnds, StoreError> {
    db.query(concat!("select ", ENDS, " from audit_chain where id = 1")).one().await
}

/// Where to cut the chain: up to and including the event with this number and hash.
pub struct Cut {
    pub seq: i64,
    pub hash: Vec<u8>,
    pub seal: Vec<u8>,
}

/// Removes the events after number `from`, where the chain is cut now, up to `cut`. Returns `false` and
/// changes nothing if another replica has cut the chain in the meantime. It is an error if events are
/// missing.
pub async fn cut(tx: &mut Tx, from: i64, cut: Cut) -> Result<bool, StoreError> {
    let rows = tx
        .query(
            "update audit_chain set cut_seq = $2, cut_hash = $3, cut_seal = $4 where id = 1 and cut_seq = $1",
        )
        .bind(from)
        .bind(cut.seq)
        .bind(cut.hash)
        .bind(cut.seal)
        .execute()
        .await?;
    if rows == 0 {
        return Ok(false);
    }
    let rows = tx
        .query("delete from audit_events where seq > $1 and seq <= $2")
        .bind(from)
        .bind(cut.seq)
        .execute()
        .await?;
    touched("audit_events", rows, u64::try_from(cut.seq - from).unwrap_or(0))?;
    Ok(true)
}

/// The events of all merchants after number `after`, in the order of the chain.
pub async fn chain(db: &mut Connection, after: i64, limit: i64) -> Result<Vec<Chained>, StoreError> {
    db.query(concat!(SELECT, " where seq > $1 order by seq limit $2")).bind(after).bind(limit).all().await
}
