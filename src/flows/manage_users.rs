//! Users of the console: made, disabled, given a new password.

use argon2::password_hash::PasswordHasher;
use argon2::{Argon2, PasswordHash, PasswordVerifier};
use serde_json::json;

use super::Core;
use super::console_session::SignedIn;
use super::manage::{By, Change, Managed, Refused, Stop};
use super::manage_tokens::{check_role, may_change_of};
use super::once::{Answer, Once};
use crate::domain::admin::{Role, User};
use crate::domain::ids::{MerchantId, UserId};
use crate::domain::secret::PlainSecret;
use crate::store::users::Claimant;
use crate::store::{StoreError, console, users};

/// NIST SP 800-63B asks for at least 8 characters, and 15 where a password is the only factor.
const PASSWORD_CHARS_MIN: usize = 12;

/// Longer ones cost hashing time and protect nothing more.
const PASSWORD_BYTES_MAX: usize = 256;

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
    /// # Errors
    /// A fault of the store, as for all below.
    pub async fn create_user(&self, by: &By, new: NewUser, once: Once<User>) -> Managed<Answer<User>> {
        if let Some(answer) = self.again(&once).await? {
            return Ok(answer);
        }
        // Before the transaction: hashing is slow on purpose, and must hold no lock meanwhile.
        let hashed = self.hash_new_password(&new.password).await?;
        let mut change = self.change(by, "user.created").await?;
        let result = create(&mut change, by, new, hashed).await;
        change.finish_once(result, once).await
    }

    /// The users that the actor may see, newest first.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn users(&self, by: &By, before: Option<UserId>, limit: i64) -> Result<Vec<User>, StoreError> {
        users::list(&mut self.store.read().await?, by.merchant_id, before, limit).await
    }

    /// # Errors
    /// A fault of the store.
    pub async fn update_user(
        &self,
        by: &By,
        id: UserId,
        version: Option<i64>,
        changes: UserChanges,
    ) -> Managed<User> {
        let hashed = match &changes.password {
            Some(password) => Some(self.hash_new_password(password).await?),
            None => None,
        };
        let mut change = self.change(by, "user.updated").await?;
        let result = update(&mut change, by, id, version, changes.disabled, hashed).await;
        change.finish(result).await
    }

    /// Sets one's own password. It takes the current one, unless a one-time link stood in for it; tries
    /// count as tries to sign in. The user's other sessions end.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn set_own_password(
        &self,
        by: &By,
        who: &SignedIn,
        current: PlainSecret,
        new: PlainSecret,
    ) -> Managed<()> {
        let hashed = self.hash_new_password(&new).await?;
        let is_proven = who.session.by_link || {
            match self.claim(Claimant::User(who.user.id)).await? {
                Some(attempt) => self.check_password(current, attempt.password_hash).await?,
                None => false,
            }
        };
        let mut change = self.change(by, "user.password_set").await?;
        let result = set_own(&mut change, who, is_proven, hashed).await;
        change.finish(result).await
    }

    /// Argon2id with the crate's defaults, which are OWASP's (19 MiB, 2 passes).
    async fn hash_new_password(&self, password: &PlainSecret) -> Managed<String> {
        if let Err(refused) = check_password(password) {
            return Ok(Err(refused));
        }
        let text = PlainSecret::new(password.expose().to_owned());
        let salt: [u8; 16] = self.entropy.bytes();
        let hashed = tokio::task::spawn_blocking(move || {
            Argon2::default()
                .hash_password_with_salt(text.expose().as_bytes(), &salt)
                .map(|hash| hash.to_string())
        })
        .await;
        match hashed {
            Ok(Ok(hash)) => Ok(Ok(hash)),
            Ok(Err(_)) | Err(_) => {
                Err(StoreError::Impossible { table: "users", what: "a password was not hashed".to_owned() })
            }
        }
    }
}

/// Whether a password is the one that was hashed. Slow on purpose: call it off the runtime's threads.
#[must_use]
pub fn password_matches(password: &PlainSecret, hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok())
}

fn check_password(password: &PlainSecret) -> Result<(), Refused> {
    let text = password.expose();
    if text.chars().count() < PASSWORD_CHARS_MIN {
        Err(Refused::invalid("password", format!("must have at least {PASSWORD_CHARS_MIN} characters")))
    } else if text.len() > PASSWORD_BYTES_MAX {
        Err(Refused::invalid("password", format!("must have at most {PASSWORD_BYTES_MAX} bytes")))
    } else {
        Ok(())
    }
}

/// Enough to catch a slip; whether it is an address only a mail to it could tell.
fn check_email(email: &str) -> Result<String, Refused> {
    let is_fine = email.len() <= 254
        && email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
        && !email.chars().any(|c| c.is_control() || c.is_whitespace());
    if is_fine {
        Ok(email.to_lowercase())
    } else {
        Err(Refused::invalid("email", "is not an e-mail address"))
    }
}

async fn set_own(
    change: &mut Change<'_>,
    who: &SignedIn,
    is_proven: bool,
    hashed: Result<String, Refused>,
) -> Result<(), Stop> {
    change.concerns(who.user.merchant_id, who.user.id);
    if !is_proven {
        return Err(Refused::Conflict("the current password is not right".to_owned()).into());
    }
    if !who.session.by_link {
        users::take_attempt_back(&mut change.tx, who.user.id).await?;
    }
    let hash = hashed?;
    let mut user = users::by_id(&mut change.tx, who.user.id).await?.ok_or(Refused::NotFound)?;
    user.updated_at = change.event.at;
    users::update(&mut change.tx, &user, Some(&hash)).await?;
    console::forget_link(&mut change.tx, who.session.hash).await?;
    console::end_sessions_of(&mut change.tx, user.id, Some(who.session.hash)).await?;
    Ok(())
}

async fn create(
    change: &mut Change<'_>,
    by: &By,
    new: NewUser,
    hashed: Result<String, Refused>,
) -> Result<User, Stop> {
    check_role(change, by, new.role, new.merchant_id).await?;
    let email = check_email(&new.email)?;
    let hash = hashed?;
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
    match users::insert(&mut change.tx, &user, &hash).await {
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
    by: &By,
    id: UserId,
    version: Option<i64>,
    disabled: Option<bool>,
    hashed: Option<Result<String, Refused>>,
) -> Result<User, Stop> {
    change.concerns(None, id);
    let mut user = users::by_id(&mut change.tx, id).await?.ok_or(Refused::NotFound)?;
    may_change_of(by, user.merchant_id)?;
    change.event.merchant_id = user.merchant_id;
    if version.is_some_and(|version| version != user.version) {
        return Err(Refused::VersionMismatch.into());
    }
    let hash = hashed.transpose()?;
    let now = change.event.at;
    match disabled {
        Some(true) => user.disabled_at = user.disabled_at.or(Some(now)),
        Some(false) => user.disabled_at = None,
        None => {}
    }
    user.updated_at = now;
    users::update(&mut change.tx, &user, hash.as_deref()).await?;
    if user.disabled_at.is_some() || hash.is_some() {
        console::end_sessions_of(&mut change.tx, id, None).await?;
    }
    user.version += 1;
    change.event.detail = json!({ "disabled": user.disabled_at.is_some(), "new_password": hash.is_some() });
    Ok(user)
}
