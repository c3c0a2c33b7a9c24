//! The process and the operating system: signals, open files and the service manager.

pub mod descriptors;
pub mod service_manager;
pub mod signals;
