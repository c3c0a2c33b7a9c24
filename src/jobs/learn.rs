//! Learns the keys and admin tokens that this replica has not met, every few seconds.

use std::time::Duration;

use chrono::TimeDelta;

use crate::flows::SharedCore;

const INTERVAL: Duration = Duration::from_secs(5);

/// A key may be committed so much later than it was made, or by a replica whose clock is so much behind.
const LATE_MAX: TimeDelta = TimeDelta::minutes(2);

/// Runs until it is aborted.
pub async fn run(core: SharedCore) {
    let mut since = None;
    loop {
        let now = core.now();
        match core.learn_secrets(since).await {
            Ok(()) => since = Some(now.minus(LATE_MAX)),
            // They are learnt when they come, as long as their address has failures left.
            Err(error) => tracing::debug!(%error, "new keys are not learnt yet"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
