//! `POST /api/rotate_secret`: a client rotates its own secret, so that a deployment needs no admin for it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::flows::idempotency::IdempotencyKey;
use crate::flows::manage_credentials::RotatedBy;
use crate::flows::principal::Principal;
use crate::flows::rotation::OVERLAP_SECS_MAX;
use crate::http::Shared;
use crate::http::admin::body::{created, idempotency_key};
use crate::http::admin::credentials::CredentialCreated;
use crate::http::basic::{self, Authorization};
use crate::http::context::RequestContext;
use crate::http::error::Failure;
use crate::http::form::Fields;
use crate::http::layer::api_key::Keyed;

const OVERLAP_SECS_DEFAULT: i64 = 3600;

/// The fields of the call, in any of three body types. HTTP Basic can replace the id and secret.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the extractor reads fields one by one; this documents them")]
pub struct SecretRotationRequest {
    client_id: Option<String>,
    client_secret: Option<String>,
    /// How many seconds this secret still works after the first use of the new one; the default is an hour.
    #[schema(minimum = 0, maximum = 2_592_000)]
    overlap_secs: Option<i64>,
}

/// Give the calling client a new secret.
#[utoipa::path(post, path = "/api/rotate_secret", tag = "tokens", security(("api_key" = [])),
    params(("Idempotency-Key" = Option<String>, Header)),
    request_body(content((SecretRotationRequest = "application/x-www-form-urlencoded"),
        (SecretRotationRequest = "multipart/form-data"), (SecretRotationRequest = "application/json"))),
    responses((status = 201, body = CredentialCreated),
        (status = 409, description = "Too many secrets are live, or the key came with another request",
            body = crate::http::openapi::IntegratorError)))]
pub async fn rotate_secret(
    State(shared): State<Arc<Shared>>,
    Keyed(mut caller): Keyed,
    context: RequestContext,
    authorization: Authorization,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<Response, Failure> {
    let overlap_secs = overlap_secs(&fields)?;
    let key = idempotency_key(&headers)?;
    let presented = basic::client(authorization, &mut fields)?;
    context.note_client(&caller, &presented.client_id);
    let core = &shared.core;
    let client = core.authenticate(&mut caller, &presented).await?;
    let request_hash = Sha256::new()
        .chain_update("rotate_secret\0")
        .chain_update(overlap_secs.to_be_bytes())
        .finalize()
        .into();
    let key = key.map(|key| IdempotencyKey { actor: client.id.uuid(), key: key.to_owned(), request_hash });
    let principal = Principal::client(
        caller.record.id,
        client.client_id.into(),
        context.client_ip().to_owned(),
        context.request_id().to_owned(),
    )
    .with_idempotency(key);
    let by = RotatedBy::Client(&presented);
    Ok(created(core.rotate_client_secret(&principal, by, overlap_secs).await?))
}

fn overlap_secs(fields: &Fields) -> Result<i64, Failure> {
    let Some(text) = fields.get("overlap_secs") else { return Ok(OVERLAP_SECS_DEFAULT) };
    text.parse()
        .ok()
        .filter(|secs| (0..=OVERLAP_SECS_MAX).contains(secs))
        .ok_or_else(|| Failure::invalid_request(format!("overlap_secs: must be 0 to {OVERLAP_SECS_MAX}")))
}
