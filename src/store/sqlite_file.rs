//! The file of an embedded database, before SQLite opens it: made for its owner alone, and with no log beside
//! it that is another file's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::StoreError;

/// Where a file says how it is written: twice 1 without a write-ahead log, twice 2 with one.
const VERSIONS: std::ops::Range<usize> = 18..20;

/// Makes the file where `may_create` and there is none. One that is there may be another user's, as long as
/// it can be written.
pub(super) fn prepare(path: &Path, may_create: bool) -> Result<(), StoreError> {
    if may_create {
        // Should this fail, so will SQLite, which says why.
        let _ = make_private(path);
    }
    if let Err(error) = close_to_others(path) {
        tracing::warn!(%error, path = %path.display(), "everybody on this machine may read the database");
    }
    match foreign_log(path) {
        Some(log) => Err(StoreError::ForeignLog(log)),
        None => Ok(()),
    }
}

/// SQLite would make it for everybody to read.
fn make_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// The database holds hashes and sealed secrets. Its group is left to whoever gave it one.
fn close_to_others(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let Ok(metadata) = std::fs::metadata(path) else { return Ok(()) };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o770))?;
        }
    }
    Ok(())
}

/// A write-ahead log beside a file that has never had one: it stayed behind when a copy was put in the place
/// of the database, and SQLite would write what is in it over that copy.
fn foreign_log(path: &Path) -> Option<PathBuf> {
    let mut header = [0; VERSIONS.end];
    File::open(path).ok()?.read_exact(&mut header).ok()?;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let log = PathBuf::from(log);
    let has_log = std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    (has_log && header[VERSIONS] == [1, 1]).then_some(log)
}
