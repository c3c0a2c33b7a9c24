//! Merchants and licences.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::body::{Creation, IfMatch, Json, created, json_bytes, versioned};
use super::page::{Page, PageQuery, Path, Query, Wanted};
use crate::domain::clock::Timestamp;
use crate::domain::ids::MerchantId;
use crate::domain::licence::{Licence, Product};
use crate::domain::merchant::Merchant;
use crate::flows::idempotency::Rendered;
use crate::flows::manage_merchants::{MerchantChanges, NewMerchant};
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::error::Failure;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LicenceGrant {
    active: bool,
    /// When the licence expires; null means never.
    expires_at: Option<Timestamp>,
}

impl Rendered for Merchant {
    fn body(&self) -> Vec<u8> {
        json_bytes(self)
    }
}

/// Make a merchant. Operators only.
#[utoipa::path(post, path = "/admin/v1/merchants", tag = "merchants", request_body = NewMerchant,
    params(("Idempotency-Key" = Option<String>, Header)), responses((status = 201, body = Merchant)))]
pub async fn create(
    State(shared): State<Arc<Shared>>,
    Creation { body, principal }: Creation<NewMerchant>,
) -> Result<Response, Failure> {
    let answer = shared.core.create_merchant(&principal, body).await?;
    Ok(created(answer))
}

/// Which merchants to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct MerchantsQuery {
    /// A part of the name.
    name: Option<String>,
    /// The id of a merchant: list only those that were made before it.
    before: Option<MerchantId>,
    /// Objects per page, 1 to 200; the default is 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

/// List merchants, newest first.
#[utoipa::path(get, path = "/admin/v1/merchants", tag = "merchants", params(MerchantsQuery),
    responses((status = 200, body = Page<Merchant>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<MerchantsQuery>,
) -> Result<axum::Json<Page<Merchant>>, Failure> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let wanted = Wanted::new(&shared.core, "merchants".to_owned(), page)?;
    let (part, before) = (query.name.as_deref(), wanted.before.or(query.before));
    let found = shared.core.merchants(&principal, part, before, wanted.to_read()).await?;
    Ok(axum::Json(wanted.page(found, |merchant| merchant.id, |merchant| merchant)))
}

/// Show a merchant.
#[utoipa::path(get, path = "/admin/v1/merchants/{id}", tag = "merchants", params(("id" = MerchantId, Path)),
    responses((status = 200, body = Merchant)))]
pub async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<MerchantId>,
) -> Result<Response, Failure> {
    let found = shared.core.merchant(&principal, id).await?;
    Ok(versioned(found.version(), found))
}

/// Rename, suspend or reinstate a merchant. Operators only.
#[utoipa::path(patch, path = "/admin/v1/merchants/{id}", tag = "merchants", params(("id" = MerchantId, Path), ("If-Match" = Option<String>, Header)),
    request_body = MerchantChanges, responses((status = 200, body = Merchant)))]
pub async fn update(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<MerchantId>,
    IfMatch(versions): IfMatch,
    Json(changes): Json<MerchantChanges>,
) -> Result<Response, Failure> {
    let changed = shared.core.update_merchant(&principal, id, versions, changes).await?;
    Ok(versioned(changed.version(), changed))
}

/// Grant, extend or end a licence. Operators only. The change takes effect at the next call.
#[utoipa::path(put, path = "/admin/v1/merchants/{id}/licences/{product}", tag = "merchants",
    params(("id" = MerchantId, Path), ("product" = Product, Path)), request_body = LicenceGrant,
    responses((status = 200, body = Licence)))]
pub async fn put_licence(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path((id, product)): Path<(MerchantId, Product)>,
    Json(grant): Json<LicenceGrant>,
) -> Result<axum::Json<Licence>, Failure> {
    let licence = Licence { active: grant.active, expires_at: grant.expires_at };
    Ok(axum::Json(shared.core.put_licence(&principal, id, product, licence).await?))
}
