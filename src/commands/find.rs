//! Finds the object that an argument names, by its id or by its name. If a name fits several objects, the error
//! lists their ids.

use anyhow::{bail, ensure};
use clap::Args;
use tollgate::domain::admin::{AdminToken, User};
use tollgate::domain::api_key::ApiKey;
use tollgate::domain::ids::{AdminTokenId, ApiKeyId, MerchantId, UserId};
use tollgate::domain::merchant::Merchant;

use super::CommandLine;

/// How many tokens are read at a time to find one by its name.
const PAGE: i64 = 200;

#[derive(Args, Clone)]
pub(crate) struct WhichKey {
    /// Id or name of the API key.
    key: String,
    /// Id or name of its merchant. Needed if keys of several merchants have this name.
    #[arg(long)]
    merchant: Option<String>,
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

    pub(super) async fn key(&self, which: &WhichKey) -> anyhow::Result<ApiKey> {
        let merchant = self.merchant_if_any(which.merchant.as_deref()).await?;
        if let Ok(id) = which.key.parse::<ApiKeyId>() {
            let key = self.core.api_key(&self.principal, id).await?;
            ensure!(
                merchant.is_none_or(|id| id == key.merchant_id),
                "the API key {id} is of another merchant"
            );
            return Ok(key);
        }
        let found = self.core.api_keys_called(&self.principal, merchant, &which.key).await?;
        only(found, "API key", &which.key, |key| format!("{} (merchant {})", key.id, key.merchant_id))
    }

    pub(super) async fn user(&self, which: &WhichUser) -> anyhow::Result<User> {
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
        only(found, "user", &which.user, |user| match user.merchant_id {
            Some(merchant) => format!("{} (merchant {merchant})", user.id),
            None => format!("{} (operator)", user.id),
        })
    }

    pub(super) async fn token(&self, text: &str) -> anyhow::Result<AdminToken> {
        if let Ok(id) = text.parse::<AdminTokenId>() {
            return Ok(self.core.admin_token_by_id(&self.principal, id).await?);
        }
        let (mut before, mut found) = (None, Vec::new());
        loop {
            let page = self.core.admin_tokens(&self.principal, before, PAGE).await?;
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            found.extend(page.into_iter().filter(|token| token.name == text));
        }
        only(found, "admin token", text, |token| token.id.to_string())
    }
}

/// There is no object of this name.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Absent(String);

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
