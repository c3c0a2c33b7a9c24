//! Admin tokens.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{Creation, Json, created, json_bytes};
use super::page::{Page, PageQuery, Path, Query, Wanted};
use super::secrets::Rotation;
use crate::domain::admin::AdminToken;
use crate::domain::ids::AdminTokenId;
use crate::flows::idempotency::Rendered;
use crate::flows::manage_keys::WithSecret;
use crate::flows::manage_tokens::NewAdminToken;
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::error::Failure;

/// An admin token, which is shown only once.
#[derive(Serialize, ToSchema)]
pub struct TokenCreated {
    /// `tga_` and 43 characters of base64url.
    token: String,
    #[serde(flatten)]
    view: AdminToken,
}

impl Rendered for WithSecret<AdminToken> {
    fn body(&self) -> Vec<u8> {
        json_bytes(&TokenCreated { token: self.secret.expose().to_owned(), view: self.object.clone() })
    }
}

/// Make an admin token.
#[utoipa::path(post, path = "/admin/v1/tokens", tag = "admin tokens", request_body = NewAdminToken,
    params(("Idempotency-Key" = Option<String>, Header)), responses((status = 201, body = TokenCreated)))]
pub async fn create(
    State(shared): State<Arc<Shared>>,
    Creation { body, principal }: Creation<NewAdminToken>,
) -> Result<Response, Failure> {
    let answer = shared.core.create_admin_token(&principal, body).await?;
    Ok(created(answer))
}

/// List admin tokens, newest first.
#[utoipa::path(get, path = "/admin/v1/tokens", tag = "admin tokens", params(PageQuery),
    responses((status = 200, body = Page<AdminToken>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Query(page): Query<PageQuery>,
) -> Result<axum::Json<Page<AdminToken>>, Failure> {
    let wanted = Wanted::new(&shared.core, "tokens".to_owned(), page)?;
    let found = shared.core.admin_tokens(&principal, wanted.before, wanted.to_read()).await?;
    Ok(axum::Json(wanted.page(found, |token| token.id, |token| token)))
}

/// Show an admin token.
#[utoipa::path(get, path = "/admin/v1/tokens/{id}", tag = "admin tokens", params(("id" = AdminTokenId, Path)),
    responses((status = 200, body = AdminToken)))]
pub async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<AdminTokenId>,
) -> Result<axum::Json<AdminToken>, Failure> {
    Ok(axum::Json(shared.core.admin_token_by_id(&principal, id).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenPatch {
    name: String,
}

/// Give an admin token another name.
#[utoipa::path(patch, path = "/admin/v1/tokens/{id}", tag = "admin tokens", request_body = TokenPatch,
    params(("id" = AdminTokenId, Path)), responses((status = 200, body = AdminToken)))]
pub async fn rename(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<AdminTokenId>,
    Json(changes): Json<TokenPatch>,
) -> Result<axum::Json<AdminToken>, Failure> {
    Ok(axum::Json(shared.core.rename_admin_token(&principal, id, changes.name).await?))
}

/// Give an admin token a new secret.
#[utoipa::path(post, path = "/admin/v1/tokens/{id}/rotate", tag = "admin tokens", request_body = Rotation,
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
