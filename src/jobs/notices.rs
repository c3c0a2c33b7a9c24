//! Publishes events about deadlines and blocked callers: see [`crate::flows::notices`] and
//! [`crate::flows::blocked`].

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::flows::SharedCore;

const BLOCKED_INTERVAL: Duration = Duration::from_secs(1);
const DEADLINES_INTERVAL: Duration = Duration::from_secs(60);
const ADVICE_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Runs until it is aborted. That loses nothing: an event that was not committed is found again.
pub async fn run(core: SharedCore) {
    let mut blocked = interval(BLOCKED_INTERVAL);
    let mut deadlines = interval(DEADLINES_INTERVAL);
    let mut advice = interval(ADVICE_INTERVAL);
    blocked.set_missed_tick_behavior(MissedTickBehavior::Delay);
    deadlines.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let result = tokio::select! {
            _ = blocked.tick() => core.publish_blocked().await.map(drop),
            _ = advice.tick() => core.advise_narrowing().await.map(drop),
            _ = deadlines.tick() => core.announce_deadlines().await.map(drop),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "the events were not published and will be retried");
        }
    }
}
