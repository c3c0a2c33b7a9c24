//! SQLite's write-ahead log: emptied beside the writer, and never much longer than it may be.

use std::time::Duration;

use sqlx::{Connection, SqliteConnection};
use tollgate::store::Engine;

use crate::support::TestApp;

/// What SQLite's own checkpoint would leave alone: far less than a thousand pages.
const NOTE: &str = "insert into note values (1)";

/// Rows in the database file, which is read as if there were no log beside it.
async fn notes_in_file(app: &TestApp) -> Result<i64, sqlx::Error> {
    let url = format!("{}?immutable=true", app.database.url);
    let mut file = SqliteConnection::connect(&url).await?;
    sqlx::query_scalar("select count(*) from note").fetch_one(&mut file).await
}

#[tokio::test]
async fn what_was_committed_moves_into_the_file_without_another_write() {
    let app = TestApp::new(Engine::Sqlite).await;
    app.run_sql("create table note (id integer primary key)").await;
    app.run_sql(NOTE).await;
    let moved = async {
        // Until then the file may not even have the table. Nothing tells of a checkpoint, so we look.
        while !matches!(notes_in_file(&app).await, Ok(1)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), moved).await.expect("nobody made a checkpoint");
}

#[tokio::test]
async fn a_writer_that_never_rests_does_not_make_the_log_grow() {
    const MIB: u64 = 1 << 20;
    let app = TestApp::new(Engine::Sqlite).await;
    app.run_sql("create table filler (bytes blob not null)").await;
    for _ in 0..160 {
        app.run_sql("insert into filler values (zeroblob(1 << 20))").await;
    }
    let log = app.database.directory().join("tollgate.db-wal");
    let length = std::fs::metadata(&log).expect("the log is there while the database is open").len();
    assert!(length > MIB && length < 72 * MIB, "the log has {length} bytes");
}
