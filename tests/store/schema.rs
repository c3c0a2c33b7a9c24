//! Both schemas are equal: they have the same migrations, tables, columns and keys.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sqlx::{Connection, PgConnection, SqliteConnection};
use tollgate::store::Engine;

use crate::support::{Database, database};

const POSTGRES_COLUMNS: &str = "\
    select c.table_name::text, c.column_name::text, \
    case when c.data_type in ('uuid', 'bytea') then 'blob' \
         when c.data_type in ('boolean', 'bigint', 'integer') then 'integer' else c.data_type::text end, \
    c.is_nullable = 'NO', \
    coalesce(array_position(k.conkey, c.ordinal_position::smallint), 0)::bigint \
    from information_schema.columns c join pg_class t on t.oid = c.table_name::regclass \
    left join pg_constraint k on k.conrelid = c.table_name::regclass and k.contype = 'p' \
    where c.table_schema = 'public' and c.table_name <> '_sqlx_migrations' \
    and t.relkind in ('r', 'p') and not t.relispartition order by c.table_name, c.ordinal_position";

const SQLITE_COLUMNS: &str = "\
    select t.name, c.name, lower(c.type), c.\"notnull\", c.pk \
    from sqlite_master t join pragma_table_info(t.name) c \
    where t.type = 'table' and t.name not like 'sqlite\\_%' escape '\\' and t.name <> '_sqlx_migrations' \
    order by t.name, c.cid";

const POSTGRES_INDEXES: &str = "\
    select t.relname::text, string_agg(pg_get_indexdef(i.indexrelid, k.n::int, true), ',' order by k.n), \
    i.indisunique, i.indpred is not null \
    from pg_index i join pg_class t on t.oid = i.indrelid \
    cross join generate_series(1, i.indnkeyatts) as k (n) \
    where t.relnamespace = 'public'::regnamespace and not i.indisprimary and not t.relispartition \
    group by i.indexrelid, t.relname, i.indisunique, i.indpred";

const SQLITE_INDEXES: &str = "\
    select t.name, (select group_concat(c.name, ',') from pragma_index_info(i.name) c), i.\"unique\", i.partial \
    from sqlite_master t join pragma_index_list(t.name) i \
    where t.type = 'table' and i.origin <> 'pk' and t.name <> '_sqlx_migrations'";

/// Table, column, type, whether it must be given, its place in the primary key.
type Column = (String, String, String, bool, i64);

/// Table, columns, whether it is unique, whether it covers some rows only.
type Index = (String, String, bool, bool);

async fn connections() -> (PgConnection, SqliteConnection, [std::sync::Arc<Database>; 2]) {
    let databases = [Database::fresh(Engine::Postgres).await, Database::fresh(Engine::Sqlite).await];
    database::open(&databases[1].url).await.close().await;
    let postgres = PgConnection::connect(&databases[0].url).await.expect("PostgreSQL answers");
    let sqlite = SqliteConnection::connect(&databases[1].url).await.expect("SQLite opens");
    (postgres, sqlite, databases)
}

#[tokio::test]
async fn both_engines_have_the_same_tables_columns_and_nullability() {
    let (mut postgres, mut sqlite, _databases) = connections().await;
    let of_postgres: Vec<Column> =
        sqlx::query_as(POSTGRES_COLUMNS).fetch_all(&mut postgres).await.expect("PostgreSQL describes itself");
    let of_sqlite: Vec<Column> =
        sqlx::query_as(SQLITE_COLUMNS).fetch_all(&mut sqlite).await.expect("SQLite describes itself");
    assert!(of_postgres.len() > 50, "{of_postgres:?}");
    for (left, right) in of_postgres.iter().zip(&of_sqlite) {
        assert_eq!(left, right, "PostgreSQL left, SQLite right");
    }
    assert_eq!(of_postgres.len(), of_sqlite.len());
}

#[tokio::test]
async fn both_engines_have_the_same_indexes() {
    let (mut postgres, mut sqlite, _databases) = connections().await;
    let of_postgres: Vec<Index> =
        sqlx::query_as(POSTGRES_INDEXES).fetch_all(&mut postgres).await.expect("PostgreSQL describes itself");
    let of_sqlite: Vec<Index> =
        sqlx::query_as(SQLITE_INDEXES).fetch_all(&mut sqlite).await.expect("SQLite describes itself");
    assert!(of_postgres.len() > 10, "{of_postgres:?}");
    let sorted = |indexes: Vec<Index>| indexes.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(sorted(of_postgres), sorted(of_sqlite), "PostgreSQL left, SQLite right");
}

#[test]
fn both_engines_have_migrations_of_the_same_names() {
    let names = |engine: &str| -> BTreeSet<_> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(engine);
        fs::read_dir(directory)
            .expect("the migrations are there")
            .map(|entry| entry.expect("the migrations are there").file_name())
            .collect()
    };
    assert!(!names("sqlite").is_empty());
    assert_eq!(names("sqlite"), names("postgres"));
}
