//! The floor: the most that the database can do with one row per statement, through the same library.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, SqlitePool};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

/// The number of connections, which is also the most concurrent statements.
const CONNECTIONS: usize = 64;

/// Rows that are updated and selected.
const ROWS: u64 = 16_384;

#[derive(Clone, Copy)]
pub(crate) enum Statement {
    Insert,
    Update,
    Select,
}

const CREATE_POSTGRES: &str = "create table floor (id uuid primary key, merchant_id uuid not null, \
    credential_id uuid not null, epoch bigint not null, token_key_id bigint not null, secret bytea not null, \
    generation bigint not null, started_at bigint not null, rotated_at bigint not null, \
    expires_at bigint not null, revoked_at bigint, revoked_reason text) with (fillfactor = 80)";

const CREATE_SQLITE: &str = "create table floor (id blob not null primary key, merchant_id blob not null, \
    credential_id blob not null, epoch integer not null, token_key_id integer not null, secret blob not null, \
    generation integer not null, started_at integer not null, rotated_at integer not null, \
    expires_at integer not null, revoked_at integer, revoked_reason text) strict";

const CREATE_INDEX: &str = "create index floor_by_merchant on floor (merchant_id, id)";

const INSERT: &str = "insert into floor (id, merchant_id, credential_id, epoch, token_key_id, secret, \
    generation, started_at, rotated_at, expires_at) values ($1, $2, $3, 1, 1, $4, 1, $5, $5, $5)";

const UPDATE: &str = "update floor set generation = generation + 1, rotated_at = $2 where id = $1";

const SELECT: &str = "select generation from floor where id = $1";

/// Sessions of a year ago, that were refreshed and end at the times that are put in.
const LOAD_POSTGRES: &str = "insert into sessions (id, merchant_id, credential_id, epoch, token_key_id, secret, \
    generation, started_at, rotated_at, expires_at) \
    select (lpad(to_hex(1750000000000 + n * 3), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0') || '8' \
    || substr(md5(n::text), 1, 15))::uuid, md5('m' || n % 5000)::uuid, md5('c' || n % 5000)::uuid, 1, 1, \
    decode(md5(n::text) || md5('s' || n), 'hex'), 1, (1750000000000 + n * 3) * 1000, ROTATED, EXPIRES \
    from generate_series(FROM, ROWS) as n";

const LOAD_SQLITE: &str = "insert into sessions (id, merchant_id, credential_id, epoch, token_key_id, secret, \
    generation, started_at, rotated_at, expires_at) \
    with recursive numbers (n) as (select FROM union all select n + 1 from numbers where n < ROWS) \
    select unhex(printf('%012x7%03x8', 1750000000000 + n * 3, n % 4096) || substr(hex(randomblob(8)), 1, 15)), \
    unhex(printf('%032x', n % 5000)), unhex(printf('%032x', n % 5000)), 1, 1, randomblob(32), 1, \
    (1750000000000 + n * 3) * 1000, ROTATED, EXPIRES from numbers";

#[derive(Clone)]
enum Pool {
    Postgres(PgPool),
    Sqlite { writer: SqlitePool, readers: SqlitePool },
}

pub(crate) struct Floor {
    runtime: Runtime,
    pool: Pool,
    next: Arc<AtomicU64>,
}

impl Floor {
    /// Opens pools on the database at `url`, and makes the table there.
    pub(crate) fn new(url: &str) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime needs a few threads");
        let pool = runtime.block_on(open(url)).expect("the database that was just made");
        let floor = Self { runtime, pool, next: Arc::new(AtomicU64::new(ROWS)) };
        floor.runtime.block_on(async {
            match &floor.pool {
                Pool::Postgres(_) => floor.pool.execute(CREATE_POSTGRES).await,
                Pool::Sqlite { .. } => floor.pool.execute(CREATE_SQLITE).await,
            }
            floor.pool.execute(CREATE_INDEX).await;
            for number in 0..ROWS {
                floor.pool.run(Statement::Insert, number).await;
            }
        });
        floor
    }

    /// Puts this many rows into the table of sessions: `dead` ones that the sweeper is to find, and after
    /// them `live` ones.
    pub(crate) fn load_sessions(&self, dead: u64, live: u64) {
        let sql = match &self.pool {
            Pool::Postgres(_) => LOAD_POSTGRES,
            Pool::Sqlite { .. } => LOAD_SQLITE,
        };
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("it is later than 1970").as_micros();
        let long_ago = 1_760_000_000_000_000;
        self.runtime.block_on(async {
            for (first, last, rotated, expires) in
                [(1, dead, long_ago, long_ago), (dead + 1, dead + live, now, now * 2)]
            {
                let sql = sql
                    .replace("FROM", &first.to_string())
                    .replace("ROWS", &last.to_string())
                    .replace("ROTATED", &rotated.to_string())
                    .replace("EXPIRES", &expires.to_string());
                if first <= last {
                    self.pool.execute(&sql).await;
                }
            }
            if matches!(self.pool, Pool::Postgres(_)) {
                self.pool.execute("vacuum analyze sessions").await;
                self.pool.execute("checkpoint").await;
            }
        });
    }

    pub(crate) const fn is_postgres(&self) -> bool {
        matches!(self.pool, Pool::Postgres(_))
    }

    pub(crate) fn execute(&self, sql: &str) {
        self.runtime.block_on(self.pool.execute(sql));
    }

    /// The number of concurrent statements with which the database is fastest.
    pub(crate) fn best_tasks(&self, statement: Statement, time: Duration) -> usize {
        let rate = |tasks: &usize| self.run(statement, *tasks, time);
        let rates = [8, 16, 32, CONNECTIONS].map(|tasks| (tasks, rate(&tasks)));
        let best = rates.into_iter().max_by(|(_, one), (_, other)| one.total_cmp(other));
        best.map_or(CONNECTIONS, |(tasks, _)| tasks)
    }

    /// Statements per second.
    pub(crate) fn run(&self, statement: Statement, tasks: usize, time: Duration) -> f64 {
        let started = Instant::now();
        let tasks: Vec<_> = (0..tasks)
            .map(|task| {
                let (pool, next) = (self.pool.clone(), Arc::clone(&self.next));
                self.runtime.spawn(async move {
                    let mut done = 0;
                    while started.elapsed() < time {
                        let number = match statement {
                            Statement::Insert => next.fetch_add(1, Ordering::Relaxed),
                            // Each task has its own rows, so that tasks do not wait for each other.
                            _ => (done * CONNECTIONS as u64 + task as u64) % ROWS,
                        };
                        pool.run(statement, number).await;
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let done: u64 = self.runtime.block_on(async {
            let mut sum = 0;
            for task in tasks {
                sum += task.await.expect("a statement that succeeds does not panic");
            }
            sum
        });
        done as f64 / started.elapsed().as_secs_f64()
    }
}

impl Pool {
    async fn execute(&self, sql: &str) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Postgres(pool) => drop(sql.execute(pool).await.expect("a statement of this file")),
            Self::Sqlite { writer, .. } => drop(sql.execute(writer).await.expect("a statement of this file")),
        }
    }

    /// One statement on the row with this number, in its own transaction.
    async fn run(&self, statement: Statement, number: u64) {
        let time = i64::try_from(number).expect("fewer rows than 2^63");
        // Ordered by time, like the ids of sessions.
        let id = Uuid::from_u128(
            u128::from(number) << 64 | u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        );
        let rows = match (statement, self) {
            (Statement::Insert, _) => {
                let secret = [number as u8; 32].to_vec();
                match self {
                    Self::Postgres(pool) => {
                        let insert = sqlx::query(INSERT).bind(id).bind(id).bind(id).bind(secret).bind(time);
                        insert.execute(pool).await.map(|done| done.rows_affected())
                    }
                    Self::Sqlite { writer, .. } => {
                        let insert = sqlx::query(INSERT).bind(id).bind(id).bind(id).bind(secret).bind(time);
                        insert.execute(writer).await.map(|done| done.rows_affected())
                    }
                }
            }
            (Statement::Update, Self::Postgres(pool)) => {
                let update = sqlx::query(UPDATE).bind(id).bind(time);
                update.execute(pool).await.map(|done| done.rows_affected())
            }
            (Statement::Update, Self::Sqlite { writer, .. }) => {
                let update = sqlx::query(UPDATE).bind(id).bind(time);
                update.execute(writer).await.map(|done| done.rows_affected())
            }
            (Statement::Select, Self::Postgres(pool)) => {
                let select = sqlx::query_as::<_, (i64,)>(SELECT).bind(id);
                select.fetch_all(pool).await.map(|rows| rows.len() as u64)
            }
            (Statement::Select, Self::Sqlite { readers, .. }) => {
                let select = sqlx::query_as::<_, (i64,)>(SELECT).bind(id);
                select.fetch_all(readers).await.map(|rows| rows.len() as u64)
            }
        };
        assert_eq!(rows.expect("a statement of this file"), 1, "row {number}");
    }
}

async fn open(url: &str) -> Result<Pool, sqlx::Error> {
    let size = CONNECTIONS as u32;
    if url.starts_with("postgres") {
        let pool = PgPoolOptions::new().max_connections(size).test_before_acquire(false);
        return Ok(Pool::Postgres(pool.connect_with(PgConnectOptions::from_str(url)?).await?));
    }
    let options = SqliteConnectOptions::from_str(url)?
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(10));
    let pool = |size| SqlitePoolOptions::new().max_connections(size).test_before_acquire(false);
    Ok(Pool::Sqlite {
        writer: pool(1).connect_with(options.clone()).await?,
        readers: pool(size).connect_with(options).await?,
    })
}

/// Runs statements on PostgreSQL while nobody else uses it.
pub(crate) fn set_up(url: &str, statements: &[&'static str]) {
    on_connection(url, async |connection| {
        for statement in statements {
            sqlx::raw_sql(*statement).execute(&mut *connection).await?;
        }
        Ok(())
    });
}

/// The process of the server at `url`, which runs on this machine.
pub(crate) fn postmaster(url: &str) -> u32 {
    on_connection(url, async |connection| {
        let (file,): (String,) =
            sqlx::query_as("select pg_read_file('postmaster.pid')").fetch_one(connection).await?;
        Ok(file.lines().next().and_then(|line| line.parse().ok()).expect("its first line is the process"))
    })
}

fn on_connection<T>(url: &str, work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime needs a thread");
    runtime
        .block_on(async {
            let mut connection = PgConnection::connect(url).await?;
            let done = work(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(done)
        })
        .expect("the cluster that was just started")
}
