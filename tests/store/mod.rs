//! The store: both engines behave the same.

mod batch;
mod lists;
mod plans;
mod records;
mod rows;
mod schema;
mod statements;
mod wal;
