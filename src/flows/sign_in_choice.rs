//! Chooses a user after a sign-in whose password fits several users of one e-mail address.
//!
//! The page that asks contains the users, sealed. The choice must be made within a few minutes, and is refused if
//! the user was changed in the meantime. The page names the merchants. Only somebody who knows the password of a
//! user of each of them sees it.

use serde::{Deserialize, Serialize};

use super::Core;
use super::error::Fault;
use super::principal::Origin;
use super::sign_in::SignIn;
use crate::domain::admin::Role;
use crate::domain::clock::Timestamp;
use crate::domain::console::SECOND_FACTOR_WITHIN;
use crate::domain::ids::UserId;
use crate::domain::keyring::Purpose;
use crate::domain::secret::PlainSecret;
use crate::store::attempts::Attempt;
use crate::store::{StoreError, merchants, users};

/// Users to choose from. Their ids have to fit into a form.
const CHOICES_MAX: usize = 50;

/// The users that the password was right for.
#[derive(Debug)]
pub struct Choices {
    /// For [`Core::sign_in_as`].
    pub sealed: PlainSecret,
    pub users: Vec<Choice>,
}

#[derive(Debug)]
pub struct Choice {
    pub user: UserId,
    pub role: Role,
    /// The merchant's name; `None` for the platform.
    pub merchant: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Sealed {
    until: Timestamp,
    /// With their versions. A new password changes the version, so the choice is then refused.
    users: Vec<(UserId, i64)>,
}

impl Core {
    pub(super) async fn choices(&self, right: &[Attempt]) -> Result<Choices, StoreError> {
        let mut db = self.store.read().await?;
        let mut choices = Vec::new();
        for attempt in right.iter().take(CHOICES_MAX) {
            let Some(user) = users::by_id(&mut db, attempt.user).await? else { continue };
            let merchant = match user.merchant_id {
                Some(id) => merchants::by_id(&mut db, id).await?.map(|merchant| merchant.name),
                None => None,
            };
            choices.push(Choice { user: user.id, role: user.role, merchant });
        }
        choices.sort_by(|one, other| one.merchant.cmp(&other.merchant));
        let users = right.iter().take(CHOICES_MAX).map(|attempt| (attempt.user, attempt.version)).collect();
        let sealed = Sealed { until: self.now().plus(SECOND_FACTOR_WITHIN), users };
        let plain = serde_json::to_vec(&sealed)
            .map_err(|error| StoreError::Impossible { table: "users", what: error.to_string() })?;
        let sealed = self.keyring.seal(Purpose::SignInChoice, &[], &plain, &self.entropy);
        Ok(Choices { sealed: PlainSecret::new(hex::encode(sealed)), users: choices })
    }

    /// Signs in as one of the users that [`Choices`] offered.
    pub async fn sign_in_as(
        &self,
        sealed: &PlainSecret,
        user: UserId,
        origin: &Origin,
    ) -> Result<SignIn, Fault> {
        let found = match self.offered(sealed, user) {
            Some(version) => users::by_id(&mut self.store.read().await?, user)
                .await?
                .filter(|user| user.version == version && user.disabled_at.is_none()),
            None => None,
        };
        match found {
            Some(user) => self.let_in(user.id, user.has_totp, origin).await,
            None => Ok(self.refuse(None, "not among the users to choose from, or too late", origin)),
        }
    }

    /// The version of a user that was offered.
    fn offered(&self, sealed: &PlainSecret, user: UserId) -> Option<i64> {
        let sealed = hex::decode(sealed.expose()).ok()?;
        let plain = self.keyring.open(Purpose::SignInChoice, &[], &sealed)?;
        let Sealed { until, users } = serde_json::from_slice(&plain).ok()?;
        let is_in_time = self.now() < until;
        users.into_iter().find(|(id, _)| is_in_time && *id == user).map(|(_, version)| version)
    }
}
