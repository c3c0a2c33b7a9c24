//! Signals. SIGTERM and SIGINT stop, and a second one ends the process at once; SIGHUP asks for files to be
//! read again, and never ends anything.
//!
//! The handlers are installed before anything else is done. A start that takes long, behind a migration say,
//! can be stopped then, also as process 1, to which a signal without a handler does nothing.

use std::io;

use tokio::sync::watch;

/// What a shell adds to the number of the signal that ended a program.
const SIGNALLED: u8 = 128;

/// A signal that came.
enum Signal {
    /// With its number.
    Stop(u8),
    Hangup,
}

/// What has come so far. Clones see the same.
#[derive(Clone)]
pub struct Signals {
    stop: watch::Receiver<Option<u8>>,
    hangup: watch::Receiver<()>,
}

impl Signals {
    /// Installs the handlers, inside a runtime.
    pub fn install() -> io::Result<Self> {
        let mut handlers = Handlers::install()?;
        let (stopping, stop) = watch::channel(None);
        let (hanging_up, hangup) = watch::channel(());
        tokio::spawn(async move {
            loop {
                match handlers.next().await {
                    Signal::Stop(number) if stopping.borrow().is_some() => {
                        std::process::exit((SIGNALLED + number).into());
                    }
                    Signal::Stop(number) => drop(stopping.send_replace(Some(number))),
                    Signal::Hangup => hanging_up.send_replace(()),
                }
            }
        });
        Ok(Self { stop, hangup })
    }

    /// Returns at the first signal to stop, at once if it has come already, with the exit code that is usual
    /// for a program that it ended.
    pub async fn stopped(&self) -> u8 {
        let mut stop = self.stop.clone();
        match stop.wait_for(Option::is_some).await.map(|number| *number) {
            Ok(number) => SIGNALLED + number.unwrap_or_default(),
            // The task above ends with the runtime alone.
            Err(_) => std::future::pending().await,
        }
    }

    /// Changes at each SIGHUP from now on.
    pub fn hangups(&self) -> watch::Receiver<()> {
        self.hangup.clone()
    }
}

#[cfg(unix)]
struct Handlers {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Handlers {
    fn install() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Stop(2),
            _ = self.terminate.recv() => Signal::Stop(15),
            _ = self.hangup.recv() => Signal::Hangup,
        }
    }
}

#[cfg(not(unix))]
struct Handlers;

#[cfg(not(unix))]
impl Handlers {
    fn install() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Stop(2),
            Err(_) => std::future::pending().await,
        }
    }
}
