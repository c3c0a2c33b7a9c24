//! The proxy's map of what has moved to another cell.
//!
//! The proxy reads the map at any reload, so no line may be in it before the new cell serves the merchant. Nearly all
//! lines are known before that, so they are written to a file beside the map, while the merchant is served. Once it has
//! moved, only what came since is added, and the file replaces the map.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tempfile::{NamedTempFile, TempPath};

/// The map, with the lines of one move.
pub(super) struct Map {
    path: PathBuf,
    backend: String,
    /// What has a line of this move. HAProxy reads lines in order faster.
    routed: BTreeSet<String>,
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
    pub(super) fn new(path: PathBuf, backend: String) -> anyhow::Result<Self> {
        ensure!(path.is_file(), "{}: there is no such map; make an empty file", path.display());
        Ok(Self { path, backend, routed: BTreeSet::new(), ahead: None })
    }

    /// Writes lines that send calls that carry one of these to the backend, beside the map. Waits until no other move
    /// writes the map.
    pub(super) fn write_ahead(&mut self, carried: Vec<String>) -> anyhow::Result<()> {
        let parent = self.path.parent().filter(|path| !path.as_os_str().is_empty());
        let directory = File::open(parent.unwrap_or(Path::new(".")))?;
        directory.lock()?;
        self.routed.extend(carried);
        self.ahead = Some(self.begin(directory).with_context(|| self.path.display().to_string())?);
        Ok(())
    }

    fn begin(&self, directory: File) -> io::Result<Ahead> {
        let copied = fs::metadata(&self.path)?;
        let before = fs::read_to_string(&self.path)?;
        // One that an interrupted move left is overwritten.
        let beside = self.path.with_added_extension("next");
        let file = NamedTempFile::from_parts(File::create(&beside)?, TempPath::try_from_path(beside)?);
        file.as_file().set_permissions(copied.permissions())?;
        let mut lines = BufWriter::new(file.as_file());
        for line in before.lines() {
            if line.split_whitespace().next().is_none_or(|key| !self.routed.contains(key)) {
                writeln!(lines, "{line}")?;
            }
        }
        for key in &self.routed {
            writeln!(lines, "{key} {}", self.backend)?;
        }
        lines.flush()?;
        drop(lines);
        // Later there is only little to wait for.
        file.as_file().sync_all()?;
        Ok(Ahead { file, copied, directory })
    }

    /// Replaces the map by what was written ahead and lines for `late`. The proxy never reads a part of it.
    pub(super) fn replace(&mut self, late: Vec<String>) -> anyhow::Result<()> {
        let Some(ahead) = self.ahead.take() else { return Ok(()) };
        self.finish(ahead, late).with_context(|| self.path.display().to_string())
    }

    fn finish(&mut self, mut ahead: Ahead, mut late: Vec<String>) -> io::Result<()> {
        late.retain(|key| self.routed.insert(key.clone()));
        if is_same(&ahead.copied, &fs::metadata(&self.path)?) {
            // What is new has no line of an earlier move.
            let mut lines = BufWriter::new(ahead.file.as_file());
            for key in late {
                writeln!(lines, "{key} {}", self.backend)?;
            }
            lines.flush()?;
        } else {
            // Somebody has edited the map since.
            ahead = self.begin(ahead.directory)?;
        }
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
