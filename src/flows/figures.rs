//! Figures about a merchant's calls over an hour, a day or a month: issued and refreshed tokens, refusals by
//! reason, and latency. Also finds clients that start new sessions instead of refreshing.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::Core;
use super::error::Managed;
use super::principal::Principal;
use crate::domain::clock::Timestamp;
use crate::domain::ids::MerchantId;
use crate::store::call_counts::{self, DAY_SECS, EARLIER_SHORT_SECS, HOUR_SECS, Latencies};
use crate::store::client_activity;
use crate::store::figures::{self, BusyClient, Count};

/// If a client starts this many sessions in an hour, it is probably a mistake: with refresh tokens, one would
/// be enough.
pub const STORM_SESSIONS: i64 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Hour,
    Day,
    Month,
}

impl Period {
    const fn bucket(self) -> TimeDelta {
        match self {
            Self::Hour => TimeDelta::minutes(2),
            Self::Day => TimeDelta::hours(1),
            Self::Month => TimeDelta::days(1),
        }
    }

    /// The length of the slots, besides short ones, in which the calls of this period are counted.
    const fn slot_secs(self) -> i64 {
        match self {
            Self::Hour => EARLIER_SHORT_SECS,
            Self::Day => HOUR_SECS,
            Self::Month => DAY_SECS,
        }
    }

    const fn buckets(self) -> i64 {
        match self {
            Self::Hour | Self::Month => 30,
            Self::Day => 24,
        }
    }
}

/// The calls in one time bucket.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    pub start: Timestamp,
    pub issued: i64,
    pub refreshed: i64,
    pub denied: i64,
    pub p50_us: Option<i64>,
    pub p95_us: Option<i64>,
}

#[derive(Debug)]
pub struct Figures {
    /// Oldest first, without gaps. The last one is the current one.
    pub buckets: Vec<Bucket>,
    /// Why calls were refused, most frequent first.
    pub denials: Vec<(String, i64)>,
    pub calls: i64,
    /// Of all these calls.
    pub p50_us: Option<i64>,
    pub p95_us: Option<i64>,
    /// Clients that started at least [`STORM_SESSIONS`] sessions within the last hour.
    pub storms: Vec<BusyClient>,
}

impl Core {
    pub async fn figures(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        period: Period,
    ) -> Managed<Figures> {
        self.must_exist(principal, merchant).await?;
        let now = self.now();
        let bucket_us = period.bucket().num_microseconds().unwrap_or(i64::MAX);
        let last = now.micros().div_euclid(bucket_us);
        let first = last - period.buckets() + 1;
        let since = Timestamp::from_micros(first * bucket_us);
        let slot = period.slot_secs();
        let mut db = self.store.read().await?;
        let counts = call_counts::counts(&mut db, merchant, slot, since, bucket_us).await?;
        let latencies = call_counts::latencies(&mut db, merchant, slot, since, bucket_us).await?;
        // In whole slots, so that the numbers are never too high.
        let hour_ago = client_activity::slot_of(now.minus(TimeDelta::hours(1))).plus(client_activity::SLOT);
        let storms = figures::busiest_clients(&mut db, merchant, hour_ago, STORM_SESSIONS).await?;
        let mut buckets: Vec<Bucket> = (first..=last)
            .map(|number| Bucket {
                start: Timestamp::from_micros(number * bucket_us),
                issued: 0,
                refreshed: 0,
                denied: 0,
                p50_us: None,
                p95_us: None,
            })
            .collect();
        let denials = fill(&mut buckets, first, &counts, &latencies);
        let calls = counts.iter().map(|count| count.calls).sum();
        let (p50_us, p95_us) = overall(latencies);
        Ok(Figures { buckets, denials, calls, p50_us, p95_us, storms })
    }
}

/// Puts counts and latencies into their buckets, and returns the denials by reason.
fn fill(buckets: &mut [Bucket], first: i64, counts: &[Count], latencies: &[Latencies]) -> Vec<(String, i64)> {
    let mut denials: BTreeMap<&str, i64> = BTreeMap::new();
    let place = |number: i64| usize::try_from(number - first).ok();
    for count in counts {
        let Some(bucket) = place(count.bucket).and_then(|at| buckets.get_mut(at)) else { continue };
        if !count.is_good {
            bucket.denied += count.calls;
            *denials.entry(count.reason.as_deref().unwrap_or("other")).or_default() += count.calls;
        } else if count.kind == "issued" {
            bucket.issued += count.calls;
        } else if count.kind == "refreshed" {
            bucket.refreshed += count.calls;
        }
    }
    for of_bucket in latencies.chunk_by(|one, next| one.bucket == next.bucket) {
        let Some(bucket) = place(of_bucket[0].bucket).and_then(|at| buckets.get_mut(at)) else { continue };
        bucket.p50_us = percentile(of_bucket, 50);
        bucket.p95_us = percentile(of_bucket, 95);
    }
    let mut denials: Vec<(String, i64)> =
        denials.into_iter().map(|(reason, calls)| (reason.to_owned(), calls)).collect();
    denials.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
    denials
}

/// The median and the 95th percentile of all buckets together.
fn overall(mut latencies: Vec<Latencies>) -> (Option<i64>, Option<i64>) {
    latencies.sort_by_key(|one| one.latency_class);
    (percentile(&latencies, 50), percentile(&latencies, 95))
}

/// The latency that `percent` of the calls did not exceed.
fn percentile(fastest_first: &[Latencies], percent: i64) -> Option<i64> {
    let calls: i64 = fastest_first.iter().map(|class| class.calls).sum();
    let wanted = (calls * percent + 99) / 100;
    let mut passed = 0;
    let reached = fastest_first.iter().find(|class| {
        passed += class.calls;
        passed >= wanted
    });
    reached.map(|class| call_counts::longest_of(class.latency_class))
}
