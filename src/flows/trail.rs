//! Reading and following the platform's whole audit trail, in the order of commits.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use super::Core;
use super::error::Managed;
use super::principal::Principal;
use crate::domain::clock::Timestamp;
use crate::domain::event::EventType;
use crate::store::audit::{self, Chained, Filter, Search};
use crate::store::names;

/// How often a reader is recorded. If each read were recorded, it would add an event for the next read.
const RECORDED_EVERY: TimeDelta = TimeDelta::hours(1);

/// The most followers that wait at a time. Further ones get an empty answer at once.
const WAITING_MAX: usize = 64;

/// How often a waiting follower looks again, because another replica may have written an event.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The readers of the trail.
pub struct Readers {
    /// When each reader was last recorded, by the id of its token, or empty for the command line.
    recorded: Mutex<HashMap<String, Timestamp>>,
    waiting: Semaphore,
}

impl Default for Readers {
    fn default() -> Self {
        Self { recorded: Mutex::default(), waiting: Semaphore::new(WAITING_MAX) }
    }
}

impl Readers {
    /// Whether this reader has to be recorded now.
    pub(super) fn is_due(&self, reader: &str, now: Timestamp) -> bool {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.retain(|_, at| now < at.plus(RECORDED_EVERY));
        if recorded.contains_key(reader) {
            return false;
        }
        recorded.insert(reader.to_owned(), now);
        true
    }
}

/// What to read: events after number `after`, and how long to wait if there is none.
pub struct Reading {
    pub filter: Filter,
    pub after: i64,
    pub limit: i64,
    pub wait: Duration,
}

impl Core {
    /// A page of the whole trail, newest first, with the names of what the events mention. For operators and for
    /// service tokens that may read it. A service token of one merchant sees only that merchant's events. Reading
    /// is recorded once an hour. `cells` are the names of other cells that are asked for the same page.
    pub async fn latest_events(
        &self,
        principal: &Principal,
        search: Search,
        before: Option<i64>,
        limit: i64,
        cells: &[&str],
    ) -> Managed<(Vec<Chained>, HashMap<Uuid, String>)> {
        let mut event = self.event_by(principal, EventType::AuditEventsRead);
        self.on_record(&event, async { Ok(principal.must_be_of_platform()?) }).await?;
        if !cells.is_empty() {
            event.detail = json!({ "cells": cells });
        }
        if self.readers.is_due(principal.actor.id.as_deref().unwrap_or_default(), self.now()) {
            self.store.record(event).await?;
        }
        if search.of_platform && principal.merchant_id.is_some() {
            return Ok((Vec::new(), HashMap::new()));
        }
        let search = Search { merchant: principal.merchant_id, ..search };
        self.write_all_refusals().await?;
        let mut db = self.store.read().await?;
        let found = audit::newest(&mut db, &search, before, limit).await?;
        let mentioned: HashSet<Uuid> = found.iter().flat_map(|chained| chained.event.ids()).collect();
        let names = names::names(&mut db, principal.merchant_id, mentioned.into_iter()).await?;
        Ok((found, names))
    }

    /// Reads the trail, for operators and for service tokens that may read it. A service token of one
    /// merchant sees only that merchant's events. `is_stopping` ends the wait.
    pub async fn trail(
        &self,
        principal: &Principal,
        reading: Reading,
        is_stopping: impl Fn() -> bool,
    ) -> Managed<Vec<Chained>> {
        let mut event = self.event_by(principal, EventType::AuditEventsRead);
        self.on_record(&event, async { Ok(principal.must_be_of_platform()?) }).await?;
        let Reading { mut filter, mut after, limit, wait } = reading;
        filter.merchant = principal.merchant_id;
        if self.readers.is_due(principal.actor.id.as_deref().unwrap_or_default(), self.now()) {
            event.detail = json!({ "after": after });
            self.store.record(event).await?;
        }
        self.write_all_refusals().await?;
        let end = Instant::now() + wait;
        let turn = self.readers.waiting.try_acquire();
        loop {
            let mut db = self.store.read().await?;
            let last = audit::ends(&mut db).await?.seq;
            let found = audit::trail(&mut db, &filter, (after, last), limit).await?;
            drop(db);
            if !found.is_empty() || turn.is_err() || is_stopping() || Instant::now() >= end {
                return Ok(found);
            }
            after = after.max(last);
            tokio::time::sleep(LOOK_EVERY.min(end - Instant::now())).await;
        }
    }
}
