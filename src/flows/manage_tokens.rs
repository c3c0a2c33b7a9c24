//! Managing admin tokens. They are shown once and stored as a hash.

use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Core;
use super::error::{Managed, Refused};
use super::idempotency::Answer;
use super::manage::{Change, check_expiry, check_name};
use super::manage_keys::WithSecret;
use super::manage_keys::parse_allow_list;
use super::principal::Principal;
use super::rotation::check_overlap;
use crate::domain::admin::{AdminToken, Permission, Role, TokenOverlap};
use crate::domain::clock::Timestamp;
use crate::domain::event::EventType;
use crate::domain::ids::{AdminTokenId, MerchantId};
use crate::domain::secret::PlainSecret;
use crate::store::{StoreError, admin_tokens, merchants};

/// The most live tokens of one merchant.
pub const TOKENS_MAX: i64 = 200;

#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewToken)]
pub struct NewAdminToken {
    pub name: String,
    pub role: Role,
    /// For the merchant roles, and for a service token of one merchant.
    pub merchant_id: Option<MerchantId>,
    /// For service tokens. Other roles can only have `introspect`.
    #[serde(default)]
    pub permissions: Vec<Permission>,
    /// Addresses and CIDR ranges, at most 100; empty means any address.
    #[serde(default)]
    pub allowed_ips: Vec<String>,
    pub expires_at: Option<Timestamp>,
}

impl Core {
    /// Makes an admin token. Operators can make tokens of every role, merchant admins only for their own
    /// merchant.
    pub async fn create_admin_token(
        &self,
        principal: &Principal,
        new: NewAdminToken,
    ) -> Managed<Answer<WithSecret<AdminToken>>> {
        self.create(principal, EventType::AdminTokenCreated, async |change| create(change, new).await).await
    }

    /// The tokens that the principal may see, newest first.
    pub async fn admin_tokens(
        &self,
        principal: &Principal,
        before: Option<AdminTokenId>,
        limit: i64,
    ) -> Result<Vec<AdminToken>, StoreError> {
        admin_tokens::list(&mut self.store.read().await?, principal.merchant_id, before, limit).await
    }

    /// A token that the principal may see, live or not.
    pub async fn admin_token_by_id(&self, principal: &Principal, id: AdminTokenId) -> Managed<AdminToken> {
        let found = admin_tokens::by_id(&mut self.store.read().await?, id).await?;
        let may_see = |token: &AdminToken| {
            principal.merchant_id.is_none() || principal.merchant_id == token.merchant_id
        };
        Ok(found.filter(may_see).ok_or(Refused::NotFound)?)
    }

    /// All tokens with exactly this name, including revoked ones. Only for operators.
    pub async fn admin_tokens_called(&self, principal: &Principal, name: &str) -> Managed<Vec<AdminToken>> {
        principal.must_be_operator()?;
        Ok(admin_tokens::called(&mut self.store.read().await?, name).await?)
    }

    pub async fn rename_admin_token(
        &self,
        principal: &Principal,
        id: AdminTokenId,
        name: String,
    ) -> Managed<AdminToken> {
        self.change(principal, EventType::AdminTokenUpdated, async |change| {
            let mut token = changeable_token(change, id).await?;
            check_name("name", &name)?;
            if !token.is_live(change.event.at) {
                return Err(ended().into());
            }
            admin_tokens::rename(&mut change.tx, id, &name).await?;
            change.event.detail = json!({ "name": name, "earlier_name": token.name });
            token.name = name;
            Ok(token)
        })
        .await
    }

    /// Gives a token a new secret. The previous one ends `overlap_secs` after its first use.
    pub async fn rotate_admin_token(
        &self,
        principal: &Principal,
        id: AdminTokenId,
        overlap_secs: i64,
    ) -> Managed<Answer<WithSecret<AdminToken>>> {
        self.create(principal, EventType::AdminTokenRotated, async |change| {
            rotate(change, id, overlap_secs).await
        })
        .await
    }

    pub async fn revoke_admin_token(&self, principal: &Principal, id: AdminTokenId) -> Managed<()> {
        self.change(principal, EventType::AdminTokenRevoked, async |change| {
            changeable_token(change, id).await?;
            admin_tokens::revoke(&mut change.tx, id, change.event.at).await?;
            Ok(())
        })
        .await
    }
}

async fn create(change: &mut Change<'_>, new: NewAdminToken) -> Managed<WithSecret<AdminToken>> {
    let now = change.event.at;
    change.principal.may_let_in()?;
    check_role(change, new.role, new.merchant_id).await?;
    check_permissions(change.principal, new.role, &new.permissions)?;
    check_name("name", &new.name)?;
    check_expiry(new.expires_at, now)?;
    if let Some(merchant) = new.merchant_id {
        change.lock_merchant(merchant).await?;
        if admin_tokens::count_live(&mut change.tx, merchant, now).await? >= TOKENS_MAX {
            let detail = format!("the merchant has {TOKENS_MAX} tokens; revoke one first");
            return Err(Refused::Conflict(detail).into());
        }
    }
    let plain = PlainSecret::admin_token(&change.core.entropy);
    let token = AdminToken {
        id: AdminTokenId::generate(now, &change.core.entropy),
        name: new.name,
        role: new.role,
        merchant_id: new.merchant_id,
        permissions: new.permissions,
        allow_list: parse_allow_list(&new.allowed_ips)?,
        overlap: None,
        created_at: now,
        expires_at: new.expires_at,
        revoked_at: None,
        last_used_at: None,
    };
    admin_tokens::insert(&mut change.tx, &token, plain.hash()).await?;
    change.concerns(token.merchant_id, token.id);
    change.event.detail = json!({
        "name": token.name, "role": token.role, "permissions": token.permissions,
        "allowed_ips": token.allow_list.to_strings(),
    });
    Ok(WithSecret { object: token, secret: plain })
}

/// The token, if the principal may change it. Also sets it in the audit event.
async fn changeable_token(change: &mut Change<'_>, id: AdminTokenId) -> Managed<AdminToken> {
    change.concerns(None, id);
    let token = admin_tokens::by_id(&mut change.tx, id).await?.ok_or(Refused::NotFound)?;
    may_change_of(change.principal, token.merchant_id)?;
    change.event.merchant_id = token.merchant_id;
    Ok(token)
}

fn ended() -> Refused {
    Refused::Conflict("the token has ended".to_owned())
}

async fn rotate(
    change: &mut Change<'_>,
    id: AdminTokenId,
    overlap_secs: i64,
) -> Managed<WithSecret<AdminToken>> {
    change.concerns(None, id);
    change.principal.may_let_in()?;
    check_overlap(overlap_secs)?;
    let mut token = changeable_token(change, id).await?;
    // The principal gets the new secret, so it must itself have the token's permissions.
    check_permissions(change.principal, token.role, &token.permissions)?;
    let now = change.event.at;
    if !token.is_live(now) {
        return Err(ended().into());
    }
    let ends_at = token.overlap.and_then(|overlap| overlap.earlier_ends_at);
    if ends_at.is_some_and(|end| now < end) {
        return Err(Refused::Conflict("the previous secret of the token still works".to_owned()).into());
    }
    let plain = PlainSecret::admin_token(&change.core.entropy);
    admin_tokens::rotate(&mut change.tx, id, plain.hash(), overlap_secs).await?;
    token.overlap = Some(TokenOverlap { secs: overlap_secs, earlier_ends_at: None });
    change.event.detail = json!({ "overlap_secs": overlap_secs });
    Ok(WithSecret { object: token, secret: plain })
}

/// Whether the principal may change tokens and users of this merchant. `None` means the platform.
pub(super) fn may_change_of(principal: &Principal, merchant: Option<MerchantId>) -> Result<(), Refused> {
    match merchant {
        Some(merchant) => principal.may_change(merchant),
        None if principal.role == Role::Operator => Ok(()),
        None => Err(Refused::NotFound),
    }
}

/// Whether the principal may give a token of this role these permissions. It must have them itself.
fn check_permissions(principal: &Principal, role: Role, permissions: &[Permission]) -> Result<(), Refused> {
    if role == Role::Service && permissions.is_empty() {
        return Err(Refused::invalid("permissions", "a service token needs at least one"));
    }
    if role != Role::Service && permissions.iter().any(|one| *one != Permission::Introspect) {
        return Err(Refused::invalid("permissions", "are for the role `service`"));
    }
    if permissions.iter().any(|one| one.is_of_platform()) { principal.must_be_operator() } else { Ok(()) }
}

/// Whether the principal may give this role, for this merchant if there is one.
pub(super) fn may_give(
    principal: &Principal,
    role: Role,
    merchant: Option<MerchantId>,
) -> Result<(), Refused> {
    match (role, merchant) {
        (Role::Operator, Some(_)) => Err(Refused::invalid("merchant_id", "an operator has no merchant")),
        (Role::Operator | Role::Service, None) => principal.must_be_operator(),
        (Role::MerchantAdmin | Role::MerchantViewer, None) => {
            Err(Refused::invalid("merchant_id", "this role needs a merchant"))
        }
        (Role::MerchantAdmin | Role::MerchantViewer | Role::Service, Some(merchant)) => {
            principal.may_change(merchant)
        }
    }
}

/// The same, and the merchant must exist.
pub(super) async fn check_role(
    change: &mut Change<'_>,
    role: Role,
    merchant: Option<MerchantId>,
) -> Managed<()> {
    may_give(change.principal, role, merchant)?;
    match merchant {
        Some(merchant) if merchants::by_id(&mut change.tx, merchant).await?.is_none() => {
            Err(Refused::invalid("merchant_id", "there is no such merchant").into())
        }
        _ => Ok(()),
    }
}
