//! Users of the console.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{Creation, IfMatch, Json, created, json_bytes, versioned};
use super::page::{Page, PageQuery, Path, Query, Wanted};
use crate::domain::admin::{Role, User};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MerchantId, UserId};
use crate::domain::secret::PlainSecret;
use crate::flows::idempotency::Rendered;
use crate::flows::manage_users::{NewUser as New, UserChanges};
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::error::Failure;

#[derive(Serialize, ToSchema)]
pub struct UserView {
    id: UserId,
    email: String,
    role: Role,
    merchant_id: Option<MerchantId>,
    locked_until: Option<Timestamp>,
    disabled_at: Option<Timestamp>,
    last_login_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&User> for UserView {
    fn from(user: &User) -> Self {
        Self {
            id: user.id,
            email: user.email.clone(),
            role: user.role,
            merchant_id: user.merchant_id,
            locked_until: user.locked_until,
            disabled_at: user.disabled_at,
            last_login_at: user.last_login_at,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

impl Rendered for User {
    fn body(&self) -> Vec<u8> {
        json_bytes(&UserView::from(self))
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    email: String,
    role: Role,
    /// For the merchant roles.
    merchant_id: Option<MerchantId>,
    /// At least 12 characters.
    password: String,
}

/// Missing fields are not changed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserPatch {
    disabled: Option<bool>,
    password: Option<String>,
}

/// Make a user of the console.
#[utoipa::path(post, path = "/admin/v1/users", tag = "users", request_body = NewUser,
    params(("Idempotency-Key" = Option<String>, Header)), responses((status = 201, body = UserView)))]
pub async fn create(
    State(shared): State<Arc<Shared>>,
    Creation { body, principal }: Creation<NewUser>,
) -> Result<Response, Failure> {
    let new = New {
        email: body.email,
        role: body.role,
        merchant_id: body.merchant_id,
        password: PlainSecret::new(body.password),
    };
    let answer = shared.core.create_user(&principal, new).await?;
    Ok(created(answer))
}

/// List users, newest first.
#[utoipa::path(get, path = "/admin/v1/users", tag = "users", params(PageQuery),
    responses((status = 200, body = Page<UserView>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Query(page): Query<PageQuery>,
) -> Result<axum::Json<Page<UserView>>, Failure> {
    let wanted = Wanted::new(&shared.core, "users".to_owned(), page)?;
    let found = shared.core.users(&principal, wanted.before, wanted.to_read()).await?;
    Ok(axum::Json(wanted.page(found, |user| user.id, |user| UserView::from(&user))))
}

/// Disable or enable a user, or set a new password.
#[utoipa::path(patch, path = "/admin/v1/users/{id}", tag = "users", request_body = UserPatch,
    params(("id" = UserId, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = UserView)))]
pub async fn update(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<UserId>,
    IfMatch(version): IfMatch,
    Json(patch): Json<UserPatch>,
) -> Result<Response, Failure> {
    let changes = UserChanges { disabled: patch.disabled, password: patch.password.map(PlainSecret::new) };
    let user = shared.core.update_user(&principal, id, version, changes).await?;
    Ok(versioned(user.version, UserView::from(&user)))
}
