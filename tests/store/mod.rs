//! The store: both engines behave the same.

mod batch;
mod exchange_days;
mod lists;
mod plans;
mod records;
mod rows;
mod schema;
mod statements;
mod wal;
