//! Onboarding: makes all that a new merchant needs for its first call. Each step is a change of its own, with
//! its own audit event. After a run that failed or was interrupted, the next one finds what is there and makes
//! only what is missing. It changes nothing that somebody may have set on purpose.

use super::Core;
use super::error::{Error, Managed, Refused};
use super::idempotency::Answer;
use super::manage::check_name;
use super::manage_credentials::CredentialChanges;
use super::manage_keys::{ApiKeyChanges, NewApiKey, parse_allow_list};
use super::manage_merchants::NewMerchant;
use super::manage_users::{NewUser, check_email};
use super::principal::Principal;
use crate::domain::admin::{Role, User};
use crate::domain::api_key::ApiKey;
use crate::domain::credential::Credential;
use crate::domain::ids::ApiKeyId;
use crate::domain::licence::{Licence, Product};
use crate::domain::merchant::{Merchant, MerchantStatus};
use crate::domain::secret::PlainSecret;

#[derive(Debug)]
pub struct NewAccount {
    /// The merchant to complete. `None` makes one.
    pub existing: Option<Merchant>,
    pub merchant: NewMerchant,
    /// The key is known by its name and environment.
    pub key: NewApiKey,
    /// The e-mail address of the merchant's first user. `None` makes no user.
    pub admin_email: Option<String>,
}

/// What a step has done.
#[derive(Debug)]
pub struct Step {
    pub object: Object,
    /// False if it was there before this run.
    pub was_made: bool,
    /// Only what was just made still has its secret. That of a user is a one-time sign-in link, which a user
    /// who has signed in before does not get.
    pub secret: Option<PlainSecret>,
}

/// What a step is about, as it is now.
#[derive(Debug)]
pub enum Object {
    Merchant(Merchant),
    Licence(Product),
    Key(ApiKey),
    /// The key's allow list.
    Addresses(ApiKey),
    /// Left out if no webhook is wanted.
    Webhook(ApiKey),
    Client(Credential),
    /// Enhanced Security is ON.
    Switch(Credential),
    User(User),
}

impl Step {
    const fn new(object: Object, was_made: bool) -> Self {
        Self { object, was_made, secret: None }
    }

    const fn made(object: Object, secret: Option<PlainSecret>) -> Self {
        Self { object, was_made: true, secret }
    }
}

impl Core {
    /// Takes all steps, and calls `tell` after each one. An error of `tell` ends the run.
    pub async fn onboard<E: From<Error<Refused>>>(
        &self,
        principal: &Principal,
        new: NewAccount,
        mut tell: impl FnMut(Step) -> Result<(), E>,
    ) -> Result<(), E> {
        self.check_account(&new).map_err(Error::from)?;
        if new.key.webhook_url.is_some() {
            self.must_have_token_keys().await.map_err(Error::from)?;
        }
        let NewAccount { existing, merchant, key: wanted, admin_email } = new;
        let (merchant, was_made) = self.merchant_of_account(principal, existing, merchant).await?;
        tell(Step::new(Object::Merchant(merchant.clone()), was_made))?;
        for product in [Product::ApiKeys, Product::EnhancedSecurity] {
            let was_made = self.license(principal, &merchant, product).await?;
            tell(Step::new(Object::Licence(product), was_made))?;
        }
        let key = match self.key_of_account(principal, &merchant, &wanted).await? {
            Some(key) => {
                tell(Step::new(Object::Key(key.clone()), false))?;
                self.complete_key(principal, key, wanted, &mut tell).await?
            }
            None => self.new_key(principal, &merchant, wanted, &mut tell).await?,
        };
        let (client, secret) = self.client_of_account(principal, key).await?;
        let was_made = secret.is_some();
        tell(Step { object: Object::Client(client.clone()), was_made, secret })?;
        let was_off = !client.enabled;
        tell(Step::new(Object::Switch(self.switch_on(principal, client).await?), was_off))?;
        match admin_email {
            Some(email) => tell(self.first_user(principal, &merchant, &email).await?),
            None => Ok(()),
        }
    }

    /// Finds mistakes before the first step, so that no half of an account is made because of them.
    fn check_account(&self, new: &NewAccount) -> Result<(), Refused> {
        check_name("name", &new.merchant.name)?;
        check_name("gateway", &new.merchant.gateway)?;
        check_name("key name", &new.key.name)?;
        parse_allow_list(&new.key.allowed_ips)?;
        new.key.webhook_url.as_deref().map(|url| self.check_webhook_url(url)).transpose()?;
        new.admin_email.as_deref().map(check_email).transpose().map(drop)
    }

    async fn merchant_of_account(
        &self,
        principal: &Principal,
        existing: Option<Merchant>,
        new: NewMerchant,
    ) -> Managed<(Merchant, bool)> {
        match existing {
            None => Ok((made(self.create_merchant(principal, new).await?)?, true)),
            Some(merchant) if merchant.status == MerchantStatus::Suspended => {
                Err(stopped("the merchant is suspended; restore it first"))
            }
            Some(merchant) if merchant.gateway != new.gateway => {
                Err(stopped(format!("the merchant has the gateway {:?}", merchant.gateway)))
            }
            Some(merchant) => Ok((merchant, false)),
        }
    }

    /// Grants a licence that was never granted. Returns whether it did.
    async fn license(&self, principal: &Principal, merchant: &Merchant, product: Product) -> Managed<bool> {
        match merchant.licences.of(product) {
            None => {
                let licence = Licence { active: true, expires_at: None };
                self.put_licence(principal, merchant.id, product, licence).await?;
                Ok(true)
            }
            Some(licence) if licence.is_good(self.now()) => Ok(false),
            // Somebody ended it, or it has run out. Granting it again is a decision of its own.
            Some(_) => Err(Refused::NotLicensed(product).into()),
        }
    }

    /// The key of an earlier run: one that works, with this name and environment.
    async fn key_of_account(
        &self,
        principal: &Principal,
        merchant: &Merchant,
        wanted: &NewApiKey,
    ) -> Managed<Option<ApiKey>> {
        let now = self.now();
        let mut found = self.api_keys_called(principal, Some(merchant.id), &wanted.name).await?;
        found.retain(|key| {
            key.environment == wanted.environment && key.revoked_at.is_none() && !key.is_expired(now)
        });
        let key = found.pop();
        if found.is_empty() {
            return Ok(key);
        }
        Err(stopped(format!("{} API keys are called {:?}", found.len() + 1, wanted.name)))
    }

    async fn new_key<E: From<Error<Refused>>>(
        &self,
        principal: &Principal,
        merchant: &Merchant,
        wanted: NewApiKey,
        tell: &mut impl FnMut(Step) -> Result<(), E>,
    ) -> Result<ApiKeyId, E> {
        let made_key = self.create_api_key(principal, merchant.id, wanted).await?;
        let made_key = made(made_key).map_err(Error::from)?;
        let key = made_key.object;
        tell(Step::made(Object::Key(key.clone()), Some(made_key.secret)))?;
        tell(Step::made(Object::Addresses(key.clone()), None))?;
        let id = key.id;
        if made_key.webhook_secret.is_some() {
            tell(Step::made(Object::Webhook(key), made_key.webhook_secret))?;
        }
        Ok(id)
    }

    /// Gives a key that was found the addresses and the webhook that are wanted, if it has none.
    async fn complete_key<E: From<Error<Refused>>>(
        &self,
        principal: &Principal,
        mut key: ApiKey,
        wanted: NewApiKey,
        tell: &mut impl FnMut(Step) -> Result<(), E>,
    ) -> Result<ApiKeyId, E> {
        let allow_list = parse_allow_list(&wanted.allowed_ips).map_err(Error::from)?;
        let is_missing = key.allow_list.ranges().is_empty() && !allow_list.ranges().is_empty();
        if is_missing {
            let allowed_ips = Some(wanted.allowed_ips);
            let changes = ApiKeyChanges { allowed_ips, ..ApiKeyChanges::default() };
            key = self.update_api_key(principal, key.id, Some(vec![key.version]), changes).await?.object;
        } else if !allow_list.ranges().is_empty() && allow_list != key.allow_list {
            let has = key.allow_list.to_strings().join(", ");
            return Err(stopped(format!("the API key has other allowed addresses: {has}")).into());
        }
        tell(Step::new(Object::Addresses(key.clone()), is_missing))?;
        match (wanted.webhook_url, key.webhook_url.clone()) {
            (None, _) => {}
            (Some(url), Some(has)) if url == has => tell(Step::new(Object::Webhook(key.clone()), false))?,
            (Some(_), Some(has)) => {
                return Err(stopped(format!("the API key has another webhook URL: {has}")).into());
            }
            (Some(url), None) => {
                let changes = ApiKeyChanges { webhook_url: Some(Some(url)), ..ApiKeyChanges::default() };
                let changed =
                    self.update_api_key(principal, key.id, Some(vec![key.version]), changes).await?;
                tell(Step::made(Object::Webhook(changed.object), changed.webhook_secret))?;
            }
        }
        Ok(key.id)
    }

    /// The key's credentials, with their secret if they are new: those that are switched ON, else the newest.
    async fn client_of_account(
        &self,
        principal: &Principal,
        key: ApiKeyId,
    ) -> Managed<(Credential, Option<PlainSecret>)> {
        let found = self.credentials(principal, key).await?;
        if let Some(best) = found.iter().find(|one| one.enabled).or_else(|| found.first()) {
            return Ok((best.clone(), None));
        }
        let client = made(self.generate_credentials(principal, key, None).await?)?;
        Ok((client.object, Some(client.secret)))
    }

    async fn switch_on(&self, principal: &Principal, client: Credential) -> Managed<Credential> {
        if client.enabled {
            return Ok(client);
        }
        // Each OFF begins another epoch. Somebody may have switched it OFF because its secret leaked.
        if client.epoch > 1 {
            return Err(stopped(format!(
                "the credentials {} were switched OFF; switch them ON first",
                client.client_id
            )));
        }
        let on = CredentialChanges::switch(true);
        self.update_credentials(principal, &client.client_id, None, on).await
    }

    async fn first_user(&self, principal: &Principal, merchant: &Merchant, email: &str) -> Managed<Step> {
        let found = self.users_by_email(principal, email).await?;
        let found = found.into_iter().find(|user| user.merchant_id == Some(merchant.id));
        let was_made = found.is_none();
        let user = match found {
            Some(user) if user.disabled_at.is_some() => {
                return Err(stopped(format!("the user {} is disabled; restore them first", user.email)));
            }
            Some(user) if user.role != Role::MerchantAdmin => {
                return Err(stopped(format!("the user {} is no administrator", user.email)));
            }
            Some(user) => user,
            None => {
                // A random password that nobody knows. The user signs in with the link and sets their own.
                let password = PlainSecret::console(&self.entropy);
                let (email, merchant_id) = (email.to_owned(), Some(merchant.id));
                let new = NewUser { email, role: Role::MerchantAdmin, merchant_id, password };
                made(self.create_user(principal, new).await?)?
            }
        };
        let link = match user.last_login_at {
            Some(_) => None,
            None => Some(self.make_sign_in_link(principal, user.id).await?),
        };
        Ok(Step { object: Object::User(user), was_made, secret: link })
    }
}

/// The run cannot go on until somebody decides about this.
fn stopped(why: impl Into<String>) -> Error<Refused> {
    Refused::Conflict(why.into()).into()
}

fn made<T>(answer: Answer<T>) -> Result<T, Refused> {
    // Only a call with an `Idempotency-Key` can be a repetition, and it would repeat the first step.
    answer.made().ok_or_else(|| Refused::Conflict("it was made before".to_owned()))
}
