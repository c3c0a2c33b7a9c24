//! Brings the schema up to date, one process at a time. If it is already up to date, nothing is changed and
//! no privilege to change it is needed.

use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};

use super::error::StoreError;
use super::fault::{self, Fault};
use super::pool::Pool;

/// The table of applied migrations.
const APPLIED: &str = "_sqlx_migrations";

/// Locked while the schema is changed, until the end of the transaction. A session lock could stay behind in
/// a pooler. The number is an arbitrary advisory-lock key.
const MIGRATION_LOCK: &str = "select pg_advisory_xact_lock(7049021335618231)";

/// Changing a large table may take long, and so may waiting for another replica that migrates, so the role's
/// limits must not apply. The message level suppresses the notice that the migrator's table already exists.
const NO_LIMITS: &str = "set local statement_timeout = 0; set local lock_timeout = 0; \
                         set local idle_in_transaction_session_timeout = 0; \
                         set local client_min_messages = warning";

impl Pool {
    /// Checks that the schema is up to date, and changes nothing.
    pub(super) async fn must_be_migrated(&self) -> Result<(), StoreError> {
        let is_migrated = match self {
            Self::Postgres(pools) => {
                let mut connection = pools.source.connect().await.map_err(StoreError::connecting)?;
                let is_migrated = is_migrated_postgres(&postgres_migrator(), &mut connection).await;
                connection.close().await?;
                is_migrated?
            }
            Self::Sqlite { readers, .. } => {
                is_migrated_sqlite(&sqlite_migrator(), &mut *readers.acquire().await?).await?
            }
        };
        if is_migrated { Ok(()) } else { Err(StoreError::NotMigrated) }
    }

    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(pools) => {
                let mut connection = pools.source.connect().await.map_err(StoreError::connecting)?;
                let migrated = migrate_postgres(&mut connection).await;
                connection.close().await?;
                migrated
            }
            Self::Sqlite { writer, .. } => {
                let migrator = sqlite_migrator();
                let mut connection = writer.acquire().await?;
                if is_migrated_sqlite(&migrator, &mut connection).await? {
                    return Ok(());
                }
                // Take the write lock at once. A second process waits here, and then has nothing to do.
                let mut tx = connection.begin_with("begin immediate").await?;
                migrator.run(&mut *tx).await.map_err(migration_error)?;
                Ok(tx.commit().await?)
            }
        }
    }
}

async fn migrate_postgres(connection: &mut PgConnection) -> Result<(), StoreError> {
    let migrator = postgres_migrator();
    if is_migrated_postgres(&migrator, connection).await? {
        return Ok(());
    }
    // Each migration is a savepoint in this transaction, so either all of them are applied or none.
    let mut tx = connection.begin().await?;
    tx.execute(NO_LIMITS).await?;
    tx.execute(MIGRATION_LOCK).await?;
    migrator.run(&mut *tx).await.map_err(migration_error)?;
    Ok(tx.commit().await?)
}

async fn is_migrated_postgres(
    migrator: &Migrator,
    connection: &mut PgConnection,
) -> Result<bool, StoreError> {
    let looked = "select current_setting('server_encoding'), to_regclass('_sqlx_migrations') is null";
    let (encoding, is_new): (String, bool) = sqlx::query_as(looked).fetch_one(&mut *connection).await?;
    if encoding != "UTF8" {
        return Err(StoreError::NotUtf8(encoding));
    }
    Ok(!is_new && is_up_to_date(migrator, connection).await?)
}

async fn is_migrated_sqlite(
    migrator: &Migrator,
    connection: &mut SqliteConnection,
) -> Result<bool, StoreError> {
    let is_new = "select not exists (select 1 from sqlite_master where name = '_sqlx_migrations')";
    let (is_new,): (bool,) = sqlx::query_as(is_new).fetch_one(&mut *connection).await?;
    Ok(!is_new && is_up_to_date(migrator, connection).await?)
}

fn postgres_migrator() -> Migrator {
    prepared(sqlx::migrate!("migrations/postgres"))
}

fn sqlite_migrator() -> Migrator {
    prepared(sqlx::migrate!("migrations/sqlite"))
}

/// Ignores migrations of a newer release. Such a release only adds to the schema that the old one needs.
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
    let newest = migrator.iter().map(|ours| ours.version).max();
    let newer: Vec<_> =
        applied.iter().map(|applied| applied.version).filter(|version| Some(*version) > newest).collect();
    if !newer.is_empty() {
        tracing::warn!(
            ours = newest,
            ?newer,
            "a newer release has changed the schema: see \"Going back\" in config/upgrading.md for what this one ignores"
        );
    }
    Ok(true)
}

/// Classifies an error in a migration like that of any other statement.
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
