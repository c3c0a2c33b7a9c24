//! What can go wrong in the store. Faults, all of them: "not found" is an `Option`, a refusal a value.

use std::path::PathBuf;

/// Texts here go to the log, never to a caller, and none of them carries a URL or a value.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine cannot be reached, is out of connections, or does not answer in time. Answered with
    /// 503: the caller may try again.
    #[error("the store does not answer: {0}")]
    Unavailable(sqlx::Error),
    /// A queue of the hot path is full, or a call waited in it for too long. Answered with 503.
    #[error("the store is too busy")]
    Busy,
    /// A unique value is taken.
    #[error("already exists")]
    Conflict(sqlx::Error),
    /// Another transaction was in the way; the same one may succeed when tried again.
    #[error("concurrent change: {0}")]
    Contention(sqlx::Error),
    /// Statements prepared on one connection are asked for on another.
    #[error(
        "the database is reached through a pooler that hands its connections on between statements: set its pool \
         mode to session, or, with PgBouncer 1.21 or later, max_prepared_statements to 200 or more: {0}"
    )]
    Pooler(#[source] sqlx::Error),
    /// A row that the schema or this program should have made impossible.
    #[error("impossible row in {table}: {what}")]
    Impossible { table: &'static str, what: String },
    #[error("query failed: {0}")]
    Query(sqlx::Error),
    #[error("migration failed: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("the database URL must start with sqlite: or postgres:")]
    UnknownScheme,
    #[error("the database URL cannot be read")]
    BadUrl,
    #[error("an in-memory SQLite database keeps nothing; give a file")]
    InMemory,
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
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy | Self::Contention(_))
    }
}

impl From<sqlx::Error> for StoreError {
    /// Sorts by the kind of error, never by the name of a constraint: names differ between engines.
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Self::Unavailable(error),
            sqlx::Error::Database(database) => {
                if database.is_unique_violation() {
                    return Self::Conflict(error);
                }
                match database.code().as_deref() {
                    // PostgreSQL: serialization failure, deadlock detected, a lock not got in time.
                    Some("40001" | "40P01" | "55P03") => Self::Contention(error),
                    // PostgreSQL: no such prepared statement, or one of that name already.
                    Some("26000" | "42P05") => Self::Pooler(error),
                    // PostgreSQL: connection exceptions, insufficient resources (disk full, too many
                    // connections), operator intervention (shutting down, starting up, a statement that
                    // took too long), read-only (a demoted primary), a transaction left idle for too
                    // long. SQLite: busy, locked, out of memory, read-only, I/O error, full, cannot open.
                    Some(code)
                        if ["08", "53", "57"]
                            .iter()
                            .any(|class| code.len() == 5 && code.starts_with(class))
                            || matches!(code, "25006" | "25P03")
                            || code.parse::<u32>().is_ok_and(|code| {
                                code < 10_000 && matches!(code & 0xff, 5 | 6 | 7 | 8 | 10 | 13 | 14)
                            }) =>
                    {
                        Self::Unavailable(error)
                    }
                    _ => Self::Query(error),
                }
            }
            // PostgreSQL closed the connection in mid-message.
            sqlx::Error::Protocol(_) => Self::Unavailable(error),
            _ => Self::Query(error),
        }
    }
}
