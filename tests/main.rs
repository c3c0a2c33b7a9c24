//! Everything that holds from outside, in one test binary: through the real router or the real
//! program, on both engines.

mod abuse;
mod admin;
mod audit_chain;
mod backup;
mod budget;
mod command_line;
mod concurrency;
mod config;
mod console;
mod database_trouble;
mod demo;
mod disk_full;
mod domain;
mod faults;
mod fuzz_corpus;
mod hang_ups;
mod limits;
mod log_lines;
mod model;
mod oauth2_client;
mod openapi;
mod ops;
mod pgbouncer;
mod races;
mod rotation;
mod secrets;
mod standing;
mod stop;
mod store;
mod support;
mod sweep;
mod traces;
mod transport;
mod webhooks;
mod wire;
