//! Sessions of the console: finding the user of a cookie, and ending sessions.

use chrono::TimeDelta;
use serde_json::json;

use super::Core;
use super::error::{Fault, Managed, Refused};
use super::principal::Origin;
use super::principal::Principal;
use super::sign_in::SignIn;
use crate::domain::admin::User;
use crate::domain::console::{ConsoleSession, LINK_TTL};
use crate::domain::event::EventType;
use crate::domain::ids::UserId;
use crate::domain::secret::{CONSOLE_SECRET_CHARS, PlainSecret};
use crate::flows::manage_tokens::may_change_of;
use crate::store::{StoreError, console as sessions, users};

/// The idle time-out may be late by this much, which saves a write at each request.
const TOUCH_EVERY: TimeDelta = TimeDelta::minutes(1);

const NO_LINK: &str = "the link does not exist, has expired or was already used";

/// A user and the session of the request.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub user: User,
    pub session: ConsoleSession,
}

impl Core {
    /// The user who is signed in with this cookie. `None` if the session has ended or still awaits the second
    /// factor.
    pub async fn signed_in(&self, cookie: &PlainSecret) -> Result<Option<SignedIn>, StoreError> {
        let now = self.now();
        let mut db = self.store.read().await?;
        let Some((id, session)) = sessions::session(&mut db, cookie.hash()).await? else { return Ok(None) };
        if session.awaits_totp || !session.is_live(now) {
            return Ok(None);
        }
        let Some(user) = users::by_id(&mut db, id).await?.filter(|user| user.disabled_at.is_none()) else {
            return Ok(None);
        };
        drop(db);
        if now.since(session.last_seen_at) >= TOUCH_EVERY {
            sessions::touch_session(&mut self.store.write().await?, session.hash, now).await?;
        }
        Ok(Some(SignedIn { user, session }))
    }

    /// The user of a session, even if it has ended. This gives no rights: it only says for whom something may be
    /// kept over a sign-in.
    pub async fn last_user(&self, cookie: &PlainSecret) -> Result<Option<UserId>, StoreError> {
        let found = sessions::session(&mut self.store.read().await?, cookie.hash()).await?;
        Ok(found.map(|(user, _)| user))
    }

    /// The principal for a signed-in user.
    pub fn by_user(&self, signed_in: &SignedIn, origin: Origin) -> Principal {
        let lacks_second_factor = self.console.totp_required_for_live && !signed_in.user.has_totp;
        Principal::user(&signed_in.user, lacks_second_factor, origin)
    }

    pub async fn sign_out(&self, principal: &Principal, session: &ConsoleSession) -> Managed<()> {
        self.change(principal, EventType::UserSignedOut, async |change| {
            change.event.object_id.clone_from(&principal.actor.id);
            sessions::end_session(&mut change.tx, session.hash).await?;
            Ok(())
        })
        .await
    }

    /// Ends all other sessions of the user.
    pub async fn end_other_sessions(&self, principal: &Principal, who: &SignedIn) -> Managed<()> {
        self.change(principal, EventType::UserOtherSessionsEnded, async |change| {
            change.concerns(who.user.merchant_id, who.user.id);
            sessions::end_sessions_of(&mut change.tx, who.user.id, Some(who.session.hash)).await?;
            Ok(())
        })
        .await
    }

    /// A user whom the principal may see.
    pub async fn user(&self, principal: &Principal, id: UserId) -> Managed<User> {
        let found = users::by_id(&mut self.store.read().await?, id).await?;
        let may_see =
            |user: &User| principal.merchant_id.is_none() || principal.merchant_id == user.merchant_id;
        Ok(found.filter(may_see).ok_or(Refused::NotFound)?)
    }

    /// The users with this e-mail address that the principal may change: at most one of each merchant, and one of
    /// the platform.
    pub async fn users_by_email(&self, principal: &Principal, email: &str) -> Result<Vec<User>, StoreError> {
        let mut found = users::of_email(&mut self.store.read().await?, &email.trim().to_lowercase()).await?;
        found.retain(|user| may_change_of(principal, user.merchant_id).is_ok());
        Ok(found)
    }

    /// Makes a link that signs a user in once, without a password. Earlier links of the user end.
    pub async fn make_sign_in_link(&self, principal: &Principal, user: UserId) -> Managed<PlainSecret> {
        self.change(principal, EventType::UserSignInLinkMade, async |change| {
            change.concerns(None, user);
            let found = users::by_id(&mut change.tx, user).await?.ok_or(Refused::NotFound)?;
            may_change_of(principal, found.merchant_id)?;
            principal.may_let_in()?;
            change.concerns(found.merchant_id, user);
            let link = PlainSecret::console(&self.entropy);
            let now = change.event.at;
            sessions::replace_link(&mut change.tx, user, link.hash(), now, now.plus(LINK_TTL)).await?;
            Ok(link)
        })
        .await
    }

    /// Signs in with a link, which works only once. It replaces the password, but not the second factor.
    pub async fn sign_in_by_link(&self, link: &PlainSecret, origin: &Origin) -> Result<SignIn, Fault> {
        let now = self.now();
        // Refuse made-up links without a transaction, because anybody can try any number of them.
        let is_known = looks_like_link(link)
            && sessions::has_link(&mut self.store.read().await?, link.hash(), now).await?;
        if !is_known {
            return Ok(self.refuse(None, NO_LINK, origin));
        }
        let mut tx = self.store.begin().await?;
        let user = match sessions::use_link(&mut tx, link.hash(), now).await? {
            Some(id) => users::by_id(&mut tx, id).await?.filter(|user| user.disabled_at.is_none()),
            None => None,
        };
        let Some(user) = user else {
            drop(tx);
            return Ok(self.refuse(None, NO_LINK, origin));
        };
        // If somebody has locked the account by guessing, the user must be able to come back with a link.
        users::unlock(&mut tx, user.id).await?;
        let secret = self.open_session(&mut tx, user.id, user.has_totp, true, origin, now).await?;
        if user.has_totp {
            tx.commit().await?;
            return Ok(SignIn::NeedsSecondFactor(secret));
        }
        self.complete(tx, user.id, json!({ "by": "one-time link" }), origin).await?;
        Ok(SignIn::Done(secret))
    }
}

/// Whether a text can be a link. Others are refused without a query.
fn looks_like_link(link: &PlainSecret) -> bool {
    link.expose().len() == CONSOLE_SECRET_CHARS && link.expose().is_ascii()
}
