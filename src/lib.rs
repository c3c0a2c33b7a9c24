//! Tollgate issues and verifies API credentials for the merchants of a payment platform.
//!
//! Layers, by folder; inside each, one file a noun or use case:
//!
//! - [`domain`]: the rules as values and pure functions. No I/O, no clock.
//! - [`store`]: all SQL, two engines behind one face, group commit.
//! - [`flows`]: use cases. They know nothing of HTTP.
//! - [`http`]: the edge: parse, call one flow, render.
//! - [`jobs`]: what goes on beside the requests.
//! - [`config`], [`app`], [`demo`]: settings, the assembled application, a first look.
//! - [`process`], [`telemetry`]: what the process is to the system around it, and what it tells.
//! - [`supervise`]: how every background task is started, those of the store included.
//!
//! Dependencies go one way: `http, jobs -> flows -> {domain, store}`, `store -> domain`,
//! `domain ->` nothing. A refusal is a value, an `Err` is a fault; `now` and random bytes are arguments.

pub mod app;
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
