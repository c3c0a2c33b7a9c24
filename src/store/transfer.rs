//! Moving a merchant's rows from one PostgreSQL database to another, by PostgreSQL's own logical replication.
//!
//! `merchants.home` says which cell serves a merchant. It is null until the merchant is moved for the first time,
//! and [`MOVING`] while no cell serves it. The column is replicated like any other, and a row of another cell's
//! merchant is never used for a decision. So a copy that is not complete yet serves nobody.
//!
//! This module has the statements. [`crate::flows::move_merchant`] has their order, and the reason for it. Each can
//! be repeated.

mod carried;
mod forget;
mod tables;

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions, raw_sql};
use uuid::Uuid;

use super::StoreError;
use super::url::Target;
use crate::domain::cell::CellId;
use crate::domain::ids::MerchantId;

use tables::{Identity, LOGS, SESSIONS_INDEX, TABLES};

/// In `merchants.home`: no cell serves the merchant, because its last changes are on their way to another.
const MOVING: i64 = -1;

/// Row filters of publications came with version 15.
const VERSION_MIN: i32 = 150_000;

/// Which cell serves a merchant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// The merchant was never moved.
    Unset,
    Cell(CellId),
    Moving,
}

/// The database of one cell.
pub struct End {
    db: PgConnection,
    pub cell: CellId,
    /// The newest migration.
    pub schema: i64,
}

/// Why a database cannot take part in a move. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum NotFit {
    #[error("merchants are moved between PostgreSQL databases")]
    NotPostgres,
    #[error("the database needs one host in its URL")]
    SeveralHosts,
    #[error("PostgreSQL 15 or newer is needed")]
    TooOld,
    #[error("the database belongs to no cell: set [cell] in the settings of its replicas")]
    NoCell,
    #[error(
        "wal_level of the cell that the merchant leaves is {0}; set it to logical and restart PostgreSQL"
    )]
    NotLogical(String),
    /// [`End::open_since`] would miss the transactions of the servers' role.
    #[error(
        "the role for the cell that the merchant leaves does not see the transactions of other roles: grant pg_read_all_stats to it"
    )]
    Blind,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for NotFit {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl End {
    pub async fn connect(url: &str) -> Result<Self, NotFit> {
        let servers = match Target::parse(url).map_err(StoreError::from)? {
            Target::Postgres(servers) => servers.each,
            Target::Sqlite { .. } => return Err(NotFit::NotPostgres),
        };
        let [options] = <[_; 1]>::try_from(servers).map_err(|_| NotFit::SeveralHosts)?;
        let mut db = options.connect().await?;
        let (version,): (i32,) =
            sqlx::query_as("select current_setting('server_version_num')::int").fetch_one(&mut db).await?;
        if version < VERSION_MIN {
            return Err(NotFit::TooOld);
        }
        let number: Option<(i64,)> =
            sqlx::query_as("select number from cell").fetch_optional(&mut db).await?;
        let cell = number.and_then(|(number,)| CellId::new(number.try_into().ok()?)).ok_or(NotFit::NoCell)?;
        let (schema,) = sqlx::query_as("select max(version) from _sqlx_migrations where success")
            .fetch_one(&mut db)
            .await?;
        Ok(Self { db, cell, schema })
    }

    pub async fn must_be_logical(&mut self) -> Result<(), NotFit> {
        let (level, sees_all): (String, bool) =
            sqlx::query_as("select current_setting('wal_level'), pg_has_role('pg_read_all_stats', 'usage')")
                .fetch_one(&mut self.db)
                .await?;
        match (level.as_str(), sees_all) {
            ("logical", true) => Ok(()),
            ("logical", false) => Err(NotFit::Blind),
            _ => Err(NotFit::NotLogical(level)),
        }
    }

    /// The merchant with this id or name. `Err` with the number of merchants if there is not exactly one.
    pub async fn merchant(&mut self, named: &str) -> Result<Result<MerchantId, usize>, StoreError> {
        let found: Vec<(MerchantId,)> =
            sqlx::query_as("select id from merchants where id::text = lower($1) or name = $1")
                .bind(named)
                .fetch_all(&mut self.db)
                .await?;
        Ok(match found[..] {
            [(id,)] => Ok(id),
            _ => Err(found.len()),
        })
    }

    /// Keeps a second move of the merchant from running at the same time, until this connection ends.
    pub async fn take_turn(&mut self, merchant: MerchantId) -> Result<bool, StoreError> {
        let (taken,) = sqlx::query_as(
            "select pg_try_advisory_lock(hashtextextended(($1::uuid)::text, 7049021335618231))",
        )
        .bind(merchant)
        .fetch_one(&mut self.db)
        .await?;
        Ok(taken)
    }

    /// `None` if the merchant has no row here.
    pub async fn home(&mut self, merchant: MerchantId) -> Result<Option<Home>, StoreError> {
        let row: Option<(Option<i64>,)> = sqlx::query_as("select home from merchants where id = $1")
            .bind(merchant)
            .fetch_optional(&mut self.db)
            .await?;
        let Some((home,)) = row else { return Ok(None) };
        Ok(Some(match home {
            None => Home::Unset,
            Some(MOVING) => Home::Moving,
            Some(number) => {
                number.try_into().ok().and_then(CellId::new).map(Home::Cell).ok_or_else(|| {
                    StoreError::Impossible {
                        table: "merchants",
                        what: format!("home {number} of {merchant}"),
                    }
                })?
            }
        }))
    }

    /// Says which cell serves the merchant from now on. Returns the new revision.
    pub async fn set_home(&mut self, merchant: MerchantId, home: Home) -> Result<i64, StoreError> {
        let home = match home {
            Home::Unset => None,
            Home::Moving => Some(MOVING),
            Home::Cell(cell) => Some(cell.number().into()),
        };
        let (revision,) = sqlx::query_as(
            "update merchants set home = $2, \
             revision = greatest(revision + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint) \
             where id = $1 returning revision",
        )
        .bind(merchant)
        .bind(home)
        .fetch_one(&mut self.db)
        .await?;
        Ok(revision)
    }

    pub async fn revision(&mut self, merchant: MerchantId) -> Result<Option<i64>, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as("select revision from merchants where id = $1")
            .bind(merchant)
            .fetch_optional(&mut self.db)
            .await?;
        Ok(row.map(|(revision,)| revision))
    }

    /// The token keys that running replicas know, and those that the merchant's sessions need. One set for each.
    pub async fn token_keys(
        &mut self,
        merchant: MerchantId,
    ) -> Result<(Vec<BTreeSet<i64>>, BTreeSet<i64>), StoreError> {
        let known: Vec<(Vec<i64>,)> = sqlx::query_as(
            "select array(select jsonb_array_elements_text(token_keys::jsonb)::bigint) from replicas \
             where seen_at > (extract(epoch from clock_timestamp()) * 1000000)::bigint - 30000000",
        )
        .fetch_all(&mut self.db)
        .await?;
        let needed: Vec<(i64,)> =
            sqlx::query_as("select distinct token_key_id from sessions where merchant_id = $1")
                .bind(merchant)
                .fetch_all(&mut self.db)
                .await?;
        let known = known.into_iter().map(|(keys,)| keys.into_iter().collect()).collect();
        Ok((known, needed.into_iter().map(|(key,)| key).collect()))
    }

    /// Offers the merchant's rows to another database.
    pub async fn publish(&mut self, merchant: MerchantId) -> Result<(), StoreError> {
        // The release before does not write these columns.
        for fill in [
            "update webhook_secrets set merchant_id = k.merchant_id from api_keys k \
             where k.id = api_key_id and webhook_secrets.merchant_id is null and k.merchant_id = $1",
            "update recovery_codes set merchant_id = u.merchant_id from users u \
             where u.id = user_id and recovery_codes.merchant_id is null and u.merchant_id = $1",
        ] {
            sqlx::query(fill).bind(merchant).execute(&mut self.db).await?;
        }
        self.make_sessions_index().await?;
        // Waits for no statement, so that no statement waits behind it.
        self.run("set lock_timeout = '1s'".to_owned()).await?;
        for (table, _, identity) in &TABLES {
            let (letter, identity) = match identity {
                Identity::Key => continue,
                Identity::Index => ("i", format!("using index {SESSIONS_INDEX}")),
                Identity::Row => ("f", "full".to_owned()),
            };
            let (now,): (String,) =
                sqlx::query_as("select relreplident::text from pg_class where oid = to_regclass($1)")
                    .bind(table)
                    .fetch_one(&mut self.db)
                    .await?;
            if now != letter {
                self.run(format!("alter table {table} replica identity {identity}")).await?;
            }
        }
        let list = |tables: Vec<(&str, &str)>| {
            let one =
                |(table, column): &(&str, &str)| format!("table {table} where ({column} = '{merchant}')");
            tables.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let (name, rows) =
            (name_of(merchant), TABLES.iter().map(|(table, column, _)| (*table, *column)).collect());
        let options = "publish_via_partition_root = true";
        for (name, tables, publish) in
            [(name.clone(), rows, "insert, update, delete"), (format!("{name}_log"), LOGS.to_vec(), "insert")]
        {
            if !self.has("select 1 from pg_publication where pubname = $1", &name).await? {
                let tables = list(tables);
                self.run(format!(
                    "create publication {name} for {tables} with (publish = '{publish}', {options})"
                ))
                .await?;
            }
        }
        if !self.has("select 1 from pg_replication_slots where slot_name = $1", &name).await? {
            self.run(format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')")).await?;
        }
        Ok(())
    }

    async fn make_sessions_index(&mut self) -> Result<(), StoreError> {
        let whole = "select 1 from pg_index where indexrelid = to_regclass($1) and indisvalid";
        if self.has(whole, SESSIONS_INDEX).await? {
            return Ok(());
        }
        // One that was interrupted is left behind, and is of no use.
        self.run(format!("drop index concurrently if exists {SESSIONS_INDEX}")).await?;
        self.run(format!("create unique index concurrently {SESSIONS_INDEX} on sessions (merchant_id, id)"))
            .await
    }

    /// Withdraws the offer. What moves of all merchants share goes with the last one.
    pub async fn unpublish(&mut self, merchant: MerchantId) -> Result<(), StoreError> {
        let name = name_of(merchant);
        self.run(format!("drop publication if exists {name}, {name}_log")).await?;
        let others = "select 1 from pg_publication where pubname like $1 limit 1";
        if self.has(others, "tollgate\\_move\\_%").await? {
            return Ok(());
        }
        self.run("set lock_timeout = '1s'".to_owned()).await?;
        for (table, ..) in &TABLES {
            self.run(format!("alter table {table} replica identity default")).await?;
        }
        self.run(format!("drop index concurrently if exists {SESSIONS_INDEX}")).await
    }

    /// Removes the slot, which keeps the log of the database, once nobody reads from it. `false` if somebody does.
    pub async fn drop_slot(&mut self, merchant: MerchantId) -> Result<bool, StoreError> {
        let name = name_of(merchant);
        let of = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1 and not active";
        sqlx::query(of).bind(&name).execute(&mut self.db).await?;
        Ok(!self.has("select 1 from pg_replication_slots where slot_name = $1", &name).await?)
    }

    /// Whether this database has begun to receive the merchant's rows.
    pub async fn is_subscribed(&mut self, merchant: MerchantId) -> Result<bool, StoreError> {
        self.has("select 1 from pg_subscription where subname = $1", &name_of(merchant)).await
    }

    /// Whether it still receives them. Not once [`End::unsubscribe`] has begun.
    pub async fn is_receiving(&mut self, merchant: MerchantId) -> Result<bool, StoreError> {
        self.has("select 1 from pg_subscription where subname = $1 and subenabled", &name_of(merchant)).await
    }

    /// Starts to receive what the database at the URL `from` offers.
    pub async fn subscribe(&mut self, merchant: MerchantId, from: &str) -> Result<(), StoreError> {
        let name = name_of(merchant);
        self.run(format!(
            "create subscription {name} connection {} publication {name}, {name}_log \
             with (create_slot = false, slot_name = '{name}', copy_data = true)",
            quoted(from)
        ))
        .await
    }

    /// How many tables are not copied completely yet.
    pub async fn tables_left(&mut self, merchant: MerchantId) -> Result<i64, StoreError> {
        let (left,) = sqlx::query_as(
            "select count(*) filter (where r.srsubstate <> 'r') from pg_subscription s \
             join pg_subscription_rel r on r.srsubid = s.oid where s.subname = $1",
        )
        .bind(name_of(merchant))
        .fetch_one(&mut self.db)
        .await?;
        Ok(left)
    }

    /// Stops to receive. Rows stay.
    pub async fn unsubscribe(&mut self, merchant: MerchantId) -> Result<(), StoreError> {
        if !self.is_subscribed(merchant).await? {
            return Ok(());
        }
        let name = name_of(merchant);
        for change in ["disable", "set (slot_name = none)"] {
            self.run(format!("alter subscription {name} {change}")).await?;
        }
        self.run(format!("drop subscription {name}")).await
    }

    /// How many transactions were open at `since` and still are. They may have decided with what was true then.
    pub async fn open_since(&mut self, since: f64) -> Result<i64, StoreError> {
        let (open,) = sqlx::query_as(
            "select count(*) from pg_stat_activity where datname = current_database() \
             and pid <> pg_backend_pid() and backend_type = 'client backend' and xact_start <= to_timestamp($1)",
        )
        .bind(since)
        .fetch_one(&mut self.db)
        .await?;
        Ok(open)
    }

    /// The database's time, in seconds since 1970.
    pub async fn now(&mut self) -> Result<f64, StoreError> {
        let (now,) = sqlx::query_as("select extract(epoch from clock_timestamp())::float8")
            .fetch_one(&mut self.db)
            .await?;
        Ok(now)
    }

    async fn has(&mut self, query: &'static str, name: &str) -> Result<bool, StoreError> {
        let row: Option<(i32,)> = sqlx::query_as(query).bind(name).fetch_optional(&mut self.db).await?;
        Ok(row.is_some())
    }

    /// A statement that takes no parameters, made of our own names alone.
    async fn run(&mut self, sql: String) -> Result<(), StoreError> {
        raw_sql(AssertSqlSafe(sql)).execute(&mut self.db).await?;
        Ok(())
    }
}

/// A text as a literal of SQL.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The name of everything that PostgreSQL keeps for the move.
fn name_of(merchant: MerchantId) -> String {
    format!("tollgate_move_{}", Uuid::simple(merchant.uuid()))
}
