//! Brings the schema up to date, one process at a time. Where it is up to date already, nothing is
//! changed, and no right to change anything is needed.

use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::{Connection, Executor, PgConnection};

use super::error::StoreError;
use super::fault::{self, Fault};
use super::pool::Pool;

/// Where applied migrations are noted.
const APPLIED: &str = "_sqlx_migrations";

/// Held while the schema is changed, until the end of its transaction: a lock that ends with its session
/// would stay behind in a pooler. The number is only a name.
const MIGRATION_LOCK: &str = "select pg_advisory_xact_lock(7049021335618231)";

/// A change of a large table takes its time, and so may a replica that migrates at this moment, whatever
/// limits the role has. That the migrator's own table is there already is worth no line in the log.
const NO_LIMITS: &str = "set local statement_timeout = 0; set local lock_timeout = 0; \
                         set local idle_in_transaction_session_timeout = 0; \
                         set local client_min_messages = warning";

impl Pool {
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(pools) => {
                let mut connection = pools.source.connect().await.map_err(StoreError::connecting)?;
                let migrated = migrate_postgres(&mut connection).await;
                connection.close().await?;
                migrated
            }
            Self::Sqlite { writer, .. } => {
                let migrator = prepared(sqlx::migrate!("migrations/sqlite"));
                let mut connection = writer.acquire().await?;
                let is_new =
                    "select not exists (select 1 from sqlite_master where name = '_sqlx_migrations')";
                let (is_new,): (bool,) = sqlx::query_as(is_new).fetch_one(&mut *connection).await?;
                if !is_new && is_up_to_date(&migrator, &mut *connection).await? {
                    return Ok(());
                }
                // Takes the write lock at once: whoever comes second waits here, and finds all of it done.
                let mut tx = connection.begin_with("begin immediate").await?;
                migrator.run(&mut *tx).await.map_err(migration_error)?;
                Ok(tx.commit().await?)
            }
        }
    }
}

async fn migrate_postgres(connection: &mut PgConnection) -> Result<(), StoreError> {
    let migrator = prepared(sqlx::migrate!("migrations/postgres"));
    let looked = "select current_setting('server_encoding'), to_regclass('_sqlx_migrations') is null";
    let (encoding, is_new): (String, bool) = sqlx::query_as(looked).fetch_one(&mut *connection).await?;
    if encoding != "UTF8" {
        return Err(StoreError::NotUtf8(encoding));
    }
    if !is_new && is_up_to_date(&migrator, connection).await? {
        return Ok(());
    }
    // Each migration is a savepoint in this transaction: all of them are applied, or none.
    let mut tx = connection.begin().await?;
    tx.execute(NO_LIMITS).await?;
    tx.execute(MIGRATION_LOCK).await?;
    migrator.run(&mut *tx).await.map_err(migration_error)?;
    Ok(tx.commit().await?)
}

/// A newer binary may have migrated further: expand first, contract later.
fn prepared(mut migrator: Migrator) -> Migrator {
    migrator.set_ignore_missing(true).set_locking(false);
    migrator
}

async fn is_up_to_date(migrator: &Migrator, connection: &mut impl Migrate) -> Result<bool, StoreError> {
    let applied = connection.list_applied_migrations(APPLIED).await.map_err(migration_error)?;
    for ours in migrator.iter() {
        match applied.iter().find(|applied| applied.version == ours.version) {
            None => return Ok(false),
            Some(applied) if applied.checksum != ours.checksum => {
                return Err(MigrateError::VersionMismatch(ours.version).into());
            }
            Some(_) => {}
        }
    }
    Ok(true)
}

/// Sorts what a migration met as any other statement's error.
fn migration_error(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            match fault::of(&error).fault {
                Fault::NotPermitted => StoreError::MayNotMigrate(error),
                _ => error.into(),
            }
        }
        error => StoreError::Migration(error),
    }
}
