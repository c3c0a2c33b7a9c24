//! Backup and restore of a database under load.

use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use tollgate::store::Engine;
use tollgate::store::backup::backup;

use super::support::load::Load;
use super::support::program::{Server, run, stdout_of, tollgate};
use super::support::{Database, Merchant, TestApp, Tokens, postgres};

/// Whether the pair can still be used.
async fn is_active(app: &TestApp, merchant: &Merchant, tokens: &Tokens) -> bool {
    app.send(merchant.introspect(&tokens.access)).await.text().contains(r#""active":true"#)
}

#[tokio::test]
async fn a_backup_under_load_restores_what_was_acknowledged_before_it() {
    let app = TestApp::new(Engine::Sqlite).await;
    let merchant = app.merchant().await;
    let before = app.tokens(&merchant).await;
    let server = Server::serve(&app.database);
    let mut load = Load::start(server.address, &merchant, 8);
    load.acknowledged(50).await;

    let restored = Database::without_schema(Engine::Sqlite);
    let copy = restored.directory().join("tollgate.db");
    let copy = copy.to_str().expect("temporary directories have plain names");
    let url = format!("--database-url={}", app.database.url);
    let said = stdout_of(&mut tollgate(&["backup", copy, &url]));
    assert!(said.contains("token keys"), "{said}");
    load.acknowledged(50).await;
    assert!(load.stop().await.refused.is_empty(), "the backup got in the way");

    // Only its owner can read it, and no unfinished file is left.
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(copy).expect("the copy is there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let names: Vec<_> = std::fs::read_dir(restored.directory())
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be read").file_name())
        .collect();
    assert_eq!(names, ["tollgate.db"]);

    let again = run(&mut tollgate(&["backup", copy, &url]));
    assert!(!again.status.success(), "an existing file was overwritten");

    let app = TestApp::over(restored).await;
    assert!(is_active(&app, &merchant, &before).await);
    app.send(merchant.refresh(&before.refresh)).await.tokens();
    app.tokens(&merchant).await;
    assert!(app.number("select count(*) from sessions").await > 10);
}

/// Like FAT or a network share, without hard links and without renames that do not replace.
#[tokio::test]
async fn a_copy_needs_no_hard_links_and_replaces_nothing() {
    let app = TestApp::new(Engine::Sqlite).await;
    let merchant = app.merchant().await;
    let copy = app.database.directory().join("copy.db");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=link,linkat,renameat2"]);
    strace.args(["-e", "inject=link,linkat,renameat2:error=EPERM", env!("CARGO_BIN_EXE_tollgate"), "backup"]);
    strace.arg(&copy).arg(format!("--database-url={}", app.database.url));
    stdout_of(&mut strace);
    let first = std::fs::read(&copy).expect("the copy is there");
    app.tokens(&merchant).await;
    assert!(!run(&mut strace).status.success(), "an existing file was overwritten");
    assert_eq!(std::fs::read(&copy).expect("the copy is still there"), first);
}

#[tokio::test]
async fn of_copies_made_at_once_under_one_name_one_is_kept_and_whole() {
    let app = TestApp::new(Engine::Sqlite).await;
    app.merchant().await;
    let restored = Database::without_schema(Engine::Sqlite);
    let copy = restored.directory().join("tollgate.db");
    let copies = (0..8).map(|_| backup(&app.database.url, &copy, Duration::from_secs(30)));
    let done = join_all(copies).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{done:?}");
    assert_eq!(std::fs::read_dir(restored.directory()).expect("it is there").count(), 1);
    let app = TestApp::over(restored).await;
    assert_eq!(app.number("select count(*) from merchants").await, 1);
}

#[tokio::test]
async fn a_dump_of_postgresql_restores_what_was_acknowledged_before_it() {
    let app = TestApp::new(Engine::Postgres).await;
    let merchant = app.merchant().await;
    let before = app.tokens(&merchant).await;
    let refused =
        run(&mut tollgate(&["backup", "/nowhere", &format!("--database-url={}", app.database.url)]));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("pg_dump"), "it says what to use");

    let restored = Database::without_schema(Engine::Postgres);
    let dump = restored.directory().join("tollgate.dump");
    let program = |name| Command::new(postgres::programs::program(name));
    stdout_of(program("pg_dump").arg("--format=custom").arg("--file").arg(&dump).arg(&app.database.url));
    stdout_of(
        program("pg_restore").args(["--exit-on-error", "--no-owner", "--dbname", &restored.url]).arg(&dump),
    );

    let app = TestApp::over(restored).await;
    assert!(is_active(&app, &merchant, &before).await);
    app.send(merchant.refresh(&before.refresh)).await.tokens();
    app.tokens(&merchant).await;
}

#[tokio::test]
async fn the_health_check_tells_a_server_that_is_up_from_one_that_is_not() {
    let database = Database::fresh(Engine::Sqlite).await;
    let server = Server::serve(&database);
    let address = server.address;
    let check = || run(&mut tollgate(&["healthcheck", &format!("--listen={address}")])).status.success();
    assert!(check());
    let everywhere = format!("--listen=0.0.0.0:{}", address.port());
    let mut command = tollgate(&["healthcheck", &everywhere]);
    assert!(run(command.env("TOLLGATE__SERVER__ALLOW_PLAIN_HTTP", "true")).status.success());
    server.kill();
    assert!(!check());
}

#[tokio::test]
async fn the_health_check_speaks_as_the_proxies_do_where_it_calls_from_one_of_their_addresses() {
    for (proxies, is_one) in [("127.0.0.1", true), ("::ffff:127.0.0.0/104", true), ("192.0.2.1", false)] {
        let database = Database::fresh(Engine::Sqlite).await;
        let with_proxies = |command: &mut std::process::Command| {
            command
                .env("TOLLGATE__SERVER__PROXY_PROTOCOL", "true")
                .env("TOLLGATE__SERVER__TRUSTED_PROXIES", proxies);
        };
        let mut command = Server::command("serve", &database);
        with_proxies(&mut command);
        let server = Server::start(&mut command);
        let mut command = tollgate(&["healthcheck", &format!("--listen={}", server.address)]);
        with_proxies(&mut command);
        let checked = run(&mut command);
        assert!(checked.status.success(), "{proxies}: {}", String::from_utf8_lossy(&checked.stderr));

        // A connection without the header is closed and logged, but not every time.
        let mut plain = tollgate(&["healthcheck", &format!("--listen={}", server.address)]);
        assert_eq!(run(&mut plain).status.success(), !is_one, "{proxies}");
        if is_one {
            run(&mut plain);
            server.wait_for_log("sent no valid PROXY header");
            assert_eq!(server.log().matches("sent no valid PROXY header").count(), 1);
        }
        server.kill();
    }
}
