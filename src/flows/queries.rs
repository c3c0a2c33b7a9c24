//! Queries for merchants and operators: sessions, exchanges, suggested addresses, the audit trail.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Core;
use super::error::{Managed, Refused};
use super::key_activity::CALLS_MAX;
use super::principal::Principal;
use crate::domain::clock::Timestamp;
use crate::domain::event::EventType;
use crate::domain::ids::{ApiKeyId, ExchangeId, MerchantId, SessionId};
use crate::store::audit::{Chained, Search};
use crate::store::exchanges::{Exchange, Filter, Seen};
use crate::store::sessions::Listed;
use crate::store::{audit, exchanges, names, sessions};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SuggestedIp)]
pub struct SuggestedRange {
    #[schema(value_type = String)]
    pub cidr: IpNet,
    pub calls: i64,
    pub first_seen_at: Timestamp,
    pub last_seen_at: Timestamp,
}

impl Core {
    /// A page of those of a merchant's sessions that match, newest first.
    pub async fn sessions(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        filter: &sessions::Filter,
        before: Option<SessionId>,
        limit: i64,
    ) -> Managed<Vec<Listed>> {
        self.must_exist(principal, merchant).await?;
        let mut db = self.store.read().await?;
        Ok(sessions::list(&mut db, merchant, filter, before, self.now(), limit).await?)
    }

    /// A session, even if it has ended.
    pub async fn session(&self, principal: &Principal, id: SessionId) -> Managed<Listed> {
        let found = sessions::one(&mut self.store.read().await?, id).await?.ok_or(Refused::NotFound)?;
        self.must_exist(principal, found.merchant_id).await?;
        Ok(found)
    }

    /// Ends a session and all its tokens.
    pub async fn end_session_by(&self, principal: &Principal, id: SessionId) -> Managed<()> {
        self.change(principal, EventType::SessionRevoked, async |change| {
            change.concerns(None, id);
            let merchant = sessions::merchant_of(&mut change.tx, id).await?.ok_or(Refused::NotFound)?;
            principal.may_change(merchant)?;
            change.event.merchant_id = Some(merchant);
            let now = change.event.at;
            sessions::revoke(&mut change.tx, id, "ended_by_admin", now).await?;
            Ok(())
        })
        .await
    }

    /// A merchant's exchanges, newest first.
    pub async fn exchanges(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        filter: &Filter,
        before: Option<ExchangeId>,
        limit: i64,
    ) -> Managed<Vec<Exchange>> {
        self.must_exist(principal, merchant).await?;
        let mut db = self.store.read().await?;
        Ok(exchanges::list(&mut db, merchant, filter, before, limit).await?)
    }

    /// Suggests an allow list for a key from its calls: single IPv4 addresses, and IPv6 /64 networks, because
    /// IPv6 hosts change their address within one. Looks only at the newest [`CALLS_MAX`] calls of the merchant.
    pub async fn suggested_ips(&self, principal: &Principal, key: ApiKeyId) -> Managed<Vec<SuggestedRange>> {
        let key = self.api_key(principal, key).await?;
        let mut db = self.store.read().await?;
        Ok(suggested(exchanges::addresses_of(&mut db, key.merchant_id, key.id, CALLS_MAX).await?))
    }

    /// The names of a merchant's objects with these ids. For operators, `None` means the objects of everybody.
    pub async fn names(
        &self,
        principal: &Principal,
        merchant: Option<MerchantId>,
        ids: impl IntoIterator<Item = Uuid>,
    ) -> Managed<HashMap<Uuid, String>> {
        match merchant {
            Some(merchant) => principal.may_see(merchant)?,
            None => principal.must_be_operator()?,
        }
        let distinct: HashSet<Uuid> = ids.into_iter().collect();
        Ok(names::names(&mut self.store.read().await?, merchant, distinct.into_iter()).await?)
    }

    /// A merchant's audit trail, newest first. Reading it is recorded too.
    pub async fn audit_events(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        search: Search,
        before: Option<i64>,
        limit: i64,
    ) -> Managed<Vec<Chained>> {
        let mut event = self.event_by(principal, EventType::AuditEventsRead);
        self.on_record(&event, async { Ok(principal.may_see(merchant)?) }).await?;
        self.write_all_refusals().await?;
        event.merchant_id = Some(merchant);
        event.object_id = Some(merchant.to_string());
        event.detail = json!({ "limit": limit });
        let search = Search { merchant: Some(merchant), of_platform: false, ..search };
        let events = audit::newest(&mut self.store.read().await?, &search, before, limit).await?;
        self.store.record(event).await?;
        Ok(events)
    }
}

/// An allow list for these addresses, most used first.
pub(super) fn suggested(addresses: Vec<Seen>) -> Vec<SuggestedRange> {
    let mut ranges: BTreeMap<IpNet, SuggestedRange> = BTreeMap::new();
    for seen in addresses {
        let Some(cidr) = range_around(&seen.client_ip) else { continue };
        let range = ranges.entry(cidr).or_insert(SuggestedRange {
            cidr,
            calls: 0,
            first_seen_at: seen.first_seen_at,
            last_seen_at: seen.last_seen_at,
        });
        range.calls += seen.calls;
        range.first_seen_at = range.first_seen_at.min(seen.first_seen_at);
        range.last_seen_at = range.last_seen_at.max(seen.last_seen_at);
    }
    let mut ranges: Vec<_> = ranges.into_values().collect();
    ranges.sort_by_key(|range| std::cmp::Reverse(range.calls));
    ranges
}

fn range_around(ip: &str) -> Option<IpNet> {
    let ip: IpAddr = ip.parse().ok()?;
    let prefix = if ip.is_ipv4() { 32 } else { 64 };
    IpNet::new(ip, prefix).ok().map(|range| range.trunc())
}
