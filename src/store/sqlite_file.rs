//! Prepares the file of an embedded database before SQLite opens it. Only its owner may read it, and there
//! must be no write-ahead log of another file beside it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::StoreError;

/// The bytes of the header that tell the format: 1 and 1 without a write-ahead log, 2 and 2 with one.
const VERSIONS: std::ops::Range<usize> = 18..20;

/// Makes the file if there is none and `may_create` is set. An existing file may belong to another user if we
/// can write to it.
pub(super) fn prepare(path: &Path, may_create: bool) -> Result<(), StoreError> {
    if may_create {
        // If this fails, SQLite will fail too and report why.
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

/// Makes a file that only its owner can read. SQLite would make it readable for everybody.
fn make_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Removes access for others, because the database has hashes and sealed secrets. Access for the group is not
/// changed.
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

/// Finds a write-ahead log beside a file that has never had one. It belongs to the old database, which was
/// replaced by a copy. SQLite would write its contents over the copy.
fn foreign_log(path: &Path) -> Option<PathBuf> {
    let mut header = [0; VERSIONS.end];
    File::open(path).ok()?.read_exact(&mut header).ok()?;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let log = PathBuf::from(log);
    let has_log = std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    (has_log && header[VERSIONS] == [1, 1]).then_some(log)
}
