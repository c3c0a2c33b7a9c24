//! Users of the console.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;

use super::body::{Creation, IfMatch, Json, created, json_bytes, versioned};
use super::page::{Page, PageQuery, Path, Query, Wanted};
use crate::domain::admin::User;
use crate::domain::ids::UserId;
use crate::flows::idempotency::Rendered;
use crate::flows::manage_users::{NewUser, UserChanges};
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::error::Failure;

impl Rendered for User {
    fn body(&self) -> Vec<u8> {
        json_bytes(self)
    }
}

/// Make a user of the console.
#[utoipa::path(post, path = "/admin/v1/users", tag = "users", request_body = NewUser,
    params(("Idempotency-Key" = Option<String>, Header)), responses((status = 201, body = User)))]
pub async fn create(
    State(shared): State<Arc<Shared>>,
    Creation { body, principal }: Creation<NewUser>,
) -> Result<Response, Failure> {
    let answer = shared.core.create_user(&principal, body).await?;
    Ok(created(answer))
}

/// List users, newest first.
#[utoipa::path(get, path = "/admin/v1/users", tag = "users", params(PageQuery),
    responses((status = 200, body = Page<User>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Query(page): Query<PageQuery>,
) -> Result<axum::Json<Page<User>>, Failure> {
    let wanted = Wanted::new(&shared.core, "users".to_owned(), page)?;
    let found = shared.core.users(&principal, wanted.before, wanted.to_read()).await?;
    Ok(axum::Json(wanted.page(found, |user| user.id, |user| user)))
}

/// Show a user.
#[utoipa::path(get, path = "/admin/v1/users/{id}", tag = "users", params(("id" = UserId, Path)),
    responses((status = 200, body = User)))]
pub async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<UserId>,
) -> Result<Response, Failure> {
    let user = shared.core.user(&principal, id).await?;
    Ok(versioned(user.version, user))
}

/// Disable or enable a user, or set a new password or e-mail address.
#[utoipa::path(patch, path = "/admin/v1/users/{id}", tag = "users", request_body = UserChanges,
    params(("id" = UserId, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = User)))]
pub async fn update(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<UserId>,
    IfMatch(versions): IfMatch,
    Json(changes): Json<UserChanges>,
) -> Result<Response, Failure> {
    let user = shared.core.update_user(&principal, id, versions, changes).await?;
    Ok(versioned(user.version, user))
}
