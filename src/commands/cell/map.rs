//! The proxy's map of what has moved to another cell.
//!
//! The proxy reads the map at any reload, so no line may be in it before the new cell serves the merchant. Nearly all
//! lines are known before that, so they are written to a file beside the map, while the merchant is served. Once it has
//! moved, only what came since is added, and the file replaces the map.
//!
//! Lines of sessions that have ended, and of API keys that were replaced long ago, go whenever the map is written. The
//! lines of a merchant stand between two comments that name it, and only the cell that serves this merchant is asked
//! what it no longer has. So a wrong name of a backend costs nobody else a line. Lines that somebody wrote elsewhere in
//! the map stay.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use tempfile::{NamedTempFile, TempPath};
use tokio::time::sleep;
use tollgate::domain::ids::MerchantId;
use tollgate::flows::move_merchant::Move;

use crate::commands::output::note;

/// Before and after the lines of a merchant, whose id follows.
const BEGIN: &str = "# Lines of merchant ";
const END: &str = "# End of merchant ";

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
    /// What loses its line, because the cell that serves its merchant does not have it any more.
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
        let map = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let is_of_proxy = |line: &str| line.ends_with(';') == matches!(proxy, Proxy::Nginx);
        let mut lines = map.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        ensure!(lines.all(is_of_proxy), "{}: its lines are for another --proxy", path.display());
        let backend = match proxy {
            Proxy::Haproxy => backend.to_owned(),
            Proxy::Nginx => format!("{backend};"),
        };
        Ok(Self { path, backend, routed: BTreeSet::new(), gone: BTreeSet::new(), ahead: None })
    }

    /// Refuses if the map sends calls of a merchant to the backend that the target has never had: then the backend is
    /// another cell.
    pub(super) async fn check(&self, moving: &mut Move) -> anyhow::Result<()> {
        let map = fs::read_to_string(&self.path).with_context(|| self.path.display().to_string())?;
        let sent: BTreeSet<_> = map.lines().filter_map(|line| self.sent_by(line)).collect();
        let merchants = map.lines().filter_map(|line| named(line, BEGIN));
        let here = merchants.filter(|id| sent.contains(id.uuid().simple().to_string().as_str()));
        if let Some(unknown) = moving.unknown(&here.collect::<Vec<_>>()).await? {
            let cell = moving.cells().1.number();
            bail!("--backend: the map sends merchant {unknown} there, which cell {cell} does not have");
        }
        Ok(())
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
        let map = fs::read_to_string(&self.path).with_context(|| self.path.display().to_string())?;
        self.gone = moving.gone(&carried_by(&map)).await?.into_iter().collect();
        self.routed.extend(carried);
        self.begin(directory, moving.merchant()).with_context(|| self.path.display().to_string())
    }

    /// What a line sends to the backend.
    fn sent_by<'a>(&self, line: &'a str) -> Option<&'a str> {
        let (key, backend) = line.trim().split_once(char::is_whitespace)?;
        (backend.trim_start() == self.backend).then_some(key)
    }

    /// Whether a line stays. It may be between the comments of a merchant.
    fn stays(&self, of: Option<MerchantId>, line: &str) -> bool {
        let is_left = |key| !self.routed.contains(key) && (of.is_none() || !self.gone.contains(key));
        key_of(line).is_none_or(is_left)
    }

    /// The lines that stay, without pairs of comments that have nothing between them any more.
    fn lines_left<'a>(&self, map: &'a str) -> Vec<&'a str> {
        let mut left: Vec<&str> = Vec::new();
        for (_, line) in lines(map).into_iter().filter(|(of, line)| self.stays(*of, line)) {
            let begun = left.last().and_then(|line| named(line, BEGIN));
            if begun.is_some() && named(line, END) == begun {
                left.pop();
            } else {
                left.push(line);
            }
        }
        left
    }

    fn write_lines<'a>(
        &self,
        file: &File,
        merchant: MerchantId,
        keys: impl IntoIterator<Item = &'a String>,
    ) -> io::Result<()> {
        let mut lines = BufWriter::new(file);
        writeln!(lines, "{BEGIN}{merchant}")?;
        for key in keys {
            writeln!(lines, "{key} {}", self.backend)?;
        }
        writeln!(lines, "{END}{merchant}")?;
        lines.flush()
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
    fn begin(&self, directory: File, merchant: MerchantId) -> io::Result<Ahead> {
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
        for line in self.lines_left(&before) {
            writeln!(lines, "{line}")?;
        }
        lines.flush()?;
        drop(lines);
        self.write_lines(file.as_file(), merchant, &self.routed)?;
        Ok(Ahead { file, copied, directory })
    }

    /// Replaces the map by what was written ahead, if anything was, and lines for `late`. The proxy never reads a part
    /// of it.
    pub(super) async fn replace(&mut self, moving: &mut Move, late: Vec<String>) -> anyhow::Result<()> {
        let (ahead, late) = match self.ahead.take() {
            Some(ahead) => (ahead, late),
            None => (self.ahead_with(moving, late).await?, Vec::new()),
        };
        self.finish(ahead, moving.merchant(), late).with_context(|| self.path.display().to_string())
    }

    fn finish(&mut self, ahead: Ahead, merchant: MerchantId, mut late: Vec<String>) -> io::Result<()> {
        late.retain(|key| self.routed.insert(key.clone()));
        let ahead = if is_same(&ahead.copied, &fs::metadata(&self.path)?) {
            // What is new has no line of an earlier move.
            if !late.is_empty() {
                self.write_lines(ahead.file.as_file(), merchant, &late)?;
            }
            ahead
        } else {
            // Somebody has edited the map since. Drop the file first, because that removes whatever has its name.
            drop(ahead.file);
            self.begin(ahead.directory, merchant)?
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

/// The merchant that a comment names.
fn named(line: &str, comment: &str) -> Option<MerchantId> {
    line.strip_prefix(comment)?.trim_end().parse().ok()
}

/// The lines of the map, each with the merchant between whose comments it is. A comment without the other was edited, and
/// counts for nobody.
fn lines(map: &str) -> Vec<(Option<MerchantId>, &str)> {
    let (mut lines, mut begun) = (Vec::new(), None);
    for line in map.lines() {
        if let Some(merchant) = named(line, BEGIN) {
            begun = Some((merchant, lines.len() + 1));
        } else if let Some(ended) = named(line, END)
            && let Some((merchant, first)) = begun.take()
            && merchant == ended
        {
            lines[first..].iter_mut().for_each(|(of, _)| *of = Some(merchant));
        }
        lines.push((None, line));
    }
    lines
}

fn key_of(line: &str) -> Option<&str> {
    line.split_whitespace().next()
}

/// The hashes and ids that have a line of a merchant, each with the merchant.
fn carried_by(map: &str) -> Vec<(MerchantId, String)> {
    let is_carried =
        |key: &&str| [32, 64].contains(&key.len()) && key.bytes().all(|digit| digit.is_ascii_hexdigit());
    let of_merchant = |(of, line)| Some((of?, key_of(line).filter(is_carried)?.to_owned()));
    lines(map).into_iter().filter_map(of_merchant).collect()
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    let of = |map: &Metadata| (map.ino(), map.len(), map.mtime(), map.mtime_nsec());
    of(one) == of(other)
}
