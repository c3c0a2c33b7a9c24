//! The audit trail: appended in the transaction of the change, each row chained to the one before.

use super::driver::{Connection, Tx};
use super::{StoreError, parse_name, touched};
use crate::domain::clock::Timestamp;
use crate::domain::event::{Actor, AuditEvent};
use crate::domain::ids::{EventId, MerchantId};

/// Appends an event. The update of the chain's head is also the lock that puts appends in order, over
/// all replicas; so this comes last in a transaction, to hold it briefly.
///
/// # Errors
/// [`StoreError`].
pub async fn append(tx: &mut Tx, event: &AuditEvent) -> Result<(), StoreError> {
    let (seq, previous) = tx
        .query("update audit_chain set seq = seq + 1 where id = 1 returning seq, hash")
        .one::<(i64, Vec<u8>)>()
        .await?;
    let detail = event.detail.to_string();
    let hash = event.chain_hash(seq, &previous, &detail).to_vec();
    let rows = tx
        .query(
            "insert into audit_events (seq, id, at, merchant_id, actor_kind, actor_id, actor_name, action, \
             object_kind, object_id, outcome, client_ip, request_id, detail, hash) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        )
        .bind(seq)
        .bind(event.id)
        .bind(event.at)
        .bind(event.merchant_id)
        .bind(<&str>::from(event.actor.kind))
        .bind(event.actor.id.clone())
        .bind(event.actor.name.clone())
        .bind(event.action.clone())
        .bind(event.object_kind.clone())
        .bind(event.object_id.clone())
        .bind(<&str>::from(event.outcome))
        .bind(event.client_ip.clone())
        .bind(event.request_id.clone())
        .bind(detail)
        .bind(hash.clone())
        .execute()
        .await?;
    touched("audit_events", rows, 1)?;
    let rows = tx.query("update audit_chain set hash = $1 where id = 1").bind(hash).execute().await?;
    touched("audit_chain", rows, 1)
}

#[derive(sqlx::FromRow)]
struct AuditRow {
    seq: i64,
    id: EventId,
    at: Timestamp,
    merchant_id: Option<MerchantId>,
    actor_kind: String,
    actor_id: Option<String>,
    actor_name: Option<String>,
    action: String,
    object_kind: String,
    object_id: Option<String>,
    outcome: String,
    client_ip: Option<String>,
    request_id: Option<String>,
    detail: String,
    hash: Vec<u8>,
}

/// An event as it stands in the chain.
#[derive(Clone, Debug)]
pub struct Chained {
    pub seq: i64,
    pub event: AuditEvent,
    /// The detail as it was hashed, to the byte.
    pub detail: String,
    pub hash: Vec<u8>,
}

impl TryFrom<AuditRow> for Chained {
    type Error = StoreError;
    fn try_from(row: AuditRow) -> Result<Self, StoreError> {
        let detail_value = serde_json::from_str(&row.detail).map_err(|error| StoreError::Impossible {
            table: "audit_events",
            what: format!("detail of {}: {error}", row.id),
        })?;
        let event = AuditEvent {
            id: row.id,
            at: row.at,
            merchant_id: row.merchant_id,
            actor: Actor {
                kind: parse_name("audit_events", &row.actor_kind)?,
                id: row.actor_id,
                name: row.actor_name,
            },
            action: row.action,
            object_kind: row.object_kind,
            object_id: row.object_id,
            outcome: parse_name("audit_events", &row.outcome)?,
            client_ip: row.client_ip,
            request_id: row.request_id,
            detail: detail_value,
        };
        Ok(Self { seq: row.seq, event, detail: row.detail, hash: row.hash })
    }
}

/// A page of a merchant's events, newest first, from before number `before`.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    db: &mut Connection,
    merchant: MerchantId,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Chained>, StoreError> {
    db.query(
        "select seq, id, at, merchant_id, actor_kind, actor_id, actor_name, action, object_kind, object_id, \
         outcome, client_ip, request_id, detail, hash from audit_events \
         where merchant_id = $1 and (seq < $2 or $2 is null) order by seq desc limit $3",
    )
    .bind(merchant)
    .bind(before)
    .bind(limit)
    .all::<AuditRow>()
    .await?
    .into_iter()
    .map(Chained::try_from)
    .collect()
}

/// Where the chain begins and ends.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ChainEnds {
    /// The number of the last event, and its hash.
    pub seq: i64,
    pub hash: Vec<u8>,
    /// The same of the last event that was cut off by age; 0 and zeros when none was.
    pub cut_seq: i64,
    pub cut_hash: Vec<u8>,
    pub cut_seal: Option<Vec<u8>>,
}

/// # Errors
/// [`StoreError`].
pub async fn ends(db: &mut Connection) -> Result<ChainEnds, StoreError> {
    db.query("select seq, hash, cut_seq, cut_hash, cut_seal from audit_chain where id = 1").one().await
}

/// Where the chain is to be cut: through the event with this number and hash.
pub struct Cut {
    pub seq: i64,
    pub hash: Vec<u8>,
    pub seal: Vec<u8>,
}

/// Removes the events after number `from`, where the chain is cut now, through those of `cut`. `false`,
/// with nothing changed, when another replica has cut it meanwhile.
///
/// # Errors
/// [`StoreError`]; events that are not there are one.
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

/// Events of all merchants in the order of the chain, from after number `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn chain(db: &mut Connection, after: i64, limit: i64) -> Result<Vec<Chained>, StoreError> {
    db.query(
        "select seq, id, at, merchant_id, actor_kind, actor_id, actor_name, action, object_kind, object_id, \
         outcome, client_ip, request_id, detail, hash from audit_events where seq > $1 order by seq limit $2",
    )
    .bind(after)
    .bind(limit)
    .all::<AuditRow>()
    .await?
    .into_iter()
    .map(Chained::try_from)
    .collect()
}
