//! Brings the schema up to date, one process at a time.

use sqlx::migrate::MigrateError;
use sqlx::{Connection, Executor, PgConnection};

use super::error::StoreError;
use super::pool::{Pool, postgres_options};

/// Held while the schema is changed. The number is only a name.
const MIGRATION_LOCK: &str = "select pg_advisory_xact_lock(7049021335618231)";

impl Pool {
    /// `url` is the one that this was opened with.
    pub(super) async fn migrate(&self, url: &str) -> Result<(), StoreError> {
        match self {
            Self::Postgres(..) => {
                let mut migrator = sqlx::migrate!("migrations/postgres");
                // A newer binary may have migrated further: expand first, contract later.
                // On a connection without the limits of a call: a change of a large table takes its time,
                // and so may a replica that migrates at this moment.
                // That its own table is there already is worth no line in the log.
                let options = postgres_options(url)?.options([("client_min_messages", "warning")]);
                // One at a time, by a lock that ends with its transaction: one that ends with its session
                // would stay behind in a pooler.
                let mut guard = PgConnection::connect_with(&options).await?;
                guard.execute("begin").await?;
                guard.execute(MIGRATION_LOCK).await?;
                let mut connection = PgConnection::connect_with(&options).await?;
                let migrated =
                    migrator.set_ignore_missing(true).set_locking(false).run(&mut connection).await;
                connection.close().await?;
                guard.close().await?;
                migrated.map_err(migration_error)?;
            }
            Self::Sqlite { writer, .. } => {
                let mut migrator = sqlx::migrate!("migrations/sqlite");
                migrator.set_ignore_missing(true).run(writer).await?;
            }
        }
        Ok(())
    }
}

/// Sorts what a migration met as any other statement's error.
fn migration_error(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        error => StoreError::Migration(error),
    }
}
