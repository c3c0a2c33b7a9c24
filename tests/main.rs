//! Everything that holds from outside, in one test binary: through the real router or the real
//! program, on both engines.

mod admin;
mod backup;
mod command_line;
mod concurrency;
mod config;
mod console;
mod database_trouble;
mod demo;
mod domain;
mod faults;
mod limits;
mod oauth2_client;
mod openapi;
mod ops;
mod pgbouncer;
mod rotation;
mod secrets;
mod standing;
mod stop;
mod store;
mod support;
mod sweep;
mod transport;
mod webhooks;
mod wire;
