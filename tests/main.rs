//! Everything that holds from outside, in one test binary: through the real router or the real
//! program, on both engines.

mod backup;
mod config;
mod database_trouble;
mod limits;
mod ops;
mod rotation;
mod stop;
mod support;
mod transport;
