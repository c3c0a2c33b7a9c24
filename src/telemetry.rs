//! Logs: text for people, JSON for machines, on standard error. Never a secret in either.

pub mod lines;
pub mod traces;

use std::env::var_os;
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};

use tracing_subscriber::EnvFilter;

use self::lines::Lines;
use crate::config::{Log, LogFormat};

/// To be kept until the process ends: dropping it waits until what was logged is written.
pub struct Logging(Lines);

impl Drop for Logging {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Starts logging; only the first call in a process has an effect.
pub fn start(log: &Log) -> io::Result<Logging> {
    let lines = Lines::start(io::stderr())?;
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines.clone())
        .log_internal_errors(false)
        .with_ansi(wants_colour());
    // A second subscriber in one process is refused, which is what the tests of commands rely on.
    let started = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_ok() {
        panic::set_hook(Box::new(log_panic));
    }
    Ok(Logging(lines))
}

/// On a terminal, unless `NO_COLOR` is set to anything (no-color.org).
fn wants_colour() -> bool {
    io::stderr().is_terminal() && var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The usual hook would write to standard error itself, and wait for whoever reads it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string);
    tracing::error!(at, error = ?panic.payload_as_str().unwrap_or_default(), "panicked");
}
