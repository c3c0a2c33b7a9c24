//! The rules of the product, without HTTP, SQL or I/O.
//!
//! Everything here is a value or a pure function. The time and random bytes are passed in as arguments.

pub mod access;
pub mod address;
pub mod admin;
pub mod allow_list;
pub mod api_key;
pub mod cell;
pub mod clock;
pub mod console;
pub mod credential;
pub mod delivery;
pub mod destination;
pub mod entropy;
pub mod event;
pub mod ids;
pub mod keyring;
pub mod lengths;
pub mod licence;
pub mod merchant;
pub mod parameters;
pub mod reason;
pub mod record;
pub mod scope;
pub mod secret;
pub mod session;
pub mod stored;
pub mod token;
pub mod webhook;
