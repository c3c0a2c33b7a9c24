//! What the page of an API key shows besides its settings: the calls of the last day, the newest sessions, the
//! addresses of its calls, and its part of the audit trail. It takes the same few statements for every key.

use super::Core;
use super::error::{Managed, Refused};
use super::principal::Principal;
use super::queries::{SuggestedRange, suggested};
use crate::domain::api_key::ApiKey;
use crate::domain::clock::Timestamp;
use crate::domain::credential::Credential;
use crate::domain::event::EventType;
use crate::domain::ids::Id;
use crate::store::audit::Chained;
use crate::store::call_counts::{self, HOUR_SECS};
use crate::store::exchanges::HourOfKey;
use crate::store::sessions::{Filter, Listed};
use crate::store::webhook_secrets::{self, ListedSecret};
use crate::store::{audit, credentials, exchanges, sessions};

/// The hours that are counted, including the current one.
const HOURS: i64 = 24;

const HOUR_US: i64 = 3_600_000_000;

/// How many calls of the merchant are looked at, newest first. The calls of a single key have no index.
pub const CALLS_MAX: i64 = 50_000;

/// How many sessions and events are shown.
const ROWS: i64 = 10;

pub struct KeyActivity {
    pub credentials: Vec<Credential>,
    /// Oldest first, without gaps.
    pub hours: Vec<Hour>,
    /// Why calls were refused, with the number of calls, most frequent first.
    pub denials: Vec<(String, i64)>,
    /// The merchant had more than [`CALLS_MAX`] calls, so the oldest ones are missing here.
    pub is_partial: bool,
    pub sessions: Vec<Listed>,
    pub suggested: Vec<SuggestedRange>,
    /// Of the webhook.
    pub signing_secrets: Vec<ListedSecret>,
    pub events: Vec<Chained>,
}

#[derive(Clone, Copy, Debug)]
pub struct Hour {
    pub start: Timestamp,
    pub answered: i64,
    pub denied: i64,
}

impl Core {
    /// What happened with a key. Reading its audit trail is recorded once an hour.
    pub async fn key_activity(&self, principal: &Principal, key: &ApiKey) -> Managed<KeyActivity> {
        if principal.may_see(key.merchant_id).is_err() {
            return Err(Refused::NotFound.into());
        }
        let reader = format!("{}:{}", principal.actor.id.as_deref().unwrap_or_default(), key.id);
        if self.readers.is_due(&reader, self.now()) {
            let mut event = self.event_by(principal, EventType::AuditEventsRead).about(key.id);
            event.merchant_id = Some(key.merchant_id);
            self.store.record(event).await?;
        }
        let (now, merchant) = (self.now(), key.merchant_id);
        let last = now.micros().div_euclid(HOUR_US);
        let since = Timestamp::from_micros((last - HOURS + 1) * HOUR_US);
        let mut db = self.store.read().await?;
        let credentials = credentials::of_api_key(&mut db, key.id).await?;
        let counted =
            exchanges::hours_of_key(&mut db, merchant, key.id, Id::first_of(since), CALLS_MAX).await?;
        let all = call_counts::counts(&mut db, merchant, HOUR_SECS, since, HOUR_US).await?;
        let filter = Filter { api_key_id: Some(key.id), ..Filter::default() };
        let sessions = sessions::list(&mut db, merchant, &filter, None, now, ROWS).await?;
        let suggested = suggested(exchanges::addresses_of(&mut db, merchant, key.id, CALLS_MAX).await?);
        let signing_secrets = webhook_secrets::list(&mut db, key.id).await?;
        let objects =
            [key.id.to_string()].into_iter().chain(credentials.iter().map(|one| one.client_id.clone()));
        let events = audit::about(&mut db, merchant, objects, ROWS).await?;
        let (hours, denials) = by_hour(last, &counted);
        let is_partial = all.iter().map(|count| count.calls).sum::<i64>() > CALLS_MAX;
        Ok(KeyActivity {
            credentials,
            hours,
            denials,
            is_partial,
            sessions,
            suggested,
            signing_secrets,
            events,
        })
    }
}

fn by_hour(last: i64, counted: &[HourOfKey]) -> (Vec<Hour>, Vec<(String, i64)>) {
    let first = last - HOURS + 1;
    let start = |number: i64| Timestamp::from_micros(number * HOUR_US);
    let mut hours: Vec<Hour> =
        (first..=last).map(|number| Hour { start: start(number), answered: 0, denied: 0 }).collect();
    let mut denials: Vec<(String, i64)> = Vec::new();
    for one in counted {
        let place = usize::try_from(one.hour - first).ok().and_then(|at| hours.get_mut(at));
        let Some(hour) = place else { continue };
        if one.is_good {
            hour.answered += one.calls;
            continue;
        }
        hour.denied += one.calls;
        let reason = one.reason.as_deref().unwrap_or("other");
        match denials.iter_mut().find(|(name, _)| name == reason) {
            Some((_, calls)) => *calls += one.calls,
            None => denials.push((reason.to_owned(), one.calls)),
        }
    }
    denials.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
    (hours, denials)
}
