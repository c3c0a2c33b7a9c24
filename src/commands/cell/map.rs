//! The proxy's map of what has moved to another cell.
//!
//! The proxy reads the map at any reload, so no line may be in it before the new cell serves the merchant. Nearly all
//! lines are known before that, so they are written to a file beside the map, while the merchant is served. Once it has
//! moved, only what came since is added, and the file replaces the map.
//!
//! Lines of sessions that have ended go whenever the map is written. Only the cell that a line sends calls to knows
//! whether the session is over, so these are lines for the same backend.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use tempfile::{NamedTempFile, TempPath};
use tokio::time::sleep;
use tollgate::flows::move_merchant::Move;
use uuid::Uuid;

use crate::commands::output::note;

/// Between two tries to lock the map's directory.
const PAUSE: Duration = Duration::from_millis(50);

/// A proxy, which decides how a line of the map ends.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Proxy {
    Haproxy,
    Nginx,
}

/// The map, with the lines of one move.
pub(super) struct Map {
    path: PathBuf,
    /// What follows the key in a line.
    backend: String,
    /// What has a line of this move, in order: HAProxy reads an ordered map faster.
    routed: BTreeSet<String>,
    /// What loses its line, because the backend's cell does not have it any more.
    gone: BTreeSet<String>,
    ahead: Option<Ahead>,
}

/// The file that replaces the map.
struct Ahead {
    file: NamedTempFile,
    /// The map that the other lines are from.
    copied: Metadata,
    /// Locked, so that no other move replaces the map in the meantime.
    directory: File,
}

impl Map {
    pub(super) fn new(path: PathBuf, proxy: Proxy, backend: &str) -> anyhow::Result<Self> {
        ensure!(path.is_file(), "{}: there is no such map; make an empty file", path.display());
        let backend = match proxy {
            Proxy::Haproxy => backend.to_owned(),
            Proxy::Nginx => format!("{backend};"),
        };
        Ok(Self { path, backend, routed: BTreeSet::new(), gone: BTreeSet::new(), ahead: None })
    }

    /// Writes lines that send calls that carry one of these to the backend, beside the map. Waits until no other move
    /// writes the map.
    pub(super) async fn write_ahead(
        &mut self,
        moving: &mut Move,
        carried: Vec<String>,
    ) -> anyhow::Result<()> {
        let ahead = self.ahead_with(moving, carried).await?;
        // So there is little left to write to disk when it replaces the map.
        ahead.file.as_file().sync_all().with_context(|| self.path.display().to_string())?;
        self.ahead = Some(ahead);
        Ok(())
    }

    async fn ahead_with(&mut self, moving: &mut Move, carried: Vec<String>) -> anyhow::Result<Ahead> {
        let directory = self.lock().await?;
        // While the map is locked: nobody moves anything to this cell and gives it a line in the meantime.
        let ids = self.ids().with_context(|| self.path.display().to_string())?;
        self.gone = moving.gone(&ids).await?.into_iter().collect();
        self.routed.extend(carried);
        self.begin(directory).with_context(|| self.path.display().to_string())
    }

    /// The ids and client ids with a line for the backend.
    fn ids(&self) -> io::Result<Vec<String>> {
        let map = fs::read_to_string(&self.path)?;
        let is_id = |key: &&str| key.len() == 32 && Uuid::try_parse(key).is_ok();
        Ok(map.lines().filter_map(|line| self.sent_by(line)).filter(is_id).map(str::to_owned).collect())
    }

    /// What a line sends to the backend.
    fn sent_by<'a>(&self, line: &'a str) -> Option<&'a str> {
        let (key, backend) = line.trim().split_once(char::is_whitespace)?;
        (backend.trim_start() == self.backend).then_some(key)
    }

    /// Whether a line of the map stays.
    fn stays(&self, line: &str) -> bool {
        let is_routed = line.split_whitespace().next().is_some_and(|key| self.routed.contains(key));
        !is_routed && !self.sent_by(line).is_some_and(|key| self.gone.contains(key))
    }

    /// Locks the map's directory. Signals can end the wait, because it does not block the thread.
    async fn lock(&self) -> anyhow::Result<File> {
        let parent = self.path.parent().filter(|path| !path.as_os_str().is_empty());
        let path = parent.unwrap_or(Path::new("."));
        let directory = File::open(path).with_context(|| path.display().to_string())?;
        let mut is_told = false;
        loop {
            match directory.try_lock() {
                Ok(()) => return Ok(directory),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
                Err(TryLockError::WouldBlock) if is_told => {}
                Err(TryLockError::WouldBlock) => {
                    note(&format!("waiting for another move that writes {}", self.path.display()));
                    is_told = true;
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Writes the file beside the map: the lines of others, and those of this move.
    fn begin(&self, directory: File) -> io::Result<Ahead> {
        let copied = fs::metadata(&self.path)?;
        let before = fs::read_to_string(&self.path)?;
        let beside = self.path.with_added_extension("next");
        // An interrupted move may have left one, perhaps of another user. A link is not followed.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = NamedTempFile::from_parts(File::create_new(&beside)?, TempPath::try_from_path(beside)?);
        file.as_file().set_permissions(copied.permissions())?;
        let mut lines = BufWriter::new(file.as_file());
        for line in before.lines() {
            if self.stays(line) {
                writeln!(lines, "{line}")?;
            }
        }
        for key in &self.routed {
            writeln!(lines, "{key} {}", self.backend)?;
        }
        lines.flush()?;
        drop(lines);
        Ok(Ahead { file, copied, directory })
    }

    /// Replaces the map by what was written ahead, if anything was, and lines for `late`. The proxy never reads a part
    /// of it.
    pub(super) async fn replace(&mut self, moving: &mut Move, late: Vec<String>) -> anyhow::Result<()> {
        let (ahead, late) = match self.ahead.take() {
            Some(ahead) => (ahead, late),
            None => (self.ahead_with(moving, late).await?, Vec::new()),
        };
        self.finish(ahead, late).with_context(|| self.path.display().to_string())
    }

    fn finish(&mut self, ahead: Ahead, mut late: Vec<String>) -> io::Result<()> {
        late.retain(|key| self.routed.insert(key.clone()));
        let ahead = if is_same(&ahead.copied, &fs::metadata(&self.path)?) {
            // What is new has no line of an earlier move.
            let mut lines = BufWriter::new(ahead.file.as_file());
            for key in late {
                writeln!(lines, "{key} {}", self.backend)?;
            }
            lines.flush()?;
            drop(lines);
            ahead
        } else {
            // Somebody has edited the map since. Drop the file first, because that removes whatever has its name.
            drop(ahead.file);
            self.begin(ahead.directory)?
        };
        ahead.file.as_file().sync_all()?;
        ahead.file.persist(&self.path)?;
        ahead.directory.sync_all()
    }

    /// Whether each of these has a line.
    pub(super) fn has_all(&self, carried: &[String]) -> bool {
        carried.iter().all(|key| self.routed.contains(key))
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    let of = |map: &Metadata| (map.ino(), map.len(), map.mtime(), map.mtime_nsec());
    of(one) == of(other)
}
