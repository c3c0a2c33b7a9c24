//! SQLite's write-ahead log is emptied while the writer works, and does not grow without limit.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use sqlx::{Connection, SqliteConnection};
use tollgate::store::Engine;

use crate::support::TestApp;

/// The number of rows in the database file without its log.
async fn notes_in_file(app: &TestApp) -> Result<i64, sqlx::Error> {
    let url = format!("{}?immutable=true", app.database.url);
    let mut file = SqliteConnection::connect(&url).await?;
    sqlx::query_scalar("select count(*) from note").fetch_one(&mut file).await
}

#[tokio::test]
async fn what_was_committed_moves_into_the_file_without_another_write() {
    let app = TestApp::new(Engine::Sqlite).await;
    app.run_sql("create table note (id integer primary key)").await;
    // Far fewer pages than SQLite's own checkpoint needs.
    app.run_sql("insert into note values (1)").await;
    let moved = async {
        // Before a checkpoint, the file may not even have the table. There is no event for a checkpoint, so
        // we poll.
        while !matches!(notes_in_file(&app).await, Ok(1)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), moved).await.expect("nobody made a checkpoint");
}

/// How often the log has started again, from its header (SQLite file format, section 4.1).
fn restarts(app: &TestApp) -> u32 {
    let mut header = [0; 16];
    let log = File::open(app.database.directory().join("tollgate.db-wal"));
    log.and_then(|mut log| log.read_exact(&mut header)).expect("the log is there while the database is open");
    u32::from_be_bytes(header[12..].try_into().expect("four bytes are left"))
}

#[tokio::test]
async fn the_log_starts_anew_under_a_writer_that_never_rests() {
    const ROWS_MAX: usize = 512;
    let app = TestApp::new(Engine::Sqlite).await;
    app.run_sql("create table filler (bytes blob not null)").await;
    let before = restarts(&app);
    for _ in 0..ROWS_MAX {
        app.run_sql("insert into filler values (zeroblob(1 << 20))").await;
        if restarts(&app) != before {
            return;
        }
    }
    panic!("{ROWS_MAX} MiB are in the log, and it grows");
}
