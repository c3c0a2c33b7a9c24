//! The page that asks before an action that cannot be undone. It says what the action does and what depends
//! on the thing now.

use askama::Template;

use super::page::Page;
use super::words;
use crate::domain::clock::Timestamp;
use crate::flows::live::{Live, SESSIONS_COUNTED_MAX};

#[derive(Template)]
#[template(path = "confirm.html")]
pub(super) struct ConfirmPage {
    pub(super) page: Page,
    pub(super) heading: String,
    pub(super) consequence: String,
    /// What depends on it, each with a label.
    pub(super) costs: Vec<(&'static str, String)>,
    /// Hidden fields of the form.
    pub(super) hidden: Vec<(&'static str, String)>,
    pub(super) button: &'static str,
    pub(super) action: String,
    pub(super) back: String,
}

/// Live sessions and last use, as a confirmation shows them.
pub(super) fn costs(
    live: Live,
    last_used_at: Option<Timestamp>,
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    vec![("Live sessions", sessions(live)), ("Last used", last_used(last_used_at, now))]
}

fn sessions(live: Live) -> String {
    match live.sessions {
        count if count > SESSIONS_COUNTED_MAX => format!("more than {SESSIONS_COUNTED_MAX}"),
        count => count.to_string(),
    }
}

pub(super) fn last_used(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(
        || "never".to_owned(),
        |at| format!("{}, at {} UTC", words::relative(at, now), &at.to_published()[..16]),
    )
}
