//! The console. Tests of headers and statuses use the router, and tests of
//! screens use a real browser.

mod addresses;
mod article;
mod browser;
mod forms;
mod irreversible;
mod key_page;
mod overview;
pub(crate) mod people;
mod pictures;
mod rules;
mod scopes;
mod screens;
mod second_factor;
mod tokens;
mod tour;
mod trail;
