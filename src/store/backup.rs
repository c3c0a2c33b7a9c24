//! A copy of an embedded database, made while it is in use.
//!
//! `vacuum into` reads one consistent state and lets writers go on. The copy has a name of its own until
//! it is whole, checked and on disk, so that a file with the name asked for is always a good one.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlitePool;

use super::StoreError;
use super::pool::Pool;

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
/// [`BackupError`]; there is no file with that name then.
pub async fn backup(url: &str, to: &Path, timeout: Duration) -> Result<(), BackupError> {
    if !url.starts_with("sqlite:") {
        return Err(BackupError::NotEmbedded);
    }
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let copied = copy(url, &partial, timeout).await;
    let kept = match copied {
        Ok(()) => keep(&partial, to).map_err(|source| BackupError::File { path: to.to_owned(), source }),
        Err(error) => Err(error),
    };
    if kept.is_err() {
        // Whatever is left of it is of no use; there may be nothing.
        let _ = std::fs::remove_file(&partial);
    }
    kept
}

async fn copy(url: &str, partial: &Path, timeout: Duration) -> Result<(), BackupError> {
    let file = |source| BackupError::File { path: partial.to_owned(), source };
    let path = partial.to_str().ok_or_else(|| file(io::ErrorKind::InvalidFilename.into()))?;
    make_private(partial).map_err(file)?;
    let pool = Pool::open(url, false, 1, timeout).await?;
    let copied = sqlx::query("vacuum into $1").bind(path).execute(readers(&pool)?).await;
    pool.close().await;
    copied.map_err(StoreError::from)?;

    let pool = Pool::open(&format!("sqlite://{}", url_path(path)), false, 1, timeout).await?;
    let checked = sqlx::query_scalar("pragma integrity_check(1)").fetch_one(readers(&pool)?).await;
    pool.close().await;
    let verdict: String = checked.map_err(StoreError::from)?;
    if verdict == "ok" { Ok(()) } else { Err(BackupError::Damaged(verdict)) }
}

/// These statements are of SQLite alone.
fn readers(pool: &Pool) -> Result<&SqlitePool, BackupError> {
    match pool {
        Pool::Sqlite { readers, .. } => Ok(readers),
        Pool::Postgres(..) => Err(BackupError::NotEmbedded),
    }
}

/// An empty file for its owner alone: the engine fills it, and would make it for everybody to read.
fn make_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Gives the copy its name, durably.
fn keep(partial: &Path, to: &Path) -> io::Result<()> {
    File::open(partial)?.sync_all()?;
    // A link, unlike a rename, does not replace a file that has come up meanwhile.
    std::fs::hard_link(partial, to)?;
    std::fs::remove_file(partial)?;
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// A path as it stands in a URL.
fn url_path(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3F")
}
