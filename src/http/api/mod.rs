//! The integrators' API: extract, call one flow, render.

pub mod authorize;
pub mod introspect;
pub mod metadata;
pub mod rotate_secret;
pub mod verify;
pub mod whoami;
