//! Lets the limits forget callers that have been quiet, once a minute.

use std::time::Duration;

use crate::flows::SharedCore;

const INTERVAL: Duration = Duration::from_secs(60);

/// Runs until it is aborted.
pub async fn run(core: SharedCore) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        core.limits.tidy();
    }
}
