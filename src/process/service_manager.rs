//! Tells systemd when we are ready and when we stop, if it started us with `Type=notify`. With a watchdog, we
//! also tell it regularly that we still run. Without systemd, all of this does nothing.

use std::convert::Infallible;

use sd_notify::NotifyState;

/// To be called when we listen, the database is open and its schema is up to date.
pub fn tell_ready() {
    tell(NotifyState::Ready);
}

pub fn tell_stopping() {
    tell(NotifyState::Stopping);
}

/// Tells the watchdog twice per interval that this process still runs its tasks. This does not depend on the
/// database: a restart would not bring it back.
pub async fn feed_watchdog() -> Infallible {
    let Some(interval) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        tell(NotifyState::Watchdog);
        tokio::time::sleep(interval / 2).await;
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
