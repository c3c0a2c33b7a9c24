//! Errors of the store. "Not found" is not an error but an `Option`.

use std::path::PathBuf;
use std::sync::Arc;

use super::fault::{self, Answer, Fault};
use super::url::BadUrl;

/// These texts go to the log and never to a caller. They contain no URL and no value.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, has no free connection, or does not answer in time. The answer is 503.
    /// All calls of a batch share the cause.
    #[error("the store does not answer: {1}")]
    Unavailable(Fault, Arc<sqlx::Error>),
    /// A queue of the hot path is full, or a call waited in it too long. The answer is 503.
    #[error("the store is too busy")]
    Busy,
    /// Another cell serves the merchant, or none while its last changes are on their way there. The answer is
    /// 503: the proxy learns of the move within moments.
    #[error("another cell serves the merchant")]
    Elsewhere,
    /// A unique value already exists.
    #[error("already exists")]
    Conflict(sqlx::Error),
    /// The transaction conflicted with another one. It may succeed if it is tried again.
    #[error("concurrent change: {0}")]
    Contention(sqlx::Error),
    /// A pooler runs our statements on a connection on which they were not prepared.
    #[error(
        "the database is reached through a pooler that hands its connections on between statements: set its pool \
         mode to session, or, with PgBouncer 1.21 or later, max_prepared_statements to 200 or more: {0}"
    )]
    Pooler(#[source] sqlx::Error),
    /// A row that the schema or this program should prevent.
    #[error("impossible row in {table}: {what}")]
    Impossible { table: &'static str, what: String },
    #[error("query failed: {0}")]
    Query(sqlx::Error),
    #[error("migration failed: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error(
        "the schema is not up to date, and this role may not change it: run `tollgate migrate` as its owner first: {0}"
    )]
    MayNotMigrate(#[source] sqlx::Error),
    #[error("the database has no tables yet, or those of an older release: run `tollgate migrate` first")]
    NotMigrated,
    #[error("the database cannot hold every name: its encoding is {0}; make one with encoding 'UTF8'")]
    NotUtf8(String),
    #[error("the database URL cannot be read: {0}")]
    BadUrl(#[from] BadUrl),
    #[error(
        "there is no database file {0}: check the path, run `tollgate migrate` to make it, or add ?mode=rwc to the URL"
    )]
    NoSuchFile(PathBuf),
    #[error(
        "{0} belongs to another database file than the one beside it, and would damage it: if that is a restored \
         copy, remove {0} and the -shm file of the same name, and start again"
    )]
    ForeignLog(PathBuf),
}

impl StoreError {
    /// Whether the caller should be told to try again later.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(..) | Self::Busy | Self::Elsewhere | Self::Contention(_))
    }

    /// An error while connecting is always `Unavailable`, whatever the server says.
    pub(super) fn connecting(error: sqlx::Error) -> Self {
        Self::Unavailable(fault::of(&error).fault, Arc::new(error))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let row = fault::of(&error);
        match (row.answer, row.fault) {
            (Answer::ComeBack, fault) => Self::Unavailable(fault, Arc::new(error)),
            (Answer::TryAgain, _) => Self::Contention(error),
            (Answer::Taken, _) => Self::Conflict(error),
            (Answer::Defect, Fault::Pooler) => Self::Pooler(error),
            (Answer::Defect, _) => Self::Query(error),
        }
    }
}
