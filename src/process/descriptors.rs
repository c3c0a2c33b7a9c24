//! How many files and sockets the process may have open.
//!
//! The soft limit is often 1024 for the sake of old programs, while the hard one allows much more. Where even
//! that is too little, it is connections that have to wait: the database, webhooks and operations are given
//! theirs first, since a server that cannot open them helps nobody.

use crate::config::Settings;
use crate::http::ops;
use crate::jobs::deliver::ATTEMPTS_MAX;

/// Log, listeners, files of an embedded database, files that are read again.
const FILES: usize = 64;

/// Raises the soft limit of this process to the hard one; the limit from then on, if there is one.
#[cfg(unix)]
pub fn raise() -> Option<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    // Some systems have a lower limit than the one they tell; then it stays as it was.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

#[cfg(not(unix))]
pub fn raise() -> Option<usize> {
    None
}

/// Limits connections to what `limit` leaves for them.
pub fn fit(settings: &mut Settings, limit: Option<usize>) {
    let Some(limit) = limit else { return };
    let others = FILES + ops::CONNECTIONS_MAX + ATTEMPTS_MAX + settings.database.connections_max as usize;
    let connections_max = limit - others.min(limit / 2);
    if connections_max < settings.server.connections_max {
        tracing::warn!(
            connections_max,
            descriptors = limit,
            "fewer connections than server.connections_max: the limit of open files is too low for it"
        );
        settings.server.connections_max = connections_max.max(1);
    }
}
