//! A copy of an embedded database, made while it is in use.
//!
//! `vacuum into` reads one consistent state and lets writers go on. The copy has a name of its own until
//! it is whole, checked and on disk, so that a file with the name asked for is always a good one. That it
//! has never had a write-ahead log is what tells a log of the former database apart when it is restored.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::NamedTempFile;

use super::StoreError;
use super::pool::Pool;
use crate::supervise::Supervisor;

/// Why there is no backup, in words for an operator.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("PostgreSQL is backed up with its own tools: see config/operations.md, or pg_dump --help")]
    NotEmbedded,
    #[error("{0} is there already; give another name")]
    Exists(PathBuf),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the copy is damaged: {0}")]
    Damaged(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Copies the database at `url` to a new file, `to`. The schema is left as it is.
///
/// # Errors
/// [`BackupError`]; nothing is left of the copy then.
pub async fn backup(url: &str, to: &Path, timeout: Duration) -> Result<(), BackupError> {
    if !url.starts_with("sqlite:") {
        return Err(BackupError::NotEmbedded);
    }
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let file = |source| BackupError::File { path: to.to_owned(), source };
    // For its owner alone, removed when it is dropped, and under a name that no other backup has.
    let partial = tempfile::Builder::new()
        .prefix(".tollgate-backup-")
        .suffix(".partial")
        .tempfile_in(directory_of(to))
        .map_err(file)?;
    copy(url, partial.path(), timeout).await?;
    check(partial.path()).await?;
    keep(partial, to).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(to.to_owned()),
        _ => file(error),
    })
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Fills an empty file.
async fn copy(url: &str, to: &Path, timeout: Duration) -> Result<(), BackupError> {
    let path = to.to_str().ok_or_else(|| BackupError::File {
        path: to.to_owned(),
        source: io::ErrorKind::InvalidFilename.into(),
    })?;
    let pool = Pool::open(url, false, 1, timeout, None, &Supervisor::default()).await?;
    let Pool::Sqlite { readers, .. } = &pool else { return Err(BackupError::NotEmbedded) };
    let copied = sqlx::query("vacuum into $1").bind(path).execute(readers).await;
    pool.close().await;
    copied.map(drop).map_err(|error| StoreError::from(error).into())
}

/// Nobody else knows the file, so it is read without locks, and without a log beside it.
async fn check(path: &Path) -> Result<(), BackupError> {
    let options = SqliteConnectOptions::new().filename(path).immutable(true);
    let mut db = options.connect().await.map_err(StoreError::from)?;
    let checked = sqlx::query_scalar("pragma integrity_check(1)").fetch_one(&mut db).await;
    db.close().await.map_err(StoreError::from)?;
    let verdict: String = checked.map_err(StoreError::from)?;
    if verdict == "ok" { Ok(()) } else { Err(BackupError::Damaged(verdict)) }
}

/// Gives the copy its name, durably, and replaces no file that has come up meanwhile.
fn keep(partial: NamedTempFile, to: &Path) -> io::Result<()> {
    partial.as_file().sync_all()?;
    match partial.persist_noclobber(to) {
        Ok(_) => {}
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => return Err(failed.error),
        // A file system without hard links, such as FAT or a share: there the name is taken first.
        Err(failed) => {
            OpenOptions::new().write(true).create_new(true).open(to)?;
            if let Err(failed) = failed.file.persist(to) {
                std::fs::remove_file(to)?;
                return Err(failed.error);
            }
        }
    }
    match File::open(directory_of(to))?.sync_all() {
        // Not every file system can: it keeps names by its own means.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}
