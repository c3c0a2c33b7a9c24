//! Processor time of the servers, of this process and of the database, and memory, from `/proc`.

use std::fs;

use crate::bare::Bare;
use crate::server::Server;

/// The kernel counts in hundredths of a second on all architectures that we use.
const TICKS_PER_SEC: f64 = 100.0;

/// Seconds of processor time.
pub(crate) struct Cpu {
    pub(crate) server: f64,
    pub(crate) client: f64,
    pub(crate) bare: f64,
    /// SQLite runs inside the server.
    pub(crate) database: f64,
}

impl Cpu {
    pub(crate) fn now(server: &Server, bare: &Bare) -> Self {
        Self {
            server: of_process(server.pid()),
            client: of_process(std::process::id()),
            bare: of_process(bare.pid()),
            database: server.postmaster().map_or(0.0, of_postgres),
        }
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            server: self.server - before.server,
            client: self.client - before.client,
            bare: self.bare - before.bare,
            database: self.database - before.database,
        }
    }
}

pub(crate) fn of_process(pid: u32) -> f64 {
    times(pid).map_or(0.0, |times| times.own)
}

/// The postmaster with its children, including those that have ended.
pub(crate) fn of_postgres(postmaster: u32) -> f64 {
    let Some(times_of_it) = times(postmaster) else { return 0.0 };
    let children: f64 = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(times)
        .filter(|times| times.parent == postmaster)
        .map(|times| times.own)
        .sum();
    times_of_it.own + times_of_it.of_ended_children + children
}

/// The most memory that a process has had, in MiB.
pub(crate) fn memory_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

struct Times {
    parent: u32,
    own: f64,
    of_ended_children: f64,
}

/// `None` for a process that has ended.
fn times(pid: u32) -> Option<Times> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name is in brackets and may contain any character.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(Times {
        parent: fields.get(1)?.parse().ok()?,
        own: (ticks(11)? + ticks(12)?) / TICKS_PER_SEC,
        of_ended_children: (ticks(13)? + ticks(14)?) / TICKS_PER_SEC,
    })
}
