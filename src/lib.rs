//! Tollgate issues and verifies API credentials for the merchants of a payment platform.
//!
//! Each folder is a layer, with one file for each noun or use case:
//!
//! - [`domain`]: the rules, as values and pure functions. No I/O, no clock.
//! - [`store`]: all SQL, for both database engines, and group commit.
//! - [`flows`]: the use cases. They do not know about HTTP.
//! - [`http`]: parses a request, calls one flow and renders the answer.
//! - [`jobs`]: background jobs.
//! - [`config`], [`app`], [`demo`]: the settings, the whole application, and the demo.
//! - [`process`], [`telemetry`]: signals, limits and the service manager; logs and traces.
//! - [`client_tls`]: which authorities outgoing connections trust, and why a handshake failed.
//! - [`supervise`]: starts every background task, including those of the store.
//!
//! Dependencies go one way: `http, jobs -> flows -> {domain, store}` and `store -> domain`. `domain` depends
//! on no other layer. The time and random bytes are passed in as arguments.
//!
//! A type of the domain is also the row of its table and what the admin API shows, wherever the three are equal.
//! `config` reads the settings into the types that the other layers use.

pub mod app;
pub mod client_tls;
pub mod config;
pub mod demo;
pub mod domain;
pub mod flows;
pub mod http;
pub mod jobs;
pub mod process;
pub mod store;
pub mod supervise;
pub mod telemetry;
