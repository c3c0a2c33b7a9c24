//! Onboarding: makes all that a new merchant needs for its first call. Each step is a change of its own, with
//! its own audit event.

use super::Core;
use super::error::{Managed, Refused};
use super::idempotency::Answer;
use super::manage::check_name;
use super::manage_credentials::CredentialChanges;
use super::manage_keys::{MadeApiKey, NewApiKey, WithSecret, parse_allow_list};
use super::manage_merchants::NewMerchant;
use super::manage_users::{NewUser, check_email};
use super::principal::Principal;
use crate::domain::admin::{Role, User};
use crate::domain::credential::Credential;
use crate::domain::licence::{Licence, Product};
use crate::domain::merchant::Merchant;
use crate::domain::secret::PlainSecret;

#[derive(Debug)]
pub struct NewAccount {
    pub merchant: NewMerchant,
    pub key: NewApiKey,
    /// The e-mail address of the merchant's first user. `None` makes no user.
    pub admin_email: Option<String>,
}

/// A merchant with both licences, a key, credentials that are switched ON, and a user.
#[derive(Debug)]
pub struct Account {
    pub merchant: Merchant,
    pub key: MadeApiKey,
    pub client: WithSecret<Credential>,
    /// The user, and the secret of a one-time sign-in link.
    pub admin: Option<(User, PlainSecret)>,
}

impl Core {
    pub async fn onboard(&self, principal: &Principal, new: NewAccount) -> Managed<Account> {
        check(&new)?;
        let NewAccount { merchant, key, admin_email } = new;
        let merchant = made(self.create_merchant(principal, merchant).await?)?;
        for product in [Product::ApiKeys, Product::EnhancedSecurity] {
            let licence = Licence { active: true, expires_at: None };
            self.put_licence(principal, merchant.id, product, licence).await?;
        }
        let key = made(self.create_api_key(principal, merchant.id, key).await?)?;
        let mut client = made(self.generate_credentials(principal, key.object.id, None).await?)?;
        let on = CredentialChanges::switch(true);
        client.object = self.update_credentials(principal, &client.object.client_id, None, on).await?;
        let admin = match admin_email {
            Some(email) => Some(self.first_user(principal, &merchant, email).await?),
            None => None,
        };
        Ok(Account { merchant: self.merchant(principal, merchant.id).await?, key, client, admin })
    }

    async fn first_user(
        &self,
        principal: &Principal,
        merchant: &Merchant,
        email: String,
    ) -> Managed<(User, PlainSecret)> {
        // A random password that nobody knows. The user signs in with the link and sets their own.
        let password = PlainSecret::console(&self.entropy);
        let new = NewUser { email, role: Role::MerchantAdmin, merchant_id: Some(merchant.id), password };
        let user = made(self.create_user(principal, new).await?)?;
        let link = self.make_sign_in_link(principal, user.id).await?;
        Ok((user, link))
    }
}

/// Finds mistakes before the first step, so that no half of an account is made because of them.
fn check(new: &NewAccount) -> Result<(), Refused> {
    check_name("name", &new.merchant.name)?;
    check_name("gateway", &new.merchant.gateway)?;
    check_name("key name", &new.key.name)?;
    parse_allow_list(&new.key.allowed_ips)?;
    new.admin_email.as_deref().map(check_email).transpose().map(drop)
}

fn made<T>(answer: Answer<T>) -> Result<T, Refused> {
    // Only a call with an `Idempotency-Key` can be a repetition, and it would repeat the first step.
    answer.made().ok_or_else(|| Refused::Conflict("it was made before".to_owned()))
}
