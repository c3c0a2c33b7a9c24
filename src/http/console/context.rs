//! What every screen needs: the signed-in user, the principal, and the merchant in the path.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::cells::{Answers, OtherCells};
use super::guard::origin;
use super::page::{Page, Screen};
use crate::domain::admin::Role;
use crate::domain::api_key::ApiKey;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, MerchantId};
use crate::domain::licence::Product;
use crate::domain::merchant::Merchant;
use crate::flows::Core;
use crate::flows::console_session::SignedIn;
use crate::flows::error::Refused;
use crate::flows::idempotency::IdempotencyKey;
use crate::flows::live::{Live, Whose};
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::context::RequestContext;
use crate::http::error::Failure;

/// A request of a signed-in user.
pub(super) struct UserContext {
    pub(super) shared: Arc<Shared>,
    pub(super) who: SignedIn,
    pub(super) principal: Principal,
    pub(super) now: Timestamp,
}

impl FromRequestParts<Arc<Shared>> for UserContext {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Failure> {
        let who = parts.extensions.get::<SignedIn>().cloned();
        let who = who.ok_or_else(|| Failure::fault("a screen outside the sign-in layer"))?;
        let context = RequestContext::from_request_parts(parts, shared).await?;
        let principal = shared.core.by_user(&who, origin(&context));
        Ok(Self { principal, who, now: shared.core.now(), shared: Arc::clone(shared) })
    }
}

impl UserContext {
    pub(super) fn core(&self) -> &Core {
        &self.shared.core
    }

    pub(super) fn is_operator(&self) -> bool {
        self.who.user.role == Role::Operator
    }

    pub(super) fn page(&self, title: &'static str, screen: Screen) -> Page {
        Page::new(title, screen, &self.who, None)
    }

    /// The names of the other cells that lists span.
    pub(super) fn other_cells(&self) -> Vec<&str> {
        self.shared.other_cells.iter().flat_map(OtherCells::names).collect()
    }

    /// Asks the other cells for their part of a list, if the settings name any.
    pub(super) async fn ask_other_cells<T: DeserializeOwned>(
        &self,
        path: impl Fn(&str) -> String,
    ) -> Answers<T> {
        match &self.shared.other_cells {
            Some(cells) => cells.ask(self.principal.request_id.as_deref().unwrap_or_default(), path).await,
            None => Answers::default(),
        }
    }

    /// A new name for a form that creates something. If the form is sent twice, it creates one object.
    pub(super) fn new_once(&self) -> String {
        hex::encode(self.core().entropy.bytes::<16>())
    }

    /// Who is signed in, for what a form makes once however often it is sent.
    pub(super) fn once(&self, name: &str, what: &str, object: Uuid) -> Principal {
        self.principal.clone().with_idempotency(self.once_key(name, what, object))
    }

    /// The key under which the answer to a form is stored. It depends on the user, the purpose and the
    /// object.
    pub(super) fn once_key(&self, name: &str, what: &str, object: Uuid) -> Option<IdempotencyKey> {
        use sha2::{Digest, Sha256};
        let is_ours = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_ours.then(|| IdempotencyKey {
            actor: self.who.user.id.uuid(),
            key: format!("console {name}"),
            request_hash: Sha256::new().chain_update(what).chain_update(object).finalize().into(),
        })
    }
}

/// A request about the merchant in the path. If the user may not see the merchant, the answer is 404.
pub(super) struct MerchantContext {
    pub(super) context: UserContext,
    pub(super) merchant: Merchant,
}

impl FromRequestParts<Arc<Shared>> for MerchantContext {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Failure> {
        let not_found = || Failure::from(Refused::NotFound);
        let params = RawPathParams::from_request_parts(parts, shared).await.map_err(|_| not_found())?;
        let id = params.iter().find(|(name, _)| *name == "merchant").map(|(_, value)| value.to_owned());
        let id: MerchantId = id.and_then(|id| id.parse().ok()).ok_or_else(not_found)?;
        let context = UserContext::from_request_parts(parts, shared).await?;
        let merchant = context.core().merchant(&context.principal, id).await?;
        Ok(Self { context, merchant })
    }
}

impl MerchantContext {
    pub(super) const fn id(&self) -> MerchantId {
        self.merchant.id
    }

    /// The path of one of this merchant's screens.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/console/m/{}{rest}", self.id())
    }

    pub(super) fn page(&self, title: &'static str, screen: Screen) -> Page {
        Page::new(title, screen, &self.context.who, Some(&self.merchant))
    }

    /// Whether to show buttons that change something. The flows still check every change.
    pub(super) fn may_change(&self) -> bool {
        self.context.who.user.role != Role::MerchantViewer
    }

    pub(super) fn is_licensed(&self, product: Product) -> bool {
        self.merchant.licences.is_good(product, self.context.now)
    }

    /// What is live for this merchant, or for a part of it.
    pub(super) async fn live(&self, whose: Whose) -> Result<Live, Failure> {
        Ok(self.context.core().live(&self.context.principal, self.id(), whose).await?)
    }

    /// A key of this merchant. The key of another merchant is 404.
    pub(super) async fn key(&self, id: ApiKeyId) -> Result<ApiKey, Failure> {
        let key = self.context.core().api_key(&self.context.principal, id).await?;
        if key.merchant_id == self.id() { Ok(key) } else { Err(Refused::NotFound.into()) }
    }
}
