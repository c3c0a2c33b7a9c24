//! Logs to standard error, as text or as JSON. They never contain a secret.

pub mod lines;
pub mod traces;

use std::env::var_os;
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};

use tracing_subscriber::EnvFilter;

use self::lines::Lines;
use crate::config::{Log, LogFormat};

/// Keep this until the process ends. Dropping it waits until all log lines are written.
pub struct Logging(Lines);

impl Drop for Logging {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Starts logging. Only the first call in a process has an effect.
pub fn start(log: &Log) -> io::Result<Logging> {
    let lines = Lines::start(io::stderr())?;
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines.clone())
        .log_internal_errors(false)
        .with_ansi(wants_colour());
    // A second subscriber in one process fails. Tests of commands rely on that.
    let started = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_ok() {
        panic::set_hook(Box::new(log_panic));
    }
    Ok(Logging(lines))
}

/// Colour is used on a terminal, unless `NO_COLOR` is set (no-color.org).
fn wants_colour() -> bool {
    io::stderr().is_terminal() && var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Replaces the default hook, which writes to standard error itself and would block if nobody reads it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string);
    tracing::error!(at, error = ?panic.payload_as_str().unwrap_or_default(), "panicked");
}
