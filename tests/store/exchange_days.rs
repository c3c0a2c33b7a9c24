//! Exchanges on PostgreSQL have a table for each day: no record is lost between two days, or when tables are made,
//! dropped or divided.

use std::path::Path;

use chrono::TimeDelta;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tollgate::config::Settings;
use tollgate::domain::clock::Clock;
use tollgate::domain::ids::{ExchangeId, MerchantId};
use tollgate::jobs::sweep::Kind;
use tollgate::store::{Engine, exchange_days, exchanges};

use crate::support::database::engines;
use crate::support::{Database, Merchant, TestApp};

const DAY: TimeDelta = TimeDelta::days(1);

/// The version of the migration that divides the table.
const DIVIDED: i64 = 39;

async fn app() -> Option<TestApp> {
    if !engines().contains(&Engine::Postgres) {
        return None;
    }
    // The clock goes back, which limits of sessions are not made for.
    let no_limit = |settings: &mut Settings| settings.limits.new_sessions_per_client_per_minute = 0;
    Some(TestApp::with(Engine::Postgres, no_limit).await)
}

async fn call(app: &TestApp, merchant: &Merchant) {
    app.tokens(merchant).await;
    app.flush().await;
}

/// Records by the table that has them: of their own day, or of everything else.
async fn records(app: &TestApp) -> (i64, i64) {
    let rest = "select count(*) from exchanges_other";
    let (all, rest) = (app.number("select count(*) from exchanges").await, app.number(rest).await);
    (all - rest, rest)
}

async fn days(app: &TestApp) -> i64 {
    app.number("select count(*) from exchange_days where ends is not null").await
}

#[tokio::test]
async fn a_call_is_recorded_whatever_its_clock_says_and_moves_to_its_day_when_that_is_made() {
    let Some(app) = app().await else { return };
    let merchant = app.merchant().await;
    for days in [0, 1000, -1010, 10] {
        app.advance(TimeDelta::days(days));
        call(&app, &merchant).await;
    }
    assert_eq!(records(&app).await, (0, 4));
    app.sweep(Kind::Exchanges).await;
    assert_eq!(records(&app).await, (2, 2), "those of today are in its table");
    let mut db = app.core().store.read().await.expect("the store answers");
    let listed = exchanges::list(&mut db, merchant.id, &exchanges::Filter::default(), None, 10).await;
    assert_eq!(listed.expect("the store answers").len(), 4);
    drop(db);
    app.advance(TimeDelta::days(1000));
    assert_eq!(app.sweep(Kind::Exchanges).await, 3);
    assert_eq!(records(&app).await, (1, 0));
}

#[tokio::test]
async fn replicas_make_tables_ahead_once_and_a_stop_of_days_leaves_no_gap() {
    let Some(app) = app().await else { return };
    let merchant = app.merchant().await;
    let other = app.replica().await;
    let before = days(&app).await;
    for _ in 0..20 {
        app.advance(DAY);
        call(&app, &merchant).await;
        let (one, two) = tokio::join!(app.sweep(Kind::Exchanges), other.sweep(Kind::Exchanges));
        assert_eq!((one, two), (0, 0));
    }
    assert!(days(&app).await > before + 10);
    assert_eq!(records(&app).await, (20, 0));
    // Nobody makes tables for longer than there are tables ahead.
    for _ in 0..12 {
        app.advance(DAY);
        call(&app, &merchant).await;
    }
    assert_eq!(records(&app).await.0 + records(&app).await.1, 32);
    app.sweep(Kind::Exchanges).await;
    // Those of the days between stay where they are, and the first one is old enough to go.
    assert_eq!(records(&app).await, (27, 4));
}

#[tokio::test]
async fn a_day_goes_as_a_table_and_takes_no_other_record_with_it() {
    let Some(app) = app().await else { return };
    let merchant = app.merchant().await;
    app.sweep(Kind::Exchanges).await;
    for _ in 0..3 {
        call(&app, &merchant).await;
        app.advance(DAY);
    }
    let deletes =
        "select sum(n_tup_del)::bigint from pg_stat_xact_user_tables where relname like 'exchanges_%'";
    assert_eq!(records(&app).await, (3, 0));
    app.advance(exchange_days::midnight(app.now().plus(DAY)).since(app.now()) + TimeDelta::days(27));
    assert_eq!(app.sweep(Kind::Exchanges).await, 1);
    assert_eq!(records(&app).await, (2, 0));
    assert_eq!(app.number(deletes).await, 0);
    app.advance(DAY * 2);
    assert_eq!(app.sweep(Kind::Exchanges).await, 2);
}

#[tokio::test]
async fn records_from_before_the_division_are_found_and_go_by_age() {
    if !engines().contains(&Engine::Postgres) {
        return;
    }
    let database = Database::without_schema(Engine::Postgres);
    let mut connection = PgConnection::connect(&database.url).await.expect("PostgreSQL answers");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    let mut migrator = Migrator::new(directory).await.expect("the migrations are there");
    migrator.migrations.to_mut().retain(|migration| migration.version < DIVIDED);
    migrator.run(&mut connection).await.expect("an empty database takes them");
    // Of 40 days ago, of today, and of a clock that was ten days ahead.
    let now = Clock::System.now();
    let merchant = MerchantId::first_of(now);
    let insert = "insert into merchants values ('MERCHANT', 'Shop', 'demo', 'active', 1, 1, 1); \
                  insert into exchanges (id, merchant_id, at, request_id, method, path, status, client_ip, hops, latency_us) \
                  values ('ID', 'MERCHANT', 1, 'kept', 'POST', '/api/authorize', 200, '192.0.2.1', '[]', 1)";
    let (merchant_row, row) = insert.split_once("; ").expect("two statements");
    let run = async |connection: &mut PgConnection, sql: String| {
        connection.execute(AssertSqlSafe(sql)).await.expect("the test's own SQL is right");
    };
    run(&mut connection, merchant_row.replace("MERCHANT", &merchant.to_string())).await;
    let times = [now.minus(DAY * 40), now, now.plus(DAY * 10)];
    for at in times {
        let id = ExchangeId::first_of(at).to_string();
        run(&mut connection, row.replace("MERCHANT", &merchant.to_string()).replace("ID", &id)).await;
    }
    // The rows were checked beforehand, yesterday, and another role reads them.
    let end = ExchangeId::first_of(exchange_days::midnight(now).plus(DAY));
    run(
        &mut connection,
        format!("alter table exchanges add constraint checked check (id < '{end}') not valid; grant select on exchanges to public"),
    )
    .await;
    connection.close().await.expect("it is open");

    let app = TestApp::over(database).await;
    let public = "select count(*) from information_schema.role_table_grants \
                  where table_name = 'exchanges' and grantee = 'PUBLIC' and privilege_type = 'SELECT'";
    assert_eq!(app.number(public).await, 1, "grants stay");
    assert_eq!(app.number("select count(*) from pg_constraint where conname = 'checked'").await, 0);
    // Otherwise a caller's temporary view could stand for a table of the owner.
    let is_open = "select count(*) from pg_proc where prosecdef and (proconfig is null or \
                   not 'search_path=public, pg_temp' = any(proconfig))";
    assert_eq!(app.number(is_open).await, 0);
    app.advance(now.since(app.now()));
    let listed = async || {
        let mut db = app.core().store.read().await.expect("the store answers");
        let by_request =
            exchanges::Filter { request_id: Some("kept".to_owned()), ..exchanges::Filter::default() };
        let page = exchanges::list(&mut db, merchant, &by_request, None, 10).await;
        page.expect("the store answers").iter().map(|exchange| exchange.id).collect::<Vec<_>>()
    };
    let ids = times.map(ExchangeId::first_of);
    assert_eq!(listed().await, [ids[2], ids[1], ids[0]]);
    assert_eq!(app.number("select count(*) from exchanges_earlier").await, 2);
    assert_eq!(app.sweep(Kind::Exchanges).await, 1);
    assert_eq!(listed().await, [ids[2], ids[1]]);
    app.advance(DAY * 35);
    app.sweep(Kind::Exchanges).await;
    assert_eq!(listed().await, [ids[2]]);
    let is_left = "select count(*) from pg_class where relname = 'exchanges_earlier'";
    assert_eq!(app.number(is_left).await, 0, "the whole table has gone");
}
