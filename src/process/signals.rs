//! Signals. SIGTERM and SIGINT stop the server, and a second one ends the process at once. SIGHUP reads
//! files again and never stops anything.
//!
//! The handlers are installed first, and have a thread of their own. So a slow start, such as a long migration or
//! settings on a disk that does not answer, can be stopped. That also works for process 1 in a container, which
//! ignores signals without a handler.

use std::io;
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::watch;

/// A shell reports a program that a signal ended as this plus the signal's number.
const SIGNALLED: u8 = 128;

enum Signal {
    /// SIGTERM or SIGINT, by number.
    Stop(u8),
    Hangup,
}

/// The signals received so far. Clones see the same ones.
#[derive(Clone)]
pub struct Signals {
    stop: watch::Receiver<Option<u8>>,
    hangup: watch::Receiver<()>,
}

impl Signals {
    /// Installs the handlers.
    pub fn install() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let mut handlers = {
            let _inside = runtime.enter();
            Handlers::install()?
        };
        let (stopping, stop) = watch::channel(None);
        let (hanging_up, hangup) = watch::channel(());
        let receive = async move {
            loop {
                match handlers.next().await {
                    Signal::Stop(number) if stopping.borrow().is_some() => {
                        std::process::exit((SIGNALLED + number).into());
                    }
                    Signal::Stop(number) => drop(stopping.send_replace(Some(number))),
                    Signal::Hangup => hanging_up.send_replace(()),
                }
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(receive))?;
        Ok(Self { stop, hangup })
    }

    /// Waits for the first SIGTERM or SIGINT, and returns the usual exit code for it. Returns at once if it
    /// has already come.
    pub async fn stopped(&self) -> u8 {
        let mut stop = self.stop.clone();
        match stop.wait_for(Option::is_some).await.map(|number| *number) {
            Ok(number) => SIGNALLED + number.unwrap_or_default(),
            // The thread that receives signals ends only with the process.
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
