//! The store: two engines, one behaviour.

mod batch;
mod schema;
mod statements;
mod wal;
