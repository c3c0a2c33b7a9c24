//! The audit trail: appended in the transaction of the change, each row chained to the one before.

use super::driver::Tx;
use super::{StoreError, touched};
use crate::domain::event::AuditEvent;

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
