//! Tests of the rules alone: boundary values and properties.

mod address;
mod allow_list;
mod cells;
mod properties;
mod sessions;
mod tokens;
