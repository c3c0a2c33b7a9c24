//! Secrets of keys, credentials and tokens: the list of them, their rotation, and ending an earlier one.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::page::{Page, answered, html, html_as};
use super::words::{self, When};
use crate::domain::clock::Timestamp;
use crate::domain::ids::SecretId;
use crate::domain::secret::StoredSecret;
use crate::flows::error::{Managed, Refused};
use crate::flows::idempotency::{Answer, Rendered};
use crate::flows::rotation::is_safe_to_revoke;
use crate::http::error::Failure;

/// A secret of a key or of credentials, without the secret itself.
pub(super) struct SecretRow {
    pub(super) id: SecretId,
    pub(super) hint: String,
    pub(super) created: When,
    pub(super) last_used: Option<When>,
    pub(super) last_used_ip: String,
    pub(super) state: String,
    pub(super) is_live: bool,
    pub(super) is_newest: bool,
    pub(super) is_safe_to_end: bool,
}

pub(super) fn secret_rows(secrets: &[StoredSecret], now: Timestamp) -> Vec<SecretRow> {
    let row = |(position, secret): (usize, &StoredSecret)| SecretRow {
        id: secret.id,
        hint: secret.hint.clone(),
        created: When(secret.created_at),
        last_used: secret.last_used_at.map(When),
        last_used_ip: secret.last_used_ip.clone().unwrap_or_default(),
        state: match (secret.is_live(now), secret.ends_at) {
            (false, _) => "Ended".to_owned(),
            (true, Some(end)) => format!("Active, ends {}", words::relative(end, now)),
            (true, None) => "Active".to_owned(),
        },
        is_live: secret.is_live(now),
        is_newest: position == 0,
        is_safe_to_end: is_safe_to_revoke(secrets, secret),
    };
    secrets.iter().enumerate().map(row).collect()
}

/// A secret that can be ended: it works, and there is a newer one.
pub(super) fn ending(
    secrets: &[StoredSecret],
    id: SecretId,
    now: Timestamp,
) -> Result<&StoredSecret, Failure> {
    let earlier = secrets.iter().skip(1).find(|secret| secret.id == id && secret.is_live(now));
    earlier.ok_or_else(|| Refused::NotFound.into())
}

/// What a rotation does, if the overlap starts with the first use of the new secret.
pub(super) const FROM_FIRST_USE: &str = "The previous one keeps working while you configure your application \
     with the new one. The time that you choose starts when the new one is first used.";

/// The choices for how long the previous secret keeps working.
pub(super) const OVERLAPS: [(i64, &str); 5] = [
    (0, "Immediately when the new one is first used"),
    (3600, "1 hour after the new one is first used"),
    (24 * 3600, "1 day after the new one is first used"),
    (7 * 24 * 3600, "7 days after the new one is first used"),
    (30 * 24 * 3600, "30 days after the new one is first used"),
];

#[derive(Template)]
#[template(path = "rotate.html")]
pub(super) struct RotatePage {
    pub(super) page: Page,
    pub(super) heading: String,
    pub(super) what: &'static str,
    pub(super) action: String,
    pub(super) back: String,
    pub(super) once: String,
    /// What happens with the previous secret.
    pub(super) explains: &'static str,
    pub(super) overlaps: &'static [(i64, &'static str)],
    /// The new secret. Only this page shows it.
    pub(super) secret: Option<String>,
    pub(super) error: Option<String>,
}

impl RotatePage {
    /// The page after a rotation: with the new secret, which `secret_in` reads from the stored answer, or with
    /// the reason why there is none.
    pub(super) fn after<T: Rendered>(
        self,
        rotated: Managed<Answer<T>>,
        secret_in: impl FnOnce(&[u8]) -> Result<String, Failure>,
    ) -> Result<Response, Failure> {
        match answered(rotated)? {
            Ok(answer) => html(&Self { secret: Some(secret_in(&answer.into_body())?), ..self }),
            Err(refused) => {
                let error = Some(words::refusal(&refused));
                html_as(StatusCode::UNPROCESSABLE_ENTITY, &Self { error, ..self })
            }
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Rotation {
    pub(super) overlap_secs: i64,
    pub(super) once: String,
}
