//! Finds the object that an argument names, by its id or by its name. If a name fits several objects, the error
//! lists their ids.

use anyhow::{bail, ensure};
use clap::Args;
use tollgate::domain::admin::{AdminToken, User};
use tollgate::domain::api_key::ApiKey;
use tollgate::domain::ids::{AdminTokenId, ApiKeyId, MerchantId, UserId};
use tollgate::domain::merchant::Merchant;

use super::CommandLine;

#[derive(Args, Clone)]
pub(crate) struct WhichKey {
    /// Id or name of the API key.
    key: String,
    /// Id or name of its merchant. Needed if keys of several merchants have this name.
    #[arg(long)]
    merchant: Option<String>,
}

impl WhichKey {
    /// A key of this merchant, by its id or name.
    pub(super) fn of(merchant: MerchantId, key: String) -> Self {
        Self { key, merchant: Some(merchant.to_string()) }
    }
}

#[derive(Args, Clone)]
pub(crate) struct WhichUser {
    /// Id or e-mail address of the user.
    user: String,
    /// Id or name of the user's merchant. Needed if the address has several users.
    #[arg(long)]
    merchant: Option<String>,
}

impl CommandLine {
    pub(super) async fn merchant(&self, text: &str) -> anyhow::Result<Merchant> {
        if let Ok(id) = text.parse::<MerchantId>() {
            return Ok(self.core.merchant(&self.principal, id).await?);
        }
        let found = self.core.merchants_called(&self.principal, text).await?;
        only(found, "merchant", text, |merchant| merchant.id.to_string())
    }

    pub(super) async fn merchant_if_any(&self, text: Option<&str>) -> anyhow::Result<Option<MerchantId>> {
        Ok(match text {
            Some(text) => Some(self.merchant(text).await?.id),
            None => None,
        })
    }

    /// A key. Among keys with the same name, those that are not revoked come first.
    pub(super) async fn key(&self, which: &WhichKey) -> anyhow::Result<ApiKey> {
        self.key_where(which, |key| key.revoked_at.is_none()).await
    }

    /// The same for a command that restores a key.
    pub(super) async fn revoked_key(&self, which: &WhichKey) -> anyhow::Result<ApiKey> {
        self.key_where(which, |key| key.revoked_at.is_some()).await
    }

    async fn key_where(&self, which: &WhichKey, better: impl Fn(&ApiKey) -> bool) -> anyhow::Result<ApiKey> {
        let merchant = self.merchant_if_any(which.merchant.as_deref()).await?;
        if let Ok(id) = which.key.parse::<ApiKeyId>() {
            let key = self.core.api_key(&self.principal, id).await?;
            ensure!(
                merchant.is_none_or(|id| id == key.merchant_id),
                "the API key {id} is of another merchant"
            );
            return Ok(key);
        }
        let found =
            preferred(self.core.api_keys_called(&self.principal, merchant, &which.key).await?, better);
        only(found, "API key", &which.key, |key| {
            let revoked = if key.revoked_at.is_some() { ", revoked" } else { "" };
            format!("{} (merchant {}{revoked})", key.id, key.merchant_id)
        })
    }

    /// A user. Among users of the same address, those that are not disabled come first.
    pub(super) async fn user(&self, which: &WhichUser) -> anyhow::Result<User> {
        self.user_where(which, |user| user.disabled_at.is_none()).await
    }

    /// The same for a command that enables a user.
    pub(super) async fn disabled_user(&self, which: &WhichUser) -> anyhow::Result<User> {
        self.user_where(which, |user| user.disabled_at.is_some()).await
    }

    async fn user_where(&self, which: &WhichUser, better: impl Fn(&User) -> bool) -> anyhow::Result<User> {
        let merchant = self.merchant_if_any(which.merchant.as_deref()).await?;
        if let Ok(id) = which.user.parse::<UserId>() {
            let user = self.core.user(&self.principal, id).await?;
            ensure!(
                merchant.is_none_or(|id| user.merchant_id == Some(id)),
                "the user {id} is of another merchant"
            );
            return Ok(user);
        }
        let mut found = self.core.users_by_email(&self.principal, &which.user).await?;
        found.retain(|user| merchant.is_none_or(|id| user.merchant_id == Some(id)));
        only(preferred(found, better), "user", &which.user, |user| {
            let whose = user.merchant_id.map_or("operator".to_owned(), |id| format!("merchant {id}"));
            let disabled = if user.disabled_at.is_some() { ", disabled" } else { "" };
            format!("{} ({whose}{disabled})", user.id)
        })
    }

    /// An admin token. Among tokens with the same name, those that work come first.
    pub(super) async fn token(&self, text: &str) -> anyhow::Result<AdminToken> {
        if let Ok(id) = text.parse::<AdminTokenId>() {
            return Ok(self.core.admin_token_by_id(&self.principal, id).await?);
        }
        let now = self.core.now();
        let found = self.core.admin_tokens_called(&self.principal, text).await?;
        only(preferred(found, |token| token.is_live(now)), "admin token", text, |token| {
            let ended = if token.is_live(now) { "" } else { ", ended" };
            format!("{} ({}{ended})", token.id, <&str>::from(token.role))
        })
    }
}

/// There is no object of this name.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Absent(String);
/// The better ones, if there are any.
fn preferred<T>(mut found: Vec<T>, better: impl Fn(&T) -> bool) -> Vec<T> {
    if found.iter().any(&better) {
        found.retain(better);
    }
    found
}

/// The object, if there is exactly one.
pub(super) fn only<T>(
    mut found: Vec<T>,
    what: &str,
    name: &str,
    id: impl Fn(&T) -> String,
) -> anyhow::Result<T> {
    match (found.pop(), found.len()) {
        (None, _) => Err(Absent(format!("there is no {what} {name:?}")).into()),
        (Some(only), 0) => Ok(only),
        (Some(last), others) => {
            found.push(last);
            let ids: Vec<_> = found.iter().map(id).collect();
            bail!("{} {what}s are called {name:?}: give the id of one: {}", others + 1, ids.join(", "))
        }
    }
}
