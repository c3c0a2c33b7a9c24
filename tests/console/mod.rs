//! The console: through the router where a header or a status is the point, and in a real browser where
//! the screens are.

mod article;
mod browser;
pub(crate) mod people;
mod rules;
mod screens;
mod second_factor;
mod tour;
mod trail;
