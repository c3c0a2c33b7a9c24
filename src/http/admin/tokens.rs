//! Admin tokens.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{Creation, created, json_bytes};
use super::page::{Page, PageQuery, Path, Query, Wanted};
use super::secrets::Rotation;
use crate::domain::admin::{AdminToken, Permission, Role};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{AdminTokenId, MerchantId};
use crate::flows::idempotency::Rendered;
use crate::flows::manage_keys::WithSecret;
use crate::flows::manage_tokens::NewAdminToken;
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::error::Failure;

#[derive(Serialize, ToSchema)]
pub struct TokenView {
    id: AdminTokenId,
    name: String,
    role: Role,
    merchant_id: Option<MerchantId>,
    permissions: Vec<Permission>,
    /// Addresses and CIDR ranges that it may be used from; empty means any address.
    allowed_ips: Vec<String>,
    /// When the previous secret stops working; null while that is not known.
    earlier_secret_ends_at: Option<Timestamp>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
}

impl From<&AdminToken> for TokenView {
    fn from(token: &AdminToken) -> Self {
        Self {
            id: token.id,
            name: token.name.clone(),
            role: token.role,
            merchant_id: token.merchant_id,
            permissions: token.permissions.clone(),
            allowed_ips: token.allow_list.to_strings(),
            earlier_secret_ends_at: token.overlap.and_then(|overlap| overlap.earlier_ends_at),
            created_at: token.created_at,
            expires_at: token.expires_at,
            revoked_at: token.revoked_at,
            last_used_at: token.last_used_at,
        }
    }
}

/// An admin token, which is shown only once.
#[derive(Serialize, ToSchema)]
pub struct TokenCreated {
    /// `tga_` and 43 characters of base64url.
    token: String,
    #[serde(flatten)]
    view: TokenView,
}

impl Rendered for WithSecret<AdminToken> {
    fn body(&self) -> Vec<u8> {
        json_bytes(&TokenCreated { token: self.secret.expose().to_owned(), view: (&self.object).into() })
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    name: String,
    role: Role,
    /// For the merchant roles, and for a service token of one merchant.
    merchant_id: Option<MerchantId>,
    /// For service tokens. Other roles can only have `introspect`.
    #[serde(default)]
    permissions: Vec<Permission>,
    /// Addresses and CIDR ranges, at most 100; empty means any address.
    #[serde(default)]
    allowed_ips: Vec<String>,
    expires_at: Option<Timestamp>,
}

/// Make an admin token.
#[utoipa::path(post, path = "/admin/v1/tokens", tag = "admin tokens", request_body = NewToken,
    params(("Idempotency-Key" = Option<String>, Header)), responses((status = 201, body = TokenCreated)))]
pub async fn create(
    State(shared): State<Arc<Shared>>,
    Creation { body, principal }: Creation<NewToken>,
) -> Result<Response, Failure> {
    let new = NewAdminToken {
        name: body.name,
        role: body.role,
        merchant_id: body.merchant_id,
        permissions: body.permissions,
        allowed_ips: body.allowed_ips,
        expires_at: body.expires_at,
    };
    let answer = shared.core.create_admin_token(&principal, new).await?;
    Ok(created(answer))
}

/// List admin tokens, newest first.
#[utoipa::path(get, path = "/admin/v1/tokens", tag = "admin tokens", params(PageQuery),
    responses((status = 200, body = Page<TokenView>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Query(page): Query<PageQuery>,
) -> Result<axum::Json<Page<TokenView>>, Failure> {
    let wanted = Wanted::new(&shared.core, "tokens".to_owned(), page)?;
    let found = shared.core.admin_tokens(&principal, wanted.before, wanted.to_read()).await?;
    Ok(axum::Json(wanted.page(found, |token| token.id, |token| TokenView::from(&token))))
}

/// Give an admin token a new secret.
#[utoipa::path(post, path = "/admin/v1/tokens/{id}/rotate", tag = "people and tokens", request_body = Rotation,
    params(("id" = AdminTokenId, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = TokenCreated)))]
pub async fn rotate(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<AdminTokenId>,
    Creation { body, principal }: Creation<Rotation>,
) -> Result<Response, Failure> {
    let answer = shared.core.rotate_admin_token(&principal, id, body.overlap_secs).await?;
    Ok(created(answer))
}

/// Revoke an admin token at once.
#[utoipa::path(delete, path = "/admin/v1/tokens/{id}", tag = "admin tokens",
    params(("id" = AdminTokenId, Path)), responses((status = 204)))]
pub async fn revoke(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<AdminTokenId>,
) -> Result<StatusCode, Failure> {
    shared.core.revoke_admin_token(&principal, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
