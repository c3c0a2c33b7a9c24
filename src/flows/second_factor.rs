//! The authenticator app of a user: setting it up, checking its codes, and removing it.

use serde_json::json;

use super::Core;
use super::console_session::SignedIn;
use super::error::{Managed, Refused};
use super::manage::Change;
use super::manage_tokens::may_change_of;
use super::principal::Principal;
use crate::domain::console::{self, RECOVERY_CODES, TotpSecret};
use crate::domain::event::EventType;
use crate::domain::ids::UserId;
use crate::domain::keyring::Purpose;
use crate::domain::secret::{PlainSecret, SecretHash};
use crate::store::attempts::{self, Attempt, Count};
use crate::store::{StoreError, console as store, users};

/// A new secret for the user's app. Nothing is stored until the user has sent a code.
pub struct Enrolment {
    pub secret: TotpSecret,
    /// The sealed secret, which the page sends back. Only this server can open it, and only for this user.
    pub sealed: Vec<u8>,
}

impl Core {
    pub fn begin_totp(&self, user: UserId) -> Enrolment {
        self.enrolment(user, TotpSecret::generate(&self.entropy))
    }

    /// Opens an enrolment that the page has sent back, to show it again.
    pub fn resume_totp(&self, user: UserId, sealed: &[u8]) -> Option<Enrolment> {
        self.open_totp(user, sealed).map(|secret| self.enrolment(user, secret))
    }

    fn enrolment(&self, user: UserId, secret: TotpSecret) -> Enrolment {
        let owner = user.uuid();
        let sealed = self.keyring.seal(Purpose::TotpSecret, owner.as_bytes(), secret.bytes(), &self.entropy);
        Enrolment { secret, sealed }
    }

    /// Activates the app after a correct code, and makes recovery codes, which are shown once. The user's
    /// other sessions end, because they began without it. If live keys require a second factor, this needs
    /// the password too. Otherwise somebody with a stolen session could set up their own app.
    pub async fn confirm_totp(
        &self,
        principal: &Principal,
        who: &SignedIn,
        sealed: &[u8],
        code: &str,
        password: PlainSecret,
    ) -> Managed<Vec<PlainSecret>> {
        let must_prove = self.console.totp_required_for_live;
        if must_prove {
            let event = self.event_by(principal, EventType::UserSecondFactorSet).about(who.user.id);
            self.on_record(&event, async {
                let turn = self.console.hashing.turn().await?;
                let is_right = self.knows_password(&turn, who.user.id, password).await?;
                is_right.then_some(()).ok_or_else(|| Refused::invalid("password", "is not right").into())
            })
            .await?;
        }
        self.change(principal, EventType::UserSecondFactorSet, async |change| {
            if must_prove {
                attempts::take_back(&mut change.tx, who.user.id, Count::Proofs).await?;
            }
            confirm(change, who, sealed, code).await
        })
        .await
    }

    /// Replaces the user's recovery codes, after a correct code.
    pub async fn renew_recovery_codes(
        &self,
        principal: &Principal,
        who: &SignedIn,
        code: &str,
    ) -> Managed<Vec<PlainSecret>> {
        let attempt = self.claim(who.user.id).await?;
        self.change(principal, EventType::UserRecoveryCodesMade, async |change| {
            change.concerns(who.user.merchant_id, who.user.id);
            must_show_code(change, attempt, code).await?;
            make_recovery_codes(change, who.user.id).await
        })
        .await
    }

    /// Removes the user's own app, after a correct code.
    pub async fn remove_own_totp(&self, principal: &Principal, who: &SignedIn, code: &str) -> Managed<()> {
        let attempt = self.claim(who.user.id).await?;
        self.change(principal, EventType::UserSecondFactorRemoved, async |change| {
            change.concerns(who.user.merchant_id, who.user.id);
            must_show_code(change, attempt, code).await?;
            remove(change, who.user.id).await
        })
        .await
    }

    /// Removes another user's app, if they have lost it and their recovery codes.
    pub async fn remove_totp_of(&self, principal: &Principal, user: UserId) -> Managed<()> {
        self.change(principal, EventType::UserSecondFactorRemoved, async |change| {
            change.concerns(None, user);
            let found = users::by_id(&mut change.tx, user).await?.ok_or(Refused::NotFound)?;
            may_change_of(principal, found.merchant_id)?;
            principal.may_let_in()?;
            if principal.actor.id == Some(user.to_string()) {
                return Err(Refused::Forbidden("remove your own under Your account, with a code").into());
            }
            change.concerns(found.merchant_id, user);
            remove(change, user).await
        })
        .await
    }

    /// How many recovery codes a user has left.
    pub async fn recovery_codes_left(&self, user: UserId) -> Result<i64, StoreError> {
        store::count_recovery_codes(&mut self.store.read().await?, user).await
    }
}

async fn confirm(
    change: &mut Change<'_>,
    who: &SignedIn,
    sealed: &[u8],
    code: &str,
) -> Managed<Vec<PlainSecret>> {
    let (user, now) = (&who.user, change.event.at);
    change.concerns(user.merchant_id, user.id);
    if user.has_totp {
        return Err(Refused::Conflict("an authenticator app is already set up".to_owned()).into());
    }
    let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let secret = change.core.open_totp(user.id, sealed);
    let Some((secret, step)) =
        secret.and_then(|secret| secret.step_of(&digits, now).map(|step| (secret, step)))
    else {
        return Err(Refused::invalid("code", "is not the code that the app shows now").into());
    };
    let kept = change.seal(Purpose::TotpSecret, user.id.uuid().as_bytes(), secret.bytes()).await?;
    users::set_totp(&mut change.tx, user.id, Some(kept), Some(step), now).await?;
    store::end_sessions_of(&mut change.tx, user.id, Some(who.session.hash)).await?;
    make_recovery_codes(change, user.id).await
}

/// Checks a code. Attempts are limited like sign-ins, so that somebody with a stolen session cannot guess the
/// code.
async fn must_show_code(change: &mut Change<'_>, attempt: Option<Attempt>, code: &str) -> Managed<()> {
    let Some(Attempt { user, totp_secret, .. }) = attempt else {
        return Err(Refused::Conflict("too many attempts; wait for half an hour".to_owned()).into());
    };
    match change.core.use_code(&mut change.tx, user, totp_secret.as_deref(), code).await? {
        Some(_) => Ok(attempts::take_back(&mut change.tx, user, Count::Proofs).await?),
        None => Err(Refused::invalid("code", "is wrong or was already used").into()),
    }
}

async fn make_recovery_codes(change: &mut Change<'_>, user: UserId) -> Managed<Vec<PlainSecret>> {
    let codes: Vec<PlainSecret> =
        (0..RECOVERY_CODES).map(|_| console::generate_recovery_code(&change.core.entropy)).collect();
    let hashes: Vec<SecretHash> =
        codes.iter().map(|code| console::recovery_code_hash(code.expose())).collect();
    store::replace_recovery_codes(&mut change.tx, user, &hashes, change.event.at).await?;
    Ok(codes)
}

async fn remove(change: &mut Change<'_>, user: UserId) -> Managed<()> {
    users::set_totp(&mut change.tx, user, None, None, change.event.at).await?;
    store::replace_recovery_codes(&mut change.tx, user, &[], change.event.at).await?;
    change.event.detail = json!({});
    Ok(())
}
