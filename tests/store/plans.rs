//! What a page of a list reads where the table is long. After a few calls PostgreSQL keeps one plan for all values of a
//! statement's parameters, so a condition that may be absent must not be what an index is for.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use tollgate::domain::clock::Timestamp;
use tollgate::domain::ids::{Id, MerchantId};
use tollgate::store::{
    Connection, Engine, StoreError, Tx, admin_tokens, api_keys, audit, delivery_log, exchanges, merchants,
    sessions, users,
};

use super::statements::{Found, statements};
use crate::support::database::{self, engines};
use crate::support::{Database, TestApp};

/// Rows of each table that has a list.
const ROWS: i64 = 500_000;

const PAGE: i64 = 51;

/// Blocks that a page may read: a few of an index and of a table for each of its rows. To walk all rows takes
/// more than there are rows.
const BLOCKS_MAX: i64 = 15 * PAGE;

/// How often a list is read. PostgreSQL chooses the plan that it keeps after five times.
const READS: usize = 10;

/// A row for each of the first 500,000 seconds, as their ids say, which are six days. Most are of the first merchant; of
/// the events, a third are of the platform and a third of 500 other merchants.
const FILL: [&str; 11] = [
    "create function id_of(n bigint) returns uuid immutable \
     return (left(exchange_id_at(n * 1000000)::text, 14) || '7000-8000-000000000000')::uuid",
    // Without foreign keys and the log of the database, which would take longer than the rest.
    "do $$ declare one record; begin \
     for one in select conrelid::regclass as owner, conname from pg_constraint where contype = 'f' loop \
     execute format('alter table %s drop constraint %I', one.owner, one.conname); end loop; \
     for one in select oid::regclass as name from pg_class where relnamespace = 'public'::regnamespace \
     and relkind = 'r' and not relispartition loop execute format('alter table %s set unlogged', one.name); \
     end loop; end $$",
    "select make_exchange_days(0, 6)",
    "insert into merchants select id_of(n), 'Shop', 'demo', 'active', 1, n * 1000000, n * 1000000 \
     from generate_series(1::bigint, 500000) n",
    "insert into api_keys (id, merchant_id, name, environment, allowed_ips, ip_mode, webhook_format, leaked, version, \
     created_at, updated_at) select id_of(n), id_of(1), 'Till', 'sandbox', '[]', 'enforce', 'single_json', false, 1, \
     n * 1000000, n * 1000000 from generate_series(1::bigint, 500000) n; \
     insert into secrets (id, merchant_id, owner_kind, owner_id, number, hash, hint, created_at) \
     select id_of(n), id_of(1), 'api_key', id_of(n), 1, decode(lpad(to_hex(n), 64, '0'), 'hex'), 'abcdef', n * 1000000 \
     from generate_series(1::bigint, 500000) n",
    "insert into credentials (id, merchant_id, api_key_id, client_id, enabled, epoch, version, created_at, updated_at) \
     values (id_of(1), id_of(1), id_of(1), 'client', true, 1, 1, 1, 1); \
     insert into sessions (id, merchant_id, credential_id, epoch, token_key_id, secret, generation, started_at, \
     rotated_at, expires_at) select id_of(n), id_of(1), id_of(1), 1, 1, 'secret', 1, n * 1000000, n * 1000000, \
     n * 2000000 from generate_series(1::bigint, 500000) n",
    "insert into exchanges (id, merchant_id, at, request_id, method, path, status, client_ip, hops, latency_us) \
     select id_of(n), id_of(1), n * 1000000, 'request ' || n, 'POST', '/api/authorize', \
     case n % 1000 when 7 then 403 else 200 end, '192.0.2.1', '[]', 900 \
     from generate_series(1::bigint, 500000) n",
    "insert into audit_events (seq, id, at, merchant_id, actor_kind, action, object_kind, outcome, detail, hash) \
     select n, id_of(n), n * 1000000, case n % 3 when 0 then id_of(1) when 1 then null else id_of(n % 500 + 2) end, 'server', 'api_key.created', \
     'api_key', 'done', '{}', 'hash' from generate_series(1::bigint, 500000) n",
    "insert into webhook_events (id, merchant_id, type, data, created_at) \
     select id_of(n), id_of(1), 'payment.settled', '{}', n * 1000000 from generate_series(1::bigint, 500000) n; \
     insert into webhook_deliveries (id, event_id, merchant_id, api_key_id, state, attempts, tries, next_attempt_at, \
     created_at) select id_of(n), id_of(n), id_of(1), id_of(1), 'delivered', 1, 1, 1, n * 1000000 \
     from generate_series(1::bigint, 500000) n; \
     insert into webhook_attempts (delivery_id, number, at, latency_us, response) \
     select id_of(n), 1, n * 1000000, 900, '' from generate_series(200000::bigint, 250000) n",
    "insert into users (id, email, role, merchant_id, password_hash, failed_logins, version, created_at, updated_at) \
     select id_of(n), lpad(n::text, 6, '0') || '@harbour.example', 'merchant_admin', id_of(n), '', 0, 1, 1, 1 \
     from generate_series(1::bigint, 500000) n; \
     insert into admin_tokens (id, name, role, merchant_id, permissions, hash, created_at) \
     select id_of(n), 'Ops', 'operator', case when n <= 100 then id_of(2) end, '[]', decode(lpad(to_hex(n), 64, '0'), 'hex'), 1 \
     from generate_series(1::bigint, 500000) n",
    "analyze",
];

#[tokio::test]
async fn a_page_of_a_long_list_reads_little_more_than_its_rows() {
    if !engines().contains(&Engine::Postgres) {
        return;
    }
    let app = TestApp::new(Engine::Postgres).await;
    // Without the store's limit of time.
    let mut filler = PgConnection::connect(&app.database.url).await.expect("PostgreSQL answers");
    for statements in FILL {
        sqlx::raw_sql(statements).execute(&mut filler).await.expect("the test's own SQL is right");
    }
    filler.close().await.expect("it is open");
    let mut tx = app.core().store.begin().await.expect("the store answers");
    let merchant = MerchantId::first_of(at(1));
    let (middle, start) = (Id::first_of(at(ROWS / 2)), at(ROWS / 2 - 500));
    let time =
        exchanges::Filter { from: Some(start), to: Some(at(ROWS / 2)), ..exchanges::Filter::default() };
    let request =
        exchanges::Filter { request_id: Some("request 7".to_owned()), ..exchanges::Filter::default() };
    let rare = audit::Filter { merchant: Some(MerchantId::first_of(at(2))), ..audit::Filter::default() };
    let forbidden = exchanges::Filter { status: Some(403), ..exchanges::Filter::default() };
    let denied = exchanges::Filter { denied: Some("other".to_owned()), ..exchanges::Filter::default() };
    let (any_call, any_event) = (exchanges::Filter::default(), audit::Filter::default());
    let any_delivery = delivery_log::Filter::default();

    let tx = &mut tx;
    holds(tx, "merchants", async |db| merchants::list(db, Some(Id::first_of(at(ROWS / 2))), PAGE).await)
        .await;
    holds(tx, "keys", async |db| api_keys::list(db, merchant, Some(Id::first_of(at(ROWS / 2))), PAGE).await)
        .await;
    let (any_session, now) = (sessions::Filter::default(), at(ROWS));
    holds(tx, "sessions", async |db| {
        sessions::list(db, merchant, &any_session, Some(middle), now, PAGE).await
    })
    .await;
    holds(tx, "latest sessions", async |db| {
        sessions::list(db, merchant, &any_session, None, now, PAGE).await
    })
    .await;
    let of_key = sessions::Filter { api_key_id: Some(Id::first_of(at(1))), ..sessions::Filter::default() };
    holds(tx, "a key's sessions", async |db| sessions::list(db, merchant, &of_key, None, now, PAGE).await)
        .await;
    let started =
        sessions::Filter { from: Some(start), to: Some(at(ROWS / 2)), ..sessions::Filter::default() };
    holds(tx, "sessions by time", async |db| sessions::list(db, merchant, &started, None, now, PAGE).await)
        .await;
    let of_key_then = sessions::Filter { api_key_id: of_key.api_key_id, ..started.clone() };
    holds(tx, "a key's sessions by time", async |db| {
        sessions::list(db, merchant, &of_key_then, None, now, PAGE).await
    })
    .await;
    let middle = Some(Id::first_of(at(ROWS / 2)));
    holds(tx, "exchanges", async |db| exchanges::list(db, merchant, &any_call, middle, PAGE).await).await;
    holds(tx, "by time", async |db| exchanges::list(db, merchant, &time, None, PAGE).await).await;
    holds(tx, "by request", async |db| exchanges::list(db, merchant, &request, None, PAGE).await).await;
    holds(tx, "by status", async |db| exchanges::list(db, merchant, &forbidden, None, PAGE).await).await;
    holds(tx, "denied", async |db| exchanges::list(db, merchant, &denied, None, PAGE).await).await;
    let own = audit::Search { merchant: Some(merchant), ..audit::Search::default() };
    let platform = audit::Search { of_platform: true, ..audit::Search::default() };
    let anything = audit::Search::default();
    holds(tx, "a merchant's events", async |db| audit::newest(db, &own, Some(ROWS / 2), PAGE).await).await;
    holds(tx, "the platform's", async |db| audit::newest(db, &platform, None, PAGE).await).await;
    holds(tx, "all events", async |db| audit::newest(db, &anything, Some(ROWS / 2), PAGE).await).await;
    holds(tx, "the trail", async |db| audit::trail(db, &any_event, (ROWS / 2, ROWS), PAGE).await).await;
    let large = audit::Filter { merchant: Some(merchant), ..audit::Filter::default() };
    holds(tx, "a large trail", async |db| audit::trail(db, &large, (ROWS / 2, ROWS), PAGE).await).await;
    holds(tx, "a small trail", async |db| audit::trail(db, &rare, (0, ROWS), PAGE).await).await;
    let middle = Some(Id::first_of(at(ROWS / 2)));
    holds(tx, "deliveries", async |db| delivery_log::list(db, merchant, any_delivery, middle, PAGE).await)
        .await;
    let middle = Some(Id::first_of(at(ROWS / 2)));
    holds(tx, "users", async |db| users::list(db, None, middle, PAGE).await).await;
    holds(tx, "a merchant's users", async |db| users::list(db, Some(merchant), None, PAGE).await).await;
    let middle = Some(Id::first_of(at(ROWS / 2)));
    holds(tx, "tokens", async |db| admin_tokens::list(db, None, middle, PAGE).await).await;
    holds(tx, "a merchant's tokens", async |db| admin_tokens::list(db, rare.merchant, None, PAGE).await)
        .await;
}

fn at(row: i64) -> Timestamp {
    Timestamp::from_micros(row * 1_000_000)
}

/// Holds a list to the blocks that it may read, with the plans that PostgreSQL chooses and with the one for all values.
async fn holds<T>(
    tx: &mut Tx,
    name: &str,
    list: impl AsyncFn(&mut Connection) -> Result<Vec<T>, StoreError>,
) {
    for read in 0..=READS {
        let mode = if read < READS { CHOSEN } else { FOR_ALL_VALUES };
        tx.query(mode).execute().await.expect("it is a setting");
        let before = blocks_read(tx).await;
        let rows = list(tx).await.expect("the store answers");
        let blocks = blocks_read(tx).await - before;
        assert!(!rows.is_empty(), "{name}: nothing was read");
        assert!(blocks <= BLOCKS_MAX, "{name}: {blocks} blocks for {} rows, {mode}", rows.len());
    }
}

const CHOSEN: &str = "set local plan_cache_mode = 'auto'";
const FOR_ALL_VALUES: &str = "set local plan_cache_mode = 'force_generic_plan'";

/// Blocks of tables and indexes that this transaction has asked for.
async fn blocks_read(tx: &mut Tx) -> i64 {
    let query = tx.query(
        "select sum(pg_stat_get_xact_blocks_fetched(oid))::bigint from pg_class \
         where relnamespace = 'public'::regnamespace",
    );
    query.one::<(i64,)>().await.expect("PostgreSQL counts").0
}

/// The functions with the statements of the lists, by file.
const LISTS: [(&str, &[&str]); 8] = [
    ("admin_tokens", &["list"]),
    ("api_keys", &["list"]),
    ("audit", &["newest", "trail"]),
    ("delivery_log", &["list"]),
    ("exchanges", &["list"]),
    ("merchants", &["list"]),
    ("sessions", &["list"]),
    ("users", &["list"]),
];

#[tokio::test]
async fn sqlite_finds_a_page_of_each_list_with_an_index() {
    let mut plans = SqlitePlans::open().await;
    for (file, functions) in LISTS {
        for function in functions {
            plans.walk_no_table(&format!("{file}.rs, {function}")).await;
        }
    }
}

#[tokio::test]
async fn sqlite_finds_the_rows_of_calls_with_an_index() {
    let mut plans = SqlitePlans::open().await;
    for place in OF_CALLS {
        plans.walk_no_table(place).await;
    }
}

/// Explains statements on an empty database without statistics, as most installations have.
struct SqlitePlans {
    statements: Vec<Found>,
    connection: SqliteConnection,
    _database: Arc<Database>,
}

impl SqlitePlans {
    async fn open() -> Self {
        let database = Database::fresh(Engine::Sqlite).await;
        database::open(&database.url).await.close().await;
        let connection = SqliteConnection::connect(&database.url).await.expect("SQLite opens");
        Self { statements: statements(), connection, _database: database }
    }

    /// None of the statements at this place reads a table from end to end.
    async fn walk_no_table(&mut self, place: &str) {
        let mut found = self.statements.iter().filter(|found| found.place.contains(place)).peekable();
        assert!(found.peek().is_some(), "{place} has no statement");
        for Found { sqlite, .. } in found {
            let explain = AssertSqlSafe(format!("explain query plan {sqlite}"));
            let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain)
                .fetch_all(&mut self.connection)
                .await
                .expect("the statement prepares");
            let is_walk = |step: &&String| {
                step.starts_with("SCAN ") && !SMALL.iter().any(|small| step[5..].starts_with(small))
            };
            let walks: Vec<_> = plan.iter().map(|(.., step)| step).filter(is_walk).collect();
            assert!(walks.is_empty(), "{place}: {walks:?}\n{sqlite}");
        }
    }
}

/// The files and functions with the statements that calls need, and those that are written for each batch of calls.
const OF_CALLS: [&str; 5] = [
    "store/hot/",
    "store/call_counts.rs",
    "store/client_activity.rs",
    "store/secrets.rs",
    "store/admin_tokens.rs, by_hash",
];

/// What may be read from end to end: the calls with one request id, values of the statement itself and what it found for
/// them, and the only row of the cell.
const SMALL: [&str; 9] =
    ["named", "CONSTANT ROW", "jsonb_each", "cell", "wanted", "here", "bounds", "owners", "c VIRTUAL TABLE"];
