//! The integrators' API: extract, call one flow, render.

pub mod authorize;
pub mod introspect;
pub mod metadata;
pub mod verify;
