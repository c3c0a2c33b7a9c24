//! Client credentials and the Enhanced Security switch.

use std::borrow::Borrow;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::{Creation, IfMatch, Json, created, json_bytes, versioned};
use super::page::{Page, PageQuery, Path, Query, Wanted};
use super::secrets::{self, Rotation, SecretView};
use super::shown::Shown;
use crate::domain::clock::Timestamp;
use crate::domain::credential::Credential;
use crate::domain::ids::{ApiKeyId, SecretId};
use crate::flows::idempotency::Rendered;
use crate::flows::manage_credentials::{CredentialChanges, NewCredentials, RotatedBy};
use crate::flows::manage_keys::WithSecret;
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::error::Failure;

#[derive(Serialize, ToSchema)]
#[schema(as = CredentialView)]
pub struct CredentialState {
    /// Newest first.
    secrets: Vec<SecretView>,
    last_used_at: Option<Timestamp>,
    last_used_ip: Option<String>,
    /// Sessions that this client opened in the last hour; missing in lists. A client that opens many sessions
    /// and refreshes few does not keep its tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions_opened_last_hour: Option<i64>,
    /// How often this client refreshed a session in the last hour; missing in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    refreshes_last_hour: Option<i64>,
}

pub type CredentialView<K = Credential> = Shown<K, CredentialState>;

impl<K: Borrow<Credential>> CredentialView<K> {
    pub fn new(object: K, now: Timestamp) -> Self {
        let secrets = &object.borrow().secrets;
        let latest = secrets.iter().max_by_key(|secret| secret.last_used_at);
        let worked_out = CredentialState {
            secrets: secrets::views(secrets, now),
            last_used_at: latest.and_then(|secret| secret.last_used_at),
            last_used_ip: latest.and_then(|secret| secret.last_used_ip.clone()),
            sessions_opened_last_hour: None,
            refreshes_last_hour: None,
        };
        Self { object, worked_out }
    }
}

/// Credentials with their secret, which is shown only once.
#[derive(Serialize, ToSchema)]
pub struct CredentialCreated {
    /// 43 characters of base64url.
    client_secret: String,
    #[serde(flatten)]
    credential: CredentialView,
}

impl Rendered for WithSecret<Credential> {
    fn body(&self) -> Vec<u8> {
        json_bytes(&CredentialCreated {
            client_secret: self.secret.expose().to_owned(),
            credential: CredentialView::new(self.object.clone(), self.object.updated_at),
        })
    }
}

/// Generate a client id and secret for a key, switched OFF.
#[utoipa::path(post, path = "/admin/v1/api-keys/{id}/credentials", tag = "credentials",
    request_body = NewCredentials, params(("id" = ApiKeyId, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = CredentialCreated)))]
pub async fn generate(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<ApiKeyId>,
    Creation { body, principal }: Creation<NewCredentials>,
) -> Result<Response, Failure> {
    let answer = shared.core.generate_credentials(&principal, id, body.scopes).await?;
    Ok(created(answer))
}

/// List the credentials of a key, newest first.
#[utoipa::path(get, path = "/admin/v1/api-keys/{id}/credentials", tag = "credentials",
    params(("id" = ApiKeyId, Path), PageQuery), responses((status = 200, body = Page<CredentialView>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ApiKeyId>,
    Query(page): Query<PageQuery>,
) -> Result<axum::Json<Page<CredentialView>>, Failure> {
    let wanted = Wanted::new(&shared.core, format!("credentials of {id}"), page)?;
    let now = shared.core.now();
    // A key has a few credentials at most, so all of them are read.
    let mut found = shared.core.credentials(&principal, id).await?;
    found.retain(|one| wanted.before.is_none_or(|before| one.id < before));
    Ok(axum::Json(wanted.page(found, |one| one.id, |one| CredentialView::new(one, now))))
}

/// Show credentials.
#[utoipa::path(get, path = "/admin/v1/credentials/{client_id}", tag = "credentials",
    params(("client_id" = String, Path)), responses((status = 200, body = CredentialView)))]
pub async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(client_id): Path<String>,
) -> Result<Response, Failure> {
    let credential = shared.core.credential(&principal, &client_id).await?;
    let activity = shared.core.activity_of(credential.id).await?;
    let mut view = CredentialView::new(&credential, shared.core.now());
    view.worked_out.sessions_opened_last_hour = Some(activity.opened);
    view.worked_out.refreshes_last_hour = Some(activity.refreshed);
    Ok(versioned(credential.version, view))
}

/// Switch Enhanced Security ON or OFF, or set the scopes. OFF ends every session at once.
#[utoipa::path(patch, path = "/admin/v1/credentials/{client_id}", tag = "credentials", request_body = CredentialChanges,
    params(("client_id" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = CredentialView)))]
pub async fn update(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(client_id): Path<String>,
    IfMatch(versions): IfMatch,
    Json(changes): Json<CredentialChanges>,
) -> Result<Response, Failure> {
    let credential = shared.core.update_credentials(&principal, &client_id, versions, changes).await?;
    Ok(versioned(credential.version, CredentialView::new(&credential, shared.core.now())))
}

/// Give credentials a new secret.
#[utoipa::path(post, path = "/admin/v1/credentials/{client_id}/rotate-secret", tag = "credentials",
    request_body = Rotation, params(("client_id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = CredentialCreated)))]
pub async fn rotate_secret(
    State(shared): State<Arc<Shared>>,
    Path(client_id): Path<String>,
    Creation { body, principal }: Creation<Rotation>,
) -> Result<Response, Failure> {
    let answer = shared
        .core
        .rotate_client_secret(&principal, RotatedBy::Manager { client_id: &client_id }, body.overlap_secs)
        .await?;
    Ok(created(answer))
}

/// End an older client secret at once.
#[utoipa::path(delete, path = "/admin/v1/credentials/{client_id}/secrets/{secret_id}", tag = "credentials",
    params(("client_id" = String, Path), ("secret_id" = SecretId, Path)), responses((status = 204)))]
pub async fn end_secret(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path((client_id, secret)): Path<(String, SecretId)>,
) -> Result<StatusCode, Failure> {
    shared.core.end_client_secret(&principal, &client_id, secret).await?;
    Ok(StatusCode::NO_CONTENT)
}
