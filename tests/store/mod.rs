//! The store: two engines, one behaviour.

mod batch;
mod lists;
mod schema;
mod statements;
mod wal;
