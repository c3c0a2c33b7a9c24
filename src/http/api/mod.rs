//! The integrators' API. Each handler parses the request, calls one flow and renders the answer.

pub mod authorize;
pub mod introspect;
pub mod metadata;
pub mod rotate_secret;
pub mod verify;
pub mod whoami;
