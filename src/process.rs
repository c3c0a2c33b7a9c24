//! What the process is to the system around it: its signals, its open files, its service manager.

pub mod descriptors;
pub mod service_manager;
pub mod signals;
