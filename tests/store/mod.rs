//! The store: both engines behave the same.

mod batch;
mod lists;
mod schema;
mod statements;
mod wal;
