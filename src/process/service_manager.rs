//! systemd, where it started us with `Type=notify`: it is told when we are ready and when we stop, and, with
//! a watchdog, again and again that we still run. Anywhere else all of this does nothing.

use std::convert::Infallible;

use sd_notify::NotifyState;

/// Listening, with the database open and its schema up to date.
pub fn tell_ready() {
    tell(NotifyState::Ready);
}

pub fn tell_stopping() {
    tell(NotifyState::Stopping);
}

/// Tells the watchdog twice in each of its intervals that this process runs its tasks. It says nothing of the
/// database: no restart would bring that back.
pub async fn feed_watchdog() -> Infallible {
    let Some(interval) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        tell(NotifyState::Watchdog);
        tokio::time::sleep(interval / 2).await;
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
