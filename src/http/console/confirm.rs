//! The page that asks before an action that cannot be undone. It says what the action does and what depends
//! on the thing now.

use askama::Template;

use super::mistakes::Mistakes;
use super::page::Page;
use super::words;
use crate::domain::clock::Timestamp;
use crate::domain::secret::StoredSecret;
use crate::flows::live::{Live, SESSIONS_COUNTED_MAX};
use crate::flows::rotation::is_safe_to_revoke;

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
    /// Set if the form also asks for a code from the user's authenticator app.
    pub(super) code: Option<Mistakes>,
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
    vec![("Active sessions", sessions(live)), ("Last used", last_used(last_used_at, now))]
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

/// What ending an earlier secret costs: `what` names its owner, such as `API key`.
pub(super) fn ending_a_secret(
    what: &str,
    secrets: &[StoredSecret],
    secret: &StoredSecret,
    now: Timestamp,
) -> (String, Vec<(&'static str, String)>) {
    let advice = if is_safe_to_revoke(secrets, secret) {
        "A newer secret is in use, and this one was not used since."
    } else {
        "This secret may still be in use. First configure your applications with the newest secret."
    };
    let consequence = format!(
        "All calls with this {what} secret are refused immediately. This cannot be undone. Newer secrets keep \
         working. {advice}"
    );
    let from = secret.last_used_ip.as_ref().map(|ip| ("Last used from", ip.clone()));
    let mut costs = vec![("Last used", last_used(secret.last_used_at, now))];
    costs.extend(from);
    (consequence, costs)
}
