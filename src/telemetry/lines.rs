//! Writes log lines to standard error.
//!
//! A separate thread writes them, so a reader that does not read never blocks a call. A line that cannot be
//! written, because the reader is gone or the disk is full, is dropped and counted. Nothing else happens.

use std::io::{self, Write};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// The most bytes that may wait to be written: more than a busy server logs in a second. Further lines are
/// dropped.
const WAITING_MAX: usize = 8 << 20;

/// The most bytes that are written at once while many lines wait.
const WRITE_MAX: usize = 64 << 10;

/// How long the process waits for its log lines before it ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static LOST: AtomicU64 = AtomicU64::new(0);

/// How many log lines could not be written since the process started.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

enum Entry {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Takes log lines. Clones share one queue.
#[derive(Clone)]
pub(super) struct Lines {
    queue: Sender<Entry>,
    waiting: Arc<AtomicUsize>,
}

impl Lines {
    /// Starts the thread that writes to `output`.
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, entries) = channel();
        let lines = Self { queue, waiting: Arc::default() };
        let waiting = Arc::clone(&lines.waiting);
        let mut output = Output { output, is_cut: false };
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&entries, &waiting, &mut output))?;
        Ok(lines)
    }

    /// Waits until all lines so far are written, but not longer than [`FLUSH_TIMEOUT`].
    pub(super) fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.send(Entry::Flush(done)).is_ok() {
            // If nobody reads the log, the process must still be able to end.
            let _ = written.recv_timeout(FLUSH_TIMEOUT);
        }
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
        let length = line.len();
        let has_room = self.waiting.fetch_add(length, Ordering::Relaxed) + length <= WAITING_MAX;
        if !has_room || self.queue.send(Entry::Line(line.to_vec())).is_err() {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns when the last sender is gone.
fn write_all(entries: &Receiver<Entry>, waiting: &AtomicUsize, output: &mut Output<impl Write>) {
    let mut text = Vec::new();
    let mut next = entries.recv().ok();
    while let Some(entry) = next {
        let flushed = match entry {
            Entry::Line(line) => {
                text.extend(line);
                None
            }
            Entry::Flush(done) => Some(done),
        };
        next = if flushed.is_none() && text.len() < WRITE_MAX { entries.try_recv().ok() } else { None };
        if next.is_none() {
            let written = mem::take(&mut text);
            LOST.fetch_add(output.write(&written), Ordering::Relaxed);
            waiting.fetch_sub(written.len(), Ordering::Relaxed);
            if let Some(done) = flushed {
                let _ = done.send(());
            }
            next = entries.recv().ok();
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
