//! What goes on beside the requests: each a tick function that tests can call, and a loop around it.

pub mod exchange_log;
pub mod tidy;
pub mod usage;
