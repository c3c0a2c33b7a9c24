//! Once a minute, removes callers from the limits that have not called for a while.

use std::time::Duration;

use crate::flows::SharedCore;

const INTERVAL: Duration = Duration::from_secs(60);

pub async fn run(core: SharedCore) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        core.limits.tidy();
    }
}
