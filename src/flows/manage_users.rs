//! Users of the console: made, disabled, given a new password.

use serde_json::json;

use super::Core;
use super::console_session::SignedIn;
use super::error::Refused;
use super::idempotency::{Answer, Once};
use super::manage::{Change, Managed, Stop, is_invisible};
use super::manage_tokens::{check_role, may_change_of, may_give};
use super::password;
use super::principal::Principal;
use crate::domain::admin::{Role, User};
use crate::domain::ids::{MerchantId, UserId};
use crate::domain::secret::PlainSecret;
use crate::store::users::Claimant;
use crate::store::{StoreError, console, users};

/// Users of one merchant that are not disabled.
pub const USERS_MAX: i64 = 200;

/// A user to be made.
pub struct NewUser {
    pub email: String,
    pub role: Role,
    pub merchant_id: Option<MerchantId>,
    pub password: PlainSecret,
}

/// What a change to a user sets; `None` leaves it as it is.
#[derive(Default)]
pub struct UserChanges {
    pub disabled: Option<bool>,
    pub password: Option<PlainSecret>,
}

impl Core {
    pub async fn create_user(
        &self,
        principal: &Principal,
        new: NewUser,
        once: Once<User>,
    ) -> Managed<Answer<User>> {
        if let Some(answer) = self.again(&once).await? {
            return Ok(answer);
        }
        let action = "user.created";
        if let Err(refused) = check_new(principal, &new) {
            return self.refused(self.event_by(principal, action), refused).await;
        }
        // Before the transaction: hashing is slow on purpose, and must hold no lock meanwhile.
        let hash = self.console.hashing.turn().await?.hash(&new.password, &self.entropy).await?;
        let mut change = self.change(principal, action).await?;
        let result = create(&mut change, principal, new, &hash).await;
        change.finish_once(result, once).await
    }

    /// The users that the actor may see, newest first.
    pub async fn users(
        &self,
        principal: &Principal,
        before: Option<UserId>,
        limit: i64,
    ) -> Result<Vec<User>, StoreError> {
        users::list(&mut self.store.read().await?, principal.merchant_id, before, limit).await
    }

    pub async fn update_user(
        &self,
        principal: &Principal,
        id: UserId,
        version: Option<i64>,
        changes: UserChanges,
    ) -> Managed<User> {
        let action = "user.updated";
        let mut hash = None;
        if let Some(password) = &changes.password {
            if let Err(refused) = self.may_set_password(principal, id, password).await? {
                let mut event = self.event_by(principal, action);
                event.object_id = Some(id.to_string());
                return self.refused(event, refused).await;
            }
            hash = Some(self.console.hashing.turn().await?.hash(password, &self.entropy).await?);
        }
        let mut change = self.change(principal, action).await?;
        let result = update(&mut change, principal, id, version, changes.disabled, hash).await;
        change.finish(result).await
    }

    /// Sets one's own password. It takes the current one, unless a one-time link stood in for it; tries
    /// count as tries to sign in. The user's other sessions end.
    pub async fn set_own_password(
        &self,
        principal: &Principal,
        who: &SignedIn,
        current: PlainSecret,
        new: PlainSecret,
    ) -> Managed<()> {
        let mut event = self.event_by(principal, "user.password_set");
        event.object_id = Some(who.user.id.to_string());
        if let Err(refused) = password::check(&new) {
            return self.refused(event, refused).await;
        }
        let turn = self.console.hashing.turn().await?;
        let is_proven = who.session.by_link || {
            match self.claim(Claimant::User(who.user.id)).await? {
                Some(attempt) => turn.matches(current, Some(attempt.password_hash)).await?,
                None => false,
            }
        };
        if !is_proven {
            let refused = Refused::Conflict("the current password is not right".to_owned());
            return self.refused(event, refused).await;
        }
        let hash = turn.hash(&new, &self.entropy).await?;
        drop(turn);
        let mut change = self.change(principal, "user.password_set").await?;
        let result = set_own(&mut change, who, &hash).await;
        change.finish(result).await
    }

    /// Whether `principal` may give a user this new password.
    async fn may_set_password(
        &self,
        principal: &Principal,
        user: UserId,
        password: &PlainSecret,
    ) -> Managed<()> {
        let found = users::by_id(&mut self.store.read().await?, user).await?;
        let Some(found) = found else { return Ok(Err(Refused::NotFound)) };
        Ok(may_change_of(principal, found.merchant_id)
            .and_then(|()| principal.may_let_in())
            .and_then(|()| password::check(password)))
    }
}

/// What can be said of a new user without the store, before the password costs a hash.
fn check_new(principal: &Principal, new: &NewUser) -> Result<(), Refused> {
    if new.role == Role::Service {
        return Err(Refused::invalid("role", "`service` is for tokens"));
    }
    may_give(principal, new.role, new.merchant_id)?;
    principal.may_let_in()?;
    check_email(&new.email)?;
    password::check(&new.password)
}

/// Enough to catch a slip; whether it is an address only a mail to it could tell.
pub(super) fn check_email(email: &str) -> Result<String, Refused> {
    let email = email.trim();
    let is_fine = email.len() <= 254
        && email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
        && !email.chars().any(|c| c.is_control() || c.is_whitespace() || is_invisible(c));
    if is_fine {
        Ok(email.to_lowercase())
    } else {
        Err(Refused::invalid("email", "is not an e-mail address"))
    }
}

async fn set_own(change: &mut Change<'_>, who: &SignedIn, hash: &str) -> Result<(), Stop> {
    change.concerns(who.user.merchant_id, who.user.id);
    if !who.session.by_link {
        users::take_proof_back(&mut change.tx, who.user.id).await?;
    }
    let mut user = users::by_id(&mut change.tx, who.user.id).await?.ok_or(Refused::NotFound)?;
    user.updated_at = change.event.at;
    users::update(&mut change.tx, &user, Some(hash)).await?;
    console::forget_link(&mut change.tx, who.session.hash).await?;
    console::end_sessions_of(&mut change.tx, user.id, Some(who.session.hash)).await?;
    Ok(())
}

/// There is no limit to the operators of the platform.
async fn must_have_room(change: &mut Change<'_>, merchant: Option<MerchantId>) -> Result<(), Stop> {
    let Some(merchant) = merchant else { return Ok(()) };
    change.lock_merchant(merchant).await?;
    if users::count_enabled(&mut change.tx, merchant).await? >= USERS_MAX {
        let detail = format!("the merchant has {USERS_MAX} users; disable one first");
        return Err(Refused::Conflict(detail).into());
    }
    Ok(())
}

async fn create(
    change: &mut Change<'_>,
    principal: &Principal,
    new: NewUser,
    hash: &str,
) -> Result<User, Stop> {
    check_role(change, principal, new.role, new.merchant_id).await?;
    must_have_room(change, new.merchant_id).await?;
    let email = check_email(&new.email)?;
    let now = change.event.at;
    let user = User {
        id: UserId::generate(now, &change.core.entropy),
        email,
        role: new.role,
        merchant_id: new.merchant_id,
        locked_until: None,
        has_totp: false,
        disabled_at: None,
        version: 1,
        created_at: now,
        updated_at: now,
        last_login_at: None,
    };
    match users::insert(&mut change.tx, &user, hash).await {
        Err(StoreError::Conflict(_)) => {
            return Err(Refused::Conflict("the e-mail address has a user already".to_owned()).into());
        }
        inserted => inserted?,
    }
    change.concerns(user.merchant_id, user.id);
    change.event.detail = json!({ "email": user.email, "role": user.role });
    Ok(user)
}

async fn update(
    change: &mut Change<'_>,
    principal: &Principal,
    id: UserId,
    version: Option<i64>,
    disabled: Option<bool>,
    hash: Option<String>,
) -> Result<User, Stop> {
    change.concerns(None, id);
    let mut user = users::by_id(&mut change.tx, id).await?.ok_or(Refused::NotFound)?;
    may_change_of(principal, user.merchant_id)?;
    change.event.merchant_id = user.merchant_id;
    if version.is_some_and(|version| version != user.version) {
        return Err(Refused::VersionMismatch.into());
    }
    let now = change.event.at;
    match disabled {
        Some(true) => user.disabled_at = user.disabled_at.or(Some(now)),
        Some(false) if user.disabled_at.is_some() => {
            must_have_room(change, user.merchant_id).await?;
            user.disabled_at = None;
        }
        Some(false) => {}
        None => {}
    }
    user.updated_at = now;
    users::update(&mut change.tx, &user, hash.as_deref()).await?;
    if hash.is_some() {
        users::unlock(&mut change.tx, id).await?;
    }
    if user.disabled_at.is_some() || hash.is_some() {
        console::end_sessions_of(&mut change.tx, id, None).await?;
    }
    user.version += 1;
    change.event.detail = json!({ "disabled": user.disabled_at.is_some(), "new_password": hash.is_some() });
    Ok(user)
}
