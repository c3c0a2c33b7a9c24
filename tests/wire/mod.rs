//! The two token endpoints as clients see them: bodies, authentication, errors, headers.

mod address;
mod authentication;
mod bodies;
mod errors;
mod headers;
mod hostile;
