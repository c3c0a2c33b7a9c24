//! Managing users of the console: making and disabling them, and setting passwords.

use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Core;
use super::changes::{Versions, must_include};
use super::error::{Error, Fault, Managed, Refused};
use super::idempotency::Answer;
use super::manage::{Change, is_invisible};
use super::manage_tokens::{check_role, may_change_of, may_give};
use super::password;
use super::principal::Principal;
use crate::domain::admin::{Role, User};
use crate::domain::event::EventType;
use crate::domain::ids::{MerchantId, UserId};
use crate::domain::secret::PlainSecret;
use crate::store::{StoreError, console, users};

/// The most users of one merchant that are not disabled.
pub const USERS_MAX: i64 = 200;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    pub email: String,
    pub role: Role,
    /// For the merchant roles.
    pub merchant_id: Option<MerchantId>,
    /// At least 12 characters.
    #[schema(value_type = String)]
    pub password: PlainSecret,
}

/// Missing fields are not changed.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserPatch)]
pub struct UserChanges {
    pub disabled: Option<bool>,
    /// A new address needs a new password too.
    pub email: Option<String>,
    #[schema(value_type = Option<String>)]
    pub password: Option<PlainSecret>,
}

impl Core {
    pub async fn create_user(&self, principal: &Principal, new: NewUser) -> Managed<Answer<User>> {
        // Check for a repetition first, so that it needs no hash.
        if let Some(answer) = self.again(principal).await? {
            return Ok(answer);
        }
        let event = self.event_by(principal, EventType::UserCreated);
        // Hash before the transaction, because hashing is slow on purpose and must not hold a lock.
        let hash = self.on_record(&event, async {
            let email = check_new(principal, &new)?;
            let hash = self.hash_for(&email, &new.password, self.console.hashing.turn().await?).await?;
            Ok((email, hash))
        });
        let (email, hash) = hash.await?;
        self.create(principal, EventType::UserCreated, async |change| create(change, new, email, &hash).await)
            .await
    }

    /// The users that the principal may see, newest first.
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
        versions: Versions,
        changes: UserChanges,
    ) -> Managed<User> {
        let event = self.event_by(principal, EventType::UserUpdated).about(id);
        let login = self.on_record(&event, async {
            let Some(password) = &changes.password else {
                // The salt of a password belongs to the address, so the old password would not fit.
                let needed = || Refused::invalid("password", "a new address needs a new password");
                return if changes.email.is_some() { Err(needed().into()) } else { Ok(None) };
            };
            let found = users::by_id(&mut self.store.read().await?, id).await?.ok_or(Refused::NotFound)?;
            may_change_of(principal, found.merchant_id)?;
            principal.may_let_in()?;
            password::check(password)?;
            let email = changes.email.as_deref().map(check_email).transpose()?.unwrap_or(found.email);
            let turn = self.console.hashing.turn().await?;
            let hash = self.hash_for(&email, password, turn).await?;
            Ok(Some(Login { is_renamed: changes.email.is_some(), email, hash }))
        });
        let login = login.await?;
        self.change(principal, EventType::UserUpdated, async |change| {
            update(change, id, versions, changes.disabled, login).await
        })
        .await
    }
}

/// What a user signs in with.
struct Login {
    email: String,
    /// Whether the address is a new one.
    is_renamed: bool,
    /// The hash of a new password, with the salt of the address.
    hash: String,
}

/// Checks a new user without a query, before the password is hashed. Returns the address.
fn check_new(principal: &Principal, new: &NewUser) -> Result<String, Refused> {
    if new.role == Role::Service {
        return Err(Refused::invalid("role", "`service` is for tokens"));
    }
    may_give(principal, new.role, new.merchant_id)?;
    principal.may_let_in()?;
    password::check(&new.password)?;
    check_email(&new.email)
}

/// Finds typos. Only sending a mail could show whether the address exists.
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

/// Checks the limit on users of a merchant. There is no limit on operators.
async fn must_have_room(change: &mut Change<'_>, merchant: Option<MerchantId>) -> Managed<()> {
    let Some(merchant) = merchant else { return Ok(()) };
    change.lock_merchant(merchant).await?;
    if users::count_enabled(&mut change.tx, merchant).await? >= USERS_MAX {
        let detail = format!("the merchant has {USERS_MAX} users; disable one first");
        return Err(Refused::Conflict(detail).into());
    }
    Ok(())
}

/// Lets nobody else add a user to the address, and checks that the salt of the hash is still that of the address.
async fn lock_address(change: &mut Change<'_>, email: &str, hash: &str) -> Managed<()> {
    users::lock_address(&mut change.tx, email).await?;
    let like = users::any_password_hash(&mut change.tx, email).await?;
    if like.is_some_and(|like| !password::is_like(hash, &like)) {
        // Another call has made the first user of this address after we hashed the password. The caller should
        // try again, and then gets a hash with the salt of that user.
        return Err(Fault::Busy.into());
    }
    Ok(())
}

/// What to say if a user cannot be written.
fn not_written(error: StoreError) -> Error<Refused> {
    match error {
        StoreError::Conflict(_) => {
            Refused::Conflict("a user with this e-mail address already exists here".to_owned()).into()
        }
        fault => fault.into(),
    }
}

async fn create(change: &mut Change<'_>, new: NewUser, email: String, hash: &str) -> Managed<User> {
    check_role(change, new.role, new.merchant_id).await?;
    must_have_room(change, new.merchant_id).await?;
    lock_address(change, &email, hash).await?;
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
    users::insert(&mut change.tx, &user, hash).await.map_err(not_written)?;
    change.concerns(user.merchant_id, user.id);
    change.event.detail = json!({ "email": user.email, "role": user.role });
    Ok(user)
}

async fn update(
    change: &mut Change<'_>,
    id: UserId,
    versions: Versions,
    disabled: Option<bool>,
    login: Option<Login>,
) -> Managed<User> {
    change.concerns(None, id);
    let mut user = users::by_id(&mut change.tx, id).await?.ok_or(Refused::NotFound)?;
    may_change_of(change.principal, user.merchant_id)?;
    change.event.merchant_id = user.merchant_id;
    must_include(&versions, user.version)?;
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
    change.event.detail = json!({ "disabled": user.disabled_at.is_some(), "new_password": login.is_some() });
    match &login {
        // Renamed since the password was hashed with the salt of the address.
        Some(Login { email, is_renamed: false, .. }) if *email != user.email => {
            return Err(Fault::Busy.into());
        }
        Some(Login { email, hash, .. }) if *email != user.email => {
            lock_address(change, email, hash).await?;
            change.event.detail["email"] = email.as_str().into();
            change.event.detail["earlier_email"] = std::mem::replace(&mut user.email, email.clone()).into();
            // A link that was sent to the earlier address must not let anybody in.
            console::end_links_of(&mut change.tx, id).await?;
        }
        _ => {}
    }
    let hash = login.map(|login| login.hash);
    users::update(&mut change.tx, &user, hash.as_deref()).await.map_err(not_written)?;
    if hash.is_some() {
        users::unlock(&mut change.tx, id).await?;
    }
    if user.disabled_at.is_some() || hash.is_some() {
        console::end_sessions_of(&mut change.tx, id, None).await?;
    }
    user.version += 1;
    Ok(user)
}
