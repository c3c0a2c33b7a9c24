//! PostgreSQL runs but refuses: callers get 503 until it accepts again, without a restart.

use std::fs;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tollgate::config::Settings;
use tollgate::store::{Make, Options, Store, StoreError};

use super::admin::Admin;
use super::database_trouble::until;
use super::support::postgres::Cluster;
use super::support::receiver::Receiver;
use super::support::{Call, Database, Merchant, TestApp, Tokens};
use super::webhooks::to_this_machine;

/// Calls must be served again within this time.
const RECOVERY: Duration = Duration::from_secs(5);

/// A server whose tables belong to one role and are used by another, `service`.
struct Server {
    cluster: Cluster,
    /// The superuser, in another database.
    admin: String,
    owner: TestApp,
}

impl Server {
    async fn start() -> Self {
        let cluster = Cluster::start();
        let admin = cluster.database();
        let owner = TestApp::over(Database::reached_at(cluster.database())).await;
        let server = Self { cluster, admin, owner };
        server.sql("create role service login; create role successor login").await;
        let grant = "grant select, insert, update, delete on all tables in schema public to service, successor; \
                     grant usage on all sequences in schema public to service, successor";
        run(&server.owner.database.url, grant).await;
        server
    }

    fn url(&self, role: &str) -> String {
        self.owner.database.url.replace("postgres@", &format!("{role}@"))
    }

    async fn service(&self) -> TestApp {
        self.owner.replica_at(&self.url("service"), impatient).await
    }

    /// Runs a statement as the superuser.
    async fn sql(&self, sql: &str) {
        run(&self.admin, sql).await;
    }

    /// Ends every connection of the role, as a restart or a fail-over does.
    async fn cut(&self) {
        self.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'service'").await;
    }
}

async fn run(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the superuser gets in");
    connection.execute(AssertSqlSafe(sql.to_owned())).await.expect("the test's own SQL is right");
    connection.close().await.expect("it is open");
}

fn impatient(settings: &mut Settings) {
    settings.database.timeout = Duration::from_secs(1);
    settings.database.connections_max = 4;
}

/// A caller with its credentials.
struct Caller {
    merchant: Merchant,
    tokens: Tokens,
    operator: String,
}

impl Caller {
    async fn of(app: &TestApp) -> Self {
        let merchant = app.merchant().await;
        let tokens = app.tokens(&merchant).await;
        Self { merchant, tokens, operator: Admin::operator(app).await.token }
    }
}

async fn every_call_is_503(app: &TestApp, caller: &Caller, why: &str) {
    let Caller { merchant, tokens, operator } = caller;
    for call in [
        merchant.authorize(),
        merchant.refresh(&tokens.refresh),
        merchant.introspect(&tokens.access),
        merchant.verify(&tokens.access),
        Call::get("/readyz"),
        Call::get("/admin/v1/merchants").header("authorization", format!("Bearer {operator}")),
    ] {
        let reply = app.send(call).await;
        assert_eq!(reply.status, 503, "{why}: {}", reply.text());
        assert!(reply.header("retry-after").is_some(), "{why}");
    }
}

async fn is_served_again(app: &TestApp, merchant: &Merchant, why: &str) {
    let since = Instant::now();
    until(async || app.send(merchant.authorize()).await.status == 200).await;
    assert!(since.elapsed() < RECOVERY, "{why}: after {:?}", since.elapsed());
    assert_eq!(app.send(Call::get("/readyz")).await.status, 200, "{why}");
}

#[tokio::test]
async fn whatever_it_refuses_a_connection_for_is_503_until_it_relents() {
    let server = Server::start().await;
    let app = server.service().await;
    let caller = Caller::of(&app).await;
    let database = server.owner.database.url.rsplit('/').next().expect("the URL names a database").to_owned();
    for (refuse, relent) in [
        ("alter role service nologin", "alter role service login"),
        ("alter role service connection limit 0", "alter role service connection limit -1"),
        ("alter database DB rename to elsewhere", "alter database elsewhere rename to DB"),
        ("alter database DB allow_connections false", "alter database DB allow_connections true"),
        (
            "alter role service set default_transaction_read_only = on",
            "alter role service reset default_transaction_read_only",
        ),
    ] {
        // A database with connections cannot be renamed.
        server
            .sql(
                "select pg_terminate_backend(pid) from pg_stat_activity \
                 where datname is not null and pid <> pg_backend_pid()",
            )
            .await;
        server.sql(&refuse.replace("DB", &database)).await;
        every_call_is_503(&app, &caller, refuse).await;
        server.sql(&relent.replace("DB", &database)).await;
        is_served_again(&app, &caller.merchant, refuse).await;
    }
}

#[tokio::test]
async fn whatever_befell_it_every_event_is_delivered_and_every_call_is_on_record() {
    let server = Server::start().await;
    let app = server
        .owner
        .replica_at(&server.url("service"), |settings| {
            impatient(settings);
            to_this_machine(settings);
        })
        .await;
    let receiver = Receiver::open();
    let hooked = app.hooked(&receiver.url()).await;
    let merchant = app.merchant().await;
    app.deliver().await;
    receiver.take();
    for trouble in ["login", "read-only", "frozen", "gone"] {
        let ids: Vec<String> = (0..20).map(|number| format!("{trouble}-{number}")).collect();
        for id in &ids {
            app.send(merchant.authorize().header("x-request-id", id)).await.tokens();
        }
        let event = app.publish(&hooked, &format!("payment.{}", trouble.replace('-', "_"))).await;

        // By now, some of the records are written and some are not.
        let mut frozen = None;
        match trouble {
            "login" => server.sql("alter role service nologin").await,
            "read-only" => server.sql("alter role service set default_transaction_read_only = on").await,
            "frozen" => {
                let mut holder =
                    PgConnection::connect(&server.owner.database.url).await.expect("the superuser gets in");
                let locks =
                    "begin; lock table exchanges, merchants, webhook_deliveries in access exclusive mode";
                holder.execute(locks).await.expect("the test's own SQL is right");
                frozen = Some(holder);
            }
            _ => server.cluster.stop_immediate(),
        }
        if matches!(trouble, "login" | "read-only") {
            server.cut().await;
        }
        let refused = app.send(merchant.authorize()).await;
        assert_eq!(refused.status, 503, "{trouble}: {}", refused.text());
        // The attempt or its record fails. There must be another attempt.
        let _ = app.try_to_deliver().await;

        match trouble {
            "login" => server.sql("alter role service login").await,
            "read-only" => server.sql("alter role service reset default_transaction_read_only").await,
            "frozen" => drop(frozen),
            _ => server.cluster.start_again(),
        }
        is_served_again(&app, &merchant, trouble).await;
        app.flush().await;
        // After the claim on an attempt has lapsed.
        app.advance(TimeDelta::minutes(10));
        app.deliver().await;
        assert!(receiver.take().iter().any(|hook| hook.id() == event), "{trouble}: the event is lost");
        for id in ids {
            let query = format!("select count(*) from exchanges where request_id = '{id}' and status = 200");
            let mut owner = PgConnection::connect(&server.owner.database.url).await.expect("it is back");
            let recorded: i64 =
                sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut owner).await.expect("it answers");
            assert_eq!(recorded, 1, "{trouble}: {id}");
        }
    }
}

#[tokio::test]
async fn tables_that_are_gone_for_a_moment_are_503() {
    let server = Server::start().await;
    let app = server.service().await;
    let merchant = app.merchant().await;
    run(&server.owner.database.url, "alter table sessions rename to being_restored").await;
    app.send(merchant.authorize()).await.refused(503, "temporarily_unavailable");
    run(&server.owner.database.url, "alter table being_restored rename to sessions").await;
    is_served_again(&app, &merchant, "a table was away").await;
}

#[tokio::test]
async fn connections_to_a_node_that_turned_read_only_are_given_up_at_once() {
    let server = Server::start().await;
    let app = server.service().await;
    let caller = Caller::of(&app).await;
    // Open connections stay open, and notice it only when a statement fails.
    server.sql("alter system set default_transaction_read_only = on").await;
    server.sql("select pg_reload_conf()").await;
    until(async || app.send(Call::get("/readyz")).await.status == 503).await;
    every_call_is_503(&app, &caller, "read-only").await;
    server.sql("alter system reset default_transaction_read_only").await;
    server.sql("select pg_reload_conf()").await;
    is_served_again(&app, &caller.merchant, "read-only").await;
}

#[tokio::test]
async fn a_url_that_changed_in_its_file_is_taken_up_when_the_login_is_refused() {
    let server = Server::start().await;
    let app = server
        .owner
        .replica_at(&server.url("service"), |settings| {
            impatient(settings);
            settings.database.url_file = Some(settings.server.data_dir.join("url"));
        })
        .await;
    let merchant = app.merchant().await;
    app.tokens(&merchant).await;
    server.sql("alter role service nologin").await;
    server.cut().await;
    let file = app.database.directory().join("url");
    fs::write(&file, server.url("successor")).expect("the directory can be written to");
    is_served_again(&app, &merchant, "the URL changed").await;

    // A URL that cannot be used is ignored.
    fs::write(&file, "postgres://u:p#x@h/d").expect("the directory can be written to");
    app.core().store.read_url_again();
    app.tokens(&merchant).await;
}

fn options(url: &str) -> Options<'_> {
    Options {
        url,
        make: Make::Schema,
        connections_max: 2,
        timeout: Duration::from_secs(5),
        cache_bytes_max: 1 << 20,
        read_again: None,
    }
}

#[tokio::test]
async fn a_database_that_is_not_utf8_is_refused_by_name() {
    let cluster = Cluster::start();
    let admin = cluster.database();
    run(&admin, "create database latin encoding 'LATIN1' template template0").await;
    let (server, _) = admin.rsplit_once('/').expect("the URL names a database");
    let refused = Store::open(options(&format!("{server}/latin"))).await.err().expect("it is refused");
    assert!(matches!(&refused, StoreError::NotUtf8(encoding) if encoding == "LATIN1"), "{refused}");
}

#[tokio::test]
async fn limits_of_the_role_do_not_end_the_wait_for_another_migration() {
    let cluster = Cluster::start();
    let (admin, empty) = (cluster.database(), cluster.database());
    let name = empty.rsplit('/').next().expect("the URL names a database");
    run(&admin, &format!("create role service login; alter database {name} owner to service")).await;
    for limit in ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"] {
        run(&admin, &format!("alter role service set {limit} = '100ms'")).await;
    }
    let mut other = PgConnection::connect(&empty).await.expect("the superuser gets in");
    other.execute("begin; select pg_advisory_xact_lock(7049021335618231)").await.expect("nobody holds it");
    // Use another connection, because a transaction does not see later changes.
    let mut watcher = PgConnection::connect(&empty).await.expect("the superuser gets in");
    let url = empty.replace("postgres@", "service@");
    let opened = Store::open(options(&url));
    let released = async {
        let waits = "select count(*) from pg_stat_activity \
                     where usename = 'service' and wait_event = 'advisory' and clock_timestamp() - query_start > '300ms'";
        until(async || {
            let waiting: i64 =
                sqlx::query_scalar(waits).fetch_one(&mut watcher).await.expect("PostgreSQL answers");
            waiting == 1
        })
        .await;
        other.execute("commit").await.expect("it is in a transaction");
    };
    let (opened, ()) = tokio::join!(opened, released);
    opened.expect("it waited, and migrated").close().await;
}
