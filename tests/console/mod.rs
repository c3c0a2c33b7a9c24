//! The console. Tests of headers and statuses use the router, and tests of
//! screens use a real browser.

mod article;
mod browser;
pub(crate) mod people;
mod rules;
mod screens;
mod second_factor;
mod tour;
mod trail;
