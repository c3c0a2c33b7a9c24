//! The limit on open files and sockets.
//!
//! The soft limit is often 1024, for old programs, while the hard limit is much higher. If even the hard
//! limit is too low, we accept fewer connections. The database, webhooks and the operations listener get
//! their descriptors first, because the server cannot work without them.

use crate::config::Settings;
use crate::http::ops;
use crate::jobs::deliver::ATTEMPTS_MAX;

/// For the log, listeners, the files of an embedded database and files that are read again.
const FILES: usize = 64;

/// Raises this process's soft limit to the hard limit. Returns the new limit, or `None` if there is none.
#[cfg(unix)]
pub fn raise() -> Option<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    // Some systems report a higher limit than they allow. The soft limit then stays as it was.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

#[cfg(not(unix))]
pub fn raise() -> Option<usize> {
    None
}

/// Lowers the number of connections to what `limit` leaves for them.
pub fn fit(settings: &mut Settings, limit: Option<usize>) {
    let Some(limit) = limit else { return };
    let others = FILES + ops::CONNECTIONS_MAX + ATTEMPTS_MAX + settings.database.connections_max as usize;
    let connections_max = limit - others.min(limit / 2);
    if connections_max < settings.server.limits.connections_max {
        tracing::warn!(
            connections_max,
            descriptors = limit,
            "fewer connections than server.connections_max: the limit of open files is too low for it"
        );
        settings.server.limits.connections_max = connections_max.max(1);
    }
}
