//! Once a second, writes last-used times and refused sign-ins, which are collected in memory.

use std::time::Duration;

use crate::flows::SharedCore;

const INTERVAL: Duration = Duration::from_secs(1);

pub async fn run(core: SharedCore) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Err(error) = core.write_uses().await {
            tracing::warn!(%error, "last-used times were lost");
        }
        if let Err(error) = core.write_refusals().await {
            tracing::warn!(%error, "refused sign-ins are not in the audit trail yet");
        }
    }
}
