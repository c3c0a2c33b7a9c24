//! Backs up an embedded database while it is in use.
//!
//! `vacuum into` reads one consistent state and does not block writers. The copy has a temporary name until
//! it is complete, checked and on disk. So a file with the requested name is always good. The copy has never
//! had a write-ahead log. After a restore, this shows that a log beside it belongs to the old database.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::NamedTempFile;

use super::pool::Pool;
use super::{Make, StoreError};
use crate::supervise::Supervisor;

/// Why a backup failed. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("use PostgreSQL's own tools for a backup: see config/operations.md, or pg_dump --help")]
    NotEmbedded,
    #[error("{0} already exists; choose another name")]
    Exists(PathBuf),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the copy is damaged: {0}")]
    Damaged(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Copies the database at `url` to a new file, `to`. Does not change the schema. After an error, no part of
/// the copy remains.
pub async fn backup(url: &str, to: &Path, timeout: Duration) -> Result<(), BackupError> {
    if !url.starts_with("sqlite:") {
        return Err(BackupError::NotEmbedded);
    }
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let file = |source| BackupError::File { path: to.to_owned(), source };
    // The temporary file is readable only for its owner, has a unique name, and is removed when it is
    // dropped.
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

async fn copy(url: &str, to: &Path, timeout: Duration) -> Result<(), BackupError> {
    let path = to.to_str().ok_or_else(|| BackupError::File {
        path: to.to_owned(),
        source: io::ErrorKind::InvalidFilename.into(),
    })?;
    let pool = Pool::open(url, Make::Nothing, 1, timeout, None, &Supervisor::default()).await?;
    let Pool::Sqlite { readers, .. } = &pool else { return Err(BackupError::NotEmbedded) };
    let copied = sqlx::query("vacuum into $1").bind(path).execute(readers).await;
    pool.close().await;
    copied.map(drop).map_err(|error| StoreError::from(error).into())
}

/// Checks the copy. Nobody else uses it, so it is opened without locks and without a log.
async fn check(path: &Path) -> Result<(), BackupError> {
    let options = SqliteConnectOptions::new().filename(path).immutable(true);
    let mut db = options.connect().await.map_err(StoreError::from)?;
    let checked = sqlx::query_scalar("pragma integrity_check(1)").fetch_one(&mut db).await;
    db.close().await.map_err(StoreError::from)?;
    let verdict: String = checked.map_err(StoreError::from)?;
    if verdict == "ok" { Ok(()) } else { Err(BackupError::Damaged(verdict)) }
}

/// Gives the copy its final name, durably, and without replacing an existing file.
fn keep(partial: NamedTempFile, to: &Path) -> io::Result<()> {
    partial.as_file().sync_all()?;
    match partial.persist_noclobber(to) {
        Ok(_) => {}
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => return Err(failed.error),
        // A file system without hard links, such as FAT or a share. Reserve the name with an empty file
        // first.
        Err(failed) => {
            OpenOptions::new().write(true).create_new(true).open(to)?;
            if let Err(failed) = failed.file.persist(to) {
                std::fs::remove_file(to)?;
                return Err(failed.error);
            }
        }
    }
    match File::open(directory_of(to))?.sync_all() {
        // Some file systems cannot sync a directory. They keep names durable in their own way.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}
