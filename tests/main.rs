//! Everything that holds from outside, in one test binary: through the real router or the real
//! program, on both engines.

mod admin;
mod config;
mod openapi;
mod rotation;
mod support;
