//! Background jobs. Each has a function for one step, which tests can call, and a loop around it.

pub mod audit_head;
pub mod clock;
pub mod deliver;
pub mod egress;
pub mod exchange_log;
pub mod learn;
pub mod notices;
pub mod pace;
mod surplus;
pub mod sweep;
pub mod tidy;
pub mod token_keys;
pub mod usage;
