//! The token endpoints as clients and resource servers see them: bodies, authentication, errors, headers.

mod address;
mod authentication;
mod bodies;
mod errors;
mod headers;
mod heads;
mod hostile;
mod labels;
mod nul;
mod resource_servers;
