//! Writes log lines to standard error.
//!
//! A separate thread writes them, so a reader that does not read never blocks a call. A line that cannot be
//! written, because the reader is gone or the disk is full, is dropped and counted. Nothing else happens.

use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// The most bytes that may wait while others are written: more than a busy server logs in half a second. Further
/// lines are dropped.
const WAITING_MAX: usize = 4 << 20;

/// How long the thread waits for further lines after the first. Waking it for each line, and writing each line by
/// itself, would cost a busy server more than formatting them.
const GATHERING: Duration = Duration::from_millis(10);

/// How much of an empty buffer is kept for the next lines.
const KEPT_BYTES: usize = 64 << 10;

/// How long the process waits for its log lines before it ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static LOST: AtomicU64 = AtomicU64::new(0);

/// How many log lines could not be written since the process started.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    /// To be told when all lines so far are written.
    flushes: Vec<SyncSender<()>>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

/// Takes log lines. Clones share one queue.
#[derive(Clone)]
pub(super) struct Lines(Arc<Queue>);

impl Lines {
    /// Starts the thread that writes to `output` until the process ends.
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Self(Arc::default());
        let queue = Arc::clone(&lines.0);
        let mut output = Output { output, is_cut: false };
        thread::Builder::new().name("log".to_owned()).spawn(move || queue.write_all(&mut output))?;
        Ok(lines)
    }

    /// Waits until all lines so far are written, but not longer than [`FLUSH_TIMEOUT`].
    pub(super) fn flush(&self) {
        let (done, written) = sync_channel(1);
        self.0.waiting().flushes.push(done);
        self.0.arrived.notify_one();
        // If nobody reads the log, the process must still be able to end.
        let _ = written.recv_timeout(FLUSH_TIMEOUT);
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Each write is one complete line, and never fails.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.waiting();
        let is_first = waiting.text.is_empty();
        if waiting.text.len() + line.len() <= WAITING_MAX {
            waiting.text.extend_from_slice(line);
        } else {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        drop(waiting);
        if is_first {
            self.0.arrived.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, output: &mut Output<impl Write>) {
        let mut text = Vec::new();
        loop {
            let is_idle = |waiting: &mut Waiting| waiting.text.is_empty() && waiting.flushes.is_empty();
            let first = self.arrived.wait_while(self.waiting(), is_idle);
            let is_urgent = !first.unwrap_or_else(PoisonError::into_inner).flushes.is_empty();
            if !is_urgent {
                thread::sleep(GATHERING);
            }
            let mut waiting = self.waiting();
            mem::swap(&mut waiting.text, &mut text);
            let flushes = mem::take(&mut waiting.flushes);
            drop(waiting);
            LOST.fetch_add(output.write(&text), Ordering::Relaxed);
            text.clear();
            text.shrink_to(KEPT_BYTES);
            for done in flushes {
                let _ = done.send(());
            }
        }
    }
}

struct Output<W> {
    output: W,
    /// Only part of the last line was written.
    is_cut: bool,
}

impl<W: Write> Output<W> {
    /// Writes as much of `text` as possible. Returns how many lines were lost.
    fn write(&mut self, text: &[u8]) -> u64 {
        if self.is_cut && self.output.write_all(b"\n").is_ok() {
            self.is_cut = false;
        }
        let mut rest = text;
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => break,
                Ok(length) => rest = &rest[length..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let written = &text[..text.len() - rest.len()];
        self.is_cut |= !matches!(written.last(), None | Some(b'\n'));
        rest.iter().filter(|byte| **byte == b'\n').count() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Takes `room` bytes, and then no more until it is given more room.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, text) = &mut *self.0.lock().expect("no test panics with it");
            let length = bytes.len().min(*room);
            *room -= length;
            text.extend(&bytes[..length]);
            if length == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(length) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_and_cuts_no_later_line() {
        let disk = Disk::default();
        let mut output = Output { output: disk.clone(), is_cut: false };
        let room = |bytes| disk.0.lock().expect("no test panics with it").0 = bytes;
        room(6);
        assert_eq!(output.write(b"one\ntwo\nthree\n"), 2);
        assert_eq!(output.write(b"four\n"), 1);
        room(100);
        assert_eq!(output.write(b"five\n"), 0);
        assert_eq!(disk.0.lock().expect("no test panics with it").1, b"one\ntw\nfive\n");
    }
}
