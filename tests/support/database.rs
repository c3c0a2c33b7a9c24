//! New databases of both engines.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::OnceCell;
use tollgate::store::{Engine, Make, Options, Store};

use super::postgres;

/// The engines to test: both, or the one in `TOLLGATE_TEST_ENGINES` (`tests/run --sqlite`).
pub(crate) fn engines() -> Vec<Engine> {
    let both = vec![Engine::Sqlite, Engine::Postgres];
    match std::env::var("TOLLGATE_TEST_ENGINES").as_deref() {
        Err(_) => both,
        Ok("sqlite") => vec![Engine::Sqlite],
        Ok(other) => panic!("TOLLGATE_TEST_ENGINES may be `sqlite` or not set, not `{other}`"),
    }
}

/// The database of one test, and a directory for other files of its application. Both are removed with the
/// last application that uses them.
pub(crate) struct Database {
    pub(crate) engine: Engine,
    pub(crate) url: String,
    directory: TempDir,
}

impl Database {
    /// An empty database with the schema.
    pub(crate) async fn fresh(engine: Engine) -> Arc<Self> {
        let database = Self::empty(engine, String::new);
        let url = match engine {
            Engine::Sqlite => database.url.clone(),
            Engine::Postgres => postgres::reached(postgres::copy_of(migrated_postgres().await)),
        };
        Arc::new(Self { url, ..database })
    }

    /// A database without a schema. For SQLite, there is not even a file.
    pub(crate) fn without_schema(engine: Engine) -> Arc<Self> {
        Arc::new(Self::empty(engine, postgres::database))
    }

    fn empty(engine: Engine, postgres: impl FnOnce() -> String) -> Self {
        assert!(engines().contains(&engine), "this test needs {engine:?}, which this run leaves out");
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let url = match engine {
            Engine::Sqlite => format!("sqlite://{}", directory.path().join("tollgate.db").display()),
            Engine::Postgres => postgres(),
        };
        Self { engine, url, directory }
    }

    /// A PostgreSQL database at another URL.
    pub(crate) fn reached_at(url: String) -> Arc<Self> {
        Arc::new(Self::empty(Engine::Postgres, || url))
    }

    /// A SQLite database without a file yet, on the disk that `parent` is on.
    pub(crate) fn sqlite_in(parent: &Path) -> Arc<Self> {
        let directory = tempfile::tempdir_in(parent).expect("a temporary directory can be made");
        let url = format!("sqlite://{}", directory.path().join("tollgate.db").display());
        Arc::new(Self { engine: Engine::Sqlite, url, directory })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// A template that is migrated once per process. Copying it is faster than migrating each time.
async fn migrated_postgres() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(async || {
            let url = postgres::database();
            open(&url).await.close().await;
            url
        })
        .await
}

/// Opens only the store, with its schema up to date.
pub(crate) async fn open(url: &str) -> Store {
    let options = Options {
        url,
        make: Make::File,
        connections_max: 4,
        timeout: Duration::from_secs(10),
        cache_bytes_max: 1 << 20,
        read_again: None,
    };
    Store::open(options).await.expect("the database opens and migrates")
}
