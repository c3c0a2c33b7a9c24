//! The console. Tests of headers and statuses use the router, and tests of
//! screens use a real browser.

mod addresses;
mod article;
mod browser;
mod irreversible;
pub(crate) mod people;
mod rules;
mod scopes;
mod screens;
mod second_factor;
mod tokens;
mod tour;
mod trail;
