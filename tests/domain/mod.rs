//! The rules on their own: tables of boundary values, and properties.

mod address;
mod allow_list;
mod properties;
mod sessions;
mod tokens;
