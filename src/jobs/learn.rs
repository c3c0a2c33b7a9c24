//! Every few seconds, loads the keys and admin tokens that this replica does not know yet.

use std::time::Duration;

use chrono::TimeDelta;

use crate::flows::SharedCore;

const INTERVAL: Duration = Duration::from_secs(5);

/// A key may be committed this long after it was made, or by a replica whose clock is this far behind.
const LATE_MAX: TimeDelta = TimeDelta::minutes(2);

/// Runs until it is aborted.
pub async fn run(core: SharedCore) {
    let mut since = None;
    loop {
        let now = core.now();
        match core.learn_secrets(since).await {
            Ok(()) => since = Some(now.minus(LATE_MAX)),
            // A key is also loaded when it is first used, unless its address has no failures left.
            Err(error) => tracing::debug!(%error, "new keys could not be loaded"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
