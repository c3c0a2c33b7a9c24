//! The integrators' API: extract, call one flow, render.

pub mod authorize;
