//! Everything that holds from outside, in one test binary: through the real router or the real
//! program, on both engines.

mod admin;
mod concurrency;
mod config;
mod domain;
mod openapi;
mod rotation;
mod standing;
mod store;
mod support;
mod webhooks;
